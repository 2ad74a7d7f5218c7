"""The node's key on disk, the API key, and the lock that keeps a home to one daemon."""

import base64
import os
import secrets
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from protocol.errors import Code, LocalError
from protocol.identity import Seed

PASSPHRASE_VARIABLE = "AYNI_PASSPHRASE"
PASSPHRASE_FILE_VARIABLE = "AYNI_PASSPHRASE_FILE"
PASSPHRASE_BYTES_MAX = 1024
FILE_BYTES_MAX = 4096  # An encrypted Ed25519 key takes about 400 bytes.
API_KEY_BYTES = 32

# OWASP's figures for scrypt in 16 MiB, which is as much as OpenSSL's own tools will spend.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 5

_ENCRYPTED = "ENCRYPTED PRIVATE KEY"
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")

Prompt = Callable[[], str]
"""Asks the person at the terminal for the passphrase, without showing it."""


def create_key(path: Path, passphrase: bytes | None, seed: Seed | None = None) -> Seed:
    """Make a new key, or that of `seed`, and keep it at `path`, encrypted unless `passphrase` is
    None.

    The file appears whole or not at all, readable by its owner alone. Raises LocalError: BAD_KEY
    where there is a file already, or for an empty passphrase; UNAVAILABLE when the disk fails.
    """
    if passphrase is not None:
        _check_passphrase(passphrase)
    if seed is None:
        key = Ed25519PrivateKey.generate()
    else:
        key = Ed25519PrivateKey.from_private_bytes(seed)
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    if passphrase is None:
        pem = _pem("PRIVATE KEY", plain)
    else:
        pem = _pem(_ENCRYPTED, _encrypted(plain, passphrase))
    try:
        _write_new(path, pem)
    except FileExistsError:
        raise LocalError(
            Code.BAD_KEY, f"{path} holds a key already; it is this node's account, so keep it."
        ) from None
    return Seed(key.private_bytes_raw())


def load_key(path: Path, passphrase: Callable[[], bytes]) -> Seed:
    """The seed kept at `path`; `passphrase` is called only when the file is encrypted.

    Raises LocalError: NOT_FOUND where there is no key, BAD_KEY for a file that others can read,
    a wrong passphrase, or what is no Ed25519 key.
    """
    pem = _read_private(path)
    encrypted = _ENCRYPTED.encode() in pem
    secret = passphrase() if encrypted else None
    try:
        key = load_pem_private_key(pem, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        doubt = "the passphrase is wrong or the file is damaged" if encrypted else "it is damaged"
        raise LocalError(
            Code.BAD_KEY, f"{path} cannot be read as a key: {doubt}. Try again or restore a backup."
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise LocalError(
            Code.BAD_KEY, f"{path} holds another kind of key; a node's key is Ed25519."
        )
    return Seed(key.private_bytes_raw())


def is_encrypted(path: Path) -> bool:
    """Whether a passphrase is needed. Raises LocalError NOT_FOUND or BAD_KEY as load_key does."""
    return _ENCRYPTED.encode() in _read_private(path)


def find_passphrase(
    prompt: Prompt | None,
    file: Path | None = None,
    environ: MutableMapping[str, str] | None = None,
) -> bytes:
    """The passphrase from `file`, AYNI_PASSPHRASE, the file that AYNI_PASSPHRASE_FILE names, or
    the person at the terminal, in this order; `prompt` is None where there is no terminal.

    Both variables are dropped from `environ` (the process's own when None), so that no child
    inherits them; the system may still show the environment a process began with to its owner.
    A file counts up to its first line break. Raises LocalError BAD_KEY.
    """
    environ = os.environ if environ is None else environ
    given = environ.pop(PASSPHRASE_VARIABLE, None)
    named = environ.pop(PASSPHRASE_FILE_VARIABLE, None)
    if file is None and given is None and named:
        file = Path(named).expanduser()
    if file is not None:
        passphrase = _read_private(file).partition(b"\n")[0].rstrip(b"\r")
    elif given is not None:
        passphrase = given.encode("utf-8", "surrogateescape")
    elif prompt is not None:
        passphrase = prompt().encode("utf-8", "surrogateescape")
    else:
        raise LocalError(
            Code.BAD_KEY,
            f"The key needs a passphrase and there is no terminal to ask at: set "
            f"{PASSPHRASE_VARIABLE}, or {PASSPHRASE_FILE_VARIABLE} to a file of mode 600.",
        )
    _check_passphrase(passphrase)
    return passphrase


def api_key(path: Path) -> str:
    """The key of the local API, made on first use. Raises LocalError BAD_KEY, UNAVAILABLE."""
    with suppress(FileExistsError):  # Made by an earlier run, or just now by another process.
        _write_new(path, secrets.token_urlsafe(API_KEY_BYTES).encode() + b"\n")
    return read_api_key(path)


def read_api_key(path: Path) -> str:
    """The key of the local API. Raises LocalError NOT_FOUND or BAD_KEY."""
    text = _read_private(path).decode("ascii", "replace").strip()
    if len(text) < API_KEY_BYTES or not text.isascii() or not text.isprintable():
        raise LocalError(
            Code.BAD_KEY, f"{path} holds no API key: remove it, and `ayni up` makes another."
        )
    return text


@contextmanager
def home_lock(path: Path) -> Iterator[None]:
    """Hold a home for this process alone; the system lets go of it even after a crash.

    Raises LocalError: IN_USE, with the holder's pid where it is known, when another daemon has
    it; UNAVAILABLE when the folder cannot be written.
    """
    # Beside the lock and not in it: opening a lock can empty it, and Windows lets none read it.
    pid_file = path.with_suffix(".pid")
    lock = filelock.FileLock(path, timeout=0, thread_local=False, mode=0o600)
    try:
        _make_folder(path.parent)
        lock.acquire()
    except OSError as error:
        if not isinstance(error, filelock.Timeout):
            raise _no_access(path, error) from None
        holder = _read_pid(pid_file)
        who = f"process {holder}" if holder else "another process"
        raise LocalError(
            Code.IN_USE,
            f"{path.parent} is in use by {who}: stop it with `ayni down`, or give --home.",
        ) from None
    try:
        pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        pid_file.unlink(missing_ok=True)
        lock.release()


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None  # The holder has only just begun, or is going.


def _check_passphrase(passphrase: bytes) -> None:
    if not 0 < len(passphrase) <= PASSPHRASE_BYTES_MAX:
        raise LocalError(
            Code.BAD_KEY,
            f"A passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes, not {len(passphrase)}; "
            "a key without one must be asked for by name (`ayni init --no-passphrase`).",
        )


def _no_access(path: Path, error: OSError) -> LocalError:
    return LocalError(Code.UNAVAILABLE, f"{path} cannot be written: {error.strerror or error}.")


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise LocalError(
            Code.NOT_FOUND, f"There is no {path}: `ayni init` makes a node's key and settings."
        ) from None
    except OSError as error:
        raise LocalError(Code.BAD_KEY, f"{path} cannot be read: {error.strerror}.") from None
    if sys.platform != "win32" and mode & 0o077:
        raise LocalError(
            Code.BAD_KEY,
            f"{path} has mode {mode & 0o777:o}, so others can read it: run `chmod 600 {path}`.",
        )
    if len(data) > FILE_BYTES_MAX:
        raise LocalError(Code.BAD_KEY, f"{path} is too large to be a key or a passphrase.")
    return data


def _write_new(path: Path, data: bytes) -> None:
    """A private file that is there whole or not at all, also after a power cut.

    Raises FileExistsError, since an existing file is never replaced; LocalError UNAVAILABLE.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _make_folder(path.parent)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if sys.platform == "win32":
            os.rename(part, path)  # Refuses to replace, there.
        else:
            os.link(part, path)  # A rename would replace a key that another process made.
    except OSError as error:
        if isinstance(error, FileExistsError) and path.exists():
            raise
        raise _no_access(path, error) from None
    finally:
        with suppress(OSError):
            part.unlink()
    if sys.platform != "win32":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _pem(label: str, der: bytes) -> bytes:
    body = base64.b64encode(der).decode()
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def _encrypted(plain: bytes, passphrase: bytes) -> bytes:
    """EncryptedPrivateKeyInfo (RFC 5208) by PBES2 (RFC 8018) with scrypt (RFC 7914), AES-256-CBC.

    Written out here since the library's own writer stretches a passphrase by 2048 rounds of
    PBKDF2 only, which a graphics card tries by the million; its reader, and OpenSSL's, take this.
    """
    salt, vector = secrets.token_bytes(16), secrets.token_bytes(16)
    key = Scrypt(salt, 32, SCRYPT_N, SCRYPT_R, SCRYPT_P).derive(passphrase)
    padder = PKCS7(128).padder()
    padded = padder.update(plain) + padder.finalize()
    encryptor = Cipher(AES256(key), CBC(vector)).encryptor()
    hidden = encryptor.update(padded) + encryptor.finalize()
    numbers = [_der_integer(number) for number in (SCRYPT_N, SCRYPT_R, SCRYPT_P)]
    stretch = _der(0x30, _SCRYPT, _der(0x30, _der(0x04, salt), *numbers))
    cipher = _der(0x30, _AES_256_CBC, _der(0x04, vector))
    scheme = _der(0x30, _PBES2, _der(0x30, stretch, cipher))
    return _der(0x30, scheme, _der(0x04, hidden))


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    assert len(body) < 256
    return bytes([tag, len(body)] if len(body) < 128 else [tag, 0x81, len(body)]) + body


def _der_integer(number: int) -> bytes:
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))
