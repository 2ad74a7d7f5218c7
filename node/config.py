"""Where a node keeps its files and what its owner has set, read from TOML and checked."""

import importlib.resources
import ipaddress
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
import tomli_w
from msgspec import Meta

from node.settings import Settings, checked
from protocol.errors import Code, LocalError
from protocol.limits import (
    ADDRESS_BYTES_MAX,
    ADVERT_MODELS_MAX,
    ALLOCATIONS_MAX,
    BOOTSTRAP_MAX,
    MODEL_NAME_BYTES_MAX,
    NETWORK_NAME_BYTES_MAX,
)
from protocol.units import MicrocreditsField, PriceField

FILE_BYTES_MAX = 1 << 20  # A configuration is written by a person; a megabyte is a wrong file.
LISTEN_MAX = 8
THREADS_MAX = 1024
BACKENDS_MAX = 8  # Servers of other programs on one machine.
PUBLIC_PREFIXES_MAX = 64
PUBLIC_PREFIX_BYTES_MAX = 8 << 10  # All of them fit one message to the worker.
SLOTS_MAX = 64  # Each holds a context in memory; more than this no home machine runs at once.

T = TypeVar("T")

PublicPrefix = Annotated[str, Meta(min_length=1, max_length=PUBLIC_PREFIX_BYTES_MAX)]
NodeName = Annotated[str, Meta(max_length=NETWORK_NAME_BYTES_MAX, pattern=r"^[A-Za-z0-9._-]*$")]
ModelName = Annotated[
    str, Meta(max_length=MODEL_NAME_BYTES_MAX, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]
Address = Annotated[str, Meta(max_length=ADDRESS_BYTES_MAX, pattern=r"^/(ip4|ip6|dns|dns4|dns6)/")]


class NodeSettings(Settings, frozen=True, kw_only=True):
    """[node]"""

    name: NodeName = ""
    grace_seconds: Annotated[int, Meta(ge=0, le=3600)] = 30


class NetworkSettings(Settings, frozen=True, kw_only=True):
    """[network]: multiaddrs to listen on and to begin with."""

    listen: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=LISTEN_MAX)] = (
        "/ip4/0.0.0.0/tcp/0",
    )
    bootstrap: Annotated[tuple[Address, ...], Meta(max_length=BOOTSTRAP_MAX)] = ()
    advert_life_seconds: Annotated[int, Meta(ge=10, le=120)] = 120


class Price(Settings, frozen=True, kw_only=True):
    """[share.prices."NAME"]: microcredits for a million tokens read and written."""

    price_in: PriceField
    price_out: PriceField


class ExternalModel(Settings, frozen=True, kw_only=True):
    """A model of a server on this machine: its name there, and the one that others order by."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    serve_as: ModelName
    context_tokens: Annotated[int, Meta(ge=1, le=1 << 24)]


class BackendSettings(Settings, frozen=True, kw_only=True):
    """[[share.backends]]: a server of the OpenAI API on this machine that runs models."""

    kind: Literal["openai"]
    url: Annotated[str, Meta(max_length=200)]
    """As far as the `v1`, which most servers have."""
    models: Annotated[tuple[ExternalModel, ...], Meta(min_length=1, max_length=ADVERT_MODELS_MAX)]
    api_key_file: Annotated[str, Meta(max_length=4096)] = ""
    slots: Annotated[int, Meta(ge=1, le=SLOTS_MAX)] = 4
    """Jobs that it is given at once, of all its models together."""
    takes: tuple[Literal["top_k", "min_p", "repetition_penalty"], ...] = ()
    """Wishes beyond OpenAI's own that it understands under these names."""

    def __post_init__(self) -> None:
        _check_loopback(self.url)


class ShareSettings(Settings, frozen=True, kw_only=True):
    """[share]: what this machine does for others, and for how much."""

    enabled: bool = True
    models: Annotated[tuple[ModelName, ...], Meta(max_length=ADVERT_MODELS_MAX)] = (
        "smollm2-135m-instruct",
    )
    price_in: PriceField = 500_000
    price_out: PriceField = 2_000_000
    prices: dict[ModelName, Price] = msgspec.field(default_factory=dict)
    backends: Annotated[tuple[BackendSettings, ...], Meta(max_length=BACKENDS_MAX)] = ()
    slots: Annotated[int, Meta(ge=1, le=SLOTS_MAX)] = 2
    public_prefixes: Annotated[tuple[PublicPrefix, ...], Meta(max_length=PUBLIC_PREFIXES_MAX)] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all models that are shared, as others order them."""
        outside = [model.serve_as for backend in self.backends for model in backend.models]
        return (*self.models, *outside)

    def price(self, model: str) -> Price:
        """The price of one model: its own, or the one for all."""
        default = Price(price_in=self.price_in, price_out=self.price_out)
        return self.prices.get(model, default)


class WorkerSettings(Settings, frozen=True, kw_only=True):
    """[worker]: the process that runs models."""

    threads: Annotated[int, Meta(ge=0, le=THREADS_MAX)] = 0
    idle_priority: bool = True
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    engine: Literal["auto", "native", "torch"] = "auto"
    memory_bytes_max: Annotated[int, Meta(ge=0, le=1 << 50)] = 0


class ApiSettings(Settings, frozen=True, kw_only=True):
    """[api]: always on loopback."""

    port: Annotated[int, Meta(ge=0, le=65_535)] = 0


class AskSettings(Settings, frozen=True, kw_only=True):
    """[ask]: `cost_max` in microcredits."""

    cost_max: MicrocreditsField = 1_000_000


class ChannelSettings(Settings, frozen=True, kw_only=True):
    """[channels]: how jobs are paid, asked and served."""

    life_seconds: Annotated[int, Meta(ge=60, le=90 * 86_400)] = 3 * 86_400
    idle_seconds: Annotated[int, Meta(ge=1, le=90 * 86_400)] = 86_400
    deposit_percent: Annotated[int, Meta(ge=1, le=100)] = 2
    """Of the balance, what one channel may hold ahead of need."""
    locked_percent: Annotated[int, Meta(ge=1, le=100)] = 20
    """Of all credits, what all channels together may hold ahead of need."""
    settle_above: MicrocreditsField = 10_000_000
    """Microcredits earned in one channel that are settled without waiting for more."""
    settle_percent: Annotated[int, Meta(ge=1, le=100)] = 25
    """The same as a share of the own balance."""
    voucher_copy: Annotated[str, Meta(max_length=4096)] = ""
    """A file on another disk for a second copy of what was earned and is not settled."""


class LedgerSettings(Settings, frozen=True, kw_only=True):
    """[ledger]: the pace of what needs no hurry, and how much history is kept. `recent` prunes
    others' chains to checkpoints that witnesses sealed; `own` keeps this node's chain, channels
    and all proofs, and follows nobody else's. A witness keeps all, whatever is set."""

    claim_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60
    audit_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 30
    check_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60
    keep: Literal["all", "recent", "own"] = "all"


class ModelSettings(Settings, frozen=True, kw_only=True):
    """[models]"""

    folder: str = ""


class LogSettings(Settings, frozen=True, kw_only=True):
    """[log]"""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Settings, frozen=True, kw_only=True):
    """All that the owner of a node can set."""

    node: NodeSettings = NodeSettings()
    network: NetworkSettings = NetworkSettings()
    share: ShareSettings = ShareSettings()
    worker: WorkerSettings = WorkerSettings()
    api: ApiSettings = ApiSettings()
    ask: AskSettings = AskSettings()
    channels: ChannelSettings = ChannelSettings()
    ledger: LedgerSettings = LedgerSettings()
    models: ModelSettings = ModelSettings()
    log: LogSettings = LogSettings()


class NodePlan(Settings, frozen=True, kw_only=True):
    """[[nodes]] of a testnet."""

    name: Annotated[NodeName, Meta(min_length=1)]
    share: ShareSettings = ShareSettings(enabled=False)


class NetworkPlan(Settings, frozen=True, kw_only=True):
    """configs/testnet.toml: who is there and what each begins with, in whole credits."""

    name: Annotated[NodeName, Meta(min_length=1)]
    credits_per_node: Annotated[int, Meta(ge=0, le=1_000_000)]
    nodes: Annotated[tuple[NodePlan, ...], Meta(min_length=1, max_length=ALLOCATIONS_MAX)]


@dataclass(frozen=True, slots=True)
class Paths:
    """Every place on disk that a node uses."""

    config_folder: Path
    data_folder: Path
    models_folder: Path

    @property
    def config_file(self) -> Path:
        return self.config_folder / "config.toml"

    @property
    def models_file(self) -> Path:
        """The user's own additions to the model catalogue."""
        return self.config_folder / "models.toml"

    @property
    def network_file(self) -> Path:
        """The network this home has joined: `ayni network join` puts it here."""
        return self.config_folder / "network.ayni"

    @property
    def key_file(self) -> Path:
        return self.data_folder / "node.key"

    @property
    def api_key_file(self) -> Path:
        return self.data_folder / "api.key"

    @property
    def api_file(self) -> Path:
        """Where a running daemon says how to reach it."""
        return self.data_folder / "api.json"

    @property
    def database_file(self) -> Path:
        return self.data_folder / "ayni.db"

    @property
    def lock_file(self) -> Path:
        return self.data_folder / "ayni.lock"

    @property
    def log_file(self) -> Path:
        return self.data_folder / "ayni.log"


def find_paths(home: Path | None = None, environ: Mapping[str, str] | None = None) -> Paths:
    """The places for this user, or all but the model files inside `home`.

    `environ` (the process's own when None) gives XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_CACHE_HOME,
    APPDATA, LOCALAPPDATA and AYNI_MODELS_DIR.
    """
    environ = os.environ if environ is None else environ
    user = Path(environ["HOME"]) if "HOME" in environ else Path.home()
    if sys.platform == "win32":
        local = Path(environ.get("LOCALAPPDATA", user / "AppData" / "Local")) / "ayni"
        config = Path(environ.get("APPDATA", user / "AppData" / "Roaming")) / "ayni"
        data, cache = local / "data", local / "cache"
    elif sys.platform == "darwin":
        config = user / "Library" / "Application Support" / "ayni"
        data, cache = config / "data", user / "Library" / "Caches" / "ayni"
    else:
        config = Path(environ.get("XDG_CONFIG_HOME") or user / ".config") / "ayni"
        data = Path(environ.get("XDG_DATA_HOME") or user / ".local" / "share") / "ayni"
        cache = Path(environ.get("XDG_CACHE_HOME") or user / ".cache") / "ayni"
    models = Path(environ.get("AYNI_MODELS_DIR") or cache / "models").expanduser().absolute()
    if home is not None:
        config = home.expanduser().absolute()
        data = config / "data"
    return Paths(config_folder=config, data_folder=data, models_folder=models)


def load(
    home: Path | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Paths, Config]:
    """The places and settings of one node; a missing file means the defaults.

    AYNI_MODELS_DIR goes before `[models] folder`. Raises LocalError BAD_CONFIG.
    """
    environ = os.environ if environ is None else environ
    paths = find_paths(home, environ)
    config = read_file(paths.config_file, Config) if paths.config_file.exists() else Config()
    if config.models.folder and not environ.get("AYNI_MODELS_DIR"):
        folder = paths.config_folder / Path(config.models.folder).expanduser()
        paths = replace(paths, models_folder=folder)
    return paths, config


def write_default(path: Path, name: str = "") -> None:
    """Write the commented example of every setting, with the node's name filled in.

    Raises LocalError BAD_CONFIG for a bad name or where there is a file already.
    """
    text = resource_text("node.toml")
    if name:
        checked({"node": {"name": name}}, Config, "--name")
        text = text.replace('# name = ""', f'name = "{name}"', 1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        taken = isinstance(error, FileExistsError) and path.exists()
        reason = "it is there already" if taken else error.strerror
        raise LocalError(
            Code.BAD_CONFIG, f"{path} cannot be written: {reason}. Edit it or move it away."
        ) from None


def write(path: Path, config: Config) -> None:
    """Write these settings, every key of them: how a testnet sets up the homes of its nodes."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(tomli_w.dumps(msgspec.to_builtins(config)), encoding="utf-8")


def load_testnet() -> NetworkPlan:
    """The default testnet of configs/testnet.toml."""
    return parse(resource_text("testnet.toml"), NetworkPlan, "configs/testnet.toml")


def resource_text(name: str) -> str:
    """One file of the package `configs`."""
    return importlib.resources.files("configs").joinpath(name).read_text(encoding="utf-8")


def read_file(path: Path, kind: type[T]) -> T:
    """A TOML file as a `kind`. Raises LocalError BAD_CONFIG when it cannot be read or is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise LocalError(
            Code.BAD_CONFIG, f"{path} cannot be read: {error.strerror}. Mend it or remove it."
        ) from None
    except UnicodeDecodeError:
        raise LocalError(Code.BAD_CONFIG, f"{path} is not UTF-8 text.") from None
    if len(data) > FILE_BYTES_MAX:
        raise LocalError(Code.BAD_CONFIG, f"{path} is larger than {FILE_BYTES_MAX} bytes.")
    return parse(text, kind, str(path))


def parse(text: str, kind: type[T], where: str) -> T:
    """TOML text as a `kind`; `where` names it in errors. Raises LocalError BAD_CONFIG."""
    try:
        return checked(tomllib.loads(text), kind, where)
    except tomllib.TOMLDecodeError as error:
        raise LocalError(Code.BAD_CONFIG, f"{where} is not TOML: {error}.") from None
    except RecursionError:
        raise LocalError(Code.BAD_CONFIG, f"{where} is nested too deeply.") from None


def _check_loopback(url: str) -> None:
    """Raises ValueError unless a URL leads to this machine by itself, asking no name service."""
    parts = urlsplit(url)
    try:
        host, _ = parts.hostname or "", parts.port
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if parts.scheme != "http" or not inside or parts.username or parts.query:
        raise ValueError(
            f"{url!r} is no address of this machine: a backend's `url` looks like "
            "http://127.0.0.1:11434/v1, since prompts of others may not leave this machine"
        )
