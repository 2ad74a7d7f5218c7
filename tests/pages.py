"""README.md and ARCHITECTURE.md as tests read them: blocks, prose, and what stands in backticks."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks whose first line says so, such as "sh tour"; "sh" is all of shell."""
    return [
        body for said, body in FENCE.findall(text) if said == kind or said.startswith(kind + " ")
    ]


def prose(text: str) -> str:
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """What stands between backticks, outside of blocks."""
    return SPAN.findall(prose(text))
