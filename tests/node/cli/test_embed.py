"""`ayni embed`: texts from words, a file or a pipe; lines for people and for programs."""

import json
import struct

import pytest

from node.api.backend import Embeddings, EmbedJob, EmbedOrder
from protocol.errors import Code, LocalError
from protocol.ids import ModelId, NodeId

MAIZE = NodeId(b"m" * 32)
MODEL = ModelId(b"e" * 32)


def played(job: EmbedJob) -> Embeddings:
    """Texts with an "a" go one way, others another."""
    rows = [(1.0, 0.0) if "a" in text else (0.6, 0.8) for text in job.texts]
    order = EmbedOrder(
        provider=MAIZE,
        provider_name="ma\x1bize",
        mode="cpu-f32/safetensors",
        texts=len(job.texts),
        input_tokens=4 * len(job.texts),
        cost_microcredits=2 * len(job.texts),
    )
    return Embeddings(
        model="tiny-encoder",
        model_id=MODEL,
        vectors=tuple(struct.pack("<2f", *row) for row in rows),
        orders=(order,),
    )


@pytest.fixture
def encoder(backend):
    backend.embed_script = played
    return backend


async def test_a_person_is_told_how_alike_texts_are(command, encoder):
    async with command.served(encoder):
        done = await command.called("embed", "--compare", "a cat", "a kitten", "dog")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [" 1.0000  a cat", " 1.0000  a kitten", " 0.6000  dog"]
    for words in ("tiny-encoder", "3 texts", "12 tokens", "0.000006 credits"):
        assert words in done.stderr
    assert "\x1b" not in done.stderr


async def test_a_program_gets_a_line_for_each_vector_and_one_for_the_cost(command, encoder):
    async with command.served(encoder):
        done = await command.called("embed", "--json", stdin="a\n\n  dog \n")
    first, second, last = map(json.loads, done.stdout.splitlines())
    assert first == {"index": 0, "vector": [1.0, 0.0]}
    assert second["index"] == 1
    assert second["vector"] == pytest.approx([0.6, 0.8])
    assert (last["model"], last["texts"], last["cost_microcredits"]) == ("tiny-encoder", 2, 4)
    assert last["orders"][0]["mode"] == "cpu-f32/safetensors"
    assert encoder.asked_embeddings[0].texts == ("a", "dog")
    assert done.stderr == ""


async def test_a_long_file_goes_in_several_calls_of_one_model_under_one_cap(
    command, encoder, tmp_path
):
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(f"line {number}" for number in range(700)), encoding="utf-8")
    async with command.served(encoder):
        done = await command.called(
            "embed", "--json", "--file", str(lines), "--max-cost", "1", "--provider", "maize"
        )
    assert done.exit_code == 0
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["index"] for one in told[:-1]] == list(range(700))
    assert (told[-1]["texts"], told[-1]["input_tokens"]) == (700, 2800)
    first, second = encoder.asked_embeddings
    assert [len(first.texts), len(second.texts)] == [512, 188]
    # By its digest: somebody else's model may have the same name.
    assert (first.model, second.model) == ("", MODEL.hex())
    assert first.cost_max_microcredits == 1_000_000
    assert second.cost_max_microcredits == 1_000_000 - 1024
    assert first.provider == second.provider == MAIZE


async def test_no_text_two_sources_and_refusals_are_told(command, encoder, tmp_path):
    file = tmp_path / "x"
    file.write_text("\n \n")
    async with command.served(encoder):
        empty = await command.called("embed", "--file", str(file))
        both = await command.called("embed", "--file", str(file), "a")
        encoder.embed_script = lambda job: LocalError(Code.NO_PROVIDER, "Nobody embeds.")
        refused = await command.called("embed", "a")
    assert (empty.exit_code, both.exit_code, refused.exit_code) == (2, 2, 1)
    assert "There is no text." in empty.stderr
    assert "NO_PROVIDER: Nobody embeds." in refused.stderr
    assert encoder.asked_embeddings[-1].texts == ("a",)
