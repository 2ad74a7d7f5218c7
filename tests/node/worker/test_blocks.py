"""The pool of blocks, its cache of prefixes, turns, guesses and kept rows: each by itself."""

from hypothesis import given
from hypothesis import strategies as st

from node.worker.engine.blocks import BlockPool, Chain, PrefixHashes
from node.worker.engine.fairness import OWNER, REQUESTERS_REMEMBERED_MAX, Turns
from node.worker.engine.model import BLOCK_TOKENS
from node.worker.engine.rows import KEPT_SECONDS, OPENED_BYTES_MAX, RowStore
from node.worker.engine.speculation import Guesser, Speculation

WORDS = list(range(4 * BLOCK_TOKENS))
PUBLIC = WORDS[: BLOCK_TOKENS + 5]


def names(requester: bytes, ids: list[int], public: list[list[int]] | None = None) -> list[bytes]:
    chain = Chain(PrefixHashes([PUBLIC] if public is None else public), requester, ids)
    chain.extend(ids, len(ids))
    return chain.names


def test_only_whole_public_blocks_have_one_name_for_all() -> None:
    mine, theirs = names(b"a", WORDS), names(b"b", WORDS)
    assert len(mine) == 4
    assert mine[0] == theirs[0]
    assert not set(mine[1:]) & set(theirs)
    assert not set(names(b"a", WORDS, [])) & set(names(b"b", WORDS, []))
    assert mine == names(b"a", WORDS)
    # The name is of all tokens before too: the same block after another is another.
    moved = names(b"a", [*WORDS[BLOCK_TOKENS:], *WORDS[:BLOCK_TOKENS]])
    assert not set(moved) & set(mine)
    # Who only begins like a public prefix shares the blocks that are like it.
    assert names(b"a", [*WORDS[:BLOCK_TOKENS], *[0] * BLOCK_TOKENS])[0] == mine[0]


def test_the_last_block_of_a_chain_is_forgotten_first() -> None:
    pool = BlockPool(4)
    blocks = pool.take(4)
    for block, name in zip(blocks, "abcd", strict=True):
        pool.name(block, name.encode())
    pool.release(blocks)
    assert pool.kept == pool.available == 4
    pool.release(pool.take(1))
    assert [pool.share(name.encode()) is None for name in "abcd"] == [False] * 3 + [True]
    pool.release(blocks[:3])
    pool.clear()
    assert pool.kept == 0
    assert pool.available == 4


@given(st.lists(st.tuples(st.sampled_from(["take", "share", "name", "drop"]), st.integers(0, 9))))
def test_no_block_is_lost_doubled_or_held_by_two_writers(script: list[tuple[str, int]]) -> None:
    pool, mine = BlockPool(6), list[list[int]]()
    for action, number in script:
        name = bytes([number])
        if action == "take" and number <= pool.available:
            mine.append(pool.take(number))
        elif action == "share" and (block := pool.share(name)) is not None:
            mine.append([block])
        elif action == "name" and mine and mine[-1]:
            pool.name(mine[-1][0], name)
        elif action == "drop" and mine:
            pool.release(mine.pop(number % len(mine)))
        held = [block for blocks in mine for block in blocks]
        assert [pool.holders(block) for block in range(6)] == [held.count(b) for b in range(6)]
        assert pool.available == 6 - len(set(held))
    for blocks in mine:
        pool.release(blocks)
    assert pool.available == 6
    assert sorted(pool.take(6)) == list(range(6))


def test_rest_is_not_saved_up_and_the_owner_goes_first() -> None:
    turns = Turns()
    turns.came(b"busy")
    turns.served(b"busy", 1000)
    turns.came(b"new")
    assert turns.rank(b"new") == turns.rank(b"busy")  # Nothing to catch up with.
    turns.served(b"new", 10)
    assert turns.rank(b"busy") < turns.rank(b"new")
    turns.went(b"new")
    turns.came(b"new")
    assert turns.rank(b"busy") < turns.rank(b"new")  # Who leaves and comes back is remembered.
    turns.came(OWNER)
    turns.served(OWNER, 10**9)
    assert turns.rank(OWNER) < turns.rank(b"busy")


def test_requesters_are_forgotten_when_there_are_too_many() -> None:
    turns = Turns()
    turns.came(b"stays")
    for number in range(REQUESTERS_REMEMBERED_MAX + 50):
        name = number.to_bytes(4, "big")
        turns.came(name)
        turns.served(name, number)
        turns.went(name)
    assert len(turns) <= REQUESTERS_REMEMBERED_MAX + 1
    turns.served(b"stays", 1)


def test_guesses_go_on_while_they_come_true_and_wait_ever_longer() -> None:
    guesser = Guesser(Speculation(guesses_max=3, pause_steps_max=4), [1, 2, 3, 4, 5, 1, 2, 3])
    assert guesser.guesses(9) == [4]
    guesser.learn(1, 1)
    guesser.add(4)
    assert guesser.guesses(9) == [5, 1]
    assert guesser.guesses(1) == [5]
    assert guesser.guesses(0) == ()
    waits = []
    for _ in range(5):
        guesser.learn(1, 0)
        steps = 0
        while not guesser.guesses(9):
            steps += 1
        waits.append(steps)
    assert waits == [1, 2, 4, 4, 4]
    fresh = Guesser(Speculation(), [1, 2])
    assert fresh.guesses(3) == ()
    never = Guesser(Speculation(guesses_max=0), [1, 1, 1, 1, 1])
    assert never.guesses(3) == ()


def test_rows_are_kept_for_a_while_and_within_their_bound() -> None:
    rows = RowStore(bytes_max=30)
    for place in range(4):
        rows.keep(1, place, bytes([place]) * 10)
    assert rows.open(1, [0, 3, 1, 9]) == [b"", b"\3" * 10, b"\1" * 10, b""]
    rows.ended(1, 100.0)
    rows.expire(99.0 + KEPT_SECONDS)
    assert rows.open(1, [3]) != [b""]
    rows.expire(100.0 + KEPT_SECONDS)
    assert rows.open(1, [3]) == [b""]
    assert rows.size_bytes == 0
    rows.keep(2, 0, b"x")
    rows.forget(2)
    rows.forget(2)
    rows.ended(3, 0.0)
    assert rows.open(2, [0]) == [b""]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=60))
def test_the_bytes_of_rows_are_counted(script: list[tuple[int, int]]) -> None:
    rows = RowStore(bytes_max=50)
    for place, (task, size) in enumerate(script):
        if size == 12:
            rows.forget(task)
        else:
            rows.keep(task, place, bytes(size))
        kept = [len(row) for t in range(4) for row in rows.open(t, range(place + 1))]
        assert rows.size_bytes == sum(kept) <= 50


def test_rows_that_are_too_much_for_the_pipe_are_left_for_another_time() -> None:
    rows = RowStore()
    for place in range(3):
        rows.keep(1, place, bytes([place]) * (OPENED_BYTES_MAX // 2))
    assert [len(row) for row in rows.open(1, [0, 1, 2])] == [OPENED_BYTES_MAX // 2] * 2 + [0]
    assert len(rows.open(1, [2])[0]) == OPENED_BYTES_MAX // 2
