"""How an error is told over HTTP: a status for each code, and OpenAI's error object."""

from typing import Final

from msgspec import Struct

from protocol.errors import AyniError, Code, LocalError


class BadParameter(LocalError):
    """A request field that cannot be taken; `parameter` is its name, as OpenAI's errors have."""

    def __init__(self, parameter: str, sentence: str, code: Code = Code.BAD_REQUEST) -> None:
        super().__init__(code, sentence)
        self.parameter = parameter


class ErrorObject(Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str
    retry_ms: int = 0


class ErrorBody(Struct, frozen=True):
    """`{"error": {...}}`, whole or as the last event of a stream."""

    error: ErrorObject


BAD_GATEWAY: Final = 502

# Codes that are missing here are a peer's wrongs: BAD_GATEWAY, as between a proxy and its origin.
_STATUS: Final = {
    Code.BAD_REQUEST: 400,
    Code.AMOUNT_WRONG: 400,
    Code.CONTEXT_EXCEEDED: 400,
    Code.COST_EXCEEDED: 402,
    Code.UNPAID: 402,
    Code.OVERDRAWN: 402,
    Code.NO_CHANNEL: 402,
    Code.CHANNEL_CLOSED: 402,
    Code.MODEL_NOT_SERVED: 404,
    Code.MODE_NOT_SERVED: 404,
    Code.KIND_NOT_SERVED: 404,
    Code.NOT_FOUND: 404,
    Code.IN_USE: 409,
    Code.TOO_LARGE: 413,
    Code.BUSY: 429,
    Code.QUOTA: 429,
    Code.BAD_CONFIG: 500,
    Code.BAD_KEY: 500,
    Code.BAD_MODEL: 500,
    Code.DIGEST_MISMATCH: 500,
    Code.NO_PROVIDER: 503,
    Code.NO_NETWORK: 503,
    Code.UNAVAILABLE: 503,
    Code.PAUSED: 503,
    Code.DRAINING: 503,
    Code.CANCELLED: 503,
    Code.HALTED: 503,
    Code.FORGOT: 503,
    Code.TIMEOUT: 504,
}
_WAIT_SECONDS_DEFAULT: Final = 1


def http_status(error: AyniError) -> int:
    return _STATUS.get(error.code, BAD_GATEWAY)


def retry_after_seconds(error: AyniError) -> int | None:
    """Whole seconds for a Retry-After header; None where trying again needs no waiting."""
    if error.retry_ms > 0:
        return -(-error.retry_ms // 1000)
    return _WAIT_SECONDS_DEFAULT if http_status(error) == 429 else None


def error_body(error: AyniError) -> ErrorBody:
    kind = {429: "rate_limit_error"}.get(http_status(error), "invalid_request_error")
    if http_status(error) >= 500:
        kind = "server_error"
    parameter = error.parameter if isinstance(error, BadParameter) else None
    return ErrorBody(ErrorObject(error.sentence, kind, parameter, str(error.code), error.retry_ms))
