"""How much cache a model gets, and how many threads: pure sums, and what the system tells."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.worker.engine.blocks import blocks_for
from node.worker.engine.cores import physical_cores
from node.worker.engine.room import CONTEXT_TOKENS_LEAST, Asked, Need, free_bytes, room
from protocol.errors import Code, LocalError

MEBIBYTE = 1 << 20


@given(
    st.builds(Need, st.integers(0, 1 << 40), st.integers(1, 1 << 30), st.integers(0, 1 << 12)),
    st.builds(
        Asked,
        st.just("m"),
        st.integers(1, 64),
        st.just(0) | st.integers(1, 1 << 20),
        st.integers(1, 1 << 45),
    ),
    st.integers(1, 1 << 20),
)
def test_the_bound_is_never_passed_and_one_whole_context_always_fits(
    need: Need, asked: Asked, made_for: int
) -> None:
    least = min(asked.context_tokens_max or CONTEXT_TOKENS_LEAST, made_for)
    if taken(need, blocks_for(least), least) > asked.memory_bytes_max:
        with pytest.raises(LocalError) as refused:
            room(need, asked, made_for)
        assert refused.value.code == Code.UNAVAILABLE
        return
    found = room(need, asked, made_for)
    assert taken(need, found.blocks, found.context_tokens) <= asked.memory_bytes_max
    assert blocks_for(found.context_tokens) <= found.blocks
    assert found.blocks <= asked.slots * blocks_for(found.context_tokens)
    whole = min(asked.context_tokens_max or made_for, made_for)
    assert found.context_tokens == whole or not asked.context_tokens_max
    assert bool(found.note) == (found.context_tokens < whole)


def taken(need: Need, blocks: int, context_tokens: int) -> int:
    return need.fixed + need.block * blocks + need.context_token * context_tokens


def test_a_refusal_says_what_is_needed_and_what_there_is() -> None:
    need = Need(100 * MEBIBYTE, MEBIBYTE, 0)
    with pytest.raises(LocalError, match="tiny needs 132 MiB of memory and there are 120 MiB"):
        room(need, Asked("tiny", 2, 1024, 120 * MEBIBYTE), 4096)


def test_a_context_that_nobody_set_is_cut_and_said() -> None:
    need = Need(100 * MEBIBYTE, MEBIBYTE, 0)
    found = room(need, Asked("tiny", 2, 0, 200 * MEBIBYTE), 8192)
    assert (found.context_tokens, found.blocks) == (2048, 100)
    assert found.note == "Memory suffices for 2048 tokens of context of the 8192 it was made for."


def test_without_a_bound_it_is_what_the_machine_has() -> None:
    assert free_bytes() > 64 * MEBIBYTE
    assert room(Need(0, 1, 0), Asked("tiny", 1, 64, 0), 64).blocks == 2


def test_two_threads_of_one_core_count_once(tmp_path: Path) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    for number, processor in enumerate(allowed):
        folder = tmp_path / f"cpu{processor}" / "topology"
        folder.mkdir(parents=True)
        pair = number // 2
        (folder / "core_cpus_list").write_text(f"{2 * pair}-{2 * pair + 1}\n")
    assert physical_cores(tmp_path) == -(-len(allowed) // 2)
    assert physical_cores(tmp_path / "nothing") == len(allowed)
    assert 1 <= physical_cores() <= len(allowed)
