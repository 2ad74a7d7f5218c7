"""How figures are written for a person."""

import time
from collections.abc import Sequence

from node.api.views import Hardware, Offer
from protocol.job.kinds import MODEL_EMBEDS
from protocol.job.unverifiable import is_unverifiable
from protocol.units import credits_text


def short_node(node: str) -> str:
    """The last 8 characters: all node ids begin alike. They also name the node to `--provider`."""
    return node[-8:]


def mode_words(mode: str) -> str:
    """A mode, and what follows from it for whoever reads an answer."""
    return f"{mode} (output cannot be checked)" if is_unverifiable(mode) else mode


def node_words(name: str, node: str) -> str:
    return f"{name} ({short_node(node)})" if name else short_node(node)


def count_words(count: int, noun: str, plural: str = "") -> str:
    """ "1 node", "2 nodes"; a plural that is not made with an s is given."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def listed_words(names: Sequence[str]) -> str:
    """ "maize", "maize and oca", "maize, oca and quinoa"."""
    *most, last = names or [""]
    return f"{', '.join(most)} and {last}" if most else last


def span_words(ms: int) -> str:
    """A length of time, in at most two units."""
    seconds = ms // 1000
    for unit, size, below, below_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // below_size} {below}"
    if seconds >= 60:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds} s" if ms >= 10_000 else f"{ms / 1000:.1f} s"


def time_words(unix_ms: int) -> str:
    """A moment by this machine's clock and zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_ms / 1000))


def bytes_words(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def rate_words(millitokens_per_second: int) -> str:
    return f"{millitokens_per_second / 1000:.1f}"


def main_rate(offer: Offer) -> int:
    """What a model does most, in millitokens a second: one that embeds reads, and writes none."""
    if offer.kind == MODEL_EMBEDS:
        return offer.prefill_millitokens_per_second
    return offer.decode_millitokens_per_second


def price_words(offer: Offer) -> str:
    """Credits for a million tokens, in / out."""
    price_in = credits_text(offer.price_in_microcredits)
    return f"{price_in} / {credits_text(offer.price_out_microcredits)}"


def hardware_words(hardware: Hardware | None) -> str:
    if hardware is None:
        return "?"
    parts = [f"{hardware.cores} x {hardware.cpu}", bytes_words(hardware.memory_bytes)]
    parts += [f"{gpu.name} {bytes_words(gpu.memory_bytes)}" for gpu in hardware.gpus]
    return ", ".join(parts)
