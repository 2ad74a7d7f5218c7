"""The control calls under /ayni/v1 that the command line needs, and /v1/models."""

import time

from starlette.requests import Request
from starlette.responses import Response

from node.api.answers import json_answer
from node.api.backend import Backend
from node.api.chat_shapes import ModelList, ModelShape
from node.api.failures import BadParameter
from node.api.views import JOBS_DEFAULT, JOBS_MAX


class Control:
    """The endpoints over one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._created = int(time.time())

    async def status(self, request: Request) -> Response:
        return json_answer(self._backend.status())

    async def network(self, request: Request) -> Response:
        return json_answer(self._backend.status().network)

    async def peers(self, request: Request) -> Response:
        return json_answer(self._backend.peers())

    async def jobs(self, request: Request) -> Response:
        return json_answer(await self._backend.jobs(limit_of(request, JOBS_DEFAULT, JOBS_MAX)))

    async def models(self, request: Request) -> Response:
        return json_answer(await self._backend.models())

    async def doctor(self, request: Request) -> Response:
        return json_answer(await self._backend.doctor())

    async def pause(self, request: Request) -> Response:
        return json_answer(await self._backend.pause())

    async def resume(self, request: Request) -> Response:
        return json_answer(await self._backend.resume())

    async def down(self, request: Request) -> Response:
        self._backend.shutdown()
        return json_answer(self._backend.status().sharing, 202)

    async def models_for_openai(self, request: Request) -> Response:
        """Each model that somebody in the network, this node included, can run now."""
        models = await self._backend.models()
        names = {offer.name for offer in models.served} | {known.name for known in models.known}
        shapes = (ModelShape(id=name, created=self._created, owned_by="ayni") for name in names)
        return json_answer(ModelList(tuple(sorted(shapes, key=lambda shape: shape.id))))


def limit_of(request: Request, default: int, most: int) -> int:
    """How many of a list are asked for. Raises BadParameter."""
    text = request.query_params.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise BadParameter("limit", f"'limit' must be a whole number from 1 to {most}.")
    return int(text)


async def healthz(request: Request) -> Response:
    """Alive, and no more than that: it is the one call that needs no key."""
    return json_answer({"status": "ok"})
