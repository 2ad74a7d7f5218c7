"""The encoder: tokens, vectors against Hugging Face's, tasks that share its steps, and refusals."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node.worker.encoder_shape import encoder_shape
from node.worker.engine.architectures.bert import Bert
from node.worker.engine.device import Device
from node.worker.engine.embed_queue import STEP_TOKENS_MAX, WINDOW_TEXTS, EmbedQueue
from node.worker.engine.rows import RowStore
from node.worker.engine.serving import Machine, open_served
from node.worker.pipe import Add, Began, Embed, Embedded, Ended, File, Load
from node.worker.safetensors import SafetensorsFiles
from node.worker.wordpiece import TextTokenizer
from protocol.errors import Code, LocalError
from protocol.ids import ModelId
from protocol.job.sampling import Sampling
from tests.tiny_encoder import TOKENS_MAX, WIDTH, WORDS, tiny_encoder

MODEL = ModelId(b"e" * 32)
F32 = Device(torch.device("cpu"), torch.float32, "cpu-f32", "CPU")
BF16 = Device(torch.device("cpu"), torch.bfloat16, "cpu-bf16", "CPU")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def files(folder: Path) -> list[File]:
    roles = {"model.safetensors": "weights", "tokenizer.json": "tokenizer"}
    return [
        File(roles.get(path.name, "config"), path.name, str(path))
        for path in sorted(folder.iterdir())
    ]


def load(folder: Path, slots: int = 2, memory_bytes_max: int = 0) -> Load:
    return Load(MODEL, "tiny", files(folder), "", "", slots, 0, memory_bytes_max, [])


def opened(folder: Path, device: Device = F32, **how):
    return open_served(load(folder, **how), Machine(device, "auto", 1), RowStore())


def embedded(engine, texts: list[str], task: int = 1) -> list[bytes]:
    said: list = []
    engine.add(Embed(task, MODEL, b"", texts), said.append)
    while not engine.idle:
        engine.step(said.append)
    assert isinstance(said[0], Began)
    assert said[-1] == Ended(task, "stop")
    return [vector for event in said if isinstance(event, Embedded) for vector in event.vectors]


def numbers(vectors: list[bytes]) -> torch.Tensor:
    return torch.tensor([struct.unpack(f"<{len(one) // 4}f", one) for one in vectors])


def by_transformers(folder: Path, ids: list[list[int]]) -> torch.Tensor:
    """Text by text, in float32, with the pooling written out."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(**json.loads((folder / "config.json").read_text()))
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    from safetensors.torch import load_file

    found = {k: v for k, v in load_file(folder / "model.safetensors").items() if "pooler" not in k}
    found.pop("embeddings.position_ids", None)
    model.load_state_dict(found)
    with torch.inference_mode():
        rows = [model(torch.tensor([text])).last_hidden_state[0].mean(0) for text in ids]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


TEXTS = [
    "Why is the sky blue?", "blue", "the sea is green.", "maize potatos", "one two three",
    "the the the the the the the the the the the the the the the the the the the the the the the",
    "zzz", "¿? ñ", "why", "The SKY",
]  # fmt: skip


def test_vectors_are_those_of_transformers(folder):
    shape = encoder_shape(files(folder))
    ids = TextTokenizer(files(folder), shape.tokens_max, shape.vocabulary).encode(TEXTS)
    found = numbers(embedded(opened(folder), TEXTS))
    assert found.shape == (len(TEXTS), WIDTH)
    torch.testing.assert_close(found, by_transformers(folder, ids), atol=2e-6, rtol=0)


def test_in_bf16_they_point_the_same_way(folder):
    exact, rounded = (numbers(embedded(opened(folder, device), TEXTS)) for device in (F32, BF16))
    assert (exact * rounded).sum(-1).min() > 0.999
    torch.testing.assert_close(rounded.square().sum(-1), torch.ones(len(TEXTS)))


def test_the_mode_and_the_facts_are_told(folder):
    facts = opened(folder, BF16).facts
    assert (facts.kind, facts.mode) == ("embed", "cpu-bf16/safetensors")
    assert (facts.width, facts.context_tokens, facts.vocabulary) == (16, TOKENS_MAX, len(WORDS))


def test_a_text_is_cut_at_the_model_s_context_and_counted_so(folder):
    engine = opened(folder)
    said: list = []
    engine.add(Embed(1, MODEL, b"", ["the " * 100, "sky"]), said.append)
    assert said[0].prompt_tokens == TOKENS_MAX + 3
    while not engine.idle:
        engine.step(said.append)
    short = embedded(engine, ["the " * (TOKENS_MAX - 2)])
    assert said[1].vectors[0] == short[0]


def test_tasks_beyond_the_slots_and_tasks_to_write_are_refused(folder):
    engine = opened(folder, slots=1)
    engine.add(Embed(1, MODEL, b"", ["sky"]), lambda _: None)
    with pytest.raises(LocalError) as busy:
        engine.add(Embed(2, MODEL, b"", ["sky"]), lambda _: None)
    write = Add(3, MODEL, b"", [], "sky", [], Sampling(), bytes(32), 0, [], 1)
    with pytest.raises(LocalError) as wrong:
        engine.add(write, lambda _: None)
    assert (busy.value.code, wrong.value.code) == (Code.BUSY, Code.BAD_REQUEST)


def test_a_cancelled_task_ends_and_others_go_on(folder):
    engine = opened(folder)
    said: list = []
    engine.add(Embed(1, MODEL, b"a" * 32, ["the sky is blue"] * 300), said.append)
    engine.add(Embed(2, MODEL, b"b" * 32, ["sea"]), said.append)
    engine.step(said.append)
    engine.cancel(1, said.append)
    engine.cancel(7, said.append)  # Of no task.
    while not engine.idle:
        engine.step(said.append)
    assert Ended(1, "cancelled") in said
    assert said.count(Ended(2, "stop")) == 1


def test_speed_is_measured(folder):
    rates = opened(folder).measure()
    assert rates.prefill > 0
    assert rates.decode == 0


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("config.json", {"model_type": "roberta"}, "roberta"),
        ("config.json", {"hidden_act": "relu"}, "relu"),
        ("config.json", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("config.json", {"num_attention_heads": 3}, "heads"),
        ("config.json", {"num_hidden_layers": 3}, "encoder.layer.2"),
        ("config.json", {"hidden_size": 1 << 40}, "hidden_size"),
        ("config.json", {"intermediate_size": 64}, "is needed"),
        ("config.json", {"vocab_size": 5}, "token"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length"),
        ("pooling.json", {"pooling_mode_max_tokens": True}, "pooling"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Split"}}, "pre_tokenizer is Split"),
        ("tokenizer.json", {"normalizer": {"type": "Replace"}}, "normalizer is Replace"),
        ("tokenizer.json", {"model": {"type": "Unigram"}}, "model is Unigram"),
        ("tokenizer.json", {"pre_tokenizer": None}, "pre_tokenizer is nothing"),
    ],
)
def test_what_is_not_computed_here_is_refused_by_name(tmp_path, name, change, words):
    folder = tiny_encoder(tmp_path)
    kept = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps({**kept, **change}))
    with pytest.raises(LocalError, match=words) as caught:
        opened(folder)
    assert caught.value.code == Code.BAD_MODEL


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff{}", b"null"])
def test_damaged_files_are_refused(tmp_path, name, content):
    folder = tiny_encoder(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(LocalError) as caught:
        opened(folder)
    assert caught.value.code == Code.BAD_MODEL


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(folder):
    with pytest.raises(LocalError) as caught:
        opened(folder, memory_bytes_max=1000)
    assert caught.value.code == Code.UNAVAILABLE


def test_pooling_by_the_first_token(tmp_path):
    folder = tiny_encoder(tmp_path)
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "pooling.json").write_text(json.dumps(modes))
    shape = encoder_shape(files(folder))
    ids = TextTokenizer(files(folder), shape.tokens_max, shape.vocabulary).encode(TEXTS)
    found = numbers(embedded(opened(folder), TEXTS))
    with SafetensorsFiles([folder / "model.safetensors"]) as weights:
        bert = Bert(replace(shape, pooling="mean"), weights.tensor, F32.torch_device, torch.float32)
        assert not torch.allclose(bert.encode(ids), found)
        # A text of its first token alone has that as its mean; others are attended to before.
    assert shape.pooling == "first"
    torch.testing.assert_close(found.square().sum(-1), torch.ones(len(TEXTS)))


lengths = st.lists(st.integers(1, STEP_TOKENS_MAX + 5), min_size=1, max_size=WINDOW_TEXTS + 40)


@given(st.lists(st.tuples(lengths, st.booleans()), min_size=1, max_size=4), st.randoms())
@settings(max_examples=40, deadline=None)
def test_every_text_is_computed_once_and_given_out_in_order(tasks, random):
    queue = EmbedQueue()
    cancelled = random.choice([None, *range(len(tasks))])
    got: dict[int, list[bytes]] = {number: [] for number in range(len(tasks))}
    for number, (sizes, owner) in enumerate(tasks):
        queue.add(number, [[k] * size for k, size in enumerate(sizes)], owner)
    ended = set()
    while places := queue.next():
        tokens = sum(len(place.ids) for place in places)
        assert tokens <= STEP_TOKENS_MAX or len(places) == 1
        assert [len(p.ids) for p in places] == sorted(len(p.ids) for p in places)
        if cancelled is not None and random.random() < 0.2:
            ended |= {cancelled} if queue.cancel(cancelled) else set()
        vectors = [struct.pack("<i", place.ids[0]) for place in places]
        for task, given_out, last in queue.done(places, vectors):
            assert task not in ended
            got[task] += given_out
            ended |= {task} if last else set()
    assert ended == set(got)
    assert not queue
    for number, (sizes, _) in enumerate(tasks):
        whole = [struct.pack("<i", k) for k in range(len(sizes))]
        assert got[number] == whole[: len(got[number])]
        assert number == cancelled or got[number] == whole


def test_the_owner_goes_first_and_others_take_turns():
    queue = EmbedQueue()
    half = [[0] * (STEP_TOKENS_MAX // 2)] * 4
    queue.add(1, half, owner=False)
    queue.add(2, half, owner=False)
    assert [place.task for place in queue.next()] == [1, 2]
    queue.add(3, half, owner=True)
    assert [place.task for place in queue.next()] == [3, 3]
