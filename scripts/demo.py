"""The demo: four real daemons on this machine, a real model, each promise shown and checked.

`scripts/demo` does the set-up and runs this. Every step prints what a person would see and then
checks it; the exit status is 0 only if all of them held.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import demo_money
import psutil
from demo_parts import AYNI, Broken, Demo, Stream, check, is_over, log_tail, until

MODEL = "smollm2-135m-instruct"
QUESTION = "Why is the sky blue? Answer in two sentences."
STORY = "Write a long story about a llama that crosses the Andes to bring salt to the coast."
READY_SECONDS_MAX = 90
STOP_SECONDS_MAX = 5
VOUCHERS_WORTH = 60  # Microcredits: of two chunks or three, at maize's price.


def start(demo: Demo) -> None:
    demo.say("Starting four nodes: quinoa asks, maize and potato share, oca shares nothing.")
    began = time.monotonic()
    testnet_up(demo)
    check(set(demo.nodes) == {"quinoa", "maize", "potato", "oca"}, "the four nodes are not there")
    demo.figures["start_seconds"] = round(time.monotonic() - began, 2)
    until("a model on both providers", READY_SECONDS_MAX, lambda: len(offers(demo)) == 2)
    demo.remember_processes()
    demo.figures["ready_seconds"] = round(time.monotonic() - began, 2)
    demo.say("\nWhat everybody has before any job:")
    for name in demo_money.NAMES:
        demo.show("wallet", node=name)
    demo.wallets_before = demo_money.wallets(demo)


def testnet_up(demo: Demo) -> None:
    command = [str(AYNI), "--home", str(demo.folder), "testnet", "up", "--detach", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    check(done.returncode == 0, f"the testnet did not start: {done.stdout}{done.stderr}")
    demo.nodes = {node["name"]: node for node in json.loads(done.stdout)}
    demo.remember_processes()


def offers(demo: Demo) -> dict[str, dict[str, Any]]:
    """The offers with a free slot that quinoa has heard of, by the provider's name."""
    return {
        peer["name"]: offer
        for peer in demo.read("peers")
        for offer in peer["offers"]
        if peer["sharing"] == "on" and offer["slots_free"] > 0
    }


def step_peers(demo: Demo) -> None:
    demo.show("peers")
    peers = {peer["name"]: peer for peer in demo.read("peers")}
    check(set(peers) == {"maize", "potato", "oca"}, f"quinoa sees {sorted(peers)}")
    for name, peer in peers.items():
        check(peer["connected"], f"{name} is not connected")
        check(peer["hardware"]["cores"] > 0, f"{name} says nothing of its hardware")
    check(not peers["oca"]["offers"], "oca offers a model")
    rates = {}
    for name in ("maize", "potato"):
        (offer,) = peers[name]["offers"]
        check(offer["name"] == MODEL, f"{name} offers {offer['name']}")
        check("/" in offer["mode"], f"{name} says no mode")
        check(offer["price_out_microcredits"] > 0, f"{name} asks no price")
        check(offer["slots_free"] > 0, f"{name} has no free slot")
        rates[name] = offer["decode_millitokens_per_second"] / 1000
        check(rates[name] > 0, f"{name} has measured no speed")
    demo.figures["peers"] = len(peers)
    demo.figures["mode"] = offer["mode"]
    demo.figures["advertised_tokens_per_second"] = rates


def step_ask(demo: Demo) -> None:
    demo.say(f'\n$ ayni ask "{QUESTION}"    (at quinoa)')
    stream = Stream(demo.command("ask", "--max-tokens", "96", QUESTION), demo.out)
    status, text, line = stream.finish(120)
    demo.say(line.strip())
    check(status == 0, f"`ayni ask` ended with status {status}")
    check(len(text.split()) >= 5, "the answer is no sentence")
    check(len(stream.pieces) >= 5, f"the answer came in {len(stream.pieces)} pieces")
    for word in ("tokens", "s to the first", "tokens/s", "credits"):
        check(word in line, f"the closing line does not tell {word!r}: {line!r}")
    job = demo.read("jobs")[0]
    check(job["state"] == "done", f"the job is {job['state']}")
    check(job["cost_microcredits"] > 0, "the job cost nothing")
    demo.figures["ask"] = {
        "provider": job["peer_name"],
        "input_tokens": job["input_tokens"],
        "output_tokens": job["output_tokens"],
        "pieces": len(stream.pieces),
        "seconds_first": job["ms_first"] / 1000,
        "tokens_per_second": rate(job),
        "cost_microcredits": job["cost_microcredits"],
    }


def rate(job: dict[str, Any]) -> float:
    return round((job["output_tokens"] - 1) * 1000 / max(1, job["ms_total"] - job["ms_first"]), 2)


def step_curl(demo: Demo) -> None:
    check(shutil.which("curl") is not None, "curl is not here: sudo apt-get install -y curl")
    home = demo.folder / "quinoa" / "data"
    url = json.loads((home / "api.json").read_text())["url"] + "/v1/chat/completions"
    key = (home / "api.key").read_text().strip()
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "temperature": 0.6,
        "max_tokens": 48,
    }
    demo.say(f"\n$ curl -N {url} -H 'Authorization: Bearer ...' -d '{json.dumps(body)}'")
    header = demo.folder / "curl.header"  # The key stands in a file, not in a list of processes.
    header.touch(mode=0o600)
    header.write_text(f"Authorization: Bearer {key}\nContent-Type: application/json\n")
    stream = Stream(["curl", "-sSN", url, "-H", f"@{header}", "-d", json.dumps(body)], None)
    status, text, errors = stream.finish(120)
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    for line in [*events[:3], "...", *events[-3:]]:
        demo.say(f"data: {line[:150]}" if line != "..." else line)
    check(status == 0, f"curl ended with status {status}: {errors}")
    check(events[-1] == "[DONE]", "the stream does not end with [DONE]")
    chunks = [json.loads(event) for event in events[:-1]]
    check({chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}, "other objects came")
    words = "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )
    check(len(words.split()) >= 5, "the answer is no sentence")
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    check(reasons[-1] in ("stop", "length"), f"the last chunk says {reasons[-1]}")
    demo.figures["curl"] = {"events": len(events), "finish_reason": reasons[-1]}


def step_two_at_once(demo: Demo) -> None:
    until("both providers free", 60, lambda: len(offers(demo)) == 2)
    demo.say(f'\n$ ayni ask "{STORY}" &    (at quinoa, twice at once)')
    words = demo.command("ask", "--max-tokens", "160", "--json", STORY)
    both = [Stream(words, None), Stream(words, None)]
    until("two jobs running", 30, lambda: len(running(demo)) == 2)
    taken = sorted(job["peer_name"] for job in running(demo))
    demo.say(f"running at: {' and '.join(taken)}")
    check(taken == ["maize", "potato"], f"the two jobs went to {taken}")
    third = subprocess.run(
        demo.command("ask", "--max-tokens", "8", QUESTION), capture_output=True, text=True
    )
    demo.say(f'$ ayni ask "{QUESTION}"    (a third)\n{third.stderr.strip()}')
    check(third.returncode == 1, f"the third ended with status {third.returncode}")
    check("BUSY" in third.stderr, f"the third was refused with: {third.stderr.strip()}")
    ends = []
    for stream in both:
        status, text, errors = stream.finish(180)
        check(status == 0, f"one of the two failed: {errors or text}")
        ends.append(json.loads(text))
    for end in ends:
        demo.say(
            f"{end['provider_name']}: {end['output_tokens']} tokens, "
            f"{end['tokens_per_second']:.1f} tokens/s, {end['cost_credits']} credits"
        )
    demo.figures["two_at_once"] = {
        "providers": taken,
        "third": "BUSY",
        "tokens_per_second": [end["tokens_per_second"] for end in ends],
    }


def running(demo: Demo) -> list[dict[str, Any]]:
    return [job for job in demo.read("jobs") if job["state"] == "running"]


def step_kill(demo: Demo) -> None:
    demo.log = demo.folder / "maize" / "up.log"
    until("maize free", 60, lambda: "maize" in offers(demo))
    demo.say(f'\n$ ayni ask --provider maize "{STORY}"    (at quinoa)')
    words = demo.command("ask", "--provider", "maize", "--max-tokens", "400", STORY)
    stream = Stream(words, demo.out)
    check(stream.wait_for_piece(60) != b"", "no answer came")
    [line] = [one for one in demo_money.lines(demo, "quinoa", "maize") if one["state"] == "open"]
    had = demo_money.moved(demo, "maize")
    until("more vouchers", 60, lambda: demo_money.moved(demo, "maize") >= had + VOUCHERS_WORTH)
    demo.remember_processes()
    pid = demo.nodes["maize"]["pid"]
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    status, _, errors = stream.finish(30)
    told = time.monotonic() - killed_at
    demo.say(f"\n$ kill -9 {pid}    (maize, in mid-answer)\n{errors.strip()}")
    check(status == 1, f"the broken answer ended with status {status}")
    check("LOST" in errors, f"the loss was told as: {errors.strip()}")
    [left] = [one for one in demo_money.lines(demo, "quinoa", "maize") if one["state"] == "open"]
    check(left["channel"] == line["channel"], "the channel is another")
    demo.killed = {"channel": left["channel"], "had": had, "signed": left["moved_microcredits"]}
    demo.log = demo.folder / "quinoa" / "up.log"
    fresh = demo.read("ask", "--max-tokens", "24", QUESTION)
    check(fresh.get("provider_name") == "potato", f"the fresh job went wrong: {fresh}")
    demo.say(f"A fresh job went to {fresh['provider_name']}: {fresh['output_tokens']} tokens.")
    demo.killed_at = killed_at
    demo.figures["kill"] = {
        "seconds_until_told": round(told, 2),
        "fresh_job_at": fresh["provider_name"],
    }


def see_maize_dropped(demo: Demo) -> None:
    """A testnet's adverts live 20 s, and the last one may have come as it died."""
    until("maize gone from `ayni peers`", 30, lambda: "maize" not in names(demo))
    demo.figures["kill"]["seconds_until_dropped"] = round(time.monotonic() - demo.killed_at, 1)
    demo.show("peers")


def names(demo: Demo) -> set[str]:
    return {peer["name"] for peer in demo.read("peers")}


def stop(demo: Demo) -> None:
    demo.remember_processes()
    began = time.monotonic()
    subprocess.run([str(AYNI), "--home", str(demo.folder), "testnet", "down"], capture_output=True)
    seconds = time.monotonic() - began
    demo.figures["stop_seconds"] = round(seconds, 2)
    left = demo.left_behind()
    check(not left, f"these processes are left behind: {left}")
    check(seconds <= STOP_SECONDS_MAX, f"stopping took {seconds:.1f} s")


def step_paid(demo: Demo) -> None:
    demo_money.step_paid(demo, demo.wallets_before)


def step_settled(demo: Demo) -> None:
    demo_money.step_settled(demo, demo.wallets_before)


def step_witnesses_down(demo: Demo) -> None:
    demo_money.step_witnesses_down(demo, kill, start_again)


def kill(demo: Demo, name: str) -> None:
    demo.remember_processes()
    process = psutil.Process(demo.nodes[name]["pid"])
    process.kill()
    demo.say(f"\n$ kill -9 {process.pid}    ({name})")
    until(f"the end of {name}", 10, lambda: is_over(process))


def start_again(demo: Demo, name: str) -> None:
    """`testnet up` starts those that do not run; maize, which was killed before, comes too."""
    see_maize_dropped(demo)
    demo.say(f"\n$ ayni testnet up    ({name} comes back)")
    testnet_up(demo)


STEPS: list[tuple[str, Callable[[Demo], None]]] = [
    ("quinoa sees three peers and what they offer", step_peers),
    ("a question is answered by another node, token by token", step_ask),
    ("the same through the OpenAI API, with curl", step_curl),
    ("two at once go to two nodes, a third is told to wait", step_two_at_once),
    ("quinoa has paid maize and potato, by vouchers, while they answered", step_paid),
    ("a channel is settled, and credits are sent", step_settled),
    ("oca, which took no part, verifies every chain from genesis", demo_money.step_verified),
    ("anyone can verify an export offline; one flipped bit is found", demo_money.step_offline),
    ("forged entries are refused, and a contradiction leaves a proof", demo_money.step_forged),
    ("a provider is killed in mid-answer", step_kill),
    ("with two of four witnesses jobs go on; a settlement waits", step_witnesses_down),
    ("the killed provider is paid for what it delivered", demo_money.step_paid_after_kill),
]


def get_model(quiet: bool) -> None:
    """With a progress bar, unless it is there."""
    done = subprocess.run(
        [str(AYNI), "models", "--fetch", MODEL],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr if quiet else done.returncode)


def run(demo: Demo, keep: bool) -> str | None:
    """None when all held, else what did not."""
    number, title = 0, "the testnet starts"
    try:
        start(demo)
        for number, (title, step) in enumerate(STEPS, 1):
            demo.say(f"\n== {number}. {title}")
            step(demo)
            demo.say(f"== {number} held")
        if not keep:
            number, title = len(STEPS) + 1, "everything stops, and nothing is left behind"
            demo.say(f"\n== {number}. {title}")
            stop(demo)
            demo.say(f"== {number} held: {demo.figures['stop_seconds']} s")
        return None
    except Broken as broken:
        demo.say(f"\nStep {number} ({title}) did not hold: {broken}\n{log_tail(demo.log)}")
        return f"step {number}: {broken}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures only, as JSON")
    parser.add_argument("--keep", action="store_true", help="leave the testnet up at the end")
    chosen = parser.parse_args()
    get_model(chosen.json)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="ayni-demo-"))
    with open(os.devnull, "w") as nowhere:
        demo = Demo(folder, nowhere if chosen.json else sys.stdout)
        failure: str | None = "interrupted"
        try:
            failure = run(demo, chosen.keep)
        finally:
            if failure or not chosen.keep:
                command = [str(AYNI), "--home", str(folder), "testnet", "down"]
                subprocess.run(command, capture_output=True)
        if chosen.keep and not failure:
            demo.say(
                f"\nThe testnet goes on. Talk to it:\n  .venv/bin/ayni --home {folder}/quinoa "
                f'ask "..."\nand end it:\n  .venv/bin/ayni --home {folder} testnet down'
            )
        demo.figures["total_seconds"] = round(time.monotonic() - began, 1)
        demo.say()
    result = {"held": failure is None, "failure": failure, "logs": str(folder), **demo.figures}
    if not failure and not chosen.keep:
        shutil.rmtree(folder)
        del result["logs"]
    print(json.dumps(result), flush=True)
    return 0 if failure is None else 1


if __name__ == "__main__":
    sys.exit(main())
