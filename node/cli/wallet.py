"""`ayni wallet`: this node's credits, where they went, and sending some."""

import sys

import click

from node.api.ledger_views import (
    LINES_DEFAULT,
    LINES_MAX,
    WAIT_MS_DEFAULT,
    HistoryLine,
    Sent,
    Wallet,
)
from node.cli.client import Daemon, connect
from node.cli.ledger_words import (
    SHORT_DIGITS,
    change_words,
    credits_words,
    debts_words,
    locked_words,
    party_words,
    seals_lack,
    settlement_words,
    waiting_words,
)
from node.cli.options import account_id, credits_given, is_node_id
from node.cli.session import Session, VerbWithVerbs
from node.cli.wallet_channels import channels, settle
from node.cli.words import count_words
from protocol.errors import Code, LocalError
from protocol.units import credits_text

_COLUMNS = ("seq>", "what", "credits>", "with", "reference", "balance>", "seals>", "state")
_MAY_BE_SENT = (
    "The payment may have been made all the same: see `ayni wallet` and `ayni wallet history` "
    "before you send it again."
)
_WHAT = {"pay": "paid", "claim": "claimed", "open": "into channel", "topup": "into channel"}


@click.group(cls=VerbWithVerbs, example="ayni wallet")
@click.pass_context
def wallet(ctx: click.Context) -> None:
    """Show this node's credits: what it has, earns, owes, and what waits for whom."""
    if ctx.invoked_subcommand is not None:
        return
    session: Session = ctx.obj
    now = connect(session.paths).get("/ayni/v1/wallet", Wallet)
    if session.output.as_json:
        session.output.json(now)
    else:
        show_wallet(session, now)


wallet.add_command(channels)
wallet.add_command(settle)


def show_wallet(session: Session, now: Wallet) -> None:
    """For a person."""
    waiting = [waiting_words(one) for one in now.waiting]
    waiting += [settlement_words(one) for one in now.settlements]
    session.output.facts(
        f"Wallet of {now.account.name or 'node'} {now.account.node}",
        [
            ("balance", credits_words(now.balance_microcredits)),
            ("pending", f"{credits_words(now.pending_microcredits)} on their way to others"),
            ("reserved", f"{credits_words(now.reserved_microcredits)} for orders that run"),
            ("spendable", credits_words(now.spendable_microcredits)),
            ("locked", locked_words(now.locked)),
            ("earned", earned_words(now)),
            ("owed to us", debts_words(now.owed_to_us)),
            ("lost", lost_words(now.lost_microcredits)),
            ("waiting", "\n".join(waiting) or "nothing"),
            ("state", state_words(now)),
        ],
    )


def earned_words(now: Wallet) -> str:
    """What is ours and not part of the balance yet."""
    settled = credits_words(now.claimable_microcredits)
    return f"{credits_words(now.earned_microcredits)} not settled yet, and {settled} to be claimed"


def lost_words(lost: int) -> str:
    """What nobody paid."""
    return f"{credits_words(lost)}, delivered and never paid" if lost else "nothing"


def state_words(now: Wallet) -> str:
    """Whether the ledger goes on, and else why not and what to do."""
    if now.trouble:
        return f"{now.trouble}: {now.sentence}\n{now.remedy}".rstrip()
    if now.ready:
        return f"in order, {count_words(now.seq, 'entry', 'entries')}"
    return (
        f"not ready: it asks the witnesses for the end of its chain, and signs nothing new before "
        f"{now.quorum} of {now.witnesses} have answered"
    )


def _digest(ctx: click.Context, option: click.Parameter, value: str) -> str:
    text = value.lower()
    if text and (len(text) != 64 or set(text) - set("0123456789abcdef")):
        raise click.BadParameter("a digest is 64 hex digits")
    return text


@wallet.command(example="ayni wallet send maize 2.5")
@click.argument("node")
@click.argument("amount", callback=credits_given)
@click.option(
    "--note-digest",
    default="",
    metavar="HEX",
    callback=_digest,
    help="32 bytes that the payment will show for ever: the digest of an invoice.",
)
@click.option("--no-wait", is_flag=True, help="Return when it is on disk; do not see it certified.")
@click.option("--yes", is_flag=True, help="Do not ask whether NODE is the right one.")
@click.pass_obj
def send(
    session: Session, /, *, node: str, amount: int, note_digest: str, no_wait: bool, yes: bool
) -> None:
    """Send AMOUNT credits to NODE: its name, id, or the beginning or end of its id.

    The payment is on disk when this returns, and will be certified whatever restarts. A name is
    what a node calls itself: at a terminal you are shown the id that it means.
    """
    if not amount:
        raise click.UsageError("The least that can be sent is 0.000001 credits.")
    daemon = connect(session.paths)
    to = account_id(daemon, node)
    if not yes and not is_node_id(node) and sys.stdin.isatty() and not session.output.as_json:
        question = f"Send {credits_words(amount)} to {node}, which is {to}?"
        click.confirm(question, abort=True, err=True)
    sent = _sent(
        daemon,
        {
            "to": to,
            "amount_microcredits": amount,
            "note_digest": note_digest,
            "wait_ms": 0 if no_wait else WAIT_MS_DEFAULT,
        },
    )
    if session.output.as_json:
        session.output.json(sent)
        return
    name = f"{sent.to.name}, {sent.to.node}" if sent.to.name else sent.to.node
    what = f"{credits_words(sent.amount_microcredits)} to {name}"
    if sent.certified:
        session.output.line(f"Sent {what}: certified.")
        return
    lack = "it will be soon" if sent.waiting is None else seals_lack(sent.waiting)
    session.output.line(
        f"Sending {what}: on disk, and not certified yet ({lack}). Nothing more is to be done; "
        "`ayni wallet` shows how it goes."
    )


def _sent(daemon: Daemon, body: dict[str, str | int]) -> Sent:
    """Raises what the node answers; where no answer came, the error says what to look at."""
    try:
        return daemon.post("/ayni/v1/wallet/send", Sent, body)
    except KeyboardInterrupt:
        raise LocalError(Code.CANCELLED, f"Cancelled. {_MAY_BE_SENT}") from None
    except LocalError as error:
        if error.code is not Code.UNAVAILABLE:
            raise
        raise LocalError(error.code, f"{error.sentence} {_MAY_BE_SENT}") from None


@wallet.command(example="ayni wallet history --limit 5")
@click.option(
    "--limit", type=click.IntRange(1, LINES_MAX), default=LINES_DEFAULT, show_default=True
)
@click.pass_obj
def history(session: Session, limit: int) -> None:
    """List what this node paid and claimed, the newest first."""
    path = "/ayni/v1/wallet/history"
    lines = connect(session.paths).get(path, tuple[HistoryLine, ...], limit=str(limit))
    if session.output.as_json:
        session.output.json(lines)
    elif lines:
        session.output.table("Entries of this node", _COLUMNS, [_row(line) for line in lines])
    else:
        session.output.line(
            "No entries yet: this node has paid nobody and claimed nothing. Share, or be sent some."
        )


def _row(line: HistoryLine) -> tuple[str, ...]:
    return (
        str(line.seq) if line.seq else "",
        _WHAT.get(line.kind, line.kind),
        change_words(line.change_microcredits),
        "several" if line.party is None else party_words(line.party),
        line.reference[:SHORT_DIGITS],
        credits_text(line.balance_microcredits),
        f"{line.seals} of {line.witnesses}",
        line.state,
    )
