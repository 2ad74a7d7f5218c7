"""What the daemon and its worker say to each other, and the frames that carry it.

Both sides use this file, so it imports msgspec and plain values of the protocol only. A frame is
a 4-byte big-endian length and one MessagePack struct; a frame that is no such thing raises
PipeError, after which the pipe is of no further use. The daemon ends the worker by closing the
pipe: the same thing happens when the daemon dies.
"""

from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from protocol.errors import Code
from protocol.ids import ModelIdField
from protocol.job.sampling import Sampling
from protocol.limits import OUTPUT_TOKENS_MAX, PREFIX_TOKENS_MAX, PROMPT_BYTES_MAX
from protocol.units import CountField, TokenId

LENGTH_BYTES: Final = 4
PIPE_FRAME_BYTES_MAX: Final = 1 << 20  # A prompt of 256 KiB with a prefix of 32 k ids fits twice.
SLOTS_MAX: Final = 64  # Sequences of one model at once.
CONTEXT_TOKENS_MAX: Final = 1 << 20
CHAT_TEMPLATE_BYTES_MAX: Final = 128 << 10  # The longest that are published have some 20 KiB.
PROGRESS_TEXT_BYTES_MAX: Final = 64 << 10  # A step's text, and what a stop string had held back.
# What a worker may know of the daemon's environment: no passphrase and no token is in it.
ENVIRONMENT_ALLOWED: Final = (
    "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "SYSTEMROOT", "TEMP", "TMP",
)  # fmt: skip

TaskNumber = Annotated[int, Meta(ge=0, le=1 << 53)]
Slots = Annotated[int, Meta(ge=1, le=SLOTS_MAX)]
ContextTokens = Annotated[int, Meta(ge=1, le=CONTEXT_TOKENS_MAX)]


class PipeError(Exception):
    """What came through the pipe is none of our frames."""


class _Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Every message is an array of its tag and its fields."""


# From the daemon to the worker.


class Start(_Message, frozen=True, tag="start"):
    """The first message: how the process is to behave, before it imports torch."""

    threads: Annotated[int, Meta(ge=0, le=1024)]
    """0 is one fewer than the cores, at least 1."""
    idle_priority: bool
    device: str
    """"auto", "cpu", "cuda" or "cuda:1"."""
    compute: str
    """"auto", "f32" or "bf16"."""


class Load(_Message, frozen=True, tag="load"):
    """Read a model; answered by Loaded or LoadFailed."""

    model: ModelIdField
    name: str
    weights_path: str
    chat_template: Annotated[str, Meta(max_length=CHAT_TEMPLATE_BYTES_MAX)]
    """Empty: the one in the weights file."""
    slots: Slots
    context_tokens_max: Annotated[int, Meta(ge=0, le=CONTEXT_TOKENS_MAX)]
    """0 is all that the model was made for."""


class Measure(_Message, frozen=True, tag="measure"):
    """Time a model that is loaded, once it is idle; answered by Measured."""

    model: ModelIdField


class Add(_Message, frozen=True, tag="add"):
    """Begin a task in a free slot; answered by Began, Progress.. and Ended, or by Failed."""

    task: TaskNumber
    model: ModelIdField
    messages: list[tuple[str, str]]
    text: Annotated[str, Meta(max_length=PROMPT_BYTES_MAX)]
    stop: list[str]
    sampling: Sampling
    seed: Annotated[bytes, Meta(min_length=32, max_length=32)]
    first_t: Annotated[int, Meta(ge=0, le=OUTPUT_TOKENS_MAX)]
    prefix_ids: Annotated[list[TokenId], Meta(max_length=PREFIX_TOKENS_MAX)]
    output_tokens_max: Annotated[int, Meta(ge=1, le=OUTPUT_TOKENS_MAX)]


class Cancel(_Message, frozen=True, tag="cancel"):
    """End a task now. It is answered by Ended, unless the task had already ended."""

    task: TaskNumber


# From the worker to the daemon.


class Ready(_Message, frozen=True, tag="ready"):
    """The process has confined itself and has torch."""

    device: str
    compute: str
    torch_version: str
    confined: list[str]
    """What the sandbox could do here, e.g. "no-network"."""


class Loaded(_Message, frozen=True, tag="loaded"):
    model: ModelIdField
    mode: str
    context_tokens: ContextTokens
    slots: Slots
    vocabulary: CountField


class LoadFailed(_Message, frozen=True, tag="load-failed"):
    model: ModelIdField
    code: Code
    sentence: str


class Measured(_Message, frozen=True, tag="measured"):
    model: ModelIdField
    prefill_millitokens_per_second: CountField
    decode_millitokens_per_second: CountField


class Began(_Message, frozen=True, tag="began"):
    task: TaskNumber
    prompt_tokens: CountField
    ids_digest: Annotated[bytes, Meta(min_length=32, max_length=32)]


class Progress(_Message, frozen=True, tag="progress"):
    task: TaskNumber
    ids: list[TokenId]
    text: Annotated[str, Meta(max_length=PROGRESS_TEXT_BYTES_MAX)]


class Ended(_Message, frozen=True, tag="ended"):
    task: TaskNumber
    reason: str
    """"stop", "length" or "cancelled"."""


class Failed(_Message, frozen=True, tag="failed"):
    """This task is over; no other is touched."""

    task: TaskNumber
    code: Code
    sentence: str


ToWorker = Start | Load | Measure | Add | Cancel
FromWorker = Ready | Loaded | LoadFailed | Measured | Began | Progress | Ended | Failed

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def frame(message: ToWorker | FromWorker) -> bytes:
    """The bytes of one message. Its size is the sender's care: too much is our own bug."""
    body = _encoder.encode(message)
    assert len(body) <= PIPE_FRAME_BYTES_MAX
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def to_worker(body: bytes) -> ToWorker:
    """Raises PipeError for what is no message to a worker."""
    try:
        return _to_worker.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PipeError(f"no message to a worker: {type(error).__name__}") from None


def from_worker(body: bytes) -> FromWorker:
    """Raises PipeError for what is no message of a worker."""
    try:
        return _from_worker.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PipeError(f"no message of a worker: {type(error).__name__}") from None


class Frames:
    """Cuts a stream of bytes, in whatever pieces it comes, into the bodies of frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes | bytearray) -> Iterator[bytes]:
        """The bodies that are whole now. Raises PipeError for a frame that is too long, before
        any of it is kept."""
        self._bytes += data
        while len(self._bytes) >= LENGTH_BYTES:
            size = int.from_bytes(self._bytes[:LENGTH_BYTES], "big")
            if size > PIPE_FRAME_BYTES_MAX:
                raise PipeError(f"a frame of {size} bytes")
            end = LENGTH_BYTES + size
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[LENGTH_BYTES:end])
            del self._bytes[:end]
            yield body
