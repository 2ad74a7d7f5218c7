"""The examples in SPEC.md's chapters on the ledger, taken from the recorded vectors.

`python -m scripts.ledger_examples`, in the root of the checkout, after the ledger's vectors were
recorded. A part that is an example of its own stands in the others by its name, as ⟨signed pay⟩.
"""

import json
from typing import Any

from scripts.record_vectors import SPECIFICATION, shortened
from scripts.vector_text import VECTORS, Json

FENCE = "```ledger "


def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def parts() -> dict[str, Json]:
    """The values that stand by their names in other examples."""
    found: dict[str, Json] = {}
    for name, entry in _load("ledger_entries")["entries"].items():
        found[f"signed {name}"] = {
            "type": "signed",
            "signer": "0x" + entry["signer"],
            "body": "0x" + entry["bytes"],
            "signature": "0x" + entry["signature"],
        }
    for name, vector in _load("ledger_certificates")["certified"].items():
        found[f"certificate {name}"] = vector["certificate"]
        found[f"certified {name}"] = {
            "type": "certified",
            "entry": found[f"signed {name}"],
            "certificate": vector["certificate"],
        }
    for name, vector in _load("ledger_proofs").items():
        found[name] = vector["value"]
    settlement = _load("ledger_settlement")
    for name, signed in settlement["signed"].items():
        found[f"signed {name}"] = {
            "type": "signed",
            "signer": "0x" + signed["signer"],
            "body": "0x" + signed["bytes"],
            "signature": "0x" + signed["signature"],
        }
    for name in ("prepared", "settlement"):
        found[name] = settlement["certificates"][name]["value"]
    return found


def _named(value: object, names: dict[str, str]) -> object:
    """A value in which each part that has a name stands by it."""
    if isinstance(value, dict):
        name = names.get(json.dumps(value))
        return name or {field: _named(part, names) for field, part in value.items()}
    if isinstance(value, list):
        return [_named(part, names) for part in value]
    return value


def _shown(value: object, data: str, name: str = "") -> list[str]:
    """The lines of a value and its bytes; `name` is the one that it is not to be called by."""
    names = {json.dumps(part): f"⟨{title}⟩" for title, part in parts().items() if title != name}
    text = json.dumps(_named(value, names), ensure_ascii=False)
    return [f"value     {text}", f"bytes     {shortened(data)}"]


def _enveloped(vector: Json) -> list[str]:
    return [f"{word:<9} {vector[word]}" for word in ("domain", "id", "signer", "signature")]


def examples() -> dict[str, str]:
    """Each example by its name."""
    entries, certificates = _load("ledger_entries"), _load("ledger_certificates")
    found: dict[str, list[str]] = {}
    for name, entry in entries["entries"].items():
        found[name] = _shown(entry["value"], entry["bytes"]) + _enveloped(entry)
    vote = certificates["votes"][0]
    found["vote"] = _shown(certificates["vote"], vote["bytes"]) + _enveloped(vote)
    sealed = certificates["certified"]["pay"]
    found["certificate"] = _shown(sealed["certificate"], sealed["bytes"], "certificate pay")
    whole = parts()["certified pay"]
    found["certified"] = _shown(whole, sealed["certified"], "certified pay")
    settlement = _load("ledger_settlement")
    for name, signed in settlement["signed"].items():
        found[name] = _shown(signed["value"], signed["bytes"]) + _enveloped(signed)
    for vectors in (_load("ledger_proofs"), _load("ledger_messages"), settlement["certificates"]):
        for name, vector in vectors.items():
            found[name] = _shown(vector["value"], vector["bytes"], name)
    network = [f"network   {entries['network']}"]
    for role in ("witnesses", "accounts"):
        for key in entries[role]:
            network.append(f"{role:<9} {key['node']}  of 32 bytes {key['seed'][:2]}")
    found["genesis"] = [f"value     {json.dumps(entries['genesis'])}", *network]
    found["one_chain"] = _framed(_load("ledger_export")["one_chain"])
    return {name: "\n".join(lines) for name, lines in found.items()}


def _framed(vector: Json) -> list[str]:
    """An export, a line for each frame: its length as it stands in the file, and its bytes."""
    data, lines, start = bytes.fromhex(str(vector["file"])), [], 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "big")
        frame = shortened(data[start + 4 : end].hex())
        lines.append(f"{data[start : start + 4].hex()} {frame}")
        start = end
    return lines


def with_examples(specification: str) -> str:
    """The specification with each of its examples of the ledger as the vectors now are."""
    shown = examples()
    before, *pieces = specification.split(FENCE)
    for piece in pieces:
        name = piece.split("\n", 1)[0]
        rest = piece.split("```", 1)[1]
        before += f"{FENCE}{name}\n{shown[name]}\n```{rest}"
    return before


def main() -> None:
    specification = with_examples(SPECIFICATION.read_text(encoding="utf-8"))
    SPECIFICATION.write_text(specification, encoding="utf-8")


if __name__ == "__main__":
    main()
