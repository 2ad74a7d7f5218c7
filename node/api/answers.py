"""JSON answers: a struct and its HTTP status, or an error told in OpenAI's shape."""

from collections.abc import Mapping
from typing import Any

import msgspec
import trio
from starlette.responses import Response
from starlette.types import Receive

from node.api.failures import error_body, http_status, retry_after_seconds
from protocol.errors import AyniError


def json_answer(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The JSON of a struct, or of a list or mapping of them."""
    return Response(
        msgspec.json.encode(value), status, headers=headers, media_type="application/json"
    )


def error_answer(error: AyniError, headers: Mapping[str, str] | None = None) -> Response:
    all_headers = dict(headers or {})
    wait = retry_after_seconds(error)
    if wait is not None:
        all_headers["retry-after"] = str(wait)
    return json_answer(error_body(error), http_status(error), all_headers)


async def cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """End an answer that nobody is there to read any more."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
