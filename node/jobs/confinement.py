"""What a worker gives up at its start, in words: what follows where it was not granted."""

from collections.abc import Sequence
from typing import Final

# By the names that node.worker.sandbox gives, in the order of what they mean to the owner.
LACKING: Final = {
    "no-network": "the worker could open connections (no network namespace of its own was granted)",
    "own-files-only": "the worker could read this user's other files (there is no Landlock here)",
    "no-files-written": "the worker could write files",
    "few-system-calls": "the worker could start programs and ask the kernel for anything (no filter"
    " of system calls was granted)",
    "no-new-privileges": "a program that the worker starts could gain rights",
    "no-core-dump": "prompts in the worker's memory could get into a core file, or be read by this"
    " user's other programs",
    "bounded-memory": "the worker's memory has no limit of its own",
    "bounded-descriptors": "the number of files that the worker opens has no limit of its own",
    "own-session": "a signal of the terminal reaches the worker too",
    "idle-priority": "the worker competes with your programs for the processor",
}


def lacking(confined: Sequence[str], device: str, idle_priority: bool) -> list[str]:
    """A sentence's part for each protection that was to hold and does not; `device` and
    `idle_priority` are the owner's settings. Drivers of GPUs reserve more memory than they use, so
    a limit is only set where the owner said that it is to be the CPU."""
    wanted = set(LACKING)
    if device != "cpu":
        wanted.discard("bounded-memory")
    if not idle_priority:
        wanted.discard("idle-priority")
    return [words for name, words in LACKING.items() if name in wanted.difference(confined)]
