"""`ayni ledger`: verify, export and show what the nodes have signed."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from node.api.ledger_views import (
    ACCOUNTS_SHOWN_MAX,
    LINES_DEFAULT,
    LINES_MAX,
    AccountLine,
    Chain,
    ShownEntry,
    ShownProof,
    Verification,
    Wallet,
)
from node.cli.client import connect
from node.cli.ledger_audit import audit
from node.cli.ledger_offline import verified_file
from node.cli.ledger_words import (
    SHORT_DIGITS,
    change_words,
    credits_words,
    fault_words,
    party_words,
    seals_words,
    what_words,
)
from node.cli.options import account_id
from node.cli.session import Session, VerbGroup
from node.cli.wallet import show_wallet
from node.cli.words import bytes_words, count_words
from protocol.errors import Code, LocalError
from protocol.ledger.audit import Depth
from protocol.units import credits_text

CORES_MAX = 64
_ENTRY_COLUMNS = (
    *("seq>", "entry", "kind", "credits>", "what", "reference", "balance>", "certified by"),
)


@click.group(cls=VerbGroup, epilog="Example: ayni ledger verify")
def ledger() -> None:
    """Verify, export and show who paid whom, from the signatures on."""


ledger.add_command(audit)


@ledger.command(example="ayni ledger verify town.export --genesis field.ayni")
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--genesis",
    metavar="NAME.ayni",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The network that FILE must be of; this home's own, when left out.",
)
@click.option("--heads", is_flag=True, help="Of certificates, check heads' and claimed pays' only.")
@click.option(
    "--cores",
    type=click.IntRange(1, CORES_MAX),
    help="For FILE: so many processors; all, when left out.",
)
@click.pass_context
def verify(
    ctx: click.Context, file: Path | None, genesis: Path | None, heads: bool, cores: int | None
) -> None:
    """Verify what this node has of all accounts; or, with no node at all, the export FILE.

    Signatures, certificates, links, balances and claims are checked from the genesis on. Exit
    status 1 when anything does not hold: each fault is told with its account, place and code.
    """
    session: Session = ctx.obj
    depth = Depth.HEADS if heads else Depth.FULL
    if file is None:
        if genesis is not None or cores is not None:
            raise click.UsageError("--genesis and --cores are for FILE; a node has its own.")
        daemon = connect(session.paths)
        path = "/ayni/v1/ledger/verify"
        found = daemon.post(path, Verification, {"depth": depth.value}, long=True)
    else:
        genesis = genesis or session.paths.network_file
        if not genesis.exists():
            raise click.UsageError("FILE is verified by a genesis: give --genesis NAME.ayni.")
        found = verified_file(file, genesis, depth, cores or 0)
    if session.output.as_json:
        session.output.json(found)
    else:
        _show_verification(session, found)
    if not found.ok:
        ctx.exit(1)


def _show_verification(session: Session, found: Verification) -> None:
    faults = count_words(found.faults_count, "fault")
    balances = credits_words(found.balances_microcredits)
    unclaimed = credits_words(found.pays_unclaimed_microcredits)
    facts = [
        ("network", found.network[:16]),
        ("accounts", str(found.accounts)),
        ("entries", str(found.entries)),
        ("signatures", f"{found.signatures} checked{_depth_words(found)}"),
        ("balances", f"{balances}, and {unclaimed} paid but not claimed yet"),
        ("channels", f"{credits_words(found.channels_microcredits)} in them"),
        ("sum", _sum_words(found)),
    ]
    session.output.facts("All holds." if found.ok else f"{faults}.", facts)
    for fault in found.faults:
        session.output.line(fault_words(fault))
    if found.faults_count > len(found.faults):
        session.output.line(f"... and {found.faults_count - len(found.faults)} more.")


def _depth_words(found: Verification) -> str:
    return "" if found.depth == "full" else ", of certificates heads' and claimed pays' only"


def _sum_words(found: Verification) -> str:
    supply, total = credits_words(found.supply_microcredits), credits_text(found.total_microcredits)
    if not found.ok:
        return f"{total} of a supply of {supply}; it says nothing while there are faults"
    if found.complete:
        return f"{total}, which is the supply"
    return f"{total} of {supply}; not all chains are here, so it need not be the supply"


@ledger.command(example="ayni ledger export town.export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def export(session: Session, file: Path) -> None:
    """Write all chains that this node has to FILE; anyone can verify it with the genesis."""
    if file.exists():
        raise LocalError(Code.IN_USE, f"{file} is there already: name another.")
    with connect(session.paths).download("/ayni/v1/ledger/export") as pieces:
        size = _write(file, pieces)
    if session.output.as_json:
        session.output.json({"file": str(file), "bytes": size})
    else:
        session.output.line(
            f"Wrote {file}, {bytes_words(size)}. Anyone can check it: "
            f"`ayni ledger verify {file} --genesis NAME.ayni`."
        )


def _write(file: Path, pieces: Iterator[bytes]) -> int:
    """All of it or nothing. Raises LocalError UNAVAILABLE."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    size = 0
    try:
        with part.open("xb") as opened:
            for piece in pieces:
                size += opened.write(piece)
        os.replace(part, file)
    except OSError as error:
        raise LocalError(
            Code.UNAVAILABLE, f"{file} cannot be written: {error.strerror}. Name another place."
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return size


@ledger.command(example="ayni ledger show maize --limit 5")
@click.argument("account")
@click.option(
    "--limit", type=click.IntRange(1, LINES_MAX), default=LINES_DEFAULT, show_default=True
)
@click.pass_obj
def show(session: Session, account: str, limit: int) -> None:
    """Show the chain of ACCOUNT, the newest entry first, and who certified each.

    ACCOUNT is a node's name, its id, or the beginning or end of its id.
    """
    daemon = connect(session.paths)
    found = daemon.get(
        "/ayni/v1/ledger/show", Chain, account=account_id(daemon, account), limit=str(limit)
    )
    if session.output.as_json:
        session.output.json(found)
        return
    name = f"{found.account.name} {found.account.node}".strip()
    session.output.facts(
        name,
        [
            ("balance", credits_words(found.balance_microcredits)),
            ("from the genesis", credits_words(found.allocated_microcredits)),
            ("entries", f"{found.seq}, certified by {found.quorum} of {found.witnesses} or more"),
        ],
    )
    if found.entries:
        session.output.table("Entries", _ENTRY_COLUMNS, [_entry_row(one) for one in found.entries])
    if len(found.entries) < found.seq:
        session.output.remark(f"These are {len(found.entries)} of {found.seq}; see --limit.")


def _entry_row(entry: ShownEntry) -> tuple[str, ...]:
    return (
        str(entry.seq),
        entry.entry[:SHORT_DIGITS],
        entry.kind,
        change_words(entry.change_microcredits),
        what_words(entry),
        entry.reference[:SHORT_DIGITS],
        credits_text(entry.balance_microcredits),
        seals_words(entry),
    )


@ledger.command(example="ayni ledger accounts")
@click.option(
    "--limit",
    type=click.IntRange(1, ACCOUNTS_SHOWN_MAX),
    default=ACCOUNTS_SHOWN_MAX,
    show_default=True,
)
@click.pass_obj
def accounts(session: Session, limit: int) -> None:
    """List the accounts that this node knows, the richest first."""
    path = "/ayni/v1/ledger/accounts"
    lines = connect(session.paths).get(path, tuple[AccountLine, ...], limit=str(limit))
    if session.output.as_json:
        session.output.json(lines)
    elif lines:
        rows = [
            (party_words(line.account), credits_text(line.balance_microcredits), str(line.seq))
            for line in lines
        ]
        session.output.table("Accounts", ("account", "credits>", "entries>"), rows)
    else:
        session.output.line("This network has no credits.")


@ledger.command(example="ayni ledger proofs --json")
@click.pass_obj
def proofs(session: Session) -> None:
    """Show proofs of misbehaviour: accounts that signed twice, witnesses that certified twice."""
    found = connect(session.paths).get("/ayni/v1/ledger/proofs", tuple[ShownProof, ...])
    if session.output.as_json:
        session.output.json(found)
        return
    if not found:
        session.output.line("No proof of misbehaviour is known.")
    for proof in found:
        session.output.line(f"{proof.kind}: {proof.account.name} {proof.account.node}")
        session.output.line(proof.sentence)
        columns = ("", *("first", "second")[: len(proof.entries)])
        session.output.table("Signed", columns, _side_by_side(proof.entries))
        session.output.line()


def _side_by_side(entries: Sequence[ShownEntry]) -> list[tuple[str, ...]]:
    rows = [
        ("entry", *(one.entry for one in entries)),
        ("seq", *(str(one.seq) for one in entries)),
        ("after", *(one.prev for one in entries)),
        ("kind", *(one.kind for one in entries)),
        ("credits", *(change_words(one.change_microcredits) for one in entries)),
        ("what", *(what_words(one) for one in entries)),
        ("reference", *(one.reference or "none" for one in entries)),
        ("balance", *(credits_text(one.balance_microcredits) for one in entries)),
    ]
    if any(one.seals for one in entries):
        rows.append(("certified by", *(seals_words(one) for one in entries)))
    return rows


_HALTED = (
    "Witnesses have certified two things that exclude each other: credits may have been made out "
    "of nothing. Resume, on the chains that this node has, once the people of the network have "
    "agreed what to do."
)
_LAPSED = (
    "This witness has lost votes that it cast. If it votes for another entry in their place, it "
    "is one of those that the network can bear only a few of. Resume once you know why the disk "
    "was old and that no other copy of this node runs."
)
_OVERRIDE = (
    "A witness may hold an entry of this account that has not been shown. If you sign another in "
    "its place, the account can be stuck for ever with all its credits. Waiting costs nothing."
)


@ledger.command(example="ayni ledger resume --yes")
@click.option("--override", is_flag=True, help="Sign again before all witnesses have answered.")
@click.option("--yes", is_flag=True, help="You have read the warning.")
@click.pass_obj
def resume(session: Session, override: bool, yes: bool) -> None:
    """Go on after this node's ledger has stopped itself, once you know why.

    A witness that came back with an old disk votes again; a ledger that was halted by a proof goes
    on. With --override also an account whose journal is old, or whose key is used elsewhere too,
    signs again, although not all witnesses have answered.
    """
    daemon = connect(session.paths)
    now = daemon.get("/ayni/v1/wallet", Wallet)
    is_beyond_us = now.trouble in ("unwitnessed", "doubled")
    if is_beyond_us or (now.trouble in ("restored", "copied") and not override):
        raise LocalError(Code.BAD_REQUEST, f"{now.sentence} {now.remedy}")
    if now.trouble and not yes:
        _confirm(session, now)
    now = daemon.post("/ayni/v1/ledger/resume", Wallet, {"override": override})
    if session.output.as_json:
        session.output.json(now)
    else:
        show_wallet(session, now)


def _confirm(session: Session, now: Wallet) -> None:
    warning = {"halted": _HALTED, "lapsed": _LAPSED}.get(now.trouble, _OVERRIDE)
    session.output.remark(f"{now.sentence}\n{warning}")
    if session.output.as_json or not sys.stdin.isatty():
        raise click.UsageError("Read the warning, then say --yes.")
    click.confirm("Go on?", abort=True, err=True)
