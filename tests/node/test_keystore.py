"""Keys on disk: whole or not there, private, encrypted, and read back only with the passphrase."""

import os
import stat
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from node import keystore
from protocol.errors import Code, LocalError
from protocol.identity import Identity, Seed

SECRET = "¡correct horse!".encode()


def never() -> bytes:
    raise AssertionError("nobody may be asked for a passphrase")


def code_of(caught: pytest.ExceptionInfo[LocalError]) -> Code:
    return caught.value.code


def test_an_encrypted_key_comes_back_with_its_passphrase_only(tmp_path: Path) -> None:
    file = tmp_path / "data" / "node.key"
    seed = keystore.create_key(file, SECRET)
    assert keystore.is_encrypted(file)
    assert keystore.load_key(file, lambda: SECRET) == seed
    assert seed not in file.read_bytes()
    with pytest.raises(LocalError, match="passphrase is wrong") as caught:
        keystore.load_key(file, lambda: b"wrong")
    assert code_of(caught) == Code.BAD_KEY
    assert len(Identity(seed).node) == 32


def test_a_plain_key_asks_nobody(tmp_path: Path) -> None:
    file = tmp_path / "node.key"
    seed = keystore.create_key(file, None)
    assert not keystore.is_encrypted(file)
    assert keystore.load_key(file, never) == seed


@pytest.mark.parametrize("passphrase", [None, SECRET])
def test_the_key_of_a_given_seed_is_that_key(tmp_path: Path, passphrase: bytes | None) -> None:
    file, seed = tmp_path / "node.key", Seed(bytes(range(32)))
    assert keystore.create_key(file, passphrase, seed) == seed
    assert keystore.load_key(file, lambda: SECRET) == seed


def test_two_keys_differ_in_seed_and_salt(tmp_path: Path) -> None:
    seeds = {keystore.create_key(tmp_path / name, SECRET) for name in ("a", "b")}
    files = {(tmp_path / name).read_bytes()[:150] for name in ("a", "b")}
    assert len(seeds) == len(files) == 2


def test_files_and_folder_are_the_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    keystore.create_key(folder / "node.key", None)
    keystore.api_key(folder / "api.key")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["api.key", "node.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "node.key"
    seed = keystore.create_key(file, None)
    with pytest.raises(LocalError, match="holds a key already") as caught:
        keystore.create_key(file, None)
    assert code_of(caught) == Code.BAD_KEY
    assert keystore.load_key(file, never) == seed
    assert [path.name for path in tmp_path.iterdir()] == ["node.key"]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "node.key"
    keystore.create_key(file, None)
    file.chmod(0o640)
    with pytest.raises(LocalError, match="chmod 600") as caught:
        keystore.load_key(file, never)
    assert code_of(caught) == Code.BAD_KEY


def test_a_missing_key_names_init(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="ayni init") as caught:
        keystore.load_key(tmp_path / "node.key", never)
    assert code_of(caught) == Code.NOT_FOUND


@pytest.mark.parametrize("passphrase", [SECRET, None])
@pytest.mark.parametrize("kept", [0, 1, 30, 90, -30])
def test_a_truncated_key_is_refused(tmp_path: Path, passphrase: bytes | None, kept: int) -> None:
    file = tmp_path / "node.key"
    keystore.create_key(file, passphrase)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(LocalError) as caught:
        keystore.load_key(file, lambda: SECRET)
    assert code_of(caught) == Code.BAD_KEY


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "node.key"
    pem = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    file.touch(0o600)
    file.write_bytes(pem)
    with pytest.raises(LocalError, match="Ed25519") as caught:
        keystore.load_key(file, never)
    assert code_of(caught) == Code.BAD_KEY


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "node.key"
    file.touch(0o600)
    file.write_bytes(b"x" * (keystore.FILE_BYTES_MAX + 1))
    with pytest.raises(LocalError, match="too large"):
        keystore.load_key(file, never)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "data"
    with pytest.raises(LocalError, match="cannot be written") as caught:
        keystore.create_key(place / "node.key", None)
    assert code_of(caught) == Code.UNAVAILABLE
    with (
        pytest.raises(LocalError, match="cannot be written"),
        keystore.home_lock(place / "ayni.lock"),
    ):
        pass


def test_the_passphrase_comes_from_a_file_then_the_environment_then_a_person(
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for file, text in ((one, "from one\nnot this"), (two, "from two\r\n")):
        file.touch(0o600)
        file.write_bytes(text.encode())
    environ: MutableMapping[str, str] = {
        "AYNI_PASSPHRASE": "from variable",
        "AYNI_PASSPHRASE_FILE": str(two),
        "LANG": "C",
    }
    assert keystore.find_passphrase(None, one, dict(environ)) == b"from one"
    assert keystore.find_passphrase(None, None, environ) == b"from variable"
    assert environ == {"LANG": "C"}, "children inherit neither"
    environ = {"AYNI_PASSPHRASE_FILE": str(two)}
    assert keystore.find_passphrase(None, None, environ) == b"from two"
    assert environ == {}
    assert keystore.find_passphrase(lambda: "typed", None, {}) == b"typed"


def test_without_a_terminal_it_says_what_to_set() -> None:
    with pytest.raises(LocalError, match="AYNI_PASSPHRASE_FILE") as caught:
        keystore.find_passphrase(None, None, {})
    assert code_of(caught) == Code.BAD_KEY


@pytest.mark.parametrize("text", ["", "x" * (keystore.PASSPHRASE_BYTES_MAX + 1)])
def test_no_passphrase_is_no_passphrase(text: str, tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="--no-passphrase"):
        keystore.find_passphrase(lambda: text, None, {})
    with pytest.raises(LocalError, match="--no-passphrase"):
        keystore.create_key(tmp_path / "node.key", text.encode())
    assert not (tmp_path / "node.key").exists()


def test_the_api_key_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "api.key"
    key = keystore.api_key(file)
    assert len(key) >= 43
    assert keystore.api_key(file) == keystore.read_api_key(file) == key
    file.write_text("\n")
    with pytest.raises(LocalError, match="no API key"):
        keystore.api_key(file)


HOLDER = """
import sys
from pathlib import Path
from node.keystore import home_lock
with home_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_home_one_daemon_and_a_crash_lets_go(tmp_path: Path) -> None:
    file = tmp_path / "data" / "ayni.lock"
    root = Path(keystore.__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(LocalError, match=f"process {holder.pid}") as caught,
            keystore.home_lock(file),
        ):
            pass
        assert code_of(caught) == Code.IN_USE
        holder.kill()
    with keystore.home_lock(file):
        assert file.with_suffix(".pid").read_text() == f"{os.getpid()}\n"
        with (
            pytest.raises(LocalError, match=f"process {os.getpid()}"),
            keystore.home_lock(file),
        ):
            pass
    with keystore.home_lock(file):
        pass
