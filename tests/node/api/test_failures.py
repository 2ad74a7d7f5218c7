"""Every stable code has an HTTP status that a client can act upon."""

import pytest

from node.api.failures import (
    BAD_GATEWAY,
    BadParameter,
    error_body,
    http_status,
    retry_after_seconds,
)
from protocol.errors import Code, LocalError, RemoteError

PEERS_WRONGS = {
    *(Code.BAD_FRAME, Code.BAD_ENCODING, Code.BAD_MESSAGE, Code.BAD_SIGNATURE, Code.UNEXPECTED),
    *(Code.WRONG_VERSION, Code.WRONG_NETWORK, Code.WRONG_PROVIDER, Code.WRONG_SIGNER),
    *(Code.REPLAYED, Code.EXPIRED, Code.PROMPT_MISMATCH, Code.CONTRADICTION),
    *(Code.RECEIPT_DISPUTED, Code.WORKER_FAILED, Code.LOST, Code.REFUSED),
    *(Code.LINK_BROKEN, Code.BALANCE_WRONG, Code.NOT_PAYEE, Code.ALREADY_CLAIMED, Code.NEED),
    *(Code.BAD_CERTIFICATE, Code.BAD_PROOF, Code.PAST, Code.MISSING, Code.VOTED_OTHER),
    *(Code.NOT_WITNESS, Code.BAD_VOUCHER, Code.NOT_THIS_TURN, Code.OLD_TURN),
}


@pytest.mark.parametrize("code", list(Code))
def test_a_code_is_a_bad_gateway_only_when_the_peer_is_at_fault(code):
    error = RemoteError(code, "A sentence.")
    assert (http_status(error) == BAD_GATEWAY) == (code in PEERS_WRONGS)
    kind = error_body(error).error.type
    expected = "server_error" if http_status(error) >= 500 else "invalid_request_error"
    assert kind == ("rate_limit_error" if http_status(error) == 429 else expected)


def test_waiting_is_told_in_whole_seconds_rounded_up():
    assert retry_after_seconds(RemoteError(Code.BUSY, "", retry_ms=1)) == 1
    assert retry_after_seconds(RemoteError(Code.NO_PROVIDER, "", retry_ms=5001)) == 6
    assert retry_after_seconds(LocalError(Code.NO_PROVIDER, "")) is None


def test_a_bad_parameter_is_named():
    assert error_body(BadParameter("n", "Only 1.")).error.param == "n"
