"""The arithmetic, the plots and the plans of the engine's benchmark; nothing here is timed."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean
from types import ModuleType
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.network.testnet import tiny_weights

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "scripts"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", autouse=True)
def _beside() -> Iterator[None]:
    """As when a script of that folder is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield


def part(name: str) -> ModuleType:
    return importlib.import_module(f"bench_engine_{name}")


def test_the_median_round_counts_on_every_side() -> None:
    figures = part("figures")
    rounds = [
        {"ours": {"decode 1": ours}, "llama.cpp Q4_0": {"decode 1": q0}, "llama.cpp Q4_1": {}}
        for ours, q0 in ((300, 100), (900, 110), (310, 1))
    ]
    assert figures.medians(rounds)["ours"] == {"decode 1": 310}
    (found,) = figures.compare(rounds)
    assert found.comparison.name == "decode_b1_vs_llamacpp"
    assert found.ratio == pytest.approx(3.1)
    assert (found.least, found.greatest) == (3.0, 310)
    assert found.is_met


def test_ours_is_compared_with_the_best_of_the_others_and_missing_a_goal_is_said() -> None:
    figures = part("figures")
    one = {
        "ours": {"decode 8": 190.0},
        "llama.cpp Q4_1": {"decode 8": 50.0},
        "llama.cpp Q4_0": {"decode 8": 100.0},
        "llama.cpp Q8_0": {"decode 8": 900.0},  # Another format: not of like size.
    }
    (found,) = figures.compare([one])
    assert found.ratio == pytest.approx(1.9)
    assert not found.is_met
    rows = figures.ratio_rows([found])
    assert rows[1] == ["decode_b8_vs_llamacpp", "1.90", "1.90 to 1.90", "2.00", "missed"]


def test_every_promise_of_the_issue_has_a_comparison() -> None:
    goals = {one.name: one.goal for one in part("figures").COMPARISONS if one.goal is not None}
    assert goals == {
        "decode_b1_vs_llamacpp": 1.5,
        "decode_b8_vs_llamacpp": 2.0,
        "decode_b32_vs_llamacpp": 1.6,
        "prefill512_vs_llamacpp": 1.3,
        "decode_b1_vs_transformers": 8.0,
        "decode_b8_vs_transformers": 6.0,
        "decode_b1_vs_bandwidth": 0.75,
    }


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from((0.5, 0.9, 0.99, 1.0)))
def test_so_many_values_do_not_pass_a_percentile(values: list[float], share: float) -> None:
    found = part("figures").percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


def test_tables_have_a_dash_for_what_was_not_measured() -> None:
    figures = part("figures")
    rows = figures.rate_rows({"ours": {"decode 1": 312.4}, "other": {}}, ["decode 1", "decode 2"])
    assert rows[1:] == [["ours", "312", "-"], ["other", "-", "-"]]
    assert figures.text_table(rows)[1] == "ours                  312         -"
    assert figures.markdown_table(rows)[1] == "| --- | ---: | ---: |"


@given(st.floats(1e-6, 1e9))
def test_the_marks_of_an_axis_are_few_and_reach_the_greatest_value(greatest: float) -> None:
    marks = part("plots").ticks(greatest)
    assert marks[0] == 0
    assert marks[-1] >= greatest * (1 - 1e-6)
    assert 3 <= len(marks) <= 12


@given(st.lists(st.floats(0, 400), max_size=12), st.floats(1, 30))
def test_names_at_the_ends_of_lines_do_not_touch(places: list[float], pitch: float) -> None:
    moved = part("plots").spread(places, pitch)
    ordered = sorted(moved)
    assert all(b - a >= pitch - 1e-6 for a, b in pairwise(ordered))
    assert all(new >= old for old, new in zip(places, moved, strict=True))


def test_plots_are_whole_svg_with_a_line_and_a_bar_for_each_name() -> None:
    plots = part("plots")
    series = {"ours <native>": {1.0: 300.0, 8.0: 1200.0}, "other": {1.0: 150.0}}
    lines = ElementTree.fromstring(plots.lines_plot("Decoding", "at once", series))
    dots = lines.findall(f"{SVG}circle")
    assert len(dots) == 3
    heights = [float(dot.attrib["cy"]) for dot in dots]
    assert heights[1] < heights[0] < heights[2]  # Up is more.
    assert "ours <native>" in [text.text for text in lines.findall(f"{SVG}text")]
    bars = ElementTree.fromstring(plots.bars_plot("Prefill", {"a": 50.0, "b": 100.0}, "tok/s"))
    widths = [float(bar.attrib["width"]) for bar in bars.findall(f"{SVG}rect")]
    assert widths[1] == pytest.approx(2 * widths[0])


def test_the_same_seed_gives_the_same_requests_at_any_rate() -> None:
    load = part("load")
    slow, fast = load.plan(3, 400, 1.0), load.plan(3, 400, 4.0)
    assert [one.prompt for one in slow] == [one.prompt for one in fast]
    assert slow[-1].at_seconds == pytest.approx(4 * fast[-1].at_seconds)
    assert slow[-1].at_seconds == pytest.approx(400, rel=0.2)
    words = [len(one.prompt.split()) for one in slow]
    assert 20 <= min(words) <= 30
    assert 700 <= max(words) <= 800
    assert mean(words) == pytest.approx(load.mean_tokens(load.PROMPT_TOKENS), rel=0.15)


def test_a_slot_that_is_taken_is_waited_for_and_the_wait_counts() -> None:
    load = part("load")
    answers = [load.Answer(0.0, (1.0, 1.5)), load.Answer(0.5, (2.5, 2.75, 3.0))]
    found = load.load_figures(answers)
    assert found["first_token_ms"] == {"p50": 1000, "p99": 2000}
    assert found["between_tokens_ms"] == {"p50": 250, "p99": 500}
    assert found["tokens_per_second"] == pytest.approx(5 / 3, abs=0.05)


async def test_no_more_requests_are_on_their_way_than_there_are_slots(
    autojump_clock: object,
) -> None:
    import trio

    load = part("load")
    running, most = 0, 0

    class Slow:
        async def answer(self, prompt: str, tokens: int) -> list[float]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await trio.sleep(10)
            running -= 1
            return [trio.current_time()] * tokens

    answers = await load.drive(Slow(), load.plan(1, 3 * load.SLOTS, 1000.0))
    assert most == load.SLOTS
    firsts = sorted(round(answer.times[0] - answer.asked) for answer in answers)
    assert firsts == [10] * load.SLOTS + [20] * load.SLOTS + [30] * load.SLOTS


def figures_of_a_run() -> dict[str, object]:
    rates = {"decode 1": 300.0, "decode 8": 1200.0, "prefill 512": 2500.0}
    contest = {
        "engine": "native (avx2, 2 threads)",
        "rounds": [{"ours": rates, "llama.cpp Q4_0": {k: v / 2 for k, v in rates.items()}}],
        "joules": {},
        "columns": list(rates),
        "threads": 2,
        "load_before": [0.1, 0.2, 0.3],
        "load_after": [1.5, 0.2, 0.3],
    }
    return {
        "machine": {"processor": "A", "cores": 2, "flags": ["avx2"], "torch": "2.13"},
        "date": "2026-11-23",
        "small": contest,
    }


def test_the_tables_of_the_paper_are_replaced_and_its_words_are_kept(tmp_path: Path) -> None:
    report, figures = part("report"), figures_of_a_run()
    paper = tmp_path / "engine.md"
    paper.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        report.write_docs(figures, tmp_path)
    text = paper.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.count("| ours | 300 | 1200 | 2500 |") == 1
    assert "| decode_b8_vs_llamacpp | 2.00 |" in text
    for name in ("engine_small_decode", "engine_small_prefill"):
        assert f"({name}.svg)" in text
        ElementTree.parse(tmp_path / f"{name}.svg")
    assert report.flat(figures)["prefill512_vs_llamacpp"] == 2.0


def test_texts_to_embed_are_of_all_lengths_and_none_is_cut() -> None:
    extras = part("extras")
    texts = extras.sentences()
    assert len(texts) == extras.TEXTS
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) < 8
    assert 40 < max(lengths) <= extras.TEXT_WORDS_MAX


@pytest.mark.parametrize("script", ["bench_engine.py", "bench_engine_peers.py"])
def test_it_says_how_it_is_used(script: str) -> None:
    done = subprocess.run(
        [sys.executable, f"scripts/{script}", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.slow
def test_our_engines_do_all_that_is_asked_of_them(tmp_path: Path) -> None:
    weights = tiny_weights(tmp_path / "tiny.gguf")
    asked = {"batches": [1, 3], "prompt_tokens": 8, "decode_tokens": 4, "prefills": [40]}
    for engine in ("torch", "auto"):
        done = subprocess.run(
            [sys.executable, "scripts/bench_engine_ours.py", str(weights), engine, "1", "4"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            input=json.dumps(asked),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        ready, rates = map(json.loads, done.stdout.splitlines())
        assert ready["weight_bytes"] > 0
        assert rates.keys() == {"decode 1", "decode 3", "prefill 40"}
        assert all(rate > 0 for rate in rates.values())


@pytest.mark.slow
async def test_the_real_worker_is_driven_through_its_pipe(tmp_path: Path) -> None:
    load, worker_part = part("load"), part("worker")
    plan = worker_part.WorkerPlan(tiny_weights(tmp_path / "tiny.gguf"), 1)
    arrivals = [load.Arrival(0.0, "salt", tokens) for tokens in (1, 5, 20)]
    async with worker_part.open_worker(plan) as worker:
        answers = await load.drive(worker, arrivals)
    assert sorted(len(answer.times) for answer in answers) == [1, 5, 20]
    assert all(answer.asked < min(answer.times) for answer in answers)
