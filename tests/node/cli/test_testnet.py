"""`ayni testnet` and `ayni up` as real processes: one node on loopback that shares nothing."""

import json
import signal

import psutil
import trio


async def run(command, *arguments):
    """One call as a process of its own: its exit status and what it printed."""
    process = await command.process(*arguments)
    said, told = bytearray(), bytearray()

    async def gather(stream, into):
        async with stream:
            async for piece in stream:
                into.extend(piece)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gather, process.stdout, said)
            nursery.start_soon(gather, process.stderr, told)
        return await process.wait(), said.decode(), told.decode()


async def test_a_testnet_goes_up_answers_and_goes_down_without_a_trace(command):
    status, said, _ = await run(command, "testnet", "up", "--nodes", "1", "--detach", "--json")
    assert status == 0
    (node,) = json.loads(said)
    daemon = psutil.Process(node["pid"])
    node_home = ("--home", node["home"])
    try:
        shown = json.loads((await run(command, *node_home, "status", "--json"))[1])
        assert (shown["node"], shown["sharing"]["state"]) == (node["node"], "off")
        status, _, told = await run(command, *node_home, "ask", "Why?")
        assert (status, told.startswith("NO_PROVIDER: ")) == (1, True)
        status, _, told = await run(command, *node_home, "up")
        assert (status, told.startswith("IN_USE: ")) == (1, True)
        status, _, told = await run(command, "testnet", "up", "--nodes", "1")
        assert (status, told.startswith("IN_USE: ")) == (1, True)
    finally:
        status, said, _ = await run(command, "testnet", "down")
    assert (status, said) == (0, "Stopped 1 node.\n")
    assert not daemon.is_running()
    (node,) = json.loads((await run(command, "testnet", "status", "--json"))[1])
    assert node["pid"] is None


async def test_in_the_foreground_it_ends_with_the_command(command):
    process = await command.process("testnet", "up", "--nodes", "1")
    async with process.stdout, process.stderr:
        told = b""
        with trio.fail_after(60):
            while b"Ctrl-C" not in told:
                piece = await process.stderr.receive_some()
                assert piece, told.decode()
                told += piece
            (node,) = json.loads((await run(command, "testnet", "status", "--json"))[1])
            daemon = psutil.Process(node["pid"])
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    assert not daemon.is_running()


async def test_down_stops_a_node_that_up_runs(command):
    listen = '[network]\nlisten = ["/ip4/127.0.0.1/tcp/0"]\n[share]\nenabled = false\n'
    assert command("init", "--no-passphrase").exit_code == 0
    (command.home / "config.toml").write_text(listen)
    file = str(command.home / "f.ayni")
    assert command("network", "create", "field", "-o", file).exit_code == 0
    assert command("network", "join", file).exit_code == 0
    process = await command.process("up", "--json")
    async with process.stdout, process.stderr:
        said = b""
        with trio.fail_after(60):
            while not said.endswith(b"\n"):
                piece = await process.stdout.receive_some()
                assert piece
                said += piece
            assert json.loads(said)["network"]["name"] == "field"
            assert (await run(command, "down"))[0] == 0
            assert await process.wait() == 0
    assert not (command.home / "data" / "api.json").exists()
