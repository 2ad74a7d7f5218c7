"""Logs: fields in, lines out, bounded on disk, and never a word of anybody's."""

import io
import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.telemetry import logs
from node.telemetry.faults import describe
from protocol.errors import Code, LocalError, RemoteError

MARKER = "why-is-the-sky-blue"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    logs.setup("info", "json", stream=io.StringIO())


def test_an_event_and_its_fields_become_a_line() -> None:
    stream = io.StringIO()
    logs.setup("info", "json", stream=stream)
    logs.Log("jobs").info("job.ended", tokens=12, peer="maize", ok=True, seconds=0.5)
    logs.Log("jobs").debug("job.detail")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told.pop("timestamp").endswith("Z")
    assert told == {
        "level": "info",
        "part": "jobs",
        "event": "job.ended",
        "tokens": 12,
        "peer": "maize",
        "ok": True,
        "seconds": 0.5,
    }


def test_lines_are_plain_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    logs.setup("info", None, stream=stream)
    logs.Log("jobs").warning("job.failed", sentence="two\nlines", code=Code.BUSY)
    (line,) = stream.getvalue().splitlines()
    assert 'level=warning part=jobs event=job.failed sentence="two lines" code=BUSY' in line
    assert "\x1b" not in line


def test_a_terminal_gets_colours() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    logs.setup("info", None, stream=stream)
    logs.Log("jobs").info("job.began")
    assert "\x1b[" in stream.getvalue()


def test_a_field_is_short_and_an_event_is_a_name() -> None:
    stream = io.StringIO()
    logs.setup("info", "json", stream=stream)
    logs.Log("jobs").info("job.began", model="m" * 10_000)
    assert len(stream.getvalue()) < 600
    with pytest.raises(AssertionError):
        logs.Log("jobs").info(f"asked {MARKER}?")


def test_a_library_is_heard_without_its_words(tmp_path: Path) -> None:
    stream, file = io.StringIO(), tmp_path / "ayni.log"
    logs.setup("debug", "plain", file, stream)
    library = logging.getLogger("some.library")
    library.info("quiet")
    library.warning("it got %s", MARKER)
    library.warning("in the text " + MARKER)
    try:
        raise ValueError(MARKER)
    except ValueError:
        library.exception(MARKER)
    for text in (stream.getvalue(), file.read_text()):
        assert text.count("library.spoke") == 3
        assert MARKER not in text
        assert "test_logs.py:" in text
        assert "ValueError at" in text


def test_a_record_that_cannot_be_written_is_not_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = io.StringIO()
    logs.setup("info", "json", stream=stream)
    stream.close()
    logs.Log("jobs").info("job.began", model=MARKER)
    assert MARKER not in "".join(capsys.readouterr())


def test_the_file_is_private_json_and_bounded(tmp_path: Path) -> None:
    file = tmp_path / "data" / "ayni.log"
    logs.setup("info", "plain", file, io.StringIO())
    log = logs.Log("jobs")
    line = {f"field_{number}": "x" * 299 for number in range(200)}
    for _ in range(600):  # 60 KB each: 36 MB in all.
        log.info("job.detail", **line)
    files = sorted(file.parent.iterdir())
    assert [path.name for path in files] == ["ayni.log", "ayni.log.1", "ayni.log.2"]
    assert all(path.stat().st_size <= logs.FILE_BYTES_MAX for path in files)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    with file.open() as lines:
        assert json.loads(next(lines))["event"] == "job.detail"


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match=r"ayni\.log cannot be written") as caught:
        logs.setup("info", "plain", tmp_path / "file" / "ayni.log", io.StringIO())
    assert caught.value.code == Code.UNAVAILABLE


def test_a_second_setup_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.setup("info", "json", stream=first)
    logs.setup("info", "json", stream=second)
    logs.Log("jobs").info("job.began")
    assert first.getvalue() == ""
    assert second.getvalue().count("job.began") == 1


def thrown(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_fault_is_told_by_type_and_place() -> None:
    told = describe(thrown(ValueError(MARKER)))
    assert told.startswith("ValueError at tests/node/telemetry/test_logs.py:")
    assert told.endswith(" in thrown")


def test_our_own_errors_show_their_code() -> None:
    assert describe(thrown(RemoteError(Code.BUSY, MARKER))).startswith("RemoteError BUSY at ")


def test_a_group_shows_its_first_members() -> None:
    inner = BaseExceptionGroup("inner", [thrown(ValueError(MARKER)), thrown(KeyError(MARKER))])
    told = describe(BaseExceptionGroup(MARKER, [inner, *(OSError(MARKER) for _ in range(4))]))
    assert told.startswith("ValueError at ")
    assert "; KeyError at " in told
    assert told.endswith("OSError; OSError; 2 more")
    assert MARKER not in told
