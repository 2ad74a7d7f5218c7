"""Entries: who may sign them, and later kinds that are refused by name."""

import msgpack
import pytest

from protocol.envelope import Signed
from protocol.errors import Code, RemoteError
from protocol.ledger.decoder import packed
from protocol.ledger.entry import LATER_KINDS, entry_opened, entry_read
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    entry_after,
    pay,
    replace_fields,
    signed_entry,
    start,
)

ENTRY = entry_after(start(ANNA), pay(BRUNO, 30))


def code_of(signed) -> Code:
    with pytest.raises(RemoteError) as caught:
        entry_opened(signed, CHARTER.network)
    return caught.value.code


def signed_bytes_of(identity, body: bytes) -> Signed:
    return Signed(identity.node, body, identity.sign("entry/1", CHARTER.network, body))


def test_an_entry_opens_to_what_was_signed():
    signed = signed_entry(ANNA, ENTRY)
    opened = entry_opened(signed, CHARTER.network)
    assert (opened.value, opened.id, opened.signer) == (ENTRY, signed.id, ANNA.node)


def test_only_the_account_signs_and_for_this_network():
    signed = signed_entry(ANNA, ENTRY)
    assert code_of(signed_entry(BRUNO, ENTRY)) is Code.WRONG_SIGNER
    assert code_of(Signed(BRUNO.node, signed.body, signed.signature)) is Code.WRONG_SIGNER
    elsewhere = replace_fields(ENTRY, network=bytes(32))
    assert code_of(signed_entry(ANNA, elsewhere)) is Code.WRONG_NETWORK
    for at in (0, 31, 63):
        torn = bytearray(signed.signature)
        torn[at] ^= 1
        assert code_of(Signed(ANNA.node, signed.body, bytes(torn))) is Code.BAD_SIGNATURE
    other_domain = ANNA.sign("vote/1", CHARTER.network, signed.body)
    assert code_of(Signed(ANNA.node, signed.body, other_domain)) is Code.BAD_SIGNATURE
    assert entry_read(Signed(ANNA.node, signed.body, bytes(64)), CHARTER.network).value == ENTRY


@pytest.mark.parametrize("kind", sorted(LATER_KINDS))
@pytest.mark.parametrize("rest", [[], [bytes(32), 5, 7], ["yes", [1]]])
def test_later_kinds_are_refused_by_name(kind, rest):
    plain = msgpack.unpackb(packed(ENTRY))
    plain[5] = [kind, *rest]
    signed = signed_bytes_of(ANNA, msgpack.packb(plain))
    with pytest.raises(RemoteError, match=f"KIND_NOT_SERVED: An entry of kind {kind} came"):
        entry_opened(signed, CHARTER.network)


@pytest.mark.parametrize(
    "body", [["pray", bytes(32), 1, bytes(32)], [], 7, "open", ["pay", bytes(32), 0, bytes(32)]]
)
def test_garbage_is_no_kind(body):
    plain = msgpack.unpackb(packed(ENTRY))
    plain[5] = body
    assert code_of(signed_bytes_of(ANNA, msgpack.packb(plain))) is Code.BAD_MESSAGE


@pytest.mark.parametrize("body", [b"", b"\x90", b"\x91\xa5entry", b"\xc1", b"\x01", b"\xa5entry"])
def test_what_is_no_entry_at_all(body):
    assert code_of(signed_bytes_of(ANNA, body)) in (Code.BAD_ENCODING, Code.BAD_MESSAGE)
