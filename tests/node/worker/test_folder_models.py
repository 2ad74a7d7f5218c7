"""Models that are folders of safetensors with a tokenizer.json, through a real worker process."""

import random
import subprocess
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from node.jobs.worker_process import worker_command, worker_environment
from node.worker import pipe
from protocol.errors import Code
from protocol.ids import ModelId
from protocol.job.sampling import Sampling
from tests.node.worker.malformed import mutated, tiny_header_bytes
from tests.node.worker.tiny_families import FAMILIES, save
from tests.node.worker.tiny_tokenizer import SAID, byte_level, write_tokenizer
from tests.tiny_model import TEMPLATE, tiny_gguf, vocabulary

CONFIG = FAMILIES["llama"] | {"vocab_size": 280}  # More rows than tokens, as many models have.
CHAT = [("user", "the other <|im_end|> 12"), ("assistant", "no"), ("user", "é 🦙")]


class Running:
    """A worker, and what it says."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child

    def say(self, *messages: pipe.ToWorker) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(b"".join(map(pipe.frame, messages)))
        self.child.stdin.flush()

    def hear(self) -> pipe.FromWorker:
        assert self.child.stdout is not None
        size = int.from_bytes(self.child.stdout.read(4), "big")
        return pipe.from_worker(self.child.stdout.read(size))

    def load(self, model: int, files: list[pipe.File]) -> pipe.FromWorker:
        self.say(pipe.Load(ModelId(bytes([model]) * 32), "tiny", files, "", "", 2, 256, 0, []))
        return self.hear()

    def answer(self, model: int, task: int) -> tuple[pipe.Began, list[int], str]:
        """Of a chat: how it began, and the tokens and the text that came."""
        self.say(
            pipe.Add(
                task,
                ModelId(bytes([model]) * 32),
                b"",
                CHAT,
                "",
                [],
                Sampling(),
                bytes(32),
                0,
                [],
                16,
            )
        )
        began, ids, text = self.hear(), list[int](), ""
        assert isinstance(began, pipe.Began), began
        while isinstance(said := self.hear(), pipe.Progress):
            ids += said.ids
            text += said.text
        assert isinstance(said, pipe.Ended), said
        return began, ids, text


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with subprocess.Popen(
        worker_command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=worker_environment({}),
    ) as child:
        running = Running(child)
        base = str(tmp_path_factory.getbasetemp())
        running.say(pipe.Start(1, False, "cpu", "f32", "auto", [base]))
        assert isinstance(running.hear(), pipe.Ready)
        yield running
        child.kill()


def expected(path: Path) -> list[int]:
    """The ids of the chat, by the library alone: its control tokens are the template's."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    begin, end = 1, 2
    ids: list[int] = []
    for role, text in CHAT:
        inside = tokenizer.encode(f"{role}\n{text}", add_special_tokens=False).ids
        ids += [begin, *inside, end, *tokenizer.encode("\n", add_special_tokens=False).ids]
    return [*ids, begin, *tokenizer.encode("assistant\n", add_special_tokens=False).ids]


def test_a_folder_is_served_with_either_kind_of_template(worker: Running, tmp_path: Path) -> None:
    files = save(tmp_path, CONFIG)
    other = tmp_path / "other"
    other.mkdir()
    said = write_tokenizer(tmp_path, byte_level(), SAID)
    own = write_tokenizer(other, byte_level(), jinja=TEMPLATE)
    for model, tokenizer in ((1, said), (2, own)):
        loaded = worker.load(model, [*files, *tokenizer])
        assert isinstance(loaded, pipe.Loaded), loaded
        assert (loaded.vocabulary, loaded.width, loaded.kind) == (280, 64, "generate")
    raw = b"".join(n.to_bytes(4, "little") for n in expected(tmp_path / "tokenizer.json"))
    first, second = worker.answer(1, 1), worker.answer(2, 2)
    assert first[0].ids_digest == blake2b(raw, digest_size=32).digest()
    assert first[1:] == second[1:]
    tokens, _ = vocabulary()
    assert all(number < 280 for number in first[1])
    assert len(tokens) < 280


def test_a_tokenizer_for_other_weights_is_refused_and_others_are_served(
    worker: Running, tmp_path: Path
) -> None:
    files = save(tmp_path, FAMILIES["llama"])  # It has 96 rows.
    tokenizer = write_tokenizer(tmp_path, byte_level(), SAID)
    refused = worker.load(3, [*files, *tokenizer])
    assert isinstance(refused, pipe.LoadFailed)
    assert refused.code == Code.BAD_MODEL
    assert "the weights have 96 of them" in refused.sentence
    refused = worker.load(3, files)
    assert isinstance(refused, pipe.LoadFailed)
    assert "This model has no tokenizer" in refused.sentence
    good = tmp_path / "good"
    loaded = worker.load(4, [*save(good, CONFIG), *tokenizer])
    assert isinstance(loaded, pipe.Loaded)
    assert worker.answer(4, 9)[1]


def test_files_that_lie_are_refused_one_after_another_and_the_worker_lives(
    worker: Running, tmp_path: Path
) -> None:
    whole, path = tiny_gguf(), tmp_path / "odd.gguf"
    header = tiny_header_bytes(whole)
    refused = 0
    for seed in range(30):
        path.write_bytes(mutated(whole, random.Random(seed), header))
        said = worker.load(5, [pipe.File("weights", path.name, str(path))])
        refused += isinstance(said, pipe.LoadFailed)
    assert 10 < refused < 30
    loaded = worker.load(6, [*save(tmp_path / "good", CONFIG), *_tokenizer(tmp_path / "good")])
    assert isinstance(loaded, pipe.Loaded)
    assert worker.answer(6, 10)[1]


def _tokenizer(folder: Path) -> list[pipe.File]:
    return write_tokenizer(folder, byte_level(), SAID)
