"""What is shown of signed values is what they say."""

from dataclasses import replace

import pytest

from node.api.ledger_shown import Showing
from node.api.ledger_views import ClaimedSource
from protocol.errors import Code, RemoteError
from protocol.ids import NetworkId
from protocol.ledger.audit import Depth
from protocol.ledger.proof import breach_made
from tests.node.api.wallet_samples import (
    CONTRADICTION,
    EXPORT,
    REFERENCE,
    RIVALS,
    SHOWING,
    TOWN,
    exported,
    in_order,
    party,
    verification,
)
from tests.protocol.ledger.chains import ANNA, BRUNO, CHARTER, CLARA, WITNESSES, sealed


def test_a_pay_shows_whom_how_much_for_what_and_who_sealed_it():
    shown = SHOWING.certified(TOWN["anna"].certified[0])
    assert (shown.seq, shown.kind, shown.change_microcredits) == (1, "pay", -30)
    assert (shown.to, shown.reference) == (party(BRUNO.node), REFERENCE.hex())
    assert (shown.balance_microcredits, shown.prev) == (70, CHARTER.network.hex())
    assert [seal.name for seal in shown.seals] == ["maize", "oca", "potato"]
    second = SHOWING.certified(TOWN["anna"].certified[1])
    assert (second.reference, second.prev) == ("", shown.entry)
    # The fourth witness has no name, and still an id.
    assert second.seals[-1] == party(WITNESSES[3].node)
    assert second.seals[-1].name == ""


def test_a_claim_shows_its_sources():
    shown = SHOWING.certified(TOWN["bruno"].certified[0])
    paid = SHOWING.certified(TOWN["anna"].certified[0])
    assert (shown.kind, shown.change_microcredits, shown.to) == ("claim", 30, None)
    assert shown.sources == (ClaimedSource(entry=paid.entry, amount_microcredits=30),)


def test_a_contradiction_shows_both_entries_without_seals():
    shown = SHOWING.proof(CONTRADICTION)
    assert (shown.kind, shown.account) == ("contradiction", party(ANNA.node))
    first, second = shown.entries
    assert first.entry < second.entry
    assert (first.seq, second.seq, first.prev) == (1, 1, second.prev)
    assert {first.to, second.to} == {party(BRUNO.node), party(CLARA.node)}
    assert first.seals == second.seals == ()


def test_a_breach_shows_who_sealed_both():
    breach = breach_made(RIVALS, CHARTER)
    shown = SHOWING.proof(breach)
    assert (shown.kind, len(shown.entries)) == ("breach", 2)
    assert all(len(entry.seals) == 3 for entry in shown.entries)
    assert "more than 1 of 4" in shown.sentence


@pytest.mark.parametrize("depth", list(Depth))
def test_a_verification_has_the_reports_numbers(depth):
    shown = verification(EXPORT, depth)
    assert (shown.ok, shown.complete, shown.depth) == (True, True, depth.value)
    assert (shown.accounts, shown.entries, shown.faults) == (3, 5, ())
    assert shown.balances_microcredits == 66 + 5 + 65
    assert (shown.pays_unclaimed_microcredits, shown.total_microcredits) == (4, 140)
    assert shown.supply_microcredits == 140
    amounts = {one.account.name: one.amount_microcredits for one in shown.balances}
    assert amounts == {"anna": 66, "bruno": 5, "": 65}


def test_a_fault_is_shown_with_its_account_place_and_code():
    few = sealed(TOWN["bruno"].certified[1].entry, (0, 1))
    entries = [few if one is TOWN["bruno"].certified[1] else one for one in in_order(TOWN.values())]
    shown = verification(exported(entries))
    assert not shown.ok
    told = [(one.account, one.seq, one.code) for one in shown.faults]
    assert (party(BRUNO.node), 2, "BAD_CERTIFICATE") in told
    damaged = verification(b"\x00")
    assert [(one.account, one.code) for one in damaged.faults] == [(None, "BAD_FRAME")]


def test_an_entry_of_another_network_is_not_shown():
    elsewhere = Showing(replace(CHARTER, network=NetworkId(bytes(32))), lambda node: "")
    with pytest.raises(RemoteError) as refused:
        elsewhere.certified(TOWN["anna"].certified[0])
    assert refused.value.code is Code.WRONG_NETWORK
