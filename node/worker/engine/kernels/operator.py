"""The step of the native kernels as an operator of torch: `torch.ops.ayni.step`.

Torch sees what is read and what is written; the addresses of it all stand in `plan`, the bytes of
an ayni_model, and are those of the tensors that come with it.
"""

import ctypes

import torch
from torch import Tensor

from node.worker.engine.kernels.library import OK, Batch, error_text, load

_LIBRARY = torch.library.Library("ayni", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "step(Tensor plan, int pool, int path, Tensor weights, Tensor token, Tensor sequence,"
    " Tensor position, Tensor table, Tensor output, Tensor(a!) keys, Tensor(b!) values,"
    " Tensor(c!) scratch, Tensor(d!) hidden, Tensor(e!) logits) -> ()"
)


def _step(plan: Tensor, pool: int, path: int, weights: Tensor, *of_step: Tensor) -> None:
    """One step of a mixed batch: `token`, `sequence` and `position` are int32 [rows], `table` is
    int32 [sequences, blocks], `output` int32 [outputs]; `hidden` and `logits` have at least so
    many rows. Raises RuntimeError for what the kernels refuse; then nothing was written."""
    token, sequence, position, table, output, _, _, _, hidden, logits = of_step
    kernels = load()
    assert kernels is not None
    batch = Batch(
        token.numel(),
        table.shape[0],
        table.shape[1],
        output.numel(),
        token.data_ptr(),
        sequence.data_ptr(),
        position.data_ptr(),
        table.data_ptr(),
        output.data_ptr(),
        hidden.data_ptr(),
        logits.data_ptr(),
    )
    status = kernels.step(pool, path, plan.data_ptr(), ctypes.addressof(batch))
    if status != OK:
        raise RuntimeError(f"the native step refused: {error_text(status)}")


_LIBRARY.impl("step", _step, "CPU")  # type: ignore[no-untyped-call]
# What the operator is called by; looked up once, since each look-up costs microseconds.
step = torch.ops.ayni.step.default
