"""What is signed with a real key and wrong: real daemons refuse it, by a code and a sentence."""

import json
from pathlib import Path

from node.cli.ledger_offline import verified_file
from protocol.envelope import Signed
from protocol.errors import Code
from protocol.ids import node_parsed
from protocol.ledger.audit import Depth
from protocol.ledger.certificate import Certified
from protocol.ledger.entry import Claim, Pay, Source, entry_opened
from protocol.ledger.sync import Refusal
from tests.network.mortals import Mortals, check_verified, node_id, send
from tests.network.paper import Paper, submission
from tests.network.testnet import until

NOTHING = bytes(32)
FLIPS = 24


def of_another(paper: Paper, pay: Certified) -> Signed:
    opened = entry_opened(pay.entry, paper.charter.network)
    assert isinstance(opened.value.body, Pay)
    return paper.next(Claim((Source("pay", opened.id, opened.value.body.amount),)))


async def test_wrong_entries_are_refused_by_code_and_a_second_one_is_shown_to_all(
    mortals: Mortals,
) -> None:
    paper, oca, potato = Paper(mortals), mortals.oca, mortals.potato
    first, second = await paper.sent(mortals.quinoa, 30, 40)
    send(mortals.quinoa, node_id(mortals.maize), 10)
    maize = node_parsed(node_id(mortals.maize))
    [*_, not_ours] = await paper.pays(mortals.quinoa, maize)
    rival = paper.claim([second])  # For the same place as the one below.
    # quinoa, maize and oca seal it; potato takes no part.
    entry = paper.claim([first])
    await paper.certify(entry, [mortals.quinoa, mortals.maize, oca], [first])

    pay = Pay(maize, 5, NOTHING)
    wrong = {
        Code.BALANCE_WRONG: (paper.next(pay, balance=30), []),
        Code.OVERDRAWN: (paper.next(Pay(maize, 31, NOTHING), balance=0), []),
        Code.NOT_PAYEE: (of_another(paper, not_ours), [not_ours]),
        Code.ALREADY_CLAIMED: (paper.claim([first]), [first]),
        Code.AMOUNT_WRONG: (
            paper.next(Claim((Source("pay", second.entry.id, 41),))),
            [second],
        ),
        Code.NEED: (paper.claim([second]), []),
        Code.LINK_BROKEN: (paper.next(pay, prev=first.entry.id), []),
        Code.MISSING: (paper.next(pay, seq=3), []),
        Code.PAST: (rival, [second]),
    }
    answers = await paper.ask(oca, *(submission(one, *proofs) for one, proofs in wrong.values()))
    for code, answer in zip(wrong, answers, strict=True):
        assert isinstance(answer, Refusal), code
        assert answer.code == code
        assert answer.sentence.endswith("."), code

    def shown() -> list[dict[str, object]]:
        return [one for one in potato.get("ledger/proofs") if one["account"]["node"] == paper.id]

    until("the contradiction at potato", lambda: bool(shown()))
    [proof] = shown()
    assert proof["kind"] == "contradiction"
    signed_twice = {one["entry"] for one in proof["entries"]}  # type: ignore[attr-defined]
    assert signed_twice == {entry.id.hex(), rival.id.hex()}
    said = potato.ayni("ledger", "proofs")
    assert (said.status, said.err) == (0, "")
    assert paper.id in said.out
    # Nobody is outlawed by it: a restored backup can do this honestly (facts of the ledger, 2.4).
    everyone = [mortals.quinoa, mortals.maize, oca]
    await paper.certify(paper.claim([second]), everyone, [second])
    assert paper.account.balance == 70
    check_verified(potato)


def test_an_export_is_verified_elsewhere_and_each_flipped_byte_is_found(
    mortals: Mortals, tmp_path: Path
) -> None:
    oca, potato = mortals.oca, mortals.potato
    send(mortals.quinoa, node_id(oca), 500_000)
    mortals.quiet()
    counted = check_verified(oca)
    file = tmp_path / "town.export"
    assert oca.ayni("ledger", "export", str(file)).status == 0
    words = ("ledger", "verify", str(file), "--genesis", str(potato.paths.network_file))
    report = potato.read(*words)
    assert (report["ok"], report["complete"]) == (True, True)
    assert report["entries"] == counted["entries"] > 0
    assert report["signatures"] == counted["signatures"] > 3 * counted["entries"]
    assert report["total_microcredits"] == report["supply_microcredits"]

    data = file.read_bytes()
    bad = tmp_path / "flipped.export"
    codes = set()
    for place in range(0, len(data), max(1, len(data) // FLIPS)):
        bad.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        found = verified_file(bad, potato.paths.network_file, Depth.FULL)
        assert (found.ok, bool(found.faults)) == (False, True), place
        codes.add(found.faults[0].code)
    assert codes <= set(Code)
    done = potato.ayni("ledger", "verify", str(bad), "--genesis", words[-1])
    assert done.status == 1
    assert f"{found.faults[0].code}: " in done.out
    other = tmp_path / "other.ayni"
    made = potato.ayni(
        *("network", "create", "other", "--supply", "5", "--witness", node_id(potato)),
        *("-o", str(other)),
    )
    assert made.status == 0, made
    stranger = json.loads(
        potato.ayni("ledger", "verify", str(file), "--genesis", str(other), "--json").out
    )
    assert stranger["ok"] is False
    assert "network" in stranger["faults"][0]["sentence"]
