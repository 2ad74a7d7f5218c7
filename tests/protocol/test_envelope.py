"""Envelopes: a signature serves one signer, network, kind and body, and no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol import codec
from protocol.envelope import Signed, domain, seal, unseal
from protocol.errors import Code, RemoteError
from protocol.identity import Identity, Seed, digest, verify
from protocol.ids import NetworkId, NodeId
from protocol.job.terms import Receipt, Started
from protocol.limits import FRAME_BYTES_MAX
from protocol.messages import JobBody
from tests.protocol.samples import (
    MESSAGES,
    NETWORK,
    PROVIDER,
    PROVIDER_SEED,
    RECEIPT,
    REQUESTER,
    SIGNERS,
    STARTED,
)


def code_of(signed: Signed, kind: type = JobBody, network: NetworkId = NETWORK) -> Code:
    with pytest.raises(RemoteError) as caught:
        unseal(signed, network, kind, FRAME_BYTES_MAX)
    return caught.value.code


@pytest.mark.parametrize("name", SIGNERS)
def test_what_was_sealed_opens(name):
    identity, value = SIGNERS[name]
    opened = unseal(seal(identity, NETWORK, value), NETWORK, type(value), FRAME_BYTES_MAX)
    assert (opened.value, opened.signer) == (value, identity.node)
    assert opened.id == digest(codec.encode(value))


def test_a_signature_is_for_one_network():
    assert code_of(seal(PROVIDER, NETWORK, RECEIPT), network=NetworkId(bytes(32))) is (
        Code.BAD_SIGNATURE
    )


def test_a_signature_is_for_one_signer():
    signed = replace(seal(PROVIDER, NETWORK, RECEIPT), signer=REQUESTER.node)
    assert code_of(signed) is Code.BAD_SIGNATURE


def test_a_signature_is_for_one_kind():
    # The same body signed in the domain of another kind: what a confused signer could be led to.
    body = codec.encode(RECEIPT)
    signature = PROVIDER.sign(domain(Started), NETWORK, body)
    assert code_of(Signed(PROVIDER.node, body, signature)) is Code.BAD_SIGNATURE


def test_every_kind_has_a_domain_of_its_own():
    domains = {domain(type(value)) for value in MESSAGES.values()}
    assert len(domains) == len(MESSAGES)
    assert all(text.endswith("/1") for text in domains)


def test_a_message_of_another_kind_is_not_opened():
    assert code_of(seal(PROVIDER, NETWORK, STARTED), kind=Receipt) is Code.BAD_MESSAGE


@given(st.data())
def test_one_changed_bit_anywhere_breaks_it(data):
    signed = seal(PROVIDER, NETWORK, RECEIPT)
    part = data.draw(st.sampled_from(["signer", "body", "signature"]))
    whole = bytearray(getattr(signed, part))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    changed = replace(signed, **{part: bytes(whole)})
    assert code_of(changed) in (Code.BAD_SIGNATURE, Code.BAD_ENCODING, Code.BAD_MESSAGE)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64), st.binary())
def test_signatures_that_nobody_made_fail_cleanly(key, signature, body):
    with pytest.raises(RemoteError) as caught:
        verify(NodeId(key), "receipt/1", NETWORK, body, signature)
    assert caught.value.code is Code.BAD_SIGNATURE


def test_the_all_zero_key_signs_nothing():
    # A point of small order: a lax verifier takes an all-zero signature by it for any message.
    with pytest.raises(RemoteError):
        verify(NodeId(bytes(32)), "receipt/1", NETWORK, b"", bytes(64))


def test_a_body_beyond_its_size_is_not_opened():
    signed = seal(PROVIDER, NETWORK, RECEIPT)
    with pytest.raises(RemoteError) as caught:
        unseal(signed, NETWORK, Receipt, len(signed.body) - 1)
    assert caught.value.code is Code.TOO_LARGE


def test_an_identity_never_shows_its_seed():
    identity = Identity(Seed(PROVIDER_SEED))
    assert repr(identity) == f"Identity({identity.node.hex()[:8]})"
    assert PROVIDER_SEED not in vars(identity).values()
