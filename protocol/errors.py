"""Three kinds of wrong: `assert` is our bug, LocalError the caller's, RemoteError a peer's."""

from enum import StrEnum


class Code(StrEnum):
    """Stable codes: they are on the wire, in the API and in scripts, so they never change."""

    # The bytes.
    BAD_FRAME = "BAD_FRAME"
    BAD_ENCODING = "BAD_ENCODING"
    BAD_MESSAGE = "BAD_MESSAGE"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    UNEXPECTED = "UNEXPECTED"
    TOO_LARGE = "TOO_LARGE"
    # Who and where.
    WRONG_VERSION = "WRONG_VERSION"
    WRONG_NETWORK = "WRONG_NETWORK"
    WRONG_PROVIDER = "WRONG_PROVIDER"
    WRONG_SIGNER = "WRONG_SIGNER"
    REPLAYED = "REPLAYED"
    EXPIRED = "EXPIRED"
    QUOTA = "QUOTA"
    # The job.
    KIND_NOT_SERVED = "KIND_NOT_SERVED"
    MODEL_NOT_SERVED = "MODEL_NOT_SERVED"
    MODE_NOT_SERVED = "MODE_NOT_SERVED"
    NO_PROVIDER = "NO_PROVIDER"
    BUSY = "BUSY"
    PAUSED = "PAUSED"
    DRAINING = "DRAINING"
    PROMPT_MISMATCH = "PROMPT_MISMATCH"
    CONTEXT_EXCEEDED = "CONTEXT_EXCEEDED"
    COST_EXCEEDED = "COST_EXCEEDED"
    CONTRADICTION = "CONTRADICTION"
    RECEIPT_DISPUTED = "RECEIPT_DISPUTED"
    UNPAID = "UNPAID"
    WORKER_FAILED = "WORKER_FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    LOST = "LOST"
    REFUSED = "REFUSED"  # A code that this version does not know.
    # The owner's side.
    BAD_REQUEST = "BAD_REQUEST"
    BAD_CONFIG = "BAD_CONFIG"
    BAD_KEY = "BAD_KEY"
    NOT_FOUND = "NOT_FOUND"
    NO_NETWORK = "NO_NETWORK"
    IN_USE = "IN_USE"
    UNAVAILABLE = "UNAVAILABLE"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    BAD_MODEL = "BAD_MODEL"
    # The ledger.
    LINK_BROKEN = "LINK_BROKEN"
    OVERDRAWN = "OVERDRAWN"
    BALANCE_WRONG = "BALANCE_WRONG"
    AMOUNT_WRONG = "AMOUNT_WRONG"
    NOT_PAYEE = "NOT_PAYEE"
    ALREADY_CLAIMED = "ALREADY_CLAIMED"
    NEED = "NEED"  # Certificates of claimed sources are to be shown.
    BAD_CERTIFICATE = "BAD_CERTIFICATE"
    BAD_PROOF = "BAD_PROOF"
    PAST = "PAST"
    MISSING = "MISSING"  # Certified entries before this one are to be sent.
    VOTED_OTHER = "VOTED_OTHER"
    NOT_WITNESS = "NOT_WITNESS"
    FORGOT = "FORGOT"  # A witness has lost votes of its own and casts no more.
    HALTED = "HALTED"
    # Channels.
    NO_CHANNEL = "NO_CHANNEL"  # It is not known here, or not certified, or of others.
    CHANNEL_CLOSED = "CHANNEL_CLOSED"  # It nears its expiry, settles or is settled.
    BAD_VOUCHER = "BAD_VOUCHER"
    NOT_THIS_TURN = "NOT_THIS_TURN"
    OLD_TURN = "OLD_TURN"


def code_known(text: str) -> Code:
    """The code that a peer or a daemon names; REFUSED for one of a later version."""
    return Code(text) if text in Code.__members__ else Code.REFUSED


class AyniError(Exception):
    """What was asked, what there is and what to do, in one sentence with a stable code."""

    def __init__(self, code: Code, sentence: str, retry_ms: int = 0) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence
        self.retry_ms = retry_ms


class LocalError(AyniError):
    """The caller may not do this: a wrong argument, setting, file or moment."""


class RemoteError(AyniError):
    """A peer said or did what it may not, or refused; the blame is the peer's."""
