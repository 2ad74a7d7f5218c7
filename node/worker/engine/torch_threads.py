"""Torch's own threads kept out of the way of others."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes in the calling thread alone. Its threads wait for each other at the end of
    every small thing, and on a busy machine one of them is always late."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
