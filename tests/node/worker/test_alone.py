"""The engine needs torch, msgspec and Python's own library: a machine with a GPU has no more."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

WITHOUT = """
import sys
sys.path.append(sys.argv[1])
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"tokenizers", "jinja2", "numpy", "safetensors", "trio"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import node.worker.loop
import node.worker.engine.architectures.bert
import node.worker.engine.native_model
import node.worker.engine.opening
import node.worker.engine.torch_model
"""


def test_it_imports_without_other_packages() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT, str(ROOT)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
