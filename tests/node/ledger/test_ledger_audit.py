"""Catching up from several peers at once, across cuts; and chains verified anew that find liars."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import trio.testing

from node.ledger import audit
from protocol.errors import Code
from protocol.ledger.certificate import Certificate, Certified
from protocol.ledger.entry import Pay
from protocol.ledger.proof import Breach, Contradiction
from protocol.ledger.sync import Answer, Ask, AskRange, Entries
from tests.node.ledger.library import Library, chain_of, lengths, pays
from tests.node.ledger.village import (
    ANNA,
    BRUNO,
    CLARA,
    NOTHING,
    SETTINGS,
    START,
    WITNESSES,
    Home,
    Village,
    open_village,
    until,
    until_async,
    verified,
)

Clock = trio.testing.MockClock
RICH = (ANNA, BRUNO, *WITNESSES[:2])
EACH = 120
CHECKED = replace(SETTINGS, audit=audit.Settings(round_seconds=5, check_seconds=5))
LIGHT = replace(SETTINGS, audit=audit.Settings(round_seconds=5, check_seconds=5, only_own=True))


async def libraries(stack: AsyncExitStack, village: Village, count: int) -> list[Library]:
    """Peers that hold the same chains: of all that the genesis makes rich."""
    charter = village.charter
    chains = {one.node: chain_of(charter, one, pays(CLARA, EACH)) for one in RICH}
    made = [Library(village, number) for number in range(count)]
    for library in made:
        library.chains = dict(chains)
        await stack.enter_async_context(library.serving())
    return made


async def visit(home: Home, *made: Library) -> None:
    for library in made:
        await library.network.connect(home.network.addresses[0])


async def entries(home: Home) -> int:
    return (await home.ledger.views.terms()).entries


def at_least(home: Home, count: int) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return await entries(home) >= count

    return holds


async def test_catching_up_takes_from_several_peers_and_holds_few_pages(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with AsyncExitStack() as stack:
        village = await stack.enter_async_context(open_village(tmp_path))
        made = await libraries(stack, village, 7)
        home = village.home(CLARA)
        await home.up()
        await visit(home, *made)
        whole = lengths(made[0].chains)
        await until_async(at_least(home, whole))
        figures = home.ledger.audited
        assert await entries(home) == figures.entries == whole
        assert 2 <= figures.pages_at_once <= 4, "more than one peer, and no more than the bound"
        assert sum(bool(library.pages) for library in made) >= 2
        firsts = [page for library in made for page in library.pages]
        assert len(firsts) == len(set(firsts)), "no page was asked for twice"
        assert not figures.faults
        await verified([home])


async def test_a_catching_up_that_is_cut_goes_on_where_it_was(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with AsyncExitStack() as stack:
        village = await stack.enter_async_context(open_village(tmp_path))
        made = await libraries(stack, village, 2)
        home = village.home(CLARA)
        home.settings = replace(SETTINGS, audit=audit.Settings(entries_per_second=100))
        await home.up()
        await visit(home, *made)
        await until_async(at_least(home, 1))
        had = await entries(home)
        await home.crash_and_lose()
        await home.up()
        assert await entries(home) >= had
        had = await entries(home)
        await visit(home, *made)
        whole = lengths(made[0].chains)
        await until_async(at_least(home, whole))
        assert home.ledger.audited.entries == whole - had, "nothing is pulled a second time"
        await verified([home])


async def test_a_peer_that_breaks_off_leaves_its_chains_to_the_others(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with AsyncExitStack() as stack:
        village = await stack.enter_async_context(open_village(tmp_path))
        good, bad = await libraries(stack, village, 2)

        def lie(ask: Ask, truth: Answer) -> Answer:
            if isinstance(ask, AskRange) and isinstance(truth, Entries) and truth.entries:
                first = truth.entries[0]
                few = Certificate(first.entry.id, 0, first.certificate.seals[:1])
                return Entries((Certified(first.entry, few),))
            return truth

        bad.lie = lie
        home = village.home(CLARA)
        await home.up()
        await visit(home, bad, good)
        await until_async(at_least(home, lengths(good.chains)))
        assert home.ledger.audited.faults[Code.BAD_CERTIFICATE] >= 1
        await verified([home])


async def test_random_chains_are_verified_anew_and_the_coverage_survives(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with AsyncExitStack() as stack:
        village = await stack.enter_async_context(open_village(tmp_path))
        made = await libraries(stack, village, 3)
        home = village.home(CLARA)
        home.settings = CHECKED
        await home.up()
        await visit(home, *made)

        async def is_covered() -> bool:
            coverage = await home.ledger.coverage()
            return coverage.audited == len(RICH)

        await until_async(is_covered)
        coverage = await home.ledger.coverage()
        assert (coverage.accounts, coverage.entries) == (len(RICH), lengths(made[0].chains))
        assert coverage.entries_audited == coverage.entries
        assert {one.code for one in coverage.last} == {"HOLDS"}
        assert {one.peers for one in coverage.last} == {3}
        assert not await home.ledger.views.proofs()
        await home.crash()
        await home.up()
        again = await home.ledger.coverage()
        assert {one.account for one in again.last} == {one.account for one in coverage.last}


async def test_a_liar_is_found_by_the_audit_and_the_proof_goes_round(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """A peer shows a chain with another entry that Anna signed too; its certificate is false."""
    async with AsyncExitStack() as stack:
        village = await stack.enter_async_context(open_village(tmp_path))
        (liar,) = await libraries(stack, village, 1)
        del liar.chains[BRUNO.node]  # Or Bruno would learn that his journal is an old one.
        rival = chain_of(village.charter, ANNA, [Pay(BRUNO.node, 7, NOTHING)])[0]
        forged = Certified(rival.entry, liar.chains[ANNA.node][0].certificate)

        def lie(ask: Ask, truth: Answer) -> Answer:
            told = isinstance(ask, AskRange) and ask.account == ANNA.node and home_is_whole
            return Entries((replace_id(forged),)) if told else truth

        home_is_whole = False
        liar.lie = lie
        home, other = village.home(CLARA), village.home(BRUNO)
        home.settings = CHECKED
        await home.up()
        await visit(home, liar)
        await until_async(at_least(home, lengths(liar.chains)))
        await other.up()
        home_is_whole = True
        await until(lambda: other.ledger.contradicted(ANNA.node))
        for one in (home, other):
            assert one.ledger.contradicted(ANNA.node)
            assert one.ledger.trouble == ""
            (proof,) = await one.ledger.views.proofs()
            assert isinstance(proof, Contradiction)
            assert proof.first.signer == ANNA.node
        coverage = await home.ledger.coverage()
        assert coverage.last[0].account == ANNA.node, "faults come first"
        assert coverage.last[0].code == Code.BAD_CERTIFICATE
        assert home.ledger.audited.faults[Code.BAD_CERTIFICATE] >= 1


def replace_id(forged: Certified) -> Certified:
    """The seals of another entry under this one."""
    return Certified(forged.entry, Certificate(forged.entry.id, 0, forged.certificate.seals))


async def test_two_certificates_for_one_place_halt_and_alarm(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Three of four witnesses are dishonest: another head, as well sealed, is shown."""
    async with AsyncExitStack() as stack:
        village = await stack.enter_async_context(open_village(tmp_path))
        (liar,) = await libraries(stack, village, 1)
        rivals = chain_of(village.charter, ANNA, [*pays(CLARA, EACH - 1), *pays(BRUNO, 1)])
        is_lying = False

        def lie(ask: Ask, truth: Answer) -> Answer:
            if not is_lying:
                return truth
            liar.chains[ANNA.node] = rivals
            return liar._truth(ask)

        liar.lie = lie
        home, other = village.home(CLARA), village.home(BRUNO)
        home.settings = CHECKED
        await home.up()
        await visit(home, liar)
        await until_async(at_least(home, lengths(liar.chains)))
        await other.up()
        is_lying = True
        await until(lambda: bool(home.ledger.trouble and other.ledger.trouble))
        for one in (home, other):
            assert "halted" in one.ledger.trouble
            (proof,) = await one.ledger.views.proofs()
            assert isinstance(proof, Breach)


async def test_a_light_node_follows_its_own_chain_only(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with AsyncExitStack() as stack:
        village = await stack.enter_async_context(open_village(tmp_path))
        made = await libraries(stack, village, 2)
        made[0].chains[CLARA.node] = []
        home = village.home(BRUNO)
        home.settings = LIGHT
        await home.up()
        await visit(home, *made)
        await until_async(at_least(home, EACH))
        await trio.sleep(120)
        assert await entries(home) == EACH, "its own chain, and of nobody else"
        assert home.ledger.keeps == "own"
        assert home.ledger.audited.checks == 0
        lines = await home.ledger.views.accounts()
        assert {line.account for line in lines if line.seq} == {BRUNO.node}
        assert home.ledger.standing().balance == START - EACH
