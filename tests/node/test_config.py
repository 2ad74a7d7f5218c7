"""The settings: defaults, errors that help, places on disk, and the files that ship."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import config, settings
from node.config import BackendSettings, Config, ExternalModel, NetworkPlan, Price
from protocol.errors import Code, LocalError
from protocol.limits import PRICE_MAX

EXAMPLE = config.resource_text("node.toml")


def refused(text: str) -> str:
    with pytest.raises(LocalError) as caught:
        config.parse(text, Config, "my.toml")
    assert caught.value.code == Code.BAD_CONFIG
    assert "my.toml" in caught.value.sentence
    return caught.value.sentence


def test_the_example_gives_the_defaults() -> None:
    assert config.parse(EXAMPLE, Config, "node.toml") == Config()


def test_the_example_shows_every_key_with_its_default() -> None:
    text = EXAMPLE.partition("# Another price")[0] + EXAMPLE.partition("[worker]")[2].join(
        ["[worker]", ""]
    )
    shown = tomllib.loads(re.sub(r"(?m)^# (?=[a-z_]+ = )", "", text))
    everything = msgspec.to_builtins(Config())
    everything["share"].pop("prices")
    everything["share"].pop("backends")
    plain = msgspec.json.decode(msgspec.json.encode(everything))
    assert shown == plain


def test_the_example_of_a_price_for_one_model_is_right() -> None:
    text = re.sub(r"(?m)^# (?=[a-z_]+ = |\[)", "", EXAMPLE)
    prices = config.parse(text, Config, "node.toml").share.prices
    assert prices == {"smollm2-135m-instruct": Price(price_in=500_000, price_out=2_000_000)}


def test_the_example_of_a_backend_is_right() -> None:
    text = re.sub(r"(?m)^# (?=[a-z_]+ = |\[)", "", EXAMPLE)
    (backend,) = config.parse(text, Config, "node.toml").share.backends
    model = ExternalModel(name="llama3.2", serve_as="llama3.2-3b-instruct", context_tokens=8192)
    assert backend == BackendSettings(
        kind="openai", url="http://127.0.0.1:11434/v1", models=(model,)
    )


BACKEND = """
[[share.backends]]
kind = "openai"
url = "http://[::1]:8000/v1"
models = [{ name = "a/b:c", serve_as = "abc", context_tokens = 4096 }]
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[::1]", "192.0.2.7", "'http://192.0.2.7:8000/v1' is no address of this machine"),
        ("[::1]", "example.com", "no address of this machine"),
        ("[::1]", "127.0.0.1.example.com", "no address of this machine"),
        ("[::1]", "me:secret@127.0.0.1", "no address of this machine"),
        ("[::1]:8000", "127.0.0.1:99999", "no address of this machine"),
        ("http:", "https:", "no address of this machine"),
        ('"openai"', '"grpc"', 'Allowed: "openai"'),
        ('"abc"', '"a/b"', "share.backends.0.models.0.serve_as is 'a/b'"),
        ("4096", "0", "share.backends.0.models.0.context_tokens is 0"),
        ("models = [", "model = [", "Did you mean models?"),
    ],
)
def test_a_wrong_backend_is_named(old: str, new: str, words: str) -> None:
    share = config.parse(BACKEND, Config, "my.toml").share
    assert share.names == ("smollm2-135m-instruct", "abc")
    assert words in refused(BACKEND.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[share]\nslotz = 1", ["[share]", "'slotz'", "Did you mean slots?"]),
        ("[shore]\n", ["'shore'", "Did you mean share?"]),
        ("zzz = 1", ["the file has no key 'zzz'", "node, network, share"]),
        ("[share]\nslots = 0", ["share.slots is 0", ">= 1"]),
        ("[share]\nslots = 1.0", ["share.slots is 1.0", "`int`"]),
        ("[share]\nslots = true", ["share.slots is True", "`int`"]),
        ("[share]\nprice_in = -1", ["share.price_in is -1", ">= 0"]),
        (f"[share]\nprice_in = {PRICE_MAX + 1}", ["share.price_in", str(PRICE_MAX)]),
        ('[share]\nmodels = ["a", "b c"]', ["share.models.1 is 'b c'"]),
        ("[share.prices.x]\nprice_in = 1", ["share.prices.x", "`price_out`"]),
        ("[share.prices.x]\nprice_in = 1\nprice_out = 'a'", ["share.prices.x.price_out is 'a'"]),
        ("[share.prices.'x y']\nprice_in = 1\nprice_out = 1", ["'x y'", "matching"]),
        ('[worker]\ndevice = "gpu"', ["worker.device is 'gpu'", '"auto", "cpu", "cuda"']),
        ("[network]\nlisten = []", ["network.listen is []", ">= 1"]),
        ('[network]\nbootstrap = ["1.2.3.4"]', ["network.bootstrap.0 is '1.2.3.4'"]),
        ("node = 3", ["node is 3"]),
        ("node = ", ["is not TOML"]),
        (f'[node]\nname = "{"n" * 2000}"', ["node.name", "nnn..."]),
    ],
)
def test_a_wrong_setting_is_named(text: str, words: list[str]) -> None:
    sentence = refused(text)
    assert all(word in sentence for word in words), sentence
    assert len(sentence) < 400


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
sections = st.sampled_from(["node", "network", "share", "worker", "api", "ask", "models", "log"])
keys = st.sampled_from(["name", "listen", "models", "prices", "slots", "price_in", "level", "x"])


@given(st.dictionaries(sections | st.text(), st.dictionaries(keys, values) | values, max_size=4))
def test_any_table_is_taken_or_refused_by_name(plain: dict[str, object]) -> None:
    try:
        taken = settings.checked(plain, Config, "my.toml")
    except LocalError as refusal:
        told: LocalError | None = refusal
    else:
        told = None
        assert isinstance(taken, Config)
    if told is not None:
        assert told.code == Code.BAD_CONFIG
        assert told.sentence.startswith("my.toml: ")


def test_a_model_has_its_own_price_or_the_one_for_all() -> None:
    share = config.parse(
        "[share]\nprice_in = 1\nprice_out = 2\n[share.prices.big]\nprice_in = 3\nprice_out = 4",
        Config,
        "my.toml",
    ).share
    assert share.price("big") == Price(price_in=3, price_out=4)
    assert share.price("small") == Price(price_in=1, price_out=2)


def test_a_home_moves_everything_but_the_models(tmp_path: Path) -> None:
    environ = {"HOME": "/home/ana", "XDG_CACHE_HOME": "/cache"}
    paths = config.find_paths(tmp_path, environ)
    assert paths.config_file == tmp_path / "config.toml"
    assert paths.data_folder == tmp_path / "data"
    inside = [paths.network_file, paths.models_file, paths.key_file, paths.api_key_file]
    inside += [paths.api_file, paths.database_file, paths.lock_file, paths.log_file]
    assert all(path.is_relative_to(tmp_path) for path in inside)
    assert len(set(inside)) == len(inside)
    assert paths.models_folder == config.find_paths(None, environ).models_folder


def test_the_environment_names_the_places() -> None:
    environ = {"HOME": "/home/ana", "AYNI_MODELS_DIR": "/big/models"}
    assert config.find_paths(None, environ).models_folder == Path("/big/models")


def test_the_models_folder_is_a_setting_and_the_environment_goes_first(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[models]\nfolder = "weights"\n')
    paths, _ = config.load(tmp_path, {"HOME": "/home/ana"})
    assert paths.models_folder == tmp_path / "weights"
    paths, _ = config.load(tmp_path, {"HOME": "/home/ana", "AYNI_MODELS_DIR": "/big"})
    assert paths.models_folder == Path("/big")


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert config.load(tmp_path, {"HOME": "/home/ana"})[1] == Config()


def test_the_default_file_is_written_once_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "config.toml"
    config.write_default(file, "quinoa")
    assert config.read_file(file, Config).node.name == "quinoa"
    with pytest.raises(LocalError, match="is there already"):
        config.write_default(file)
    with pytest.raises(LocalError, match=r"--name: node\.name"):
        config.write_default(tmp_path / "other.toml", 'a"b')
    assert not (tmp_path / "other.toml").exists()
    with pytest.raises(LocalError, match="cannot be written: Not a directory"):
        config.write_default(file / "below" / "config.toml")


def test_settings_written_are_settings_read(tmp_path: Path) -> None:
    plan = config.load_testnet().nodes[1]
    settings = Config(share=plan.share, node=config.NodeSettings(name=plan.name))
    config.write(tmp_path / "config.toml", settings)
    assert config.load(tmp_path, {"HOME": "/home/ana"})[1] == settings


@pytest.mark.parametrize("data", [b"\xff\xfe", b"#" * (config.FILE_BYTES_MAX + 1)])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.toml").write_bytes(data)
    with pytest.raises(LocalError, match=r"config\.toml"):
        config.load(tmp_path, {"HOME": "/home/ana"})


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(LocalError, match="cannot be read"):
        config.load(tmp_path, {"HOME": "/home/ana"})


def test_the_default_testnet() -> None:
    plan = config.load_testnet()
    assert isinstance(plan, NetworkPlan)
    assert plan.credits_per_node == 1000
    sharing = {node.name: node.share.enabled for node in plan.nodes}
    assert sharing == {"quinoa": False, "maize": True, "potato": True, "oca": False}
