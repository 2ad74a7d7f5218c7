"""What the doctor says of the engine: its kernels, what runs each model, and how it is confined."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import node
from node.api.views import Check, Worker
from node.config import Config

KERNELS: Final = ("libayni_kernels.so", "libayni_kernels.dylib", "ayni_kernels.dll",
                  "libayni_kernels.dll")  # fmt: skip
KERNELS_FOLDER: Final = Path(str(node.__file__)).parent / "worker" / "engine" / "kernels"
_BUILD: Final = (
    "Install a C compiler (or `pip install ziglang`), then run ./scripts/bootstrap.py, or "
    "`pip install .` in the source's folder, and start the node again."
)
_CONFINE: Final = (
    "Share models that you trust. A newer Linux (Landlock: 5.13, network namespaces for users "
    "allowed) grants all of it; other systems grant less."
)


def kernels_check(config: Config, folder: Path = KERNELS_FOLDER) -> Check:
    """Whether the compiled kernels are there, without which torch runs models, more slowly."""
    if not config.share.enabled or config.worker.engine == "torch":
        return Check(name="kernels", state="ok", sentence="None are needed.")
    if config.worker.device not in ("auto", "cpu"):
        return Check(name="kernels", state="ok", sentence="None are needed: torch drives the GPU.")
    if any((folder / name).exists() for name in KERNELS):
        return Check(name="kernels", state="ok", sentence="Compiled.")
    asked = config.worker.engine == "native"
    return Check(
        name="kernels",
        state="fail" if asked else "warn",
        sentence="The kernels of the native engine are not compiled"
        + (', and engine = "native" asks for them.' if asked else ": torch runs models slowly."),
        remedy=_BUILD,
    )


def worker_checks(worker: Worker) -> Iterator[Check]:
    """What runs each model, with what was lost or could be faster; and what the machine did not
    grant. Nothing while there is no worker."""
    for each in worker.engines:
        yield Check(
            name=f"engine of {each.model}",
            state="warn" if each.note else "ok",
            sentence=f"{each.engine}. {each.note}".strip(),
            remedy=_BUILD if "no compiled kernel" in each.note else "",
        )
    if worker.pid is None:
        return
    if not worker.unconfined:
        yield Check(name="isolation", state="ok", sentence="The worker holds only its models.")
        return
    listed = "; ".join(worker.unconfined)
    yield Check(
        name="isolation",
        state="warn",
        sentence=f"This machine does not grant all that confines the worker: {listed}.",
        remedy=_CONFINE,
    )
