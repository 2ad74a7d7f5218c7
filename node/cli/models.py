"""`ayni models`: those that run somewhere, those that could, and adding one's own."""

from collections.abc import Sequence

import click

from node.api.views import KnownModel, Models
from node.cli.client import connect
from node.cli.fetch import fetch_model
from node.cli.lists import offer_cells
from node.cli.session import Session, Verb, VerbWithVerbs
from node.cli.words import bytes_words, mode_words
from node.config import load
from protocol.units import credits_text

_OFFER_COLUMNS = ("model", "credits/M in / out", "tokens/s in / out>", "free slots>")


@click.group(cls=VerbWithVerbs, example="ayni models add ~/models/my-model.gguf")
@click.option("--fetch", metavar="NAME", help="Get this model's files; no node need run for that.")
@click.pass_context
def models(ctx: click.Context, fetch: str | None) -> None:
    """List models: served here, offered in the network, and in the catalogue."""
    if ctx.invoked_subcommand is not None:
        return
    session: Session = ctx.obj
    if fetch is not None:
        _fetch(session, fetch)
        return
    found = connect(session.paths).get("/ayni/v1/models", Models)
    output = session.output
    if output.as_json:
        output.json(found)
        return
    _part(session, "Served here", _OFFER_COLUMNS, [offer_cells(offer) for offer in found.served])
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
        ", ".join(mode_words(mode) for mode in known.modes),
        f"{price_in} / {credits_text(known.price_out_microcredits)}",
        str(known.context_tokens),
        str(known.providers),
        str(known.slots_free),
    )


@models.command(cls=Verb, example="ayni models add ~/models/my-model.gguf --name my-model")
@click.argument("place", metavar="PATH-OR-REPOSITORY")
@click.option("--name", default="", help="What others order it by; from the files where left out.")
@click.option("--licence", default="", help="From the files where left out.")
@click.pass_obj
def add(session: Session, place: str, name: str, licence: str) -> None:
    """Add a model of your own to this node's catalogue; no node need run for that.

    It is a GGUF file, a folder with safetensors, config.json and tokenizer.json, or the OWNER/NAME
    of a Hugging Face repository that is in its cache on this machine. Its files stay where they
    are; they are read through once, for their digests.
    """
    from node.models.adding import Wanted, described
    from node.models.adding import add as write
    from node.models.hub import hub_folder

    paths, _ = load(session.home)
    wanted, records = Wanted(place, name, licence), paths.models_folder / "checked"
    session.output.remark(f"Reading {place} for its digests ...")
    model = described(wanted, hub_folder(), records, lambda done: None)
    write(paths.models_file, model)
    model_id = model.model_id
    assert model_id is not None
    if session.output.as_json:
        session.output.json({"name": model.name, "model": model_id.hex()})
    else:
        session.output.line(
            f"{model.name} is in {paths.models_file} now. To share it, name it in `models` under "
            "[share] in the settings, and start the node again."
        )
