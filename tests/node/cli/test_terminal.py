"""At a terminal: tables and colours, for real, on a pseudo-terminal."""

import os
import pty

import trio


async def at_terminal(command, *arguments):
    """What a person sees, and the exit status."""
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm", "COLUMNS": "160"}
    command.environment |= environment
    process = await command.process(*arguments, stdout=theirs)
    os.close(theirs)
    seen = b""
    with trio.fail_after(20):
        async with process.stderr, trio.lowlevel.FdStream(ours) as terminal:
            try:
                while piece := await terminal.receive_some():
                    seen += piece
            except trio.BrokenResourceError:
                pass  # How Linux says that nobody is at the other end any more.
        status = await process.wait()
    return seen.decode(), status


async def test_tables_are_drawn_and_names_are_no_styles(command, backend):
    async with command.served(backend):
        shown, status = await at_terminal(command, "peers")
    assert status == 0
    assert "1 peer" in shown
    for word in ("maize", "tiny, cpu-f32/gguf", "\u2500"):
        assert word in shown


async def test_facts_are_styled(command, backend):
    async with command.served(backend):
        shown, status = await at_terminal(command, "status")
    assert status == 0
    assert "\x1b[1m" in shown
    assert "process 77" in shown


async def test_an_answer_streams_to_it_without_the_control_characters_of_others(command, backend):
    async with command.served(backend):
        shown, status = await at_terminal(command, "ask", "Why?")
    assert status == 0
    assert "is blü" in shown
    assert "\x1b[2J" not in shown
