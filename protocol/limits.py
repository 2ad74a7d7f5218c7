"""Every bound of the protocol, each with its reason. Nothing from the wire is unbounded."""

from typing import Final

# Frames and encoding.
FRAME_LENGTH_BYTES: Final = 4
FRAME_BYTES_MAX: Final = 1 << 20  # The largest frame of any stream: an order with a long prompt.
CODEC_DEPTH_MAX: Final = 10  # The deepest message (a breach in a page of proofs) nests nine.
CODEC_ITEMS_MAX: Final = 65_536  # Items in one message; an order's prefix of 32 k ids fits twice.
FRAME_SECONDS_MAX: Final = 10  # A frame that has begun must end: half a frame is no lease.

# Identities.
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
DIGEST_BYTES: Final = 32
JOB_ID_BYTES: Final = 16

# One job.
PROTOCOL_VERSION: Final = 1
PROMPT_BYTES_MAX: Final = 256 << 10  # About 64 k tokens: more than any model that we list takes.
MESSAGES_MAX: Final = 512  # Turns of one chat.
ROLE_BYTES_MAX: Final = 32
TEXTS_MAX: Final = 512  # Of one embed: some seconds of work on a home CPU.
VECTOR_BYTES_MAX: Final = 16 << 10  # 4,096 numbers; the widest that are common have as many.
CHUNK_VECTORS_MAX: Final = 32  # What one signature covers; a batch of short texts.
CHUNK_VECTORS_BYTES_MAX: Final = 64 << 10  # 42 vectors of 384 numbers, or 4 of the widest.
STOP_STRINGS_MAX: Final = 8  # OpenAI allows 4; twice that costs nothing.
STOP_STRING_BYTES_MAX: Final = 256
OUTPUT_TOKENS_MAX: Final = 32_768
JOB_MS_MAX: Final = 3_600_000  # An hour: no slot is held longer by one job.
PREFIX_TOKENS_MAX: Final = OUTPUT_TOKENS_MAX  # A takeover carries at most a whole answer.
CHUNK_TOKENS_MAX: Final = 16  # What one signature covers; facts: sign 25 us, so 16 is < 0.1 %.
CHUNK_MS_MAX: Final = 250  # A slow stream is signed four times a second.
DELTA_TOKENS_MAX: Final = 64
DELTA_TEXT_BYTES_MAX: Final = 8 << 10
TOKEN_TEXT_BYTES_MAX: Final = 1024  # The longest token of today's vocabularies is half of it.
BIASED_TOKENS_MAX: Final = 300  # OpenAI's bound; eleven bytes each.
BIAS_MAX: Final = 100  # OpenAI's bound: enough to force a token or to ban it.
LOGPROBS_MAX: Final = 21  # The token that was drawn, and OpenAI's 20 likeliest.
LOGPROB_TEXT_BYTES_MAX: Final = 256  # 64 tokens of 21 then fit a frame; longer ones are cut.
QUOTE_VALID_MS: Final = 10_000  # Long enough for a signature and a slow link.
WINDOW_CHUNKS_STRANGER: Final = 2  # One in flight, one being paid (M5).
TEMPLATE_TOKENS_MAX: Final = 256  # What a chat template may add to the bytes of a prompt.
MODES_MAX: Final = 8
MODE_BYTES_MAX: Final = 64
SENTENCE_BYTES_MAX: Final = 400  # A refusal is a sentence, not a page.
RETRY_MS_MAX: Final = 3_600_000
ATTEMPTS_MAX: Final = 3  # Providers tried before a job gives up.
SILENCE_MS_MAX: Final = 30_000  # No word for so long after "started" and the provider is lost.
HANDSHAKE_MS_MAX: Final = 10_000  # A quote, or "started" beyond the quoted queue.
PROVIDER_WAIT_MS_MAX: Final = 30_000  # A provider waits so long for an order or a receipt.
KEEPALIVE_MS: Final = 5_000  # A provider with nothing to say shows that it lives.
CANCEL_MS_MAX: Final = 5_000  # After a cancel the requester waits so long for the bill.
MODEL_NAME_BYTES_MAX: Final = 64

# Money: supply is below 2**63 so that every sum fits a signed 64-bit integer in any language.
MICROCREDITS_MAX: Final = (1 << 63) - 1
PRICE_MAX: Final = 1_000_000_000_000  # Microcredits for a million tokens: 1 credit a token.

# Genesis.
GENESIS_BYTES_MAX: Final = 1 << 20
NETWORK_NAME_BYTES_MAX: Final = 64
ALLOCATIONS_MAX: Final = 10_000
WITNESSES_MAX: Final = 64
BOOTSTRAP_MAX: Final = 64

# Adverts (facts/job.md section 4).
ADVERT_BYTES_MAX: Final = 4096
ADVERT_LIFE_MS: Final = 120_000
ADVERT_REFRESH_MS: Final = 60_000
ADVERT_SPACING_MS: Final = 10_000  # A gossip delivery costs 2-3 ms of CPU at every node.
ADVERT_CLOCK_SKEW_MS: Final = 180_000
ADVERT_ADDRESSES_MAX: Final = 8
ADVERT_MODELS_MAX: Final = 16
ADVERT_DEVICES_MAX: Final = 8
ADVERTS_EXCHANGED_MAX: Final = 256
ADVERT_TEXT_BYTES_MAX: Final = 96  # A device, model or region name.
ADDRESS_BYTES_MAX: Final = 256
DIRECTORY_PEERS_MAX: Final = 4096  # About 16 MiB of adverts at most.
PEERS_REMEMBERED_MAX: Final = 1024

# Quotas of one peer (T2).
CONNECTIONS_MAX: Final = 128
STREAMS_PER_CONNECTION_MAX: Final = 64
STREAM_OPENINGS_PER_MINUTE_MAX: Final = 240
FRAMES_PER_SECOND_MAX: Final = 2000  # Sixteen streams at 120 tokens/s; decoding one takes 30 us.
GOSSIP_PER_SECOND_MAX: Final = 400  # 0.1 ms until a bad one is known; honest networks send < 30.
FAILED_CHECKS_MAX: Final = 8  # In a minute: bad signatures, replays, wrong types; then it is cut.
JOBS_PER_REQUESTER_MAX: Final = 8
REQUESTS_REMEMBERED_MAX: Final = 4096  # A replay is known for as long; each id is 32 bytes.
QUOTES_OPEN_PER_REQUESTER_MAX: Final = 16
QUOTES_OPEN_MAX: Final = 1024

# The network.
REFUSED_SECONDS: Final = 60  # A peer that was cut for its quota is kept out for a minute.
QUOTA_PEERS_MAX: Final = 4096  # Accounts of 400 bytes: fewer than 2 MiB, whoever comes and goes.
HALF_OPEN_PER_ADDRESS_MAX: Final = 8  # Handshakes at once from one IPv4 or one IPv6 /64.
HALF_OPEN_SECONDS_MAX: Final = 5  # A handshake is two round trips and 20 ms of CPU.
DIAL_SECONDS_MAX: Final = 10
OPEN_SECONDS_MAX: Final = 10
RPC_SECONDS_MAX: Final = 10  # One small frame each way.
GOSSIP_BYTES_MAX: Final = 16 << 10  # Four times the largest advert; proofs fit.

# The ledger.
CLAIM_SOURCES_MAX: Final = 256  # With the seals of 64 witnesses, the proofs of all fit one frame.
SEQ_MAX: Final = 1 << 53  # An entry a microsecond for 285 years.
EPOCH_MAX: Final = 1 << 16  # Witness lists of one network; there is one today, number 0.
ENTRY_BYTES_MAX: Final = 14 << 10  # A claim of 256 sources, 49 bytes each, and 250 around them.
SOURCE_KIND_BYTES_MAX: Final = 16  # The longest kind that is planned has six.
CERTIFIED_BYTES_MAX: Final = 20 << 10  # The largest entry, its envelope and 64 seals of 70 bytes.
PAY_CERTIFIED_BYTES_MAX: Final = 3400  # A pay with 43 seals, the quorum of 64: what a proof is.
HEADS_MAX: Final = 48  # Answers that fit one frame even if each head is the largest claim.
RANGE_ENTRIES_MAX: Final = 1024  # Small entries fill a frame at about that many.
ACCOUNTS_PAGE_MAX: Final = 1024  # 34 KiB.
PROOFS_PAGE_MAX: Final = 16  # Of the largest contradictions, 29 KiB each, 16 fill half a frame.
INSTANCE_BYTES: Final = 16  # Random: two daemons with one key are told apart.
LEDGER_ASKS_AT_ONCE_MAX: Final = 64  # Of one stream: what is small is asked and answered together.
VOTE_BURST_ENTRIES: Final = 60  # A minute's entries at once, after a time of silence.
VOTE_INTERVAL_MS: Final = 1_000  # Then one entry a second for each account.
VOTE_ACCOUNTS_MAX: Final = 65_536  # Buckets kept: about 16 MiB; the least used go first.
CHECKPOINT_BYTES_MAX: Final = 5 << 10  # 64 seals of 70 bytes over one state.
CHECKPOINT_PAGE_HOLDINGS: Final = 1024  # 60 KiB; what the digest of them is chained by.
CHECKPOINT_HOLDINGS_MAX: Final = (
    1 << 18
)  # 40 MiB while one is taken over; longer chains stay whole.
FAULTS_SHOWN_MAX: Final = 100  # Of an audit: enough to see what is wrong, however much is.

# Channels (facts of the ledger, 1.4). The lengths of time are of the genesis; these are its usual.
GRACE_MS_USUAL: Final = 300_000  # After the expiry the payee may still settle in turn 1.
WINDOW_MS_USUAL: Final = 600_000  # Of each turn after that: 5 delays and 4 skews fit many times.
TURN_MS_MIN: Final = 1_000  # Of GRACE and WINDOW: shorter ones fit no round trip between homes.
TURN_MS_MAX: Final = 86_400_000  # Of both: a day, or nobody would wait for it.
SETTLE_AHEAD_GRACES: Final = 12  # A payee settles 12 x GRACE, an hour, before the expiry (Delta).
COUNT_AHEAD_GRACES: Final = 24  # It counts vouchers until 24 x GRACE, two hours, before it.
TURN_MAX: Final = 1 << 32  # A turn a second for 136 years.
TOPUPS_SHOWN_MAX: Final = 64  # That a proposal shows: a payee counts no funding beyond these.
CHANNEL_MS_MAX: Final = 60_000  # A job waits so long for a channel to be opened, then goes on.
HELD_LOOK_MS: Final = 250  # A provider looks again so soon whether the window has room.
WINDOW_CHUNKS_MAX: Final = 32  # Half a thousand tokens, for who has paid for far more.
PROMPT_BYTES_PER_TOKEN: Final = (
    6  # Ordinary text has 3 to 5: what is paid first is no more than due.
)
PREPARED_BYTES_MAX: Final = 5 << 10  # 64 seals of 70 bytes over one value of a channel.
