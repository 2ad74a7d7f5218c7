"""Hypothesis strategies for any message of the protocol, made from its own declared bounds."""

from typing import Any

from hypothesis import strategies as st
from msgspec import Struct, inspect

TEXT_LENGTH_USUAL = 12
ITEMS_USUAL = 4


def values(kind: type[Struct]) -> st.SearchStrategy[Any]:
    """Any value of a struct: integers over their whole range, short texts and tuples."""
    return _strategy(inspect.type_info(kind))


def _strategy(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.StructType(cls=kind, fields=fields):
            return st.builds(kind, **{field.name: _strategy(field.type) for field in fields})
        case inspect.IntType(ge=low, le=high):
            assert low is not None
            assert high is not None
            return st.integers(low, high)
        case inspect.StrType(min_length=low, max_length=high):
            assert high is not None
            return st.text(min_size=low or 0, max_size=min(high, TEXT_LENGTH_USUAL))
        case inspect.BytesType(min_length=low, max_length=high):
            assert high is not None
            size_min = low or 0
            return st.binary(min_size=size_min, max_size=min(high, max(size_min, 64)))
        case inspect.VarTupleType(item_type=item, max_length=high):
            assert high is not None
            return st.lists(_strategy(item), max_size=min(high, ITEMS_USUAL)).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*(_strategy(item) for item in items))
        case inspect.LiteralType(values=words):
            return st.sampled_from(sorted(words))
        case inspect.UnionType(types=kinds):
            return st.one_of(*(_strategy(one) for one in kinds))
        case inspect.NoneType():
            return st.none()
    raise AssertionError(f"no strategy for {info}: the wire has no such type")
