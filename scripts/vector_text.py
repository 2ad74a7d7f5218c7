"""How golden vectors are written: where they lie, and values as JSON that anyone can pack again."""

import json
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT / "tests" / "vectors"

Json = dict[str, object]


def readable(value: object) -> object:
    """A message as JSON: bytes are 0x and hex, a struct is an object in the order of its fields
    and a tagged one begins with its type. Enough to pack it again without any of our code."""
    match value:
        case bytes():
            return "0x" + value.hex()
        case Struct():
            tag = value.__struct_config__.tag
            fields = {name: readable(getattr(value, name)) for name in value.__struct_fields__}
            return fields if tag is None else {"type": tag, **fields}
        case tuple() | list():
            return [readable(item) for item in value]
    assert not isinstance(value, str) or not value.startswith("0x")
    return value


def text_of(recorded: Json) -> str:
    """A vector file, as it stands on disk."""
    return json.dumps(recorded, indent=1, ensure_ascii=False) + "\n"
