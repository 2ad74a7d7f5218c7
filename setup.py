"""Builds the native kernels into the package; without a C compiler Ayni installs without them.

All else about the package stands in pyproject.toml.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = Path("node") / "worker" / "engine" / "kernels"
PACKAGE = ".".join(FOLDER.parts)


def loaded(path: Path) -> ModuleType:
    """The module that compiles, without its package: nothing of that can be imported yet."""
    spec = importlib.util.spec_from_file_location("build_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = loaded(Path(__file__).parent / FOLDER / "build.py")


class BuildKernels(build_ext):
    """Compiles by build.py, which knows what each file is compiled with."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")[:-1]) / build.library_name())

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        # One that an older source gave must not stay where the new one cannot be compiled.
        for old in (target, FOLDER / target.name):
            old.unlink(missing_ok=True)
        try:
            build.build(target.parent)
        except build.CompilerError as error:
            self.warn(f"Ayni is installed without its native kernels: {error}")

    def copy_extensions_to_source(self) -> None:
        for ext in self.extensions:
            built = Path(self.build_lib) / self.get_ext_filename(ext.name)
            if built.exists():
                self.copy_file(str(built), str(FOLDER / built.name))

    def get_outputs(self) -> list[str]:
        return [name for name in super().get_outputs() if Path(name).exists()]


class Wheel(bdist_wheel):
    """For this platform, but for any Python: the library is called by ctypes. For any platform
    where there is no library."""

    def get_tag(self) -> tuple[str, str, str]:
        if not self.get_finalized_command("build_ext").get_outputs():
            return "py3", "none", "any"
        return "py3", "none", super().get_tag()[2]


kernels = Extension(
    f"{PACKAGE}.ayni_kernels",
    sources=[str(path) for path in sorted(FOLDER.glob("*.c"))],
    depends=[str(path) for path in sorted(FOLDER.glob("*.h"))],
)
setup(
    ext_modules=[kernels] if build.compilers() else [],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel},
)
