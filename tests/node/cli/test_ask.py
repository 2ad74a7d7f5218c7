"""`ayni ask`: the stream, the line after it, JSON, refusals, and Ctrl-C."""

import json
import signal

import trio

from node.api.backend import Notice
from node.api.scripted import Wait
from protocol.errors import Code, LocalError, RemoteError
from protocol.job.sampling import Sampling

LOST = RemoteError(Code.LOST, "maize was lost in mid-answer.")


async def test_the_answer_goes_to_stdout_and_the_figures_to_stderr(command, backend):
    async with command.served(backend):
        done = await command.called("ask", "Why?")
    assert done.exit_code == 0
    assert done.stdout == "The sky\u2028is blü\ufffd[2J.\n"
    assert done.stderr.strip().startswith("maize (")
    for figure in ("11 tokens", "0.25 s to the first", "20.0 tokens/s", "0.000026 credits"):
        assert figure in done.stderr
    job = backend.asked[0]
    assert (job.model, job.messages) == ("", (("user", "Why?"),))
    assert job.sampling == Sampling(temperature_millionths=600_000, top_p_millionths=900_000)


async def test_every_option_arrives(command, backend):
    arguments = (
        "--model tiny --max-tokens 9 --temperature 0 --seed 5 --max-cost 0.5 --top-p 0.5 --top-k 40"
        " --min-p 0.05 --repetition-penalty 1.1 --frequency-penalty -0.5 --presence-penalty 2"
        " --stop END --stop ."
    )
    async with command.served(backend):
        done = await command.called(
            "ask",
            "--system",
            "Be brief.",
            "--provider",
            "maize",
            *arguments.split(),
            stdin="Why?\n",
        )
    assert done.exit_code == 0
    job = backend.asked[0]
    assert job.messages == (("system", "Be brief."), ("user", "Why?\n"))
    assert (job.model, job.output_tokens_max, job.seed) == ("tiny", 9, 5)
    assert job.cost_max_microcredits == 500_000
    assert job.provider == b"m" * 32
    assert job.stop == ("END", ".")
    assert job.sampling == Sampling(0, 500_000, 50_000, 40, 1_100_000, -500_000, 2_000_000)


async def test_json_is_one_document_with_the_whole_text(command, backend):
    async with command.served(backend):
        done = await command.called("ask", "--json", "Why?")
    told = json.loads(done.stdout)
    assert done.stderr == ""
    assert told["text"] == "The sky\u2028is blü\x1b[2J."
    assert (told["provider_name"], told["model"], told["mode"]) == ("maize", "tiny", "cpu-f32/gguf")
    assert (told["output_tokens"], told["tokens_per_second"]) == (11, 20.0)
    assert (told["cost_microcredits"], told["cost_credits"]) == (26, "0.000026")


async def test_notices_are_told_on_the_way(command, backend, steps):
    steps[:0] = [Notice("BUSY", "All are busy; waiting.")]
    steps[3:3] = [Notice("LOST", "maize was lost; asking potato.")]
    backend.script = lambda job: steps
    async with command.served(backend):
        plain = await command.called("ask", "Why?")
        told = json.loads((await command.called("ask", "--json", "Why?")).stdout)
    assert plain.stderr.index("waiting") < plain.stderr.index("asking potato")
    assert [notice["code"] for notice in told["notices"]] == ["BUSY", "LOST"]


async def test_an_answer_that_breaks_off_is_a_failure_after_what_was_said(command, backend, steps):
    backend.script = lambda job: [*steps[:2], LOST]
    async with command.served(backend):
        done = await command.called("ask", "Why?")
        told = json.loads((await command.called("ask", "--json", "Why?")).stdout)
    assert done.exit_code == 1
    assert done.stdout == "The sky\u2028\n"
    assert done.stderr == "LOST: maize was lost in mid-answer.\n"
    assert told["error"]["code"] == "LOST"


async def test_a_refusal_tells_its_code(command, backend):
    backend.script = lambda job: [RemoteError(Code.BUSY, "All slots are taken.", 2000)]
    async with command.served(backend):
        done = await command.called("ask", "Why?")
        told = json.loads((await command.called("ask", "--json", "Why?")).stdout)
    assert (done.exit_code, done.stderr) == (1, "BUSY: All slots are taken.\n")
    assert told == {"error": {"code": "BUSY", "message": "All slots are taken.", "retry_ms": 2000}}


async def test_a_node_that_vanishes_is_told(command, backend, steps):
    backend.script = lambda job: [*steps[:2], Wait(3600)]
    results = []
    async with trio.open_nursery() as nursery:

        async def ask():
            results.append(await command.called("ask", "Why?"))

        async with command.served(backend):
            nursery.start_soon(ask)
            await backend.chat_begun.wait()
    assert results[0].exit_code == 1
    assert results[0].stderr.startswith(("UNAVAILABLE: ", "LOST: "))


def test_misuse_needs_no_node(command):
    for arguments, stdin in (
        (["ask"], ""),
        (["ask", " "], None),
        (["ask", "--seed", "-1", "x"], ""),
    ):
        assert command(*arguments, stdin=stdin).exit_code == 2
    assert command("ask", "--max-cost", "1e3", "Why?").exit_code == 2
    assert command("ask", stdin="x" * (300 << 10)).exit_code == 2


def test_without_a_node_it_says_how_to_start_one(command):
    done = command("ask", "Why?")
    assert done.exit_code == 1
    assert "ayni up" in done.stderr


async def test_control_c_cancels_the_job(command, backend, steps):
    backend.script = lambda job: [*steps[:2], Wait(3600)]
    async with command.served(backend):
        with trio.fail_after(20):
            process = await command.process("ask", "Why?")
            async with process.stdout, process.stderr:
                said = b""
                while b"sky" not in said:
                    said += await process.stdout.receive_some()
                process.send_signal(signal.SIGINT)
                assert await process.wait() == 1
                error = await process.stderr.receive_some()
            await backend.chat_left.wait()
    assert error.startswith(b"CANCELLED: ")
    assert backend.cancelled == 1


async def test_an_error_of_ours_names_what_is_wrong(command, backend):
    backend.script = lambda job: [LocalError(Code.MODEL_NOT_SERVED, "Nobody serves big.")]
    async with command.served(backend):
        done = await command.called("ask", "--provider", "rye", "Why?")
        assert done.stderr.startswith("NOT_FOUND: 'rye' is no node")
        done = await command.called("ask", "--model", "big", "Why?")
    assert done.stderr == "MODEL_NOT_SERVED: Nobody serves big.\n"
