"""Exports: what passes, what each mistake is called, and that no mutation passes or crashes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import Code, RemoteError
from protocol.ledger.audit import Depth, audit
from protocol.ledger.certificate import Certified
from protocol.ledger.decoder import packed
from protocol.ledger.entry import Claim, Entry, Source
from protocol.ledger.export import Header, Shown, export_header, framed, frames_of
from protocol.limits import FAULTS_SHOWN_MAX
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    Chain,
    claim,
    entry_after,
    pay,
    replace_fields,
    sealed,
    signed_entry,
    with_seals,
)

DEPTHS = list(Depth)


def town() -> dict[str, Chain]:
    """Anna pays both, Bruno pays Clara and claims, Clara claims two at once; 4 stay unclaimed."""
    anna, bruno, clara = Chain(ANNA), Chain(BRUNO), Chain(CLARA)
    to_bruno = anna.add(pay(BRUNO, 30))
    to_clara = anna.add(pay(CLARA, 20), (0, 2, 3))
    anna.add(pay(BRUNO, 4))
    bruno.add(claim(to_bruno), (1, 2, 3))
    more = bruno.add(pay(CLARA, 65), (0, 1, 2, 3))
    clara.add(claim(to_clara, more))
    return {"anna": anna, "bruno": bruno, "clara": clara}


TOWN = town()


def signer_of(certified: Certified) -> bytes:
    return certified.entry.signer


def in_order(chains) -> list[Certified]:
    ordered = sorted(chains, key=lambda chain: chain.identity.node)
    return [certified for chain in ordered for certified in chain.certified]


def file_of(entries, shown=()) -> bytes:
    header = export_header(CHARTER, shown=len(shown), entries=len(entries))
    frames = [*map(Shown, shown), *entries]
    return header + b"".join(map(framed, frames))


def report_of(data: bytes, depth: Depth = Depth.FULL):
    return audit(CHARTER, lambda: [data], depth)


def codes(report):
    return {(fault.account, fault.seq, fault.code) for fault in report.faults}


GOOD = file_of(in_order(TOWN.values()))


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_whole_town_adds_up(depth):
    report = report_of(GOOD, depth)
    assert report.faults == ()
    assert report.ok
    assert report.complete
    assert report.balances == {ANNA.node: 46, BRUNO.node: 5, CLARA.node: 85}
    assert (report.entries, report.pays_unclaimed, report.fees) == (6, 4, 0)
    assert report.total == report.supply == 140
    # Six authors; all seals are 19; heads: Anna's third and the sources, Bruno's second (a source
    # as well), Clara's first.
    assert report.signatures == 6 + (19 if depth is Depth.FULL else 3 * 3 + 4 + 3)


@given(st.lists(st.integers(1, 400), max_size=40))
def test_pieces_of_any_size_are_one_file(sizes):
    pieces, rest = [], GOOD
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert audit(CHARTER, lambda: [*pieces, rest], Depth.FULL) == report_of(GOOD)


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_empty_network_is_whole(depth):
    report = report_of(file_of([]), depth)
    assert (report.ok, report.total, report.entries) == (True, 140, 0)


@pytest.mark.parametrize("depth", DEPTHS)
def test_one_chain_alone_shows_its_sources(depth):
    anna, bruno = TOWN["anna"].certified, TOWN["bruno"].certified
    report = report_of(file_of(bruno, shown=anna[:1]), depth)
    assert report.faults == ()
    assert not report.complete
    assert report.balances[BRUNO.node] == 5
    assert codes(report_of(file_of(bruno), depth)) == {(BRUNO.node, 1, Code.NEED)}
    # A pay beyond what the file has of its own chain may be shown, one within it may not.
    beyond = in_order([TOWN["anna"], TOWN["clara"]])
    assert report_of(file_of(beyond, shown=bruno[1:]), depth).ok
    both = in_order([TOWN["anna"], TOWN["bruno"]])
    assert not report_of(file_of(both, shown=anna[:1]), depth).ok
    assert not report_of(file_of(bruno, shown=anna[:2]), depth).ok
    clara, sources = TOWN["clara"].certified, sorted([anna[1], bruno[1]], key=signer_of)
    assert report_of(file_of(clara, shown=sources), depth).ok
    assert not report_of(file_of(clara, shown=sources[::-1]), depth).ok


def anna_with(*, upto: int, body, by=(0, 1, 2), **changed) -> list[Certified]:
    """Anna's chain with another last entry, which its witnesses certified all the same."""
    chain = Chain(ANNA)
    for amount, to in [(30, BRUNO), (20, CLARA)][:upto]:
        chain.add(pay(to, amount))
    chain.add(body, by, **changed)
    return chain.certified


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(
    ("chain", "seq", "code"),
    [
        (anna_with(upto=1, body=pay(BRUNO, 71)), 2, Code.OVERDRAWN),
        (anna_with(upto=1, body=pay(BRUNO, 1), balance=70), 2, Code.BALANCE_WRONG),
        (anna_with(upto=1, body=pay(BRUNO, 1), prev=bytes(32)), 2, Code.LINK_BROKEN),
        (anna_with(upto=1, body=pay(ANNA, 1)), 2, Code.BAD_MESSAGE),
        (anna_with(upto=1, body=pay(BRUNO, 1), seq=3), 2, Code.MISSING),
        (anna_with(upto=1, body=pay(BRUNO, 1), seq=1), 2, Code.PAST),
        (anna_with(upto=0, body=pay(BRUNO, 1), by=(0, 1)), 1, Code.BAD_CERTIFICATE),
        (TOWN["anna"].certified[1:], 1, Code.MISSING),
    ],
    ids=lambda value: value.name if isinstance(value, Code) else None,
)
def test_each_mistake_has_a_name_and_a_place(chain, seq, code, depth):
    report = report_of(file_of(chain), depth)
    assert codes(report) == {(ANNA.node, seq, code)}


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_claim_of_anothers_pay_or_amount_is_found_in_either_order(depth):
    paid = TOWN["anna"].certified[:1]
    opened = Chain(ANNA).add(pay(BRUNO, 30))
    for thief, amount, code in (
        (CLARA, 30, Code.NOT_PAYEE),
        (BRUNO, 29, Code.AMOUNT_WRONG),
    ):
        chain = Chain(thief)
        chain.add(claim(opened, amounts=[amount]))
        entries = sorted([*paid, *chain.certified], key=signer_of)
        assert (thief.node, 1, code) in codes(report_of(file_of(entries), depth))
        assert (thief.node, 1, code) in codes(
            report_of(file_of(chain.certified, shown=paid), depth)
        )


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_source_claimed_by_two_is_found(depth):
    opened = Chain(ANNA).add(pay(BRUNO, 30))
    chains = [TOWN["anna"]]
    for one in (BRUNO, CLARA):
        chain = Chain(one)
        chain.add(claim(opened))
        chains.append(chain)
    assert not report_of(file_of(in_order(chains)), depth).ok


def test_heads_spares_the_seals_between_and_full_does_not():
    chain = [with_seals(TOWN["anna"].certified[0], ()), *TOWN["anna"].certified[1:]]
    assert report_of(file_of(chain), Depth.HEADS).ok
    assert codes(report_of(file_of(chain))) == {(ANNA.node, 1, Code.BAD_CERTIFICATE)}
    chain[0], bruno = TOWN["anna"].certified[0], TOWN["bruno"].certified
    chain[0] = with_seals(chain[0], ())  # Bruno claims it: so its seals count.
    entries = sorted([*chain, *bruno], key=signer_of)
    assert (ANNA.node, 1, Code.BAD_CERTIFICATE) in codes(report_of(file_of(entries), Depth.HEADS))


@pytest.mark.parametrize("depth", DEPTHS)
def test_order_counts_and_network_are_checked(depth):
    entries = in_order(TOWN.values())
    assert not report_of(file_of(entries[::-1]), depth).ok
    assert not report_of(file_of([*entries, *entries]), depth).ok
    whole = [framed(entry) for entry in entries]
    header = export_header(CHARTER, shown=0, entries=len(entries))
    for frames in (
        whole,
        [header, *whole[:-1]],
        [header, header, *whole],
        [framed(Header(1, bytes(32), 0, 0, len(entries))), *whole],
        [framed(Header(1, CHARTER.network, 1, 0, len(entries))), *whole],
        [],
        [b"\xff" * 8],
        [header, *whole, b"\0"],
    ):
        assert not report_of(b"".join(frames), depth).ok
    shown_late = [header, *whole, framed(Shown(entries[0]))]
    assert not report_of(b"".join(shown_late), depth).ok


def test_of_many_faults_the_first_are_shown_and_all_are_counted():
    chain = Chain(BRUNO)
    sources = [Source("pay", bytes([number]) * 32, 1) for number in range(FAULTS_SHOWN_MAX + 5)]
    chain.add(Claim(tuple(sources)))
    report = report_of(file_of(chain.certified), Depth.HEADS)
    assert len(report.faults) == FAULTS_SHOWN_MAX
    assert report.faults_count == len(sources)
    assert codes(report) == {(BRUNO.node, 1, Code.NEED)}


def resealed(certified: Certified, **changed) -> Certified:
    """An entry with another field, signed again by the one who may, and certified by none."""
    identity = {one.node: one for one in (ANNA, BRUNO, CLARA)}[certified.entry.signer]
    entry = codec.decode(certified.entry.body, Entry)
    return Certified(
        signed_entry(identity, replace_fields(entry, **changed)), certified.certificate
    )


@given(st.data())
def test_no_flipped_byte_passes_or_crashes(data):
    place = data.draw(st.integers(0, len(GOOD) - 1))
    flip = data.draw(st.integers(1, 255))
    mutated = GOOD[:place] + bytes([GOOD[place] ^ flip]) + GOOD[place + 1 :]
    assert not report_of(mutated).ok
    light = report_of(mutated, Depth.HEADS)  # Passes only where it is a seal that it spares.
    assert not light.ok or light.balances == report_of(GOOD).balances


@given(st.data())
def test_no_cut_doubled_or_moved_piece_passes_or_crashes(data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(GOOD)), min_size=3, max_size=3)))
    first, second, third = GOOD[: cuts[0]], GOOD[cuts[0] : cuts[1]], GOOD[cuts[1] : cuts[2]]
    rest = GOOD[cuts[2] :]
    for mutated in (
        first + third + rest,
        first + second + second + third + rest,
        first + third + second + rest,
        first + data.draw(st.binary(max_size=40)) + rest,
    ):
        assert report_of(mutated).ok == (mutated == GOOD)
        report_of(mutated, Depth.HEADS)


@given(st.data())
def test_no_changed_message_passes(data):
    """Mutations that keep the form: orders, amounts, seals and certificates of others."""
    entries = in_order(TOWN.values())
    at = data.draw(st.integers(0, len(entries) - 1))
    other = data.draw(st.integers(0, len(entries) - 1))
    change = data.draw(st.sampled_from(["swap", "drop", "double", "seals", "certificate", "sign"]))
    match change:
        case "swap":
            entries[at], entries[other] = entries[other], entries[at]
        case "drop":
            del entries[at]
        case "double":
            entries.insert(other, entries[at])
        case "seals":
            seals = list(entries[at].certificate.seals)
            kept = data.draw(st.lists(st.sampled_from(seals), max_size=5))
            entries[at] = with_seals(entries[at], kept)
        case "certificate":
            entries[at] = Certified(entries[at].entry, entries[other].certificate)
        case "sign":
            entries[at] = resealed(entries[at], balance=data.draw(st.integers(0, 200)))
    mutated = file_of(entries)
    report = report_of(mutated)
    assert report.ok == right_all_the_same(entries), change


def right_all_the_same(entries) -> bool:
    """Whether what is left is right too: fewer seals, but a quorum, or a chain cut at its end."""
    whole = in_order(TOWN.values())
    if [one.entry for one in entries] == [one.entry for one in whole]:
        return all(
            len(one.certificate.seals) >= CHARTER.quorum
            and set(one.certificate.seals) <= set(right.certificate.seals)
            and [seal.witness for seal in one.certificate.seals]
            == sorted({seal.witness for seal in one.certificate.seals})
            for one, right in zip(entries, whole, strict=True)
        )
    cut = [one for one in whole if one not in entries]
    last = {chain.certified[-1] for chain in TOWN.values()}
    unneeded = last - {TOWN["bruno"].certified[-1]}  # Clara claims that one.
    kept = [one for one in whole if one in entries]
    return entries == kept and len(cut) == 1 and cut[0] in unneeded


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_peace(data):
    for depth in DEPTHS:
        assert not report_of(data, depth).ok
        header = export_header(CHARTER, shown=0, entries=1)
        assert not report_of(header + len(data).to_bytes(4, "big") + data, depth).ok


def test_a_frame_too_long_is_refused_before_it_is_read():
    with pytest.raises(RemoteError, match="TOO_LARGE"):
        list(frames_of([b"\xff\xff\xff\xff"]))
    assert list(frames_of([b"\0\0", b"\0\x01", b"", b"a\0\0\0\0"])) == [b"a", b""]


def test_an_uncertified_chain_of_ones_own_making_is_nothing():
    entry = entry_after(Chain(CLARA).state, pay(ANNA, 1), balance=1_000)
    report = report_of(file_of([sealed(signed_entry(CLARA, entry), ())]))
    assert not report.ok
    assert packed(entry) == codec.encode(entry)
