"""What verbs print: one JSON document, a table for a person, or plain lines for a pipe."""

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from protocol.errors import AyniError


def harmless(text: str) -> str:
    """Text of another machine without control characters, which could drive the terminal."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) != "Cc" else "\ufffd"
        for character in text
    )


@dataclass(frozen=True, slots=True)
class Output:
    """Where answers go: stdout. Remarks go to stderr, so that a pipe gets the answer alone."""

    as_json: bool

    @property
    def for_person(self) -> bool:
        """At a terminal: colours and tables are welcome."""
        return not self.as_json and sys.stdout.isatty()

    def json(self, value: Any) -> None:
        """One document on a line of its own."""
        click.echo(msgspec.json.encode(value))

    def line(self, text: str = "") -> None:
        if not self.as_json:
            click.echo(harmless(text))

    def remark(self, text: str) -> None:
        if not self.as_json:
            click.echo(harmless(text), err=True)

    def piece(self, text: str) -> None:
        """Part of an answer, shown at once."""
        if not self.as_json:
            click.echo(harmless(text), nl=False)
            sys.stdout.flush()

    def failed(self, error: AyniError) -> None:
        if self.as_json:
            told = {"code": str(error.code), "message": error.sentence, "retry_ms": error.retry_ms}
            self.json({"error": told})
        else:
            click.echo(f"{error.code}: {harmless(error.sentence)}", err=True)

    def facts(self, title: str, facts: Sequence[tuple[str, str]]) -> None:
        """Names and values below one another."""
        if self.as_json:
            return
        width = max(len(name) for name, _ in facts)
        if self.for_person:
            click.secho(harmless(title), bold=True)
        else:
            click.echo(harmless(title))
        for name, value in facts:
            first, *more = harmless(value).split("\n")
            label = f"{name}:".ljust(width + 1)
            click.echo(f"  {click.style(label, dim=True) if self.for_person else label} {first}")
            for line in more:
                click.echo(f"  {' ' * (width + 1)} {line}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A column whose name ends in `>` is set to the right."""
        if self.as_json:
            return
        shown = [[harmless(cell).replace("\n", " ") for cell in row] for row in rows]
        if self.for_person:
            _rich_table(title, columns, shown)
        else:
            _plain_table(columns, shown)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    names = [column.removesuffix(">") for column in columns]
    widths = [max(map(len, cells)) for cells in zip(names, *rows, strict=True)]
    for row in (names, *rows):
        cells = [
            cell.rjust(width) if column.endswith(">") else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def _rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column.endswith(">")
        table.add_column(column.removesuffix(">"), justify="right" if right else "left")
    for row in rows:
        # Text, so that a name in square brackets is a name and no style.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
