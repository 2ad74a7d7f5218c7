"""`ayni simulate`: many nodes in one process, in virtual time, with everything going wrong."""

import sys

import click

from node.cli.session import Session, Verb
from node.simulator.plan import FAULTS, Options
from node.simulator.settling import Unsafe, walk_many
from node.simulator.shrink import shrink
from node.simulator.simulate import Report
from node.simulator.simulate import simulate as run
from protocol.identity import digest

_EXAMPLE = "ayni simulate --nodes 50 --hours 24 --seed 7 --faults all"


def _faults(ctx: click.Context, option: click.Parameter, value: str) -> frozenset[str]:
    """A callback: `all`, `none`, or names with commas between."""
    if value == "all":
        return frozenset(FAULTS)
    names = frozenset(name for name in value.split(",") if name and value != "none")
    if unknown := names - set(FAULTS):
        raise click.BadParameter(
            f"{', '.join(sorted(unknown))}: no such fault. There are {', '.join(FAULTS)}."
        )
    return names


def _numbers(
    ctx: click.Context, option: click.Parameter, value: str | None
) -> frozenset[int] | None:
    """A callback: the numbers of events, with commas between; `none` for none at all."""
    if value is None:
        return None
    try:
        return frozenset(int(one) for one in value.split(",") if one and value != "none")
    except ValueError:
        raise click.BadParameter("numbers of events, with commas between them.") from None


@click.command(cls=Verb, example=_EXAMPLE)
@click.option("--nodes", type=click.IntRange(2, 500), default=50, show_default=True)
@click.option(
    "--witnesses",
    type=click.IntRange(1, 64),
    default=7,
    show_default=True,
    help="Of the nodes; a third of them less one may be dishonest.",
)
@click.option(
    "--hours",
    type=click.FloatRange(0.05, 1000),
    default=24.0,
    show_default=True,
    help="Of virtual time, before all faults heal.",
)
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed, the same run.")
@click.option(
    "--faults",
    default="all",
    show_default=True,
    callback=_faults,
    help=f"all, none, or some of: {', '.join(FAULTS)}.",
)
@click.option(
    "--deeds", type=click.FloatRange(0), default=2.0, show_default=True, help="A node does an hour."
)
@click.option(
    "--fault-rate",
    type=click.FloatRange(0),
    default=4.0,
    show_default=True,
    help="Faults that the whole network has an hour.",
)
@click.option("--only", callback=_numbers, help="Only the events of these numbers happen.")
@click.option("--shrink/--no-shrink", "shrinks", default=True, help="Look for a shorter failure.")
@click.option(
    "--gates",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="off: only settlement, without clocks, through eight turns.",
)
@click.option(
    "--walks", type=click.IntRange(1), default=2000, show_default=True, help="With --gates off."
)
@click.pass_obj
def simulate(
    session: Session,
    *,
    nodes: int,
    witnesses: int,
    hours: float,
    seed: int,
    faults: frozenset[str],
    deeds: float,
    fault_rate: float,
    only: frozenset[int] | None,
    shrinks: bool,
    gates: str,
    walks: int,
) -> None:
    """Run a whole network in this process, in virtual time, with faults drawn from a seed.

    What must hold of money is checked all the time, and at the end that nothing is stuck. Ends
    with status 1 where something does not hold, and tells how to see that run again.
    """
    if gates == "off":
        _walk(session, witnesses, seed, walks)
        return
    options = Options(
        nodes=nodes,
        witnesses=min(witnesses, nodes),
        hours=hours,
        seed=seed,
        faults=faults,
        deeds_per_hour=deeds,
        faults_per_hour=fault_rate,
        only=only,
    )
    report = run(options, progress=lambda at, entries: _tell(session, at, entries))
    _show(session, report)
    if report.is_good:
        return
    if shrinks:
        session.output.remark("Looking for a shorter schedule that fails ...")
        shorter = shrink(report, progress=lambda count: _try(session, count))
        session.output.line(f"Shorter: {shorter.options.command()}")
        session.output.line(f"         {shorter.broken[0] if shorter.broken else ''}")
    sys.exit(1)


def _walk(session: Session, witnesses: int, seed: int, walks: int) -> None:
    output, source = session.output, digest(b"walks", seed.to_bytes(16, "big", signed=True))
    command = f"ayni simulate --gates off --witnesses {witnesses} --walks {walks} --seed {seed}"
    try:
        counts = walk_many(source, witnesses, walks)
    except Unsafe as unsafe:
        if output.as_json:
            output.json({"broken": [str(unsafe)], "again": command})
        output.line(f"Broken: {unsafe}")
        output.line(f"Again:  {command}")
        sys.exit(1)
    told = {
        "walks": counts.walks,
        "settled": counts.settled,
        "rivals_prepared": counts.rivals_prepared,
        "rivals_committed": counts.rivals_committed,
    }
    if output.as_json:
        output.json(told)
    output.facts("Settlement without clocks", [(name, f"{count}") for name, count in told.items()])


def _tell(session: Session, hours: float, entries: int) -> None:
    session.output.remark(f"after {hours:6.2f} h: {entries} certified entries")


def _try(session: Session, count: int) -> None:
    session.output.remark(f"trying {count} events")


def _show(session: Session, report: Report) -> None:
    counts, output = report.counts, session.output
    told = {
        "trace": report.digest,
        "hours": round(report.hours, 3),
        "entries": report.entries,
        "channels": report.channels,
        "settled": report.settled,
        "chunks": report.chunks,
        "vouchers": report.vouchers,
        "jobs": {name[4:]: count for name, count in sorted(counts.items()) if name[:4] == "job "},
        "events": {
            name[6:]: count for name, count in sorted(counts.items()) if name[:6] == "event "
        },
        "messages": sum(count for name, count in counts.items() if name[:5] == "said "),
        "durable_steps": sum(count for name, count in counts.items() if name[:5] == "step "),
        "broken": list(report.broken),
        "again": report.options.command(),
    }
    if output.as_json:
        output.json(told)
        return
    shown = [(name, _words(value)) for name, value in told.items() if name != "broken"]
    output.facts("Simulated", shown)
    for line in report.broken:
        output.line(f"Broken: {line}")
    if report.is_good:
        output.line("Everything held.")


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "none"
    return str(value)
