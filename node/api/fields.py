"""Fields of a JSON body, read strictly: what does not fit is refused by the field's name."""

from node.api.failures import BadParameter
from protocol.units import MILLION

Fields = dict[str, object]


def object_field(fields: Fields, name: str, known: set[str]) -> Fields:
    """An object with no other keys than those known; empty where it is not given."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not value.keys() <= known:
        raise BadParameter(name, f"{name!r} must be an object with: {', '.join(sorted(known))}.")
    return value


def flag_field(fields: Fields, name: str) -> bool:
    """False where it is not given."""
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadParameter(name, f"{name!r} must be true or false.")
    return bool(value)


def text_field(fields: Fields, name: str, bytes_max: int) -> str:
    """Empty where it is not given."""
    value = "" if fields.get(name) is None else fields[name]
    if not isinstance(value, str) or len(value.encode()) > bytes_max:
        raise BadParameter(name, f"{name!r} must be a string of at most {bytes_max} bytes.")
    return value


def integer_field(fields: Fields, name: str, low: int, high: int) -> int | None:
    """From `low` to `high`; None where it is not given."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise BadParameter(name, f"{name!r} must be a whole number from {low} to {high}.")
    return value


def millionths_field(fields: Fields, name: str, bounds: tuple[int, int], default: int) -> int:
    """A number as the wire has it, in steps of a millionth."""
    value = fields.get(name)
    if value is None:
        return default * MILLION
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadParameter(name, f"{name!r} must be a number from {low} to {high}.")
    return round(value * MILLION)
