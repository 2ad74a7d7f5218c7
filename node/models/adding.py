"""From a file, a folder or a repository in the hub's cache to an entry of the user's catalogue."""

import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import tomli_w

from node.models.catalogue import Hub, Model, ModelFile, RoleName, Source, load_catalogue
from node.models.files import Moved, file_sha256
from node.models.headers import ENCODER, check_safetensors, config_facts, gguf_facts, read_json
from node.models.hub import repository_folder, snapshot
from protocol.errors import Code, LocalError
from protocol.limits import MODEL_NAME_BYTES_MAX

INDEX: Final = "model.safetensors.index.json"
WHOLE: Final = "model.safetensors"
LICENCE_UNKNOWN: Final = "unknown"
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
# What says how a model is to be computed, and its name among the model's files. The last two are
# those of sentence-transformers: without them an encoder would give other vectors.
_CONFIGS: Final = {
    "config.json": "config.json",
    "sentence_bert_config.json": "sentence_bert_config.json",
    "1_Pooling/config.json": "pooling.json",
}
_TEMPLATES: Final = ("chat_template.jinja", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for; "" lets the files say it."""

    place: str
    name: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class _Part:
    """One file: what it is for, its name in the model and its place on this disk."""

    role: RoleName
    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class _Found:
    """The files of a model, and what they say."""

    files: list[_Part]
    context_tokens: int
    licence: str = ""


def described(wanted: Wanted, hub_cache: Path, records: Path, moved: Moved) -> Model:
    """The entry for a GGUF file, a folder of safetensors, or OWNER/NAME in the hub's cache. All
    of its files are read through, for their digests. Blocks.

    Raises LocalError NOT_FOUND, or BAD_MODEL for what the engine would not run.
    """
    place = Path(wanted.place).expanduser()
    if place.is_file():
        found, repository, folder = _of_gguf(place.absolute()), "", None
    elif place.is_dir():
        found, repository, folder = _of_folder(place.absolute()), "", None
    else:
        repository, folder = wanted.place, _in_cache(wanted.place, hub_cache)
        found = _of_folder(folder)
    name = wanted.name or _name(repository.rpartition("/")[2] or place.absolute().name)
    files = [_entry(part, repository, folder) for part in found.files]
    digests = [file_sha256(part.path, records, moved) for part in found.files]
    model = Model(
        name=name,
        licence=wanted.licence or found.licence or LICENCE_UNKNOWN,
        context_tokens=found.context_tokens,
        files=tuple(
            msgspec.structs.replace(file, sha256=sha256)
            for file, sha256 in zip(files, digests, strict=True)
        ),
    )
    return _checked(model)


def _entry(part: _Part, repository: str, snapshot_folder: Path | None) -> ModelFile:
    source = Source(path=str(part.path))
    if snapshot_folder is not None:
        file = part.path.relative_to(snapshot_folder).as_posix()
        source = Source(hub=Hub(repository=repository, revision=snapshot_folder.name, file=file))
    size_bytes = part.path.stat().st_size
    return ModelFile(role=part.role, name=part.name, size_bytes=size_bytes, sources=(source,))


def _checked(model: Model) -> Model:
    """The types of an entry hold for what comes from a file; here it came from names on a disk."""
    try:
        return msgspec.convert(msgspec.to_builtins(model), Model)
    except msgspec.ValidationError as error:
        raise LocalError(
            Code.BAD_MODEL,
            f"No entry can be made of these files: {error}. A model's name (--name) and its "
            "files' may have letters, digits, `-`, `_` and `.`.",
        ) from None


def _of_gguf(path: Path) -> _Found:
    facts = gguf_facts(path)
    return _Found([_Part("weights", path.name, path)], facts.context_tokens, facts.licence)


def _of_folder(folder: Path) -> _Found:
    if not (folder / "config.json").is_file():
        return _of_only_gguf(folder)
    facts = config_facts(folder / "config.json")
    weights = list(_weights(folder))
    for path in weights:
        check_safetensors(path)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise _lacking(folder, "tokenizer.json")
    files = [_Part("weights", path.name, path) for path in weights]
    files.append(_Part("tokenizer", tokenizer.name, tokenizer))
    files += [
        _Part("config", name, folder / place)
        for place, name in _CONFIGS.items()
        if (folder / place).is_file()
    ]
    template = next((folder / name for name in _TEMPLATES if _has_template(folder / name)), None)
    if template is not None and facts.family != ENCODER:
        files.append(_Part("template", template.name, template))
    return _Found(files, facts.context_tokens, _licence(folder / "README.md"))


def _of_only_gguf(folder: Path) -> _Found:
    found = sorted(folder.glob("*.gguf"))
    if not found:
        raise _lacking(folder, "config.json")
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:8])
        raise LocalError(
            Code.BAD_MODEL, f"{folder} has several models: {names}. Name the file of one."
        )
    return _of_gguf(found[0])


def _weights(folder: Path) -> Iterator[Path]:
    """Each part. Raises LocalError BAD_MODEL that names one that is missing."""
    names = {WHOLE}
    if (folder / INDEX).is_file():
        places = read_json(folder / INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise LocalError(Code.BAD_MODEL, f"{folder / INDEX} does not say where weights are.")
        names = {str(name) for name in places.values()}
    for name in sorted(names):
        if Path(name).name != name:
            raise LocalError(Code.BAD_MODEL, f"{folder / INDEX} names {name[:80]!r}, no file here.")
        if not (folder / name).is_file():
            raise _lacking(folder, name)
        yield folder / name


def _lacking(folder: Path, name: str) -> LocalError:
    return LocalError(
        Code.BAD_MODEL,
        f"{folder} has no {name}: a model is one GGUF file, or safetensors with a config.json and "
        "a tokenizer.json. Fetch what is missing into that folder and try again.",
    )


def _has_template(path: Path) -> bool:
    """Whether a file holds the chat template of a model."""
    if not path.is_file():
        return False
    return path.suffix != ".json" or bool(read_json(path).get("chat_template"))


def _licence(readme: Path) -> str:
    """As the head of a repository's README says."""
    try:
        with readme.open(encoding="utf-8") as file:
            head = file.read(1 << 16)
    except (OSError, UnicodeDecodeError):
        return ""
    found = re.search(r"^license: *([\w.-]{1,64}) *$", head, re.MULTILINE)
    return found[1] if found and head.startswith("---") else ""


def _in_cache(repository: str, hub_cache: Path) -> Path:
    """The newest commit of main that is here. Raises LocalError NOT_FOUND."""
    if not _REPOSITORY.fullmatch(repository):
        raise LocalError(
            Code.NOT_FOUND,
            f"{repository} is no file or folder here, and no OWNER/NAME of a repository.",
        )
    found = snapshot(hub_cache, repository)
    if found is None:
        raise LocalError(
            Code.NOT_FOUND,
            f"{repository} is not in the hub's cache ({repository_folder(hub_cache, repository)}). "
            f"Fetch it first: `hf download {repository}`; or name a folder that holds it.",
        )
    return found


def _name(text: str) -> str:
    """A model's name out of a file's or folder's."""
    text = re.sub(r"[^a-z0-9._-]+", "-", text.lower().removesuffix(".gguf")).strip("-._")
    return text[:MODEL_NAME_BYTES_MAX]


def add(own: Path, model: Model) -> None:
    """Write an entry at the end of the user's models.toml, and leave what stands there as it is.

    Raises LocalError BAD_CONFIG where that file is wrong or has the name, or cannot be written.
    """
    before = _read(own) if own.exists() else ""
    if own.exists() and model.name in load_catalogue(own).own_names:
        raise LocalError(
            Code.BAD_CONFIG,
            f"{own} has a model {model.name} already: take that entry out, or give --name.",
        )
    entry = tomli_w.dumps({"models": [_plain(model)]}, multiline_strings=False)
    part = own.with_name(f".{own.name}.{secrets.token_hex(8)}")
    try:
        own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.write_text(f"{before.rstrip()}\n\n{entry}".lstrip(), encoding="utf-8")
        load_catalogue(part)  # What is written can be read.
        os.replace(part, own)
    except OSError as error:
        raise LocalError(Code.BAD_CONFIG, f"{own} cannot be written: {error.strerror}.") from None
    finally:
        part.unlink(missing_ok=True)


def _read(own: Path) -> str:
    try:
        return own.read_text(encoding="utf-8")
    except OSError as error:
        raise LocalError(Code.BAD_CONFIG, f"{own} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise LocalError(Code.BAD_CONFIG, f"{own} is no text in UTF-8: mend it first.") from None


def _plain(model: Model) -> dict[str, object]:
    """Without what is at its default: a person reads it."""
    files = []
    for file in model.files:
        sources = [
            {"path": source.path}
            if source.hub is None
            else {"hub": msgspec.to_builtins(source.hub)}
            for source in file.sources
        ]
        plain = msgspec.to_builtins(file)
        files.append({**plain, "sources": sources})
    return {
        "name": model.name,
        "licence": model.licence,
        "context_tokens": model.context_tokens,
        "files": files,
    }
