"""The control calls: what the command line reads is what the backend says."""

import msgspec
import pytest

from node.api.views import Check, Job, Models, Peer, Sharing, Status


async def read(scene, path, kind):
    response = await scene.client.get(path)
    assert response.status_code == 200
    return msgspec.json.decode(response.content, type=kind)


async def test_each_view_arrives_as_it_was(scene):
    backend = scene.backend
    assert await read(scene, "/ayni/v1/status", Status) == backend.node
    assert await read(scene, "/ayni/v1/peers", tuple[Peer, ...]) == backend.known_peers
    assert await read(scene, "/ayni/v1/models", Models) == backend.known_models
    assert await read(scene, "/ayni/v1/doctor", tuple[Check, ...]) == backend.checks
    network = await scene.client.get("/ayni/v1/network")
    assert network.json()["name"] == "field"


async def test_jobs_are_limited(scene):
    assert len(await read(scene, "/ayni/v1/jobs", tuple[Job, ...])) == 20
    assert len(await read(scene, "/ayni/v1/jobs?limit=3", tuple[Job, ...])) == 3


@pytest.mark.parametrize("limit", ["0", "-1", "x", "", "1001", "1" * 5000, "٣"])
async def test_a_limit_that_is_none_is_refused(scene, limit):
    response = await scene.client.get("/ayni/v1/jobs", params={"limit": limit})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "limit")


async def test_pause_and_resume_change_the_sharing_state(scene):
    paused = await scene.client.post("/ayni/v1/pause")
    assert msgspec.json.decode(paused.content, type=Sharing).state == "paused"
    assert (await read(scene, "/ayni/v1/status", Status)).sharing.state == "paused"
    resumed = await scene.client.post("/ayni/v1/resume")
    assert msgspec.json.decode(resumed.content, type=Sharing).state == "on"
    assert (await scene.client.get("/ayni/v1/pause")).status_code == 405


async def test_down_answers_and_new_jobs_are_refused_while_it_drains(scene):
    answer = await scene.client.post("/ayni/v1/down")
    assert (answer.status_code, answer.json()["state"]) == (202, "draining")
    assert scene.backend.done.is_set()
    refused = await scene.chat()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "DRAINING")


async def test_openais_model_list_has_what_somebody_serves(scene):
    listed = (await scene.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["bigger", "tiny"]
    assert {model["object"] for model in listed["data"]} == {"model"}
