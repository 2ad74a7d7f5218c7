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
    """What an account has: its balance, what it has earned, and the rest in its own channels."""
    parts = ("balance_microcredits", "earned_microcredits", "claimable_microcredits")
    locked = sum(one["amount_microcredits"] for one in wallet["locked"])
    return sum(int(wallet[part]) for part in parts) + locked


def costs(demo: Demo) -> dict[str, int]:
    """What quinoa's finished jobs cost, by provider."""
    sums: dict[str, int] = {}
    for job in demo.read("jobs"):
        if job["cost_microcredits"]:
            sums[job["peer_name"]] = sums.get(job["peer_name"], 0) + job["cost_microcredits"]
    return sums


def lines(demo: Demo, node: str, other: str) -> list[dict[str, Any]]:
    """The channels between two nodes, as one of them has them."""
    shown = demo.read("wallet", "channels", node=node)
    return [one for one in shown if one["party"]["name"] == other]


def step_paid(demo: Demo, before: dict[str, dict[str, Any]]) -> None:
    """Each answer was paid while it came: the vouchers are worth what the jobs cost."""
    owed = costs(demo)

    def counted() -> bool:
        return {name: moved(demo, name) for name in owed} == owed

    until("every job paid by vouchers", SETTLED_SECONDS_MAX, counted)
    demo.show("wallet", "channels")
    now = wallets(demo)
    spent = worth(before["quinoa"]) - worth(now["quinoa"])
    earned = {name: worth(now[name]) - worth(before[name]) for name in owed}
    check(earned == owed, f"vouchers are worth {earned}, the jobs cost {owed}")
    check(spent == sum(owed.values()), f"quinoa has spent {spent}")
    demo.figures["money"] = {"paid_microcredits": spent, "earned_microcredits": owed}


def moved(demo: Demo, name: str) -> int:
    """What quinoa's vouchers have given a provider, in channels that are not over."""
    return sum(one["moved_microcredits"] for one in lines(demo, name, "quinoa"))


def step_settled(demo: Demo, before: dict[str, dict[str, Any]]) -> None:
    """The channel to maize is settled: each side gets its share on the ledger. And a payment."""
    [line] = [one for one in lines(demo, "maize", "quinoa") if one["moved_microcredits"]]
    settled(demo, "maize", line["channel"])
    demo.show("wallet", node="maize")
    balance = demo.read("wallet", node="maize")["balance_microcredits"]
    gained = balance - before["maize"]["balance_microcredits"]
    check(gained == line["moved_microcredits"], f"maize's balance has grown by {gained}")
    demo.show("wallet", "send", "oca", "2.5", "--yes")
    demo.figures["money"]["settled_microcredits"] = gained


def settled(demo: Demo, payee: str, channel: str) -> None:
    """Settle a channel of quinoa's, as its payee; both have their shares when this returns."""
    demo.show("wallet", "settle", channel[:8], node=payee)

    def is_over(node: str) -> bool:
        return all(one["channel"] != channel for one in demo.read("wallet", "channels", node=node))

    until(
        "both shares claimed",
        SETTLED_SECONDS_MAX,
        lambda: is_over(payee) and is_over("quinoa"),
    )


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
            "channels": report["channels_microcredits"],
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
    [line] = [one for one in lines(demo, "potato", "quinoa") if one["state"] == "open"]
    check(line["moved_microcredits"] > 0, "the answer was not paid")
    demo.show("wallet", "settle", line["channel"][:8], node="potato")

    def waits() -> bool:
        shown = lines(demo, "potato", "quinoa")
        return any((one["channel"], one["waits_for"]) == (line["channel"], 1) for one in shown)

    until("a settlement that waits for one witness", 30, waits)
    demo.show("wallet", "channels", node="potato")
    start_again(demo, "oca")

    def is_over() -> bool:
        return all(one["channel"] != line["channel"] for one in lines(demo, "potato", "quinoa"))

    until("the channel settled", SETTLED_SECONDS_MAX, is_over)
    demo.show("wallet", node="potato")
    demo.figures["witnesses_down"] = {"waited_for": 1, "completed_after_restart": True}


def step_paid_after_kill(demo: Demo) -> None:
    """What maize delivered before it was killed is in its vouchers, on its disk."""
    channel, had, signed = demo.killed["channel"], demo.killed["had"], demo.killed["signed"]

    def line() -> dict[str, Any] | None:
        shown = lines(demo, "maize", "quinoa")
        return next((one for one in shown if one["channel"] == channel), None)

    until("maize's channels", SETTLED_SECONDS_MAX, line)
    demo.show("wallet", "channels", node="maize")
    held = (line() or {})["moved_microcredits"]
    check(had < held <= signed, f"maize holds {held} of {signed} that quinoa signed, {had} before")
    balance = demo.read("wallet", node="maize")["balance_microcredits"]
    until("maize may sign", 30, lambda: demo.read("wallet", node="maize")["ready"])
    settled(demo, "maize", channel)
    demo.show("wallet", node="maize")
    gained = demo.read("wallet", node="maize")["balance_microcredits"] - balance
    check(gained == held, f"maize was paid {gained} of {held}")
    demo.figures["kill"] |= {
        "delivered_and_paid_microcredits": held - had,
        "signed_microcredits": signed - had,
    }
