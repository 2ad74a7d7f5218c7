"""Text that fits an advert: what machines call themselves can be long or odd."""


def cut(text: str, size_max: int) -> str:
    """`text` on one line, printable, and at most `size_max` bytes of UTF-8; no character is
    split."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line.encode("utf-8", "replace")[:size_max].decode("utf-8", "ignore").strip()
