"""One whole job between two fixed nodes, and every other message: what the vectors are made of."""

import struct
from dataclasses import dataclass

from msgspec import Struct

from protocol import codec
from protocol.capacity import Advert, AdvertsPage, Device, ModelOffer
from protocol.envelope import Signed, seal
from protocol.identity import Identity, Seed, digest
from protocol.ids import JobId, MessageId, ModelId
from protocol.job.checks import NO_PAYMENT, payment_for, prompt_first
from protocol.job.commitment import (
    RUNNING_START,
    prompt_commitment,
    prompt_ids_digest,
    prompt_size,
    running_hash,
    stop_digest,
    terms_digest,
)
from protocol.job.kinds import kind_of
from protocol.job.logprob import Logprob
from protocol.job.sampling import Sampling
from protocol.job.seed import seed_commitment
from protocol.job.terms import (
    Cancel,
    Chunk,
    Delta,
    Message,
    Order,
    Prompt,
    Quote,
    Receipt,
    Refuse,
    Request,
    Started,
)
from protocol.ledger.genesis import NetworkFile, genesis_made, network_id
from protocol.ledger.voucher import Voucher, voucher_note, voucher_signed
from protocol.pricing import cost

REQUESTER_SEED = Seed(bytes(range(32)))
PROVIDER_SEED = Seed(bytes(range(32, 64)))
REQUESTER = Identity(REQUESTER_SEED)
PROVIDER = Identity(PROVIDER_SEED)
STRANGER = Identity(Seed(bytes(range(64, 96))))

GENESIS = genesis_made(
    "ayllu",
    bytes(range(16)),
    {REQUESTER.node: 1_000_000_000, PROVIDER.node: 250_000_000},
    {PROVIDER.node},
)
NETWORK = network_id(GENESIS)
NETWORK_FILE = NetworkFile(GENESIS, ("/ip4/192.0.2.7/tcp/4001",))
MODEL = ModelId(digest(b"a model"))
JOB = JobId(bytes.fromhex("00112233445566778899aabbccddeeff"))
CHANNEL = MessageId(digest(b"a channel"))
SALT = bytes([0x5A]) * 32
SHARE = bytes([0xA5]) * 32
SHARE_PROVIDER = bytes([0x3C]) * 32
PROMPT = Prompt((Message("user", "Why is the sky blue?"),), "", ())
STOP = ("\n\n", "END")
PROMPT_IDS = (1, 7306, 314, 260, 6376, 4461, 47)
ANSWER_IDS = (504, 6376, 314, 4461)
EMBEDDED = (struct.pack("<2f", 0.6, 0.8), struct.pack("<2f", -1.0, 0.0))
ANSWER_TEXT = "The sky is blue"
SAMPLING = Sampling(
    700_000, 950_000, 0, 40, 1_100_000, 0, -250_000, ((198, -100_000_000), (6376, 1_500_000)), 2
)


def message_id(value: Struct) -> MessageId:
    """The id that an envelope of this value has."""
    return MessageId(digest(codec.encode(value)))


@dataclass(frozen=True)
class Agreement:
    """A request, a quote and an order that fit one another, with their ids."""

    request: Request
    quote: Quote
    order: Order
    request_id: MessageId
    quote_id: MessageId
    order_id: MessageId
    terms: bytes


def agreement(
    *,
    output_tokens_max: int = 256,
    time_ms_max: int = 60_000,
    cost_max: int = 1_000_000,
    prices: tuple[int, int] = (2_000_000, 6_000_000),
    chunk_tokens: int = 16,
    prompt: Prompt = PROMPT,
    stop: tuple[str, ...] = STOP,
    is_prompt_first: bool = False,
    job: JobId = JOB,
) -> Agreement:
    """The sample job with other limits, prices or words; what costs something is paid by CHANNEL,
    of which nothing was spent before."""
    request = Request(
        version=1,
        network=NETWORK,
        provider=PROVIDER.node,
        job=job,
        kind=kind_of(prompt),
        model=MODEL,
        modes=("cpu-f32/gguf",),
        sampling=SAMPLING,
        stop_digest=stop_digest(SALT, stop),
        output_tokens_max=output_tokens_max,
        time_ms_max=time_ms_max,
        cost_max=cost_max,
        prompt_bytes=prompt_size(prompt),
        prompt_commitment=prompt_commitment(SALT, prompt),
        seed_commitment=seed_commitment(SHARE),
        seed_source="drawn",
        first_t=0,
        prefix_hash=b"",
    )
    request_id = message_id(request)
    quote = Quote(
        request=request_id,
        mode="cpu-f32/gguf",
        price_in=prices[0],
        price_out=prices[1],
        p=SHARE_PROVIDER,
        window_chunks=2,
        chunk_tokens=chunk_tokens,
        chunk_ms=250,
        valid_ms=10_000,
        queue_ms=0,
        payment=payment_for(*prices, is_prompt_first=is_prompt_first),
    )
    quote_id = message_id(quote)
    channel = b"" if quote.payment == NO_PAYMENT else CHANNEL
    ahead, voucher = prompt_first(request, quote), None
    if ahead:
        first = Voucher(CHANNEL, ahead, voucher_note(quote_id, 0), b"")
        voucher = voucher_signed(REQUESTER, first, NETWORK)
    order = Order(quote_id, SHARE, SALT, prompt, stop, (), channel, voucher)
    terms = terms_digest(request_id, quote_id)
    return Agreement(request, quote, order, request_id, quote_id, message_id(order), terms)


DEAL = agreement(is_prompt_first=True)
RUNNING = running_hash(RUNNING_START, 0, ANSWER_IDS, ANSWER_TEXT)
COST = cost(len(PROMPT_IDS), len(ANSWER_IDS), DEAL.quote.price_in, DEAL.quote.price_out)
STARTED = Started(DEAL.order_id, len(PROMPT_IDS), prompt_ids_digest(PROMPT_IDS))
LOGPROBS = (
    (Logprob(504, b"The", -105_361), Logprob(504, b"The", -105_361)),
    (Logprob(6376, b" sky", -1_203_973), Logprob(32, b" \xe2\x98", -693_147)),
)
DELTA = Delta(DEAL.order_id, ANSWER_IDS[:2], "The sky", LOGPROBS)
CHUNK = Chunk(DEAL.order_id, DEAL.terms, 0, ANSWER_IDS, (), b"", RUNNING, COST, "stop")
RECEIPT = Receipt(
    DEAL.order_id, len(PROMPT_IDS), len(ANSWER_IDS), COST, RUNNING, 0, "none", 180, 420
)
VOUCHER = Voucher(CHANNEL, COST, voucher_note(DEAL.order_id, len(ANSWER_IDS)), b"")
REFUSE = Refuse(DEAL.request_id, "BUSY", "Both slots are taken; come again in a minute.", 60_000)
CANCEL = Cancel(DEAL.order_id)
OFFER = ModelOffer(
    model=MODEL,
    name="smollm2-135m-instruct",
    kind="generate",
    mode="cpu-f32/gguf",
    context_tokens=8192,
    price_in=2_000_000,
    price_out=6_000_000,
    prefill_millitokens_per_second=95_000,
    decode_millitokens_per_second=21_500,
    slots=2,
    slots_free=1,
)
ADVERT = Advert(
    version=1,
    sequence=1_767_225_600_000,
    issued_at=1_767_225_600_000,
    life_ms=120_000,
    name="maize",
    software="ayni 0.1.0",
    addresses=("/ip4/192.0.2.7/tcp/4001",),
    devices=(Device("cpu", "a processor", 16 << 30, 8),),
    models=(OFFER,),
    sharing="on",
    reachability="unknown",
    region="",
)
ADVERTS_PAGE = AdvertsPage(((1500, seal(PROVIDER, NETWORK, ADVERT)),))
SIGNED: Signed = seal(REQUESTER, NETWORK, RECEIPT)

# The signer of each message that travels in an envelope.
SIGNERS: dict[str, tuple[Identity, Struct]] = {
    "request": (REQUESTER, DEAL.request),
    "quote": (PROVIDER, DEAL.quote),
    "order": (REQUESTER, DEAL.order),
    "started": (PROVIDER, STARTED),
    "chunk": (PROVIDER, CHUNK),
    "voucher": (REQUESTER, VOUCHER),
    "receipt": (PROVIDER, RECEIPT),
    "receipt, countersigned": (REQUESTER, RECEIPT),
    "refuse": (PROVIDER, REFUSE),
    "advert": (PROVIDER, ADVERT),
}
MESSAGES: dict[str, Struct] = {
    "request": DEAL.request,
    "quote": DEAL.quote,
    "order": DEAL.order,
    "started": STARTED,
    "delta": DELTA,
    "chunk": CHUNK,
    "voucher": VOUCHER,
    "receipt": RECEIPT,
    "refuse": REFUSE,
    "cancel": CANCEL,
    "signed": SIGNED,
    "advert": ADVERT,
    "adverts": ADVERTS_PAGE,
    "genesis": GENESIS,
    "network": NETWORK_FILE,
}
