"""What the control calls show: plain values that are JSON for a script and typed for us.

Nodes are in their text form `12D3KooW...`, other ids in hex; units are in the names: prices are
microcredits for a million tokens, rates are thousandths of a token a second. A reader passes
unknown fields over, so that a command line can ask a newer daemon.
"""

from typing import Final, Literal

from msgspec import Struct

JOBS_DEFAULT: Final = 20
JOBS_MAX: Final = 1000  # One answer stays below a megabyte.


class Gpu(Struct, frozen=True, kw_only=True):
    name: str
    memory_bytes: int


class Hardware(Struct, frozen=True, kw_only=True):
    cpu: str
    cores: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()


class Offer(Struct, frozen=True, kw_only=True):
    """A model that a node serves now, and on which terms."""

    name: str
    model: str
    kind: str = "generate"  # Or "embed": for `ayni embed`.
    mode: str
    context_tokens: int
    price_in_microcredits: int
    price_out_microcredits: int
    prefill_millitokens_per_second: int
    decode_millitokens_per_second: int
    slots: int
    slots_free: int


class Network(Struct, frozen=True, kw_only=True):
    """`quorum` is how many witnesses make a certificate, 0 where there is none."""

    name: str
    id: str
    supply_microcredits: int
    accounts: int
    witnesses: tuple[str, ...] = ()
    quorum: int = 0
    entry_fee_microcredits: int = 0
    bootstrap: tuple[str, ...] = ()


class Sharing(Struct, frozen=True, kw_only=True):
    """`why` is a sentence for a person: who or what put sharing into this state."""

    state: Literal["off", "on", "paused", "draining"]
    why: str = ""


class Engine(Struct, frozen=True, kw_only=True):
    """What runs a model. `note` says what was lost or could be faster, "" if nothing."""

    model: str
    engine: str
    note: str = ""


class Worker(Struct, frozen=True, kw_only=True):
    """The torch process. `error` is the last sentence it left, "" if it never failed;
    `unconfined` says, each in words, what it could do since this machine does not forbid it."""

    state: Literal["none", "starting", "ready", "restarting"]
    pid: int | None = None
    memory_bytes: int = 0
    restarts: int = 0
    device: str = ""
    engines: tuple[Engine, ...] = ()
    unconfined: tuple[str, ...] = ()
    error: str = ""


class Status(Struct, frozen=True, kw_only=True):
    node: str
    name: str
    version: str
    network: Network
    started_at_ms: int
    uptime_ms: int
    addresses: tuple[str, ...]
    sharing: Sharing
    worker: Worker
    offers: tuple[Offer, ...]
    peers: int
    jobs_running: int = 0
    api_url: str = ""
    troubles: tuple[str, ...] = ()
    """What keeps this node from doing its work, each in a sentence; `ayni doctor` says more."""


class Peer(Struct, frozen=True, kw_only=True):
    """Another node, as its advert and our connection show it. `hardware` and `advert_age_ms` are
    None until an advert came; `round_trip_ms` until it was measured."""

    node: str
    name: str
    connected: bool
    addresses: tuple[str, ...] = ()
    hardware: Hardware | None = None
    offers: tuple[Offer, ...] = ()
    advert_age_ms: int | None = None
    region: str = ""
    sharing: str = ""
    round_trip_ms: int | None = None


class Job(Struct, frozen=True, kw_only=True):
    """One job in the history: digests, counts and money, never text. `code` is a refusal's or
    failure's stable code, "" otherwise; times are None until they are known."""

    job: str
    role: Literal["requester", "provider"]
    peer: str
    peer_name: str
    model: str
    state: Literal["running", "done", "refused", "failed", "cancelled"]
    started_at_ms: int
    code: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microcredits: int = 0
    ms_first: int | None = None
    ms_total: int | None = None


class KnownModel(Struct, frozen=True, kw_only=True):
    """A model that somebody in the network offers now. Prices are the lowest asked."""

    name: str
    model: str
    modes: tuple[str, ...]
    context_tokens: int
    providers: int
    slots_free: int
    price_in_microcredits: int
    price_out_microcredits: int


class ListedModel(Struct, frozen=True, kw_only=True):
    """A model of the catalogue: what this node could serve. `model` is "" while the digest of a
    file of the user's own is not computed yet."""

    name: str
    model: str
    licence: str
    context_tokens: int
    size_bytes: int
    cached: bool


class Models(Struct, frozen=True, kw_only=True):
    served: tuple[Offer, ...] = ()
    known: tuple[KnownModel, ...] = ()
    catalogue: tuple[ListedModel, ...] = ()


class Check(Struct, frozen=True, kw_only=True):
    """One finding of the doctor. `remedy` says what to do, "" when all is well."""

    name: str
    state: Literal["ok", "warn", "fail"]
    sentence: str
    remedy: str = ""


class ApiFile(Struct, frozen=True, kw_only=True):
    """What the daemon writes to api.json in its data folder: where its API listens."""

    url: str
    pid: int
