"""What the daemon and its worker say to each other, and the frames that carry it.

Both sides use this file, so it imports msgspec and plain values of the protocol only. A frame is
a 4-byte big-endian length and one MessagePack struct; a frame that is no such thing raises
PipeError, after which the pipe is of no further use. The daemon ends the worker by closing the
pipe: the same thing happens when the daemon dies.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from protocol.errors import Code
from protocol.ids import ModelIdField
from protocol.job.logprob import Logprob
from protocol.job.sampling import Sampling
from protocol.limits import OUTPUT_TOKENS_MAX, PREFIX_TOKENS_MAX, PROMPT_BYTES_MAX
from protocol.units import CountField, TokenId

LENGTH_BYTES: Final = 4
PIPE_FRAME_BYTES_MAX: Final = 1 << 20  # A prompt of 256 KiB with a prefix of 32 k ids fits twice.
SLOTS_MAX: Final = 64  # Sequences of one model at once.
CONTEXT_TOKENS_MAX: Final = 1 << 20
CHAT_TEMPLATE_BYTES_MAX: Final = 128 << 10  # The longest that are published have some 20 KiB.
PROGRESS_TEXT_BYTES_MAX: Final = 64 << 10  # A step's text, and what a stop string had held back.
MODEL_FILES_MAX: Final = 256  # Weights of the largest models come in some 200 parts.
PUBLIC_PREFIXES_MAX: Final = 64
OPENED_ROWS_MAX: Final = 32  # What verification opens of one job.
EMBEDDED_TEXTS_MAX: Final = 512
PACKED_LAYOUT: Final = 1  # Of packed weights on disk: they are packed anew for another.
# What a worker may know of the daemon's environment: no passphrase and no token is in it.
ENVIRONMENT_ALLOWED: Final = (
    "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "SYSTEMROOT", "TEMP", "TMP",
)  # fmt: skip

TaskNumber = Annotated[int, Meta(ge=0, le=1 << 53)]
Slots = Annotated[int, Meta(ge=1, le=SLOTS_MAX)]
FilePath = Annotated[str, Meta(max_length=4096)]
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
    """"auto", "cpu", "cuda", "cuda:1" or "mps"."""
    compute: str
    """"auto", "f32" or "bf16"; of the torch engine."""
    engine: str
    """"auto", "native" or "torch"."""
    readable: Annotated[list[FilePath], Meta(max_length=2 * MODEL_FILES_MAX)]
    """Files and folders of the models: with those of Python itself, all that can be read later."""


class File(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One file of a model, by what it is for: "weights", "tokenizer", "template" or "config"."""

    role: Annotated[str, Meta(max_length=16)]
    name: Annotated[str, Meta(max_length=300)]
    path: FilePath


class Load(_Message, frozen=True, tag="load"):
    """Read a model; answered by Loaded or LoadFailed."""

    model: ModelIdField
    name: str
    files: Annotated[list[File], Meta(min_length=1, max_length=MODEL_FILES_MAX)]
    packed_path: str
    """Where weights that were packed before for the native engine are; "" or no such file: they
    are packed in memory."""
    chat_template: Annotated[str, Meta(max_length=CHAT_TEMPLATE_BYTES_MAX)]
    """Empty: the one among the files."""
    slots: Slots
    context_tokens_max: Annotated[int, Meta(ge=0, le=CONTEXT_TOKENS_MAX)]
    """0 is all that the model was made for."""
    memory_bytes_max: Annotated[int, Meta(ge=0)]
    """For weights and cache together; 0 is what the machine has to give now."""
    public_prefixes: Annotated[list[str], Meta(max_length=PUBLIC_PREFIXES_MAX)]
    """System prompts whose cache all requesters may share, since everybody knows them."""


class Measure(_Message, frozen=True, tag="measure"):
    """Time a model that is loaded, once it is idle; answered by Measured."""

    model: ModelIdField


class Add(_Message, frozen=True, tag="add"):
    """Begin a task in a free slot; answered by Began, Progress.. and Ended, or by Failed."""

    task: TaskNumber
    model: ModelIdField
    requester: Annotated[bytes, Meta(max_length=32)]
    """Whose task it is: its turns are fair, and only its own tasks share a cached prefix. Empty:
    the owner of this machine, who goes first."""
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


class Open(_Message, frozen=True, tag="open"):
    """Show hidden rows of a task, also of one that has ended and is not forgotten; answered by
    Opened."""

    task: TaskNumber
    places: Annotated[list[int], Meta(max_length=OPENED_ROWS_MAX)]
    """Which, as `t` counts them."""


class Forget(_Message, frozen=True, tag="forget"):
    """The rows of a task that has ended are not needed any more. No answer."""

    task: TaskNumber


class Embed(_Message, frozen=True, tag="embed"):
    """Turn texts into vectors; answered by Began, Embedded.. and Ended, or by Failed."""

    task: TaskNumber
    model: ModelIdField
    requester: Annotated[bytes, Meta(max_length=32)]
    texts: Annotated[list[str], Meta(min_length=1, max_length=EMBEDDED_TEXTS_MAX)]


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
    width: CountField
    """Of a hidden row, or of a vector."""
    kind: str
    """"generate" or "embed"."""
    engine: str
    """For people: "native (avx512-vnni), 2 threads" or "torch (bf16)"."""
    note: str
    """For people: what was lost or is slower than it could be, and what to do; "" for nothing."""


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
    leaves: list[Annotated[bytes, Meta(min_length=32, max_length=32)]]
    """Of each token's hidden row (protocol.job.commitment); none from a model that has no rows."""
    alternatives: list[list[Logprob]]
    """For each token, when the sampling asks: itself first, then the likeliest."""


class Opened(_Message, frozen=True, tag="opened"):
    task: TaskNumber
    rows: list[bytes]
    """In the order that was asked for; b"" where it is not kept."""


class Embedded(_Message, frozen=True, tag="embedded"):
    """Vectors of the next texts, in their order."""

    task: TaskNumber
    vectors: list[bytes]
    """float32, little endian, of length 1."""


class Ended(_Message, frozen=True, tag="ended"):
    task: TaskNumber
    reason: str
    """"stop", "length" or "cancelled"."""


class Failed(_Message, frozen=True, tag="failed"):
    """This task is over; no other is touched."""

    task: TaskNumber
    code: Code
    sentence: str


ToWorker = Start | Load | Measure | Add | Cancel | Open | Forget | Embed
FromWorker = (
    Ready | Loaded | LoadFailed | Measured | Began | Progress | Opened | Embedded | Ended | Failed
)


def began(task: int, ids: Sequence[int]) -> Began:
    """That a task with these tokens to read is admitted. Their digest is that of
    protocol.job.commitment.prompt_ids_digest, which the worker may not import."""
    raw = b"".join(token.to_bytes(4, "little") for token in ids)
    return Began(task, len(ids), blake2b(raw, digest_size=32).digest())


_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def packed_name(model: bytes) -> str:
    """The file in which weights that were packed for the native engine are kept."""
    return f"{model.hex()}-{PACKED_LAYOUT}.ayni"


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
