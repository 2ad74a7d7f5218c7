"""The vocabulary of a `tokenizer.json`: untrusted, so only parts that are known by name are run.

The format is that of https://github.com/huggingface/tokenizers; of its kinds those are taken in
which the families of this engine are published.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct
from tokenizers import Tokenizer

from node.worker.config_json import Config, read_json
from node.worker.pipe import File
from node.worker.splits import KNOWN
from node.worker.template_file import TemplateFile
from node.worker.vocabulary import (
    Encode,
    Vocabulary,
    ends_among,
    spelled_by_letters,
    spelled_by_pieces,
)
from node.worker.weight_file import bad_model, whole

JSON_BYTES_MAX: Final = 64 << 20  # Those of today's largest vocabularies have some 20 MiB.
TOKENS_MAX: Final = 4 << 20
PARTS_MAX: Final = 16
_REPLACED_LETTERS_MAX: Final = 16  # What is put in a letter's place: more could fill the memory.
_TOKEN = Annotated[str, Meta(min_length=1, max_length=4096)]
_Id = Annotated[int, Meta(ge=0, lt=TOKENS_MAX)]


class _Added(Struct, frozen=True):
    id: _Id
    content: _TOKEN
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False


class _Model(Struct, frozen=True):
    vocab: dict[str, _Id]
    merges: list[msgspec.Raw]
    type: str = "BPE"
    dropout: float | None = None
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    byte_fallback: bool = False


class _File(Struct, frozen=True):
    model: _Model
    added_tokens: list[_Added] = []
    normalizer: Any = None
    pre_tokenizer: Any = None
    post_processor: Any = None


@dataclass(frozen=True, slots=True)
class _Read:
    path: Path
    file: _File
    plain: dict[str, msgspec.Raw]  # The same, as it is written.


def json_vocabulary(files: Sequence[File], said: TemplateFile) -> Vocabulary:
    """From the files of role tokenizer and config; `said` is what that of role template says.

    Raises LocalError: NOT_FOUND, or BAD_MODEL for one that is inconsistent or has a part that is
    not known by name.
    """
    path = next(Path(file.path) for file in files if file.role == "tokenizer")
    read = _read(path)
    names = list(_check_parts(read))
    control = {added.content: added.id for added in read.file.added_tokens if added.special}
    config = _config(files)
    ids = {**read.file.model.vocab, **{one.content: one.id for one in read.file.added_tokens}}
    written = {number: token for token, number in ids.items()}
    ends = _named(config, "eos_token_id", written)
    first = said.first or "".join(_named(config, "bos_token_id", written)[:1])
    last = said.last or "".join(ends[:1])
    for token in filter(None, (first, last)):
        if token not in ids:
            raise bad_model(path, f"{token[:40]!r} is to begin or end a text, and is no token")
    begins = _beginning(read) if said.begins is None else [first] * said.begins
    named = frozenset(ids[token] for token in (*ends, last) if token)
    return Vocabulary(
        path=path,
        spelled=_spelled(read.file, ids, "ByteLevel" in names),
        control=control,
        encode=_encoder(read, goes_on=False),
        encode_more=_encoder(read, goes_on=True),
        begins=[ids[token] for token in begins if token in ids],
        ends=ends_among(control) | named,
        template=said.template,
        variables={"bos_token": first, "eos_token": last},
    )


def _read(path: Path) -> _Read:
    data = whole(path, JSON_BYTES_MAX)
    try:
        plain = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        read = _Read(path, msgspec.json.decode(data, type=_File), plain)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_model(path, f"it is no tokenizer of this kind ({error})"[:200]) from None
    _check_model(path, read.file)
    return read


def _check_model(path: Path, file: _File) -> None:
    model, added = file.model, file.added_tokens
    if model.type != "BPE" or model.dropout or model.continuing_subword_prefix:
        raise bad_model(path, f"its model is {model.type[:40]}, and known is BPE without dropout")
    if model.end_of_word_suffix:
        raise bad_model(path, "its words end in a suffix, and known is BPE without one")
    if not model.vocab or len(set(model.vocab.values())) != len(model.vocab):
        raise bad_model(path, "its vocabulary is empty or has a number twice")
    if model.unk_token is not None and model.unk_token not in model.vocab:
        raise bad_model(path, "its token for what is unknown is no token")
    taken = set(model.vocab.values())
    for one in added:
        if model.vocab.get(one.content, one.id) != one.id:
            raise bad_model(path, f"it has the token {one.content[:40]!r} twice")
        if one.content not in model.vocab and one.id in taken:
            raise bad_model(path, f"the number of {one.content[:40]!r} is another token's too")
        taken.add(one.id)
        if one.special and (one.lstrip or one.rstrip):
            raise bad_model(path, f"{one.content[:40]!r} takes white space away, unknown here")


def _check_parts(read: _Read) -> Iterator[str]:
    """The names of the parts that cut a text, once each of all parts is known."""
    for part in _flat(read, read.file.normalizer, "normalizers"):
        _check_normalizer(read.path, part)
    for part in _flat(read, read.file.pre_tokenizer, "pretokenizers"):
        _check_cut(read.path, part)
        yield str(part["type"])


def _check_normalizer(path: Path, part: Mapping[str, Any]) -> None:
    match part:
        case {"type": "NFC" | "NFKC" | "NFD" | "NFKD"}:
            return
        case {"type": "Prepend", "prepend": str(put)} if len(put) <= _REPLACED_LETTERS_MAX:
            return
        case {"type": "Replace", "pattern": {"String": str(taken)}, "content": str(put)} if (
            taken and len(put) <= _REPLACED_LETTERS_MAX
        ):
            return
    raise _unknown(path, "normaliser", part)


def _check_cut(path: Path, part: Mapping[str, Any]) -> None:
    match part:
        case {"type": "ByteLevel" | "Digits" | "Metaspace"}:
            return
        case {"type": "Split", "pattern": {"String": str(text)}} if text:
            return
        case {"type": "Split", "pattern": {"Regex": str(expression)}} if expression in KNOWN:
            return
    raise _unknown(path, "pre-tokenizer", part)


def _unknown(path: Path, what: str, part: Mapping[str, Any]) -> Exception:
    shown = msgspec.json.encode({key: part[key] for key in ("type", "pattern") if key in part})
    return bad_model(path, f"its {what} {shown.decode()[:160]} is not known")


def _flat(read: _Read, part: object, inner: str) -> list[dict[str, Any]]:
    """A part, or the parts of a sequence."""
    parts: object = [] if part is None else [part]
    if isinstance(part, dict) and part.get("type") == "Sequence":
        parts = part.get(inner)
    if not isinstance(parts, list) or len(parts) > PARTS_MAX:
        raise bad_model(read.path, f"its {inner} are no short list")
    if not all(isinstance(one, dict) and isinstance(one.get("type"), str) for one in parts):
        raise bad_model(read.path, f"one of its {inner} has no type")
    return parts


def _encoder(read: _Read, goes_on: bool) -> Encode:
    """`goes_on`: the text stands after others, so no space is put before it that only the first
    word of a prompt has."""
    cut = deepcopy(read.file.pre_tokenizer)
    if goes_on:
        for part in _flat(read, cut, "pretokenizers"):
            if part.get("prepend_scheme") == "first":
                part["prepend_scheme"] = "never"
    # What it says of lengths, of padding, of ends and of decoding is for another program.
    wanted = {key: read.plain[key] for key in _TAKEN if key in read.plain}
    data = msgspec.json.encode({**wanted, "pre_tokenizer": cut})
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except (ValueError, UnicodeDecodeError) as error:
        raise bad_model(read.path, f"it is no tokenizer ({error})"[:200]) from None
    for one in read.file.added_tokens:
        if tokenizer.token_to_id(one.content) != one.id:
            raise bad_model(read.path, f"{one.content[:40]!r} has another number than it says")
    tokenizer.encode_special_tokens = True  # In a text they are nothing but text.

    def encode(text: str) -> Sequence[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    return encode


_TAKEN: Final = ("version", "added_tokens", "normalizer", "model")


def _spelled(file: _File, ids: Mapping[str, int], byte_level: bool) -> list[bytes]:
    spell: Callable[[str], bytes] = spelled_by_letters if byte_level else spelled_by_pieces
    spelled = [b""] * (max(ids.values()) + 1)
    for token, number in file.model.vocab.items():
        spelled[number] = spell(token)
    for added in file.added_tokens:
        spelled[added.id] = b"" if added.special else added.content.encode("utf-8", "replace")
    return spelled


def _beginning(read: _Read) -> list[str]:
    """The tokens that the file puts before a text."""
    post = read.file.post_processor
    for part in [] if post is None else _flat(read, post, "processors"):
        if part["type"] != "TemplateProcessing":
            continue
        single, tokens = part.get("single"), []
        for item in single if isinstance(single, list) else []:
            match item:
                case {"SpecialToken": {"id": str(token)}}:
                    tokens.append(token)
                case _:
                    return tokens
    return []


def _config(files: Sequence[File]) -> Config | None:
    path = next((Path(file.path) for file in files if file.name == "config.json"), None)
    return None if path is None else Config(path, read_json(path))


def _named(config: Config | None, key: str, written: Mapping[int, str]) -> list[str]:
    """Tokens that config.json gives by number: one, several or none."""
    value = None if config is None else config.values.get(key)
    numbers = value if isinstance(value, list) else [value]
    return [written[n] for n in numbers if isinstance(n, int) and n in written]
