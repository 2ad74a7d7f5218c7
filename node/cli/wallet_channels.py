"""`ayni wallet channels` and `ayni wallet settle`: what is locked where, and what happens next."""

import click

from node.api.channel_views import CHANNEL_DIGITS, CHANNEL_DIGITS_MIN, ChannelLine
from node.cli.client import Daemon, connect
from node.cli.ledger_words import SHORT_DIGITS, credits_words, lack_words, party_words
from node.cli.session import Session, Verb
from node.cli.words import count_words, time_words
from protocol.errors import Code, LocalError
from protocol.units import credits_text

_COLUMNS = ("channel", "role", "with", "funding>", "moved>", "state", "expires", "next")
_ROLES = {"payer": "we pay", "payee": "pays us"}


@click.command(cls=Verb, example="ayni wallet channels")
@click.pass_obj
def channels(session: Session) -> None:
    """List the channels of this node: how each stands, what happens to it next and when."""
    lines = _lines(connect(session.paths))
    if session.output.as_json:
        session.output.json(lines)
    elif lines:
        session.output.table("Channels of this node", _COLUMNS, [_row(line) for line in lines])
    else:
        session.output.line(
            "No channels: this node opens one when it asks for a job that costs something, and "
            "others open theirs to it when they ask it for one."
        )


@click.command(cls=Verb, example="ayni wallet settle 3f9c01ab")
@click.argument("channel")
@click.pass_obj
def settle(session: Session, /, *, channel: str) -> None:
    """Settle CHANNEL now: its id or the first 8 digits or more of it.

    A channel that pays this node is settled by its highest voucher. Of one that this node pays
    from, the provider is asked to settle it; if it never does, this node does so after the expiry.
    """
    daemon = connect(session.paths)
    wanted = _named(channel, _lines(daemon))
    line = daemon.post("/ayni/v1/wallet/settle", ChannelLine, {"channel": wanted})
    if session.output.as_json:
        session.output.json(line)
    else:
        session.output.line(f"{line.channel[:SHORT_DIGITS]}: {line.state}; {step_words(line)}.")


def step_words(line: ChannelLine) -> str:
    """What this node does next with a channel, when, and for whom it waits."""
    when = "" if line.step_ms is None else f" at {time_words(line.step_ms)}"
    lack = f"; {lack_words(line.waits_for, line.quorum)}" if line.waits_for else ""
    back = "" if line.back_ms is None else f"; back by {time_words(line.back_ms)} at the latest"
    lost = f"; {credits_words(line.lost_microcredits)} lost" if line.lost_microcredits else ""
    return f"{line.step}{when}{lack}{back}{lost}"


def _lines(daemon: Daemon) -> tuple[ChannelLine, ...]:
    return daemon.get("/ayni/v1/wallet/channels", tuple[ChannelLine, ...])


def _row(line: ChannelLine) -> tuple[str, ...]:
    final = line.settled_microcredits
    moved = line.moved_microcredits if final is None else final
    return (
        line.channel[:SHORT_DIGITS],
        _ROLES[line.role],
        party_words(line.party),
        credits_text(line.funding_microcredits),
        "?" if moved is None else credits_text(moved),
        line.state,
        time_words(line.expiry_ms),
        step_words(line),
    )


def _named(text: str, lines: tuple[ChannelLine, ...]) -> str:
    """The whole id of the one channel that is meant. Raises LocalError."""
    digits = text.lower()
    if len(digits) == CHANNEL_DIGITS and not set(digits) - set("0123456789abcdef"):
        return digits
    found = [line.channel for line in lines if line.channel.startswith(digits)]
    if len(digits) >= CHANNEL_DIGITS_MIN and len(found) == 1:
        return found[0]
    raise LocalError(
        Code.NOT_FOUND,
        f"{text[:CHANNEL_DIGITS]!r} names {count_words(len(found), 'channel')} of this node; name "
        f"one by the first {CHANNEL_DIGITS_MIN} digits of its id or more, as "
        "`ayni wallet channels --json` shows it.",
    )
