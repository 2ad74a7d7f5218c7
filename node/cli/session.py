"""What every verb has in common: --home, --json, an example, and errors told as one sentence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from node.cli.output import Output
from node.config import Paths, find_paths
from protocol.errors import AyniError

HOME_VARIABLE: Final = "AYNI_HOME"
_HOME, _JSON = "ayni.home", "ayni.json"


@dataclass(frozen=True, slots=True)
class Session:
    """One call of one verb: whose home it is about and how it speaks."""

    home: Path | None
    output: Output

    @property
    def paths(self) -> Paths:
        return find_paths(self.home)


def remember_home(ctx: click.Context, home: Path | None) -> None:
    """A --home nearer to the verb goes before one further away."""
    if home is not None:
        ctx.meta[_HOME] = home


class Verb(click.Command):
    """A verb gets its Session by `click.pass_obj`. An AyniError ends it with status 1."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        kwargs.setdefault("epilog", f"Example: {example}")
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(
                ["--home"],
                type=click.Path(file_okay=False, path_type=Path),
                expose_value=False,
                callback=lambda ctx, _, value: remember_home(ctx, value),
                help="Keep configuration and data in this folder.",
            ),
            click.Option(
                ["--json"],
                is_flag=True,
                expose_value=False,
                # Of a verb and of the group that it stands in, either is enough.
                callback=lambda ctx, _, value: ctx.meta.__setitem__(
                    _JSON, value or ctx.meta.get(_JSON, False)
                ),
                help="Print one JSON document, errors too.",
            ),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        output = Output(as_json=ctx.meta[_JSON])
        ctx.obj = Session(ctx.meta.get(_HOME), output)
        try:
            return super().invoke(ctx)
        except AyniError as error:
            output.failed(error)
        except BaseExceptionGroup as group:
            ours, others = group.split(AyniError)
            if ours is None or others is not None:
                raise
            output.failed(_first(ours))
        ctx.exit(1)


def _first(group: BaseExceptionGroup[AyniError]) -> AyniError:
    """What went wrong first, out of the nurseries that it passed through."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


class VerbGroup(click.Group):
    """Verbs below a verb, such as `ayni network join`."""

    command_class = Verb


class VerbWithVerbs(Verb, VerbGroup):
    """A verb that does something by itself and has others below it, such as `ayni wallet`."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, example=example, invoke_without_command=True, **kwargs)
