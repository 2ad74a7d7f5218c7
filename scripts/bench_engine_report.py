"""What the engine's benchmark found, for people: tables, plots, the part of docs/engine.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench_engine_figures import (
    BANDWIDTH,
    Found,
    compare,
    markdown_table,
    medians,
    number,
    rate_rows,
    ratio_rows,
    text_table,
)
from bench_engine_plots import bars_plot, lines_plot

BEGIN: Final = "<!-- Written by `scripts/bench_engine.py --docs`; do not edit below. -->"
END: Final = "<!-- End of what is written. -->"


@dataclass(frozen=True, slots=True)
class Section:
    """A table with its heading, and what must be known to read it."""

    title: str
    notes: Sequence[str]
    rows: Sequence[Sequence[str]]
    plot: str = ""  # The name of its file.


def ratios(figures: Mapping[str, Any]) -> list[Found]:
    return compare(figures["small"]["rounds"])


def flat(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the last line of `--json` that are compared with goals."""
    found = {one.comparison.name: round(one.ratio, 3) for one in ratios(figures)}
    if "large" in figures:
        for one in compare(figures["large"]["rounds"]):
            found[f"large_{one.comparison.name}"] = round(one.ratio, 3)
    return found


def _load_note(part: Mapping[str, Any]) -> str:
    before, after = (", ".join(map(str, part[name])) for name in ("load_before", "load_after"))
    return f"Load average before {before}; after {after} (this benchmark itself included)."


def contest_sections(title: str, part: Mapping[str, Any], plot: str) -> list[Section]:
    rounds = part["rounds"]
    counted = f"Median of {len(rounds)} rounds, threads: {part['threads']}. {_load_note(part)}"
    rates = rate_rows(medians(rounds), part["columns"])
    found = [
        Section(title, (f"Ours is {part['engine']}.", counted), rates, plot),
        Section(f"{title}: ratios", (), ratio_rows(compare(rounds))),
    ]
    if part["joules"]:
        rows = [["joules of one round", "median"]]
        rows += [[name, number(median(used))] for name, used in part["joules"].items()]
        found.append(Section(f"{title}: energy of the processor's package", (), rows))
    return found


def load_section(name: str, part: Mapping[str, Any]) -> Section:
    head = ["", "tokens/s", *(f"first token, {p}" for p in ("p50", "p99"))]
    rows = [[*head, *(f"between tokens, {p}" for p in ("p50", "p99"))]]
    for server, found in part["servers"].items():
        first, between = found["first_token_ms"], found["between_tokens_ms"]
        waits = [f"{number(one[p])} ms" for one in (first, between) for p in ("p50", "p99")]
        rows.append([server, number(found["tokens_per_second"]), *waits])
    asked = f"{part['requests']} requests, {part['per_second']:.2f} a second on average"
    return Section(f"Mixed load, {name}", (f"{asked}. {_load_note(part)}",), rows)


def start_section(part: Mapping[str, Any]) -> Section:
    rows = [["seconds from the start of the process", "loaded", "first token", "own", "of files"]]
    for name, found in part.items():
        if isinstance(found, Mapping):
            memory = [f"{found['memory'].get(kind, 0)} MiB" for kind in ("own", "of_files")]
            loaded = number(found.get("loaded"))
            rows.append([name, loaded, number(found["first_token"]), *memory])
    note = f"Of ours, `import torch` alone takes {number(part['import_torch'])} s."
    return Section("Starting up, and memory", (note,), rows)


def guessing_section(part: Mapping[str, Any]) -> Section:
    rows = [["prompt lookup on / off", *(f"batch {batch}" for batch in (1, 2))]]
    for kind, found in part["gains"].items():
        rows.append([kind, *(number(found[f"batch {batch}"]) for batch in (1, 2))])
    return Section("Guessing tokens ahead", (_load_note(part),), rows)


def embedding_section(part: Mapping[str, Any]) -> Section:
    rows = [["MiniLM-L6", "sentences a second", "least cosine"]]
    for name, rate in part["sentences_per_second"].items():
        rows.append([name, number(rate), f"{part['cosine_min'][name]:.5f}"])
    notes = (f"{part['texts']} sentences. {_load_note(part)}",)
    return Section("Sentence vectors", notes, rows, "vectors")


def sections(figures: Mapping[str, Any]) -> list[Section]:
    """All tables that there are figures for."""
    found = contest_sections("SmolLM2-135M", figures["small"], "small")
    if "large" in figures:
        found += contest_sections("A Llama of 1B, random weights", figures["large"], "large")
    found += [load_section(name, part) for name, part in figures.get("loads", {}).items()]
    for name, section in (
        ("start_up", start_section),
        ("guessing", guessing_section),
        ("embedding", embedding_section),
    ):
        if name in figures:
            found.append(section(figures[name]))
    return found


def machine_line(figures: Mapping[str, Any]) -> str:
    machine = figures["machine"]
    return (
        f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['flags'])}), "
        f"torch {machine['torch']}, {figures['date']}. Joules: "
        f"{'see below' if figures['small']['joules'] else 'not measurable here'}."
    )


def text_lines(figures: Mapping[str, Any]) -> list[str]:
    """For a terminal."""
    lines = [machine_line(figures)]
    for section in sections(figures):
        lines += ["", f"== {section.title}", *section.notes, *text_table(section.rows)]
    return lines


def plots(figures: Mapping[str, Any]) -> dict[str, str]:
    """SVG by file name, without its end."""
    drawn = {}
    for name, title in (("small", "SmolLM2-135M"), ("large", "a Llama of 1B")):
        if name not in figures:
            continue
        rates = medians(figures[name]["rounds"])
        drawn[f"engine_{name}_decode"] = lines_plot(
            f"Decoding {title}: tokens a second, all sequences together",
            "sequences at once",
            {
                engine: {
                    float(done.split()[1]): rate
                    for done, rate in by_done.items()
                    if done.startswith("decode")
                }
                for engine, by_done in rates.items()
                if engine != BANDWIDTH
            },
        )
        drawn[f"engine_{name}_prefill"] = bars_plot(
            f"Reading a prompt of 512 tokens, {title}: tokens a second",
            {e: by["prefill 512"] for e, by in rates.items() if "prefill 512" in by},
            "",
        )
    if "embedding" in figures:
        drawn["engine_vectors"] = bars_plot(
            "Sentence vectors, MiniLM-L6: sentences a second",
            figures["embedding"]["sentences_per_second"],
            "",
        )
    return drawn


def docs_text(figures: Mapping[str, Any]) -> str:
    """The part of docs/engine.md between BEGIN and END."""
    lines = [BEGIN, "", f"Measured on: {machine_line(figures)}", ""]
    drawn = plots(figures)
    for section in sections(figures):
        lines += [f"### {section.title}", ""]
        for name in drawn:
            if section.plot and name.startswith(f"engine_{section.plot}"):
                lines += [f"![{section.title}]({name}.svg)", ""]
        lines += [*section.notes, ""] if section.notes else []
        lines += [*markdown_table(section.rows), ""]
    return "\n".join([*lines, END])


def write_docs(figures: Mapping[str, Any], folder: Path) -> None:
    """Plots beside engine.md, tables into it; the rest of it is for people to write."""
    for name, drawn in plots(figures).items():
        (folder / f"{name}.svg").write_text(drawn, encoding="utf-8")
    path = folder / "engine.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(before + docs_text(figures) + after, encoding="utf-8")


def goal_lines(figures: Mapping[str, Any]) -> list[str]:
    """One line for each promise."""
    return [
        f"{one.comparison.name}: {number(one.ratio)} (goal {number(one.comparison.goal)}: "
        f"{'met' if one.is_met else 'MISSED'})"
        for one in ratios(figures)
        if one.comparison.goal is not None
    ]
