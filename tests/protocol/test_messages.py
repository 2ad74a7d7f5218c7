"""The union of messages: what stands in a frame or an envelope, and how large it may be."""

import typing

import pytest
from msgspec import Struct, ValidationError, convert, inspect, to_builtins
from msgspec.structs import replace

from protocol import codec
from protocol.capacity import Advert
from protocol.envelope import Signed, seal
from protocol.errors import Code, RemoteError
from protocol.job.terms import Prompt, Receipt, Refuse
from protocol.limits import (
    ADVERT_LIFE_MS,
    ADVERTS_EXCHANGED_MAX,
    DELTA_TEXT_BYTES_MAX,
    FRAME_BYTES_MAX,
    OUTPUT_TOKENS_MAX,
    PROMPT_BYTES_MAX,
    STOP_STRINGS_MAX,
)
from protocol.messages import (
    ADVERTS_PAGE_BYTES_MAX,
    BODY_BYTES_MAX,
    ENVELOPE_BYTES,
    FromProvider,
    FromRequester,
    JobBody,
    adverts_page,
    is_voucher,
    job_body,
    job_frame,
)
from protocol.units import TOKEN_ID_MAX
from tests.protocol.samples import (
    ADVERT,
    ADVERTS_PAGE,
    CANCEL,
    CHUNK,
    DEAL,
    DELTA,
    MESSAGES,
    NETWORK,
    PROVIDER,
    RECEIPT,
    REFUSE,
    REQUESTER,
    SIGNERS,
)

IN_ENVELOPES = {type(value) for _, value in SIGNERS.values()}


def members(union: object) -> set[type]:
    return set(typing.get_args(union))


def test_the_union_of_job_bodies_is_closed():
    assert members(JobBody) == IN_ENVELOPES - {Advert}
    assert members(JobBody) == members(FromRequester) | members(FromProvider)
    assert set(BODY_BYTES_MAX) == IN_ENVELOPES


@pytest.mark.parametrize(
    "value", [MESSAGES["signed"], DELTA, CANCEL], ids=lambda v: type(v).__name__
)
def test_a_frame_is_an_envelope_a_delta_or_a_cancel(value):
    assert job_frame(codec.encode(value)) == value


@pytest.mark.parametrize(
    "value", [CHUNK, RECEIPT, DEAL.order, ADVERT], ids=lambda v: type(v).__name__
)
def test_what_must_be_signed_is_no_frame_without_its_envelope(value):
    with pytest.raises(RemoteError) as caught:
        job_frame(codec.encode(value))
    assert caught.value.code is Code.BAD_MESSAGE


def test_each_side_takes_only_what_the_other_may_say():
    with pytest.raises(RemoteError) as caught:
        job_body(seal(REQUESTER, NETWORK, DEAL.order), NETWORK, FromProvider)
    assert caught.value.code is Code.BAD_MESSAGE
    assert (
        job_body(seal(REQUESTER, NETWORK, DEAL.order), NETWORK, FromRequester).value == DEAL.order
    )


def test_a_body_beyond_the_size_of_its_type_is_refused():
    biases = tuple((TOKEN_ID_MAX - 300 + number, -100_000_000) for number in range(300))
    honest = replace(DEAL.request, sampling=replace(DEAL.request.sampling, bias=biases))
    honest = replace(honest, modes=("m" * 64,) * 8)
    assert job_body(seal(REQUESTER, NETWORK, honest), NETWORK, FromRequester).value == honest
    request = replace(honest, modes=("\U0001f30d" * 64,) * 8)
    with pytest.raises(RemoteError) as caught:
        job_body(seal(REQUESTER, NETWORK, request), NETWORK, FromRequester)
    assert caught.value.code is Code.TOO_LARGE


def test_the_largest_honest_order_fits_its_size_and_its_frame():
    prompt = Prompt((), "x" * (PROMPT_BYTES_MAX - 8), ())
    assert len(codec.encode(prompt)) <= PROMPT_BYTES_MAX
    order = replace(
        DEAL.order,
        prompt=prompt,
        stop=("\U0001f30d" * 256,) * STOP_STRINGS_MAX,
        prefix_ids=((1 << 31) - 1,) * OUTPUT_TOKENS_MAX,
    )
    signed = seal(REQUESTER, NETWORK, order)
    assert job_body(signed, NETWORK, FromRequester).value == order
    assert job_frame(codec.encode(signed)) == signed


def test_the_largest_refusal_fits():
    refuse = replace(REFUSE, code="\U0001f30d" * 32, sentence="\U0001f30d" * 400)
    assert job_body(seal(PROVIDER, NETWORK, refuse), NETWORK, FromProvider).value == refuse


def test_a_page_of_the_largest_adverts_that_fit_one_frame_is_taken():
    signed = Signed(PROVIDER.node, bytes(BODY_BYTES_MAX[Advert]), bytes(64))
    fit = (FRAME_BYTES_MAX - ENVELOPE_BYTES) // (BODY_BYTES_MAX[Advert] + ENVELOPE_BYTES + 16)
    page = replace(ADVERTS_PAGE, adverts=((ADVERT_LIFE_MS, signed),) * fit)
    encoded = codec.encode(page)
    assert len(encoded) <= ADVERTS_PAGE_BYTES_MAX == FRAME_BYTES_MAX
    assert adverts_page(encoded) == page
    with pytest.raises(RemoteError) as caught:
        adverts_page(bytes(ADVERTS_PAGE_BYTES_MAX + 1))
    assert caught.value.code is Code.TOO_LARGE


def test_a_page_holds_a_bounded_number_of_adverts():
    signed = Signed(PROVIDER.node, b"", bytes(64))
    page = replace(ADVERTS_PAGE, adverts=((0, signed),) * ADVERTS_EXCHANGED_MAX)
    assert adverts_page(codec.encode(page)) == page
    longer = replace(page, adverts=((0, signed),) * (ADVERTS_EXCHANGED_MAX + 1))
    with pytest.raises(RemoteError) as caught:
        adverts_page(codec.encode(longer))
    assert caught.value.code is Code.BAD_MESSAGE


def test_a_frame_says_whether_it_holds_a_voucher():
    """By its first bytes alone: whoever counts it opens it."""
    held = {name: is_voucher(seal(who, NETWORK, value)) for name, (who, value) in SIGNERS.items()}
    assert [name for name, is_one in held.items() if is_one] == ["voucher"]
    assert not is_voucher(Signed(PROVIDER.node, b"", bytes(64)))


def test_a_frame_beyond_the_largest_is_refused():
    with pytest.raises(RemoteError) as caught:
        job_frame(bytes(FRAME_BYTES_MAX + 1))
    assert caught.value.code is Code.TOO_LARGE


SIZE_ENOUGH = 2 * FRAME_BYTES_MAX  # Here the bounds of the fields are tried, not those of frames.
BOUNDED = [
    pytest.param(value, field, id=f"{name}.{field.name}")
    for name, value in MESSAGES.items()
    for field in inspect.type_info(type(value)).fields
]


@pytest.mark.parametrize(("value", "field"), BOUNDED)
def test_every_field_has_bounds_and_keeps_them(value: Struct, field: inspect.Field):
    """The largest of a field is taken, one beyond it and a value of another type are not."""
    for candidate, fits in _edges(field.type):
        changed = replace(value, **{field.name: candidate})
        if fits:
            assert codec.decode(codec.encode(changed), type(value), SIZE_ENOUGH) == changed
        else:
            with pytest.raises(RemoteError):
                codec.decode(codec.encode(changed), type(value), SIZE_ENOUGH)


def _edges(info: inspect.Type) -> list[tuple[object, bool]]:
    """Values at the edge of a type, and whether they fit."""
    match info:
        case inspect.IntType(ge=low, le=high):
            return [(low, True), (high, True), (low - 1, False), (high + 1, False), (True, False)]
        case inspect.StrType(min_length=low, max_length=high):
            short = [("", False)] if low else [("", True)]
            return [("x" * high, True), ("x" * (high + 1), False), (b"x", False), *short]
        case inspect.BytesType(min_length=low, max_length=high):
            short = [(bytes(low - 1), False)] if low else [(b"", True)]
            return [(bytes(high), True), (bytes(high + 1), False), (7, False), *short]
        case inspect.VarTupleType(max_length=high):
            return [((), True), ((None,), False), ((None,) * (high + 1), False), ("x", False)]
        case inspect.LiteralType(values=words):
            return [(word, True) for word in words] + [("other", False), ("", False)]
        case inspect.StructType():
            return [((), False), (None, False), ("x", False)]
        case inspect.UnionType(types=(inspect.StructType(), inspect.NoneType())):
            return [((), False), (None, True), ("x", False)]
    raise AssertionError(f"the wire has no such type: {info}")


def test_a_struct_has_neither_too_few_fields_nor_too_many():
    for kind in (Refuse, Receipt):
        plain = to_builtins(MESSAGES[kind.__name__.lower()], builtin_types=(bytes,))
        for wrong in (plain[:-1], [*plain, 0], plain[1:]):
            with pytest.raises(ValidationError):
                convert(wrong, kind, strict=True)


def test_a_delta_holds_at_most_its_text():
    encoded = codec.encode(replace(DELTA, text="x" * (DELTA_TEXT_BYTES_MAX + 1)))
    with pytest.raises(RemoteError):
        job_frame(encoded)
