"""Embeddings through real processes: two providers with a tiny encoder, and one who asks."""

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import torch
from msgspec.structs import replace

from node.config import Config, ShareSettings, read_file, write
from node.worker.encoder_shape import encoder_shape
from node.worker.engine.architectures.bert import Bert
from node.worker.pipe import File
from node.worker.safetensors import SafetensorsFiles
from node.worker.wordpiece import TextTokenizer
from protocol.pricing import cost
from tests.network.testnet import Testnet, until
from tests.tiny_encoder import TOKENS_MAX, WIDTH, tiny_encoder

ENCODER = "tiny-encoder"
TEXTS = ("the sky is blue", "why is the sea green?", "potato", "the " * 60)
PRICES = {"maize": 400_000, "potato": 500_000}
ROLES = {"model.safetensors": "weights", "tokenizer.json": "tokenizer"}


def models_file(folder: Path) -> str:
    """A catalogue of the user's own, with one encoder on this disk."""
    files = [
        f'[[models.files]]\nrole = "{ROLES.get(path.name, "config")}"\nname = "{path.name}"\n'
        f"sources = [{{ path = {json.dumps(str(path))} }}]\n"
        for path in sorted(folder.iterdir())
    ]
    head = ["[[models]]", f'name = "{ENCODER}"', 'licence = "Apache-2.0"']
    return "\n".join([*head, f"context_tokens = {TOKENS_MAX}", *files])


@pytest.fixture(scope="module")
def testnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testnet]:
    folder = tmp_path_factory.mktemp("embed")
    testnet = Testnet(folder)
    encoder = tiny_encoder(folder / "encoder")
    try:
        testnet.prepare(3)
        for name in PRICES:
            paths = testnet.nodes[name].paths
            config = read_file(paths.config_file, Config)
            share = ShareSettings(models=(ENCODER,), slots=1, price_in=PRICES[name], price_out=7)
            write(paths.config_file, replace(config, share=share))
            paths.models_file.write_text(models_file(encoder), encoding="utf-8")
        testnet.up()
        testnet.settle()
        until("free slots", lambda: testnet.quinoa.free_slots() == {"maize": 1, "potato": 1})
        yield testnet
    finally:
        testnet.down()


def expected(testnet: Testnet) -> tuple[torch.Tensor, int]:
    """The vectors and the number of tokens, computed here in float32."""
    folder = testnet.folder / "encoder"
    files = [File(ROLES.get(one.name, "config"), one.name, str(one)) for one in folder.iterdir()]
    shape = encoder_shape(files)
    ids = TextTokenizer(files, shape.tokens_max, shape.vocabulary).encode(TEXTS)
    with SafetensorsFiles([folder / "model.safetensors"]) as weights:
        bert = Bert(shape, weights.tensor, torch.device("cpu"), torch.float32)
    return bert.encode(ids), sum(map(len, ids))


def test_vectors_go_through_the_network_and_both_sides_agree_on_the_bill(testnet: Testnet) -> None:
    done = testnet.quinoa.ayni("embed", "--json", "--provider", "potato", *TEXTS)
    assert done.status == 0, done
    *rows, last = map(json.loads, done.out.splitlines())
    found = torch.tensor([row["vector"] for row in rows])
    vectors, tokens = expected(testnet)
    assert found.shape == (len(TEXTS), WIDTH)
    assert (found * vectors).sum(-1).min() > 0.999
    paid = cost(tokens, 0, PRICES["potato"], 0)
    assert (last["model"], last["input_tokens"]) == (ENCODER, tokens)
    assert last["cost_microcredits"] == paid > 0
    [ours] = testnet.quinoa.read("jobs")
    until("potato has closed the job", lambda: testnet.potato.read("jobs")[0]["state"] == "done")
    [theirs] = testnet.potato.read("jobs")
    for job in (ours, theirs):
        assert (job["input_tokens"], job["output_tokens"]) == (tokens, 0)
        assert job["cost_microcredits"] == paid


def test_openais_client_embeds_by_the_cheapest_node(testnet: Testnet) -> None:
    testnet.settle()
    url = testnet.quinoa.api["url"] + "/v1"
    with openai.OpenAI(base_url=url, api_key=testnet.quinoa.key, max_retries=0) as client:
        answer = client.embeddings.create(model=ENCODER, input=list(TEXTS))
    vectors, tokens = expected(testnet)
    found = torch.tensor([item.embedding for item in answer.data])
    assert (found * vectors).sum(-1).min() > 0.999
    assert answer.usage.prompt_tokens == tokens
    [order] = answer.ayni["orders"]  # type: ignore[attr-defined]
    assert order["provider_name"] == "maize"
    assert order["mode"].endswith("/safetensors")


def test_a_node_with_an_encoder_writes_no_answers(testnet: Testnet) -> None:
    testnet.settle()
    done = testnet.quinoa.ayni("ask", "Why?")
    assert done.status == 1
    assert "NO_PROVIDER" in done.err


def test_a_dead_provider_is_replaced(testnet: Testnet) -> None:
    testnet.settle()
    testnet.maize.ayni("down")
    done = testnet.quinoa.ayni("embed", "--json", *TEXTS)
    assert done.status == 0, done
    last = json.loads(done.out.splitlines()[-1])
    assert last["orders"][-1]["provider_name"] == "potato"
