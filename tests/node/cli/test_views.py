"""What the verbs that ask a running node show, for a person and for a script."""

import json
import subprocess

import pytest
import trio
from msgspec import structs

from node.api.views import Sharing, Worker
from node.cli.words import bytes_words, span_words


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("status", ["quinoa", "field", "tiny", "0.5 / 2", "21.5", "1 of 2", "process 77", "/v1"]),
        ("peers", ["maize", "2 x Z80", "tiny, cpu-f32/gguf", "0.5 / 2", "90.0 / 21.5", "1/2"]),
        ("jobs", ["07070707", "maize", "failed LOST", "42"]),
        ("models", ["tiny", "bigger", "listed", "96.6 MB", "Apache-2.0"]),
        ("doctor", ["daemon: Up", "clock of peers: Near."]),
    ],
)
async def test_a_person_reads_what_matters(command, backend, verb, words):
    async with command.served(backend):
        shown = (await command.called(verb)).stdout
    for word in words:
        assert word in shown


@pytest.mark.parametrize("verb", ["status", "peers", "jobs", "models", "doctor", "pause", "resume"])
async def test_json_is_one_document(command, backend, verb):
    async with command.served(backend):
        done = await command.called(verb, "--json")
    json.loads(done.stdout)
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("verb", ["status", "peers", "jobs", "models", "pause", "resume", "down"])
def test_without_a_node_each_says_so(command, verb):
    done = command(verb)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "ayni up" in done.stderr
    told = json.loads(command(verb, "--json").stdout)
    assert told["error"]["code"] == "UNAVAILABLE"


async def test_a_stale_api_file_is_no_node(command, backend):
    async with command.served(backend) as url:
        pass
    api_file = command.home / "data" / "api.json"
    api_file.write_text(json.dumps({"url": url, "pid": 1}))
    done = await command.called("status")
    assert done.exit_code == 1
    assert "ayni up" in done.stderr


async def test_pause_and_resume(command, backend):
    async with command.served(backend):
        assert "paused" in (await command.called("pause")).stdout
        assert backend.node.sharing.state == "paused"
        assert "on" in (await command.called("resume")).stdout
        assert backend.node.sharing.state == "on"
        backend.node = structs.replace(backend.node, sharing=Sharing(state="off"))
        refused = await command.called("pause")
    assert (refused.exit_code, refused.stderr) == (1, "UNAVAILABLE: This node shares nothing.\n")


async def test_down_returns_when_the_node_has_ended(command, backend):
    results = []
    process = await trio.lowlevel.open_process(["cat"], stdin=subprocess.PIPE)
    async with trio.open_nursery() as nursery:

        async def down():
            results.append(await command.called("down"))

        async with command.served(backend, process.pid):
            nursery.start_soon(down)
            await backend.done.wait()
            assert results == []
        # Its API is gone, and it lives on: its home is not free yet.
        assert results == []
        await process.stdin.aclose()
        await process.wait()
    assert results[0].exit_code == 0
    assert results[0].stdout == "The node has stopped.\n"


async def test_an_empty_network_says_what_to_do(command, backend):
    backend.known_peers, backend.history = (), ()
    async with command.served(backend):
        assert "ayni network invite" in (await command.called("peers")).stdout
        assert "ayni ask" in (await command.called("jobs")).stdout


async def test_the_names_of_others_do_not_drive_the_terminal(command, backend):
    evil = structs.replace(backend.known_peers[0], name="\x1b]0;pwned\x07")
    backend.known_peers = (evil,)
    async with command.served(backend):
        shown = (await command.called("peers")).stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown


async def test_doctor_fails_when_a_check_does(command, backend):
    command("init", "--no-passphrase")
    async with command.served(backend):
        broken = await command.called("doctor", "--json")
        assert broken.exit_code == 1  # In no network.
        command("network", "create", "field", "-o", str(command.home / "f"))
        command("network", "join", str(command.home / "f"))
        well = await command.called("doctor", "--json")
        assert well.exit_code == 0
        worker = Worker(state="restarting", restarts=3, error="It died.")
        backend.node = structs.replace(backend.node, worker=worker)
        ill = await command.called("doctor", "--json")
    states = {check["name"]: check["state"] for check in json.loads(well.stdout)}
    assert (states["key"], states["daemon"], states["peers"]) == ("warn", "ok", "ok")
    assert states["models"] == "warn"
    assert ill.exit_code == 1


def test_doctor_goes_on_after_a_broken_configuration(command):
    command.home.mkdir(parents=True)
    (command.home / "config.toml").write_text("[share]\nslotz = 3\n")
    checks = {check["name"]: check for check in json.loads(command("doctor", "--json").stdout)}
    assert checks["configuration"]["state"] == "fail"
    assert "slots" in checks["configuration"]["sentence"]


@pytest.mark.parametrize(
    ("ms", "words"),
    [(0, "0.0 s"), (9_999, "10.0 s"), (10_000, "10 s"), (65_000, "1 min 5 s"),
     (3_660_000, "1 h 1 min"), (90_000_000, "1 d 1 h")],
)  # fmt: skip
def test_spans(ms, words):
    assert span_words(ms) == words


def test_sizes():
    assert [bytes_words(n) for n in (0, 999, 96_600_000, 10**15)] == [
        "0 B",
        "999 B",
        "96.6 MB",
        "1000.0 TB",
    ]
