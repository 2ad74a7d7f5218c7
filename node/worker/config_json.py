"""A model's `config.json`, as Hugging Face's transformers write it: untrusted data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from node.worker.weight_file import bad_model, whole

JSON_BYTES_MAX: Final = 4 << 20  # The index of a large model in many parts has some 100 KiB.


class Config:
    """A JSON object whose values are checked when they are asked for. A default stands for what is
    not there or null; without one, that is an error: LocalError BAD_MODEL."""

    def __init__(self, path: Path, values: Mapping[str, object]) -> None:
        self.path = path
        self.values = values

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise bad_model(self.path, f"{key} is not an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise bad_model(self.path, f"{key} is not a number")
        # An integer of any length is a number in JSON, and too long for a float here.
        if isinstance(value, int) and abs(value) > 1 << 62:
            raise bad_model(self.path, f"{key} is too large a number")
        return float(value)

    def boolean(self, key: str, default: bool | None = None) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise bad_model(self.path, f"{key} is neither true nor false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise bad_model(self.path, f"{key} is not a text")
        return value

    def texts(self, key: str) -> list[str]:
        """Empty where there are none."""
        value = self._value(key, [])
        if not isinstance(value, list):
            raise bad_model(self.path, f"{key} is not a list")
        texts = [item for item in value if isinstance(item, str)]
        if len(texts) != len(value):
            raise bad_model(self.path, f"{key} holds something else than texts")
        return texts

    def part(self, key: str) -> "Config":
        """The object in this object; empty where there is none."""
        value = self._value(key, {})
        if not isinstance(value, dict):
            raise bad_model(self.path, f"{key} is not an object")
        return Config(self.path, value)

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def _value(self, key: str, default: object) -> object:
        value = self.values.get(key)
        return default if value is None else value


def read_json(path: Path) -> dict[str, object]:
    """Raises LocalError: NOT_FOUND when it cannot be opened, BAD_MODEL when it is no JSON object
    or too large a one."""
    data = whole(path, JSON_BYTES_MAX)
    try:
        return msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise bad_model(path, "it is no JSON object") from None
