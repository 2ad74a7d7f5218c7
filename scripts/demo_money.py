"""The demo's steps about money: who paid whom, who certified it, and who can check it."""

import json
import subprocess
from typing import Any

from demo_forger import Forger
from demo_parts import AYNI, Demo, check, until

SETTLED_SECONDS_MAX = 60
NAMES = ("quinoa", "maize", "potato", "oca")


def wallets(demo: Demo, names: tuple[str, ...] = NAMES) -> dict[str, dict[str, Any]]:
    return {name: demo.read("wallet", node=name) for name in names}


def worth(wallet: dict[str, Any]) -> int:
    """What is certified to be an account's own, whether it has claimed it yet or not."""
    return int(wallet["balance_microcredits"]) + int(wallet["claimable_microcredits"])


def costs(demo: Demo) -> dict[str, int]:
    """What quinoa's finished jobs cost, by provider."""
    sums: dict[str, int] = {}
    for job in demo.read("jobs"):
        if job["cost_microcredits"]:
            sums[job["peer_name"]] = sums.get(job["peer_name"], 0) + job["cost_microcredits"]
    return sums


def step_paid(demo: Demo, before: dict[str, dict[str, Any]]) -> None:
    """quinoa has paid exactly what maize and potato have earned."""
    owed = costs(demo)

    def settled() -> dict[str, dict[str, Any]] | None:
        now = wallets(demo)
        done = now["quinoa"]["pending_microcredits"] == 0 and not now["quinoa"]["waiting"]
        earned = {name: worth(now[name]) - worth(before[name]) for name in ("maize", "potato")}
        claimed = all(not now[name]["claimable_microcredits"] for name in earned)
        return now if done and claimed and earned == {n: owed.get(n, 0) for n in earned} else None

    after = until("every job paid and claimed", SETTLED_SECONDS_MAX, settled)
    for name in NAMES:
        demo.show("wallet", node=name)
    paid = worth(before["quinoa"]) - worth(after["quinoa"])
    check(paid == sum(owed.values()), f"quinoa paid {paid}, its jobs cost {sum(owed.values())}")
    check(worth(after["oca"]) == worth(before["oca"]), "oca's balance has changed")
    demo.figures["money"] = {
        "paid_microcredits": paid,
        "earned_microcredits": owed,
        "balances_microcredits": {name: after[name]["balance_microcredits"] for name in NAMES},
    }


def step_verified(demo: Demo) -> None:
    """Each entry has its seals, and oca, which took no part, checks them all from genesis."""
    demo.show("ledger", "show", "quinoa", "--limit", "2", node="oca")
    chain = demo.read("ledger", "show", "quinoa", node="oca")
    seals = {len(entry["seals"]) for entry in chain["entries"]}
    check(bool(seals) and min(seals) >= chain["quorum"], f"entries with {seals} seals")
    expected = {
        name: demo.read("wallet", node=name)["seq"] for name in ("quinoa", "maize", "potato")
    }

    def has_all() -> bool:
        shown = {name: demo.read("ledger", "show", name, node="oca") for name in expected}
        return all(shown[name]["seq"] >= seq for name, seq in expected.items())

    until("all chains at oca", SETTLED_SECONDS_MAX, has_all)
    demo.show("ledger", "verify", node="oca")
    report = demo.read("ledger", "verify", node="oca")
    check(report["ok"], f"oca found {report['faults']}")
    check(
        report["total_microcredits"] == report["supply_microcredits"], "the sum is not the supply"
    )
    check(report["entries"] >= sum(expected.values()), "oca has not all entries")
    demo.figures["ledger"] = {
        "seals": sorted(seals),
        "quorum": chain["quorum"],
        "supply_microcredits": report["supply_microcredits"],
        "terms_microcredits": {
            "balances": report["balances_microcredits"],
            "pays_unclaimed": report["pays_unclaimed_microcredits"],
            "fees": report["fees_microcredits"],
        },
        "entries": report["entries"],
        "signatures_checked": report["signatures"],
    }


def step_offline(demo: Demo) -> None:
    """With a file and the genesis alone anyone can check it; a flipped byte is found."""
    file, genesis = demo.folder / "oca.ledger", demo.folder / "network.ayni"
    demo.show("ledger", "export", str(file), node="oca")
    words = ["ledger", "verify", str(file), "--genesis", str(genesis)]
    demo.show(*words, node="oca")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    bad = file.with_suffix(".flipped")
    bad.write_bytes(data)
    demo.say("\n(one bit of the export is flipped)")
    words[2] = str(bad)
    done = subprocess.run([str(AYNI), *words, "--json"], capture_output=True, text=True)
    report = json.loads(done.stdout)
    check(done.returncode == 1, "the flipped export passed")
    fault = report["faults"][0]
    demo.say(f"{fault['code']}: {fault['sentence']}")
    demo.figures["ledger"]["flipped_byte"] = fault["code"]


def step_forged(demo: Demo) -> None:
    """Wrong entries are refused by a code; a contradiction leaves a proof that oca shows."""
    codes: dict[str, str] = {}
    witness = demo.read("status", node="oca")["addresses"][0]
    forger = Forger(demo.folder / "quinoa", demo.folder / "network.ayni", witness)
    demo.say("\n(entries signed with quinoa's own key, handed to oca)")
    for what, refusal in forger.run().items():
        demo.say(f"{what}: {refusal.code}: {refusal.sentence}")
        codes[what] = refusal.code
    expected = {
        "a wrong balance": "BALANCE_WRONG",
        "more than there is": "OVERDRAWN",
        "a claim of another's pay": "NOT_PAYEE",
        "a second entry for one place": "PAST",
    }
    check(codes == expected, f"the refusals were {codes}")
    until(
        "the proof at oca",
        SETTLED_SECONDS_MAX,
        lambda: any(
            one["kind"] == "contradiction" for one in demo.read("ledger", "proofs", node="oca")
        ),
    )
    demo.show("ledger", "proofs", node="oca")
    demo.figures["refusals"] = codes


def step_witnesses_down(demo: Demo, kill: Any, start_again: Any) -> None:
    """maize is down already; without oca two of four are left, and three are needed."""
    kill(demo, "oca")
    answer = demo.read("ask", "--max-tokens", "24", "Say hello to the Andes.")
    check(answer.get("provider_name") == "potato", f"no answer with two witnesses: {answer}")
    waiting = until("a payment that waits", 30, lambda: demo.read("wallet")["waiting"])
    demo.show("wallet")
    check(waiting[0]["seals"] < waiting[0]["quorum"], "it was certified by too few")
    start_again(demo, "oca")
    until("the payment certified", SETTLED_SECONDS_MAX, lambda: not demo.read("wallet")["waiting"])
    demo.show("wallet")
    demo.figures["witnesses_down"] = {
        "seals": waiting[0]["seals"],
        "quorum": waiting[0]["quorum"],
        "completed_after_restart": True,
    }
