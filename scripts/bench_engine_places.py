"""Where the engine's benchmark keeps its peers and its models: a cache outside the checkout."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from node.config import find_paths
from node.models.cache import ModelCache, ReadyModel
from node.models.catalogue import load_catalogue

ROOT: Final = Path(__file__).resolve().parent.parent
MODEL_NAME: Final = "smollm2-135m-instruct"
BINDING_VERSION: Final = "0.3.36"  # Of llama-cpp-python, whose source archive carries llama.cpp.


@dataclass(frozen=True, slots=True)
class Places:
    """The folders and files of the cache. They need not be there."""

    folder: Path

    @property
    def python(self) -> Path:
        """The peers' own: nothing of theirs is in the project's environment."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def sources(self) -> Path:
        return self.folder / "sources"

    @property
    def llama_cpp(self) -> Path:
        """The source of llama.cpp inside the source archive of its Python binding."""
        return self.sources / f"llama_cpp_python-{BINDING_VERSION}" / "vendor" / "llama.cpp"

    def build(self, capped: bool) -> Path:
        return self.folder / ("llama-avx2" if capped else "llama-native")

    def tool(self, name: str, capped: bool = False) -> Path:
        """A program of llama.cpp, e.g. "llama-batched-bench"."""
        return self.build(capped) / "bin" / name

    @property
    def bandwidth(self) -> Path:
        return self.folder / "bandwidth"

    @property
    def figures(self) -> Path:
        """What the last run found."""
        return self.folder / "figures.json"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def model(self, format_name: str) -> Path:
        """SmolLM2 in Q4_0 or Q8_0, for speed only: it was quantised twice."""
        return self.models / f"smollm2-{format_name.lower()}.gguf"

    @property
    def model_1b(self) -> Path:
        """A Llama of 1.07 thousand million random weights, Q4_0 with a Q8_0 head."""
        return self.models / "random-1b-q4_0.gguf"

    @property
    def unpacked(self) -> Path:
        """SmolLM2's weights as transformers has them once it has read the GGUF."""
        return self.models / "smollm2-unpacked"

    @property
    def encoder(self) -> Path:
        """MiniLM, as sentence-transformers reads it."""
        return self.models / "minilm"


def find_places(environment: Mapping[str, str] = os.environ) -> Places:
    """Where AYNI_BENCH_DIR says, else where a user's caches are."""
    named = environment.get("AYNI_BENCH_DIR")
    caches = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Places(Path(named) if named else Path(caches) / "ayni-bench")


def find_model() -> ReadyModel:
    """SmolLM2 of the model cache, fetched first if need be. Raises LocalError when it cannot be
    had."""
    catalogue = load_catalogue(find_paths().models_file)
    cache = ModelCache(find_paths().models_folder, Path())
    return trio.run(cache.get, catalogue.find(MODEL_NAME))
