"""POST /v1/embeddings over a real socket, also by OpenAI's own client."""

import base64
import struct

import openai
import pytest

from node.api.backend import Embeddings, EmbedJob, EmbedOrder
from protocol.errors import Code, LocalError
from protocol.ids import ModelId, node_text
from tests.node.api.conftest import KEY, MAIZE, POTATO

MODEL = ModelId(b"e" * 32)
ROWS = ((0.6, 0.8), (-1.0, 0.0), (0.28, 0.96))


def played(job: EmbedJob) -> Embeddings:
    half = EmbedOrder(
        provider=MAIZE,
        provider_name="maize",
        mode="cpu-f32/safetensors",
        texts=1,
        input_tokens=5,
        cost_microcredits=3,
    )
    rows = [ROWS[number % 3] for number in range(len(job.texts))]
    return Embeddings(
        model="tiny-encoder",
        model_id=MODEL,
        vectors=tuple(struct.pack("<2f", *row) for row in rows),
        orders=(half, half),
    )


@pytest.fixture
async def calls(scene):
    scene.backend.embed_script = played
    return scene


async def asked(scene, **fields):
    return await scene.client.post("/v1/embeddings", json={"input": "Why?", **fields})


async def test_vectors_have_openais_shape_and_our_part(calls):
    response = await asked(calls, model="tiny-encoder", input=["a", "b"])
    answer = response.json()
    assert response.status_code == 200
    assert (answer["object"], answer["model"]) == ("list", "tiny-encoder")
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert {item["object"] for item in answer["data"]} == {"embedding"}
    assert answer["data"][0]["embedding"] == pytest.approx([0.6, 0.8])
    assert answer["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    part = answer["ayni"]
    assert (part["cost_microcredits"], part["cost_credits"]) == (6, "0.000006")
    assert part["model"] == MODEL.hex()
    assert part["orders"][0]["provider"] == node_text(MAIZE)
    assert calls.backend.asked_embeddings == [EmbedJob(model="tiny-encoder", texts=("a", "b"))]


async def test_base64_holds_the_same_numbers(calls):
    plain = (await asked(calls)).json()["data"][0]["embedding"]
    packed = (await asked(calls, encoding_format="base64")).json()["data"][0]["embedding"]
    assert list(struct.unpack("<2f", base64.b64decode(packed))) == plain


async def test_wishes_arrive(calls):
    extras = {"provider": "potato", "cost_max_microcredits": 9}
    await asked(calls, model="auto", dimensions=384, user="me", ayni=extras)
    assert calls.backend.asked_embeddings == [
        EmbedJob(model="", texts=("Why?",), width=384, cost_max_microcredits=9, provider=POTATO)
    ]


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": None}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": True}, "dimensions"),
        ({"model": 7}, "model"),
        ({"temperature": 1}, "temperature"),
        ({"ayni": {"seed": 1}}, "ayni"),
        ({"ayni": {"cost_max_microcredits": -1}}, "cost_max_microcredits"),
    ],
)
async def test_what_cannot_be_taken_is_refused_by_its_name(calls, fields, parameter):
    response = await asked(calls, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == parameter
    assert calls.backend.asked_embeddings == []


async def test_a_refusal_never_quotes_a_text(calls):
    response = await asked(calls, input=["A SECRET", 7])
    assert response.status_code == 400
    assert "SECRET" not in response.text
    broken = await calls.client.post("/v1/embeddings", content=b'{"input": "A SECRET')
    assert broken.status_code == 400
    assert "SECRET" not in broken.text


async def test_errors_have_their_codes(calls):
    calls.backend.embed_script = lambda job: LocalError(Code.NO_PROVIDER, "Nobody embeds.")
    response = await asked(calls)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "NO_PROVIDER"


async def test_openais_own_client_reads_it(calls):
    async with openai.AsyncOpenAI(base_url=calls.url + "/v1", api_key=KEY, max_retries=0) as client:
        # Without a format it asks for base64 and unpacks it itself.
        answer = await client.embeddings.create(model="tiny-encoder", input=["a", "b", "c"])
        assert [item.embedding for item in answer.data] == [pytest.approx(row) for row in ROWS]
        assert answer.usage.total_tokens == 10
        plain = await client.embeddings.create(
            model="tiny-encoder", input="a", encoding_format="float", dimensions=2
        )
        assert plain.data[0].embedding == pytest.approx(ROWS[0])
        calls.backend.embed_script = lambda job: LocalError(Code.BUSY, "All busy.", 2000)
        with pytest.raises(openai.RateLimitError):
            await client.embeddings.create(model="tiny-encoder", input="a")
