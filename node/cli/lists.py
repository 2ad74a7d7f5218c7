"""`ayni peers` and `jobs`."""

import click

from node.api.views import JOBS_DEFAULT, JOBS_MAX, Job, Offer, Peer
from node.cli.client import connect
from node.cli.session import Session, Verb
from node.cli.words import (
    count_words,
    hardware_words,
    mode_words,
    node_words,
    price_words,
    rate_words,
    span_words,
    time_words,
)
from protocol.job.kinds import MODEL_EMBEDS
from protocol.units import credits_text

_PEER_COLUMNS = (
    *("node", "link", "hardware", "model", "credits/M in / out"),
    *("tokens/s in / out>", "free slots>", "advert age>"),
)


@click.command(cls=Verb, example="ayni peers --json")
@click.pass_obj
def peers(session: Session) -> None:
    """List the other nodes, their hardware, models and prices."""
    known = connect(session.paths).get("/ayni/v1/peers", tuple[Peer, ...])
    if session.output.as_json:
        session.output.json(known)
        return
    if not known:
        session.output.line(
            "No other node is known yet. Give a friend the network file: `ayni network invite`."
        )
        return
    rows = [row for peer in known for row in _peer_rows(peer)]
    session.output.table(count_words(len(known), "peer"), _PEER_COLUMNS, rows)


def _peer_rows(peer: Peer) -> list[tuple[str, ...]]:
    """One row for each model; the first also tells of the node."""
    link = "connected" if peer.connected else "apart"
    if peer.round_trip_ms is not None:
        link += f", {peer.round_trip_ms} ms"
    name = node_words(peer.name, peer.node)
    who = (f"{name}, {peer.region}" if peer.region else name, link, hardware_words(peer.hardware))
    age = "" if peer.advert_age_ms is None else span_words(peer.advert_age_ms)
    if not peer.offers:
        said = {"": "?", "on": "none now", "off": "shares nothing"}
        return [(*who, said.get(peer.sharing, peer.sharing), "", "", "", age)]
    first, *others = peer.offers
    return [
        (*who, *offer_cells(first), age),
        *(("", "", "", *offer_cells(offer), "") for offer in others),
    ]


def offer_cells(offer: Offer) -> tuple[str, str, str, str]:
    prefill = rate_words(offer.prefill_millitokens_per_second)
    decode = offer.decode_millitokens_per_second
    return (
        f"{offer.name}, {mode_words(offer.mode)}",
        price_words(offer),
        prefill if offer.kind == MODEL_EMBEDS else f"{prefill} / {rate_words(decode)}",
        f"{offer.slots_free}/{offer.slots}",
    )


@click.command(cls=Verb, example="ayni jobs --limit 5")
@click.option("--limit", type=click.IntRange(1, JOBS_MAX), default=JOBS_DEFAULT, show_default=True)
@click.pass_obj
def jobs(session: Session, limit: int) -> None:
    """List running and past jobs: counts and money, never text."""
    found = connect(session.paths).get("/ayni/v1/jobs", tuple[Job, ...], limit=str(limit))
    if session.output.as_json:
        session.output.json(found)
        return
    if not found:
        session.output.line('No jobs yet: try `ayni ask "Why is the sky blue?"`.')
        return
    columns = (
        *("began", "job", "role", "with", "model", "state", "tokens in>", "out>"),
        *("credits>", "first token>", "in all>"),
    )
    session.output.table("Jobs", columns, [_job_row(job) for job in found])


def _job_row(job: Job) -> tuple[str, ...]:
    return (
        time_words(job.started_at_ms),
        job.job[:8],
        "asked" if job.role == "requester" else "answered",
        node_words(job.peer_name, job.peer),
        job.model,
        f"{job.state} {job.code}".rstrip(),
        str(job.input_tokens),
        str(job.output_tokens),
        credits_text(job.cost_microcredits),
        "" if job.ms_first is None else f"{job.ms_first} ms",
        "" if job.ms_total is None else f"{job.ms_total} ms",
    )
