"""`ayni peers`, `jobs` and `models`."""

from collections.abc import Sequence

import click

from node.api.views import JOBS_DEFAULT, JOBS_MAX, Job, KnownModel, Models, Offer, Peer
from node.cli.client import connect
from node.cli.fetch import fetch_model
from node.cli.session import Session, Verb
from node.cli.words import (
    bytes_words,
    count_words,
    hardware_words,
    node_words,
    price_words,
    rate_words,
    span_words,
    time_words,
)
from node.config import load
from protocol.units import credits_text

_PEER_COLUMNS = (
    *("node", "link", "hardware", "model", "credits/M in / out"),
    *("tokens/s in / out>", "free slots>", "advert age>"),
)
_OFFER_COLUMNS = ("model", "credits/M in / out", "tokens/s in / out>", "free slots>")


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
        (*who, *_offer_cells(first), age),
        *(("", "", "", *_offer_cells(offer), "") for offer in others),
    ]


def _offer_cells(offer: Offer) -> tuple[str, str, str, str]:
    prefill = rate_words(offer.prefill_millitokens_per_second)
    return (
        f"{offer.name}, {offer.mode}",
        price_words(offer),
        f"{prefill} / {rate_words(offer.decode_millitokens_per_second)}",
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


@click.command(cls=Verb, example="ayni models --fetch smollm2-135m-instruct")
@click.option("--fetch", metavar="NAME", help="Get this model's files; no node need run for that.")
@click.pass_obj
def models(session: Session, fetch: str | None) -> None:
    """List models: served here, offered in the network, and in the catalogue."""
    if fetch is not None:
        _fetch(session, fetch)
        return
    found = connect(session.paths).get("/ayni/v1/models", Models)
    output = session.output
    if output.as_json:
        output.json(found)
        return
    _part(session, "Served here", _OFFER_COLUMNS, [_offer_cells(offer) for offer in found.served])
    columns = ("model", "mode", "credits/M in / out from", "context>", "nodes>", "free slots>")
    _part(session, "In the network", columns, [_known_cells(known) for known in found.known])
    rows = [
        (
            listed.name,
            listed.licence,
            str(listed.context_tokens),
            bytes_words(listed.size_bytes),
            "yes" if listed.cached else "no",
        )
        for listed in found.catalogue
    ]
    _part(session, "Catalogue", ("model", "licence", "context>", "size>", "on disk"), rows)


def _fetch(session: Session, name: str) -> None:
    paths, _ = load(session.home)
    ready = fetch_model(name, paths, session.output)
    if session.output.as_json:
        weights = str(ready.weights)
        session.output.json({"name": ready.name, "model": ready.model.hex(), "weights": weights})
    else:
        session.output.line(f"{ready.name} is on this disk, checked: {ready.weights}")


def _part(
    session: Session, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    if not session.output.for_person:
        session.output.line(f"{title}:")
    if rows:
        session.output.table(title, columns, rows)
    else:
        session.output.line(f"{title}: none" if session.output.for_person else "none")
    session.output.line()


def _known_cells(known: KnownModel) -> tuple[str, ...]:
    price_in = credits_text(known.price_in_microcredits)
    return (
        known.name,
        ", ".join(known.modes),
        f"{price_in} / {credits_text(known.price_out_microcredits)}",
        str(known.context_tokens),
        str(known.providers),
        str(known.slots_free),
    )
