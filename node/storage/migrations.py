"""The numbered steps from an empty database to today's tables. Append only: never edit a step."""

from typing import Final

# Step n brings the schema from version n - 1 to n, whole or not at all.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """
        CREATE TABLE jobs (
            role TEXT NOT NULL CHECK (role IN ('requester', 'provider')),
            order_id BLOB NOT NULL CHECK (length(order_id) = 32),
            job_id BLOB NOT NULL CHECK (length(job_id) = 16),
            peer BLOB NOT NULL CHECK (length(peer) = 32),
            model BLOB NOT NULL CHECK (length(model) = 32),
            model_name TEXT NOT NULL,
            state TEXT NOT NULL,
            code TEXT NOT NULL,
            tokens_in INTEGER NOT NULL CHECK (tokens_in >= 0),
            tokens_out INTEGER NOT NULL CHECK (tokens_out >= 0),
            cost_microcredits INTEGER NOT NULL CHECK (cost_microcredits >= 0),
            ms_first INTEGER NOT NULL,
            ms_total INTEGER NOT NULL,
            started_at_ms INTEGER NOT NULL,
            PRIMARY KEY (role, order_id)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX jobs_by_time ON jobs (started_at_ms)",
        """
        CREATE TABLE peers (
            node BLOB NOT NULL PRIMARY KEY CHECK (length(node) = 32),
            addresses TEXT NOT NULL,
            advert BLOB NOT NULL,
            seen_at_ms INTEGER NOT NULL,
            failures INTEGER NOT NULL CHECK (failures >= 0)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX peers_by_time ON peers (seen_at_ms)",
        """
        CREATE TABLE counters (
            name TEXT NOT NULL PRIMARY KEY,
            value INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        """
        CREATE TABLE ledger_accounts (
            account BLOB NOT NULL PRIMARY KEY CHECK (length(account) = 32),
            seq INTEGER NOT NULL CHECK (seq >= 1),
            head BLOB NOT NULL CHECK (length(head) = 32),
            balance INTEGER NOT NULL CHECK (balance >= 0)
        ) STRICT, WITHOUT ROWID
        """,
        # `payee` and `amount` are those of a pay, and NULL in a claim.
        """
        CREATE TABLE ledger_entries (
            account BLOB NOT NULL CHECK (length(account) = 32),
            seq INTEGER NOT NULL CHECK (seq >= 1),
            id BLOB NOT NULL UNIQUE CHECK (length(id) = 32),
            payee BLOB,
            amount INTEGER,
            fee INTEGER NOT NULL,
            certified BLOB NOT NULL,
            PRIMARY KEY (account, seq)
        ) STRICT
        """,
        """
        CREATE TABLE ledger_claims (
            account BLOB NOT NULL,
            kind TEXT NOT NULL,
            source BLOB NOT NULL,
            seq INTEGER NOT NULL,
            PRIMARY KEY (account, kind, source)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX ledger_claims_by_source ON ledger_claims (source)",
        """
        CREATE TABLE ledger_votes (
            account BLOB NOT NULL,
            seq INTEGER NOT NULL,
            entry BLOB NOT NULL,
            PRIMARY KEY (account, seq)
        ) STRICT
        """,
        # Certified entries that came before those in front of them in their chain.
        """
        CREATE TABLE ledger_shown (
            id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 32),
            account BLOB NOT NULL,
            seq INTEGER NOT NULL,
            certified BLOB NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE ledger_proofs (
            number INTEGER PRIMARY KEY,
            digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
            account BLOB NOT NULL,
            is_breach INTEGER NOT NULL,
            is_read INTEGER NOT NULL,
            proof BLOB NOT NULL
        ) STRICT
        """,
        "CREATE INDEX ledger_proofs_by_account ON ledger_proofs (account)",
        # Why this node stopped, by name.
        """
        CREATE TABLE ledger_state (
            name TEXT NOT NULL PRIMARY KEY
                CHECK (name IN ('breach', 'forgot', 'restored', 'rival', 'accepted')),
            value BLOB NOT NULL
        ) STRICT
        """,
        # The entry of our own that is signed and not yet certified.
        """
        CREATE TABLE ledger_pending (
            only INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
            seq INTEGER NOT NULL,
            entry BLOB NOT NULL
        ) STRICT
        """,
        # What we owe: `seq` is that of the entry that pays it, NULL until one is signed.
        """
        CREATE TABLE ledger_payments (
            number INTEGER PRIMARY KEY,
            payee BLOB NOT NULL CHECK (length(payee) = 32),
            amount INTEGER NOT NULL CHECK (amount > 0),
            reference BLOB NOT NULL CHECK (length(reference) = 32),
            seq INTEGER,
            is_told INTEGER NOT NULL
        ) STRICT
        """,
        f"""
        CREATE UNIQUE INDEX ledger_payments_once ON ledger_payments (payee, reference)
        WHERE reference != X'{"00" * 32}'
        """,
        "CREATE INDEX ledger_payments_by_seq ON ledger_payments (seq)",
        "CREATE INDEX ledger_payments_untold ON ledger_payments (payee, seq) WHERE is_told = 0",
        # Certified pays to us: `claimed` is the seq of the own entry that took it, or NULL.
        """
        CREATE TABLE ledger_incomes (
            number INTEGER PRIMARY KEY,
            id BLOB NOT NULL UNIQUE CHECK (length(id) = 32),
            payer BLOB NOT NULL,
            amount INTEGER NOT NULL CHECK (amount > 0),
            reference BLOB NOT NULL,
            claimed INTEGER
        ) STRICT
        """,
        "CREATE INDEX ledger_incomes_unclaimed ON ledger_incomes (number) WHERE claimed IS NULL",
    ),
    (
        """
        CREATE TABLE bills (
            role TEXT NOT NULL CHECK (role IN ('requester', 'provider')),
            order_id BLOB NOT NULL CHECK (length(order_id) = 32),
            peer BLOB NOT NULL CHECK (length(peer) = 32),
            amount INTEGER NOT NULL CHECK (amount > 0),
            paid INTEGER NOT NULL CHECK (paid BETWEEN 0 AND amount),
            receipt_id BLOB NOT NULL CHECK (length(receipt_id) IN (0, 32)),
            receipt BLOB NOT NULL,
            provider_signature BLOB NOT NULL,
            requester_signature BLOB NOT NULL,
            billed_at_ms INTEGER NOT NULL,
            PRIMARY KEY (role, order_id)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX bills_open ON bills (role, peer) WHERE paid < amount",
        "CREATE INDEX bills_by_time ON bills (billed_at_ms)",
        """
        CREATE TABLE bill_incomes (
            id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 32),
            payer BLOB NOT NULL CHECK (length(payer) = 32),
            reference BLOB NOT NULL CHECK (length(reference) = 32),
            amount INTEGER NOT NULL CHECK (amount > 0),
            unused INTEGER NOT NULL CHECK (unused BETWEEN 0 AND amount)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX bill_incomes_unused ON bill_incomes (reference) WHERE unused > 0",
    ),
    # What channels bring: the highest voucher of each, and what was delivered and never paid.
    (
        """
        CREATE TABLE channel_vouchers (
            channel BLOB NOT NULL PRIMARY KEY CHECK (length(channel) = 32),
            payer BLOB NOT NULL CHECK (length(payer) = 32),
            cumulative INTEGER NOT NULL CHECK (cumulative > 0),
            voucher BLOB NOT NULL,
            counted_at_ms INTEGER NOT NULL,
            is_over INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX channel_vouchers_over ON channel_vouchers (counted_at_ms) WHERE is_over",
        """
        CREATE TABLE channel_losses (
            channel BLOB NOT NULL PRIMARY KEY CHECK (length(channel) = 32),
            payer BLOB NOT NULL CHECK (length(payer) = 32),
            amount INTEGER NOT NULL CHECK (amount > 0),
            chunks INTEGER NOT NULL CHECK (chunks > 0)
        ) STRICT, WITHOUT ROWID
        """,
        # Of channels that are settled and claimed, by payer: what they paid, and what was lost.
        """
        CREATE TABLE channel_payers (
            payer BLOB NOT NULL PRIMARY KEY CHECK (length(payer) = 32),
            paid INTEGER NOT NULL CHECK (paid >= 0),
            lost INTEGER NOT NULL CHECK (lost >= 0)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        # What waits for an entry of ours is a pay, an open or a top-up, in one line.
        """
        ALTER TABLE ledger_payments ADD COLUMN kind TEXT NOT NULL DEFAULT 'pay'
            CHECK (kind IN ('pay', 'open', 'topup'))
        """,
        "ALTER TABLE ledger_payments ADD COLUMN expiry_ms INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE ledger_payments ADD COLUMN channel BLOB",
        "ALTER TABLE ledger_claims ADD COLUMN amount INTEGER NOT NULL DEFAULT 0",
        # An entry may bring two credits, a pay and its fee, and a channel's two shares have one id.
        "DROP INDEX ledger_incomes_unclaimed",
        "ALTER TABLE ledger_incomes RENAME TO ledger_incomes_old",
        """
        CREATE TABLE ledger_incomes (
            number INTEGER PRIMARY KEY,
            kind TEXT NOT NULL CHECK (kind IN ('pay', 'earned', 'rest', 'fee')),
            id BLOB NOT NULL CHECK (length(id) = 32),
            payer BLOB NOT NULL,
            amount INTEGER NOT NULL CHECK (amount > 0),
            reference BLOB NOT NULL,
            claimed INTEGER,
            UNIQUE (kind, id)
        ) STRICT
        """,
        """
        INSERT INTO ledger_incomes
        SELECT number, 'pay', id, payer, amount, reference, claimed FROM ledger_incomes_old
        """,
        "DROP TABLE ledger_incomes_old",
        "CREATE INDEX ledger_incomes_unclaimed ON ledger_incomes (number) WHERE claimed IS NULL",
        # Channels as far as their payers' chains are here: what those chains moved into them.
        """
        CREATE TABLE ledger_channels (
            id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 32),
            payer BLOB NOT NULL,
            funding INTEGER NOT NULL CHECK (funding > 0)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE ledger_settlements (
            channel BLOB NOT NULL PRIMARY KEY CHECK (length(channel) = 32),
            value INTEGER NOT NULL CHECK (value >= 0),
            settlement BLOB NOT NULL
        ) STRICT
        """,
        # What this witness has said of a channel that is not settled.
        """
        CREATE TABLE ledger_seats (
            channel BLOB NOT NULL PRIMARY KEY CHECK (length(channel) = 32),
            seat BLOB NOT NULL
        ) STRICT
        """,
        # Channels of which we are payer or payee. `is_done`: our share is claimed, or is nothing.
        # `is_told`: the other party has the settlement.
        """
        CREATE TABLE ledger_own_channels (
            number INTEGER PRIMARY KEY,
            id BLOB NOT NULL UNIQUE CHECK (length(id) = 32),
            payer BLOB NOT NULL CHECK (length(payer) = 32),
            payee BLOB NOT NULL CHECK (length(payee) = 32),
            expiry_ms INTEGER NOT NULL,
            is_done INTEGER NOT NULL,
            is_told INTEGER NOT NULL
        ) STRICT
        """,
        "CREATE INDEX ledger_own_channels_open ON ledger_own_channels (number) WHERE is_done = 0",
        "CREATE INDEX ledger_own_channels_untold ON ledger_own_channels (number) WHERE is_told = 0",
        # The certified entries that fund them, also those whose place in their chain has not come.
        """
        CREATE TABLE ledger_funds (
            channel BLOB NOT NULL,
            seq INTEGER NOT NULL,
            entry BLOB NOT NULL,
            amount INTEGER NOT NULL CHECK (amount > 0),
            PRIMARY KEY (channel, seq)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX ledger_funds_by_entry ON ledger_funds (entry)",
        # The last that we proposed for a channel, as it was sent.
        """
        CREATE TABLE ledger_proposals (
            channel BLOB NOT NULL PRIMARY KEY CHECK (length(channel) = 32),
            turn INTEGER NOT NULL,
            value INTEGER NOT NULL,
            ask BLOB NOT NULL
        ) STRICT
        """,
    ),
    (
        # What the continuous audit found last of each account.
        """
        CREATE TABLE ledger_audits (
            account BLOB NOT NULL PRIMARY KEY CHECK (length(account) = 32),
            seq INTEGER NOT NULL,
            peers INTEGER NOT NULL,
            code TEXT NOT NULL,
            sentence TEXT NOT NULL,
            at_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        # Up to `pruned` the entries of a chain that nobody needs are gone; `checkpoint` stands for
        # them, and their ids stay.
        """
        CREATE TABLE ledger_checkpoints (
            account BLOB NOT NULL PRIMARY KEY CHECK (length(account) = 32),
            seq INTEGER NOT NULL,
            pruned INTEGER NOT NULL CHECK (pruned <= seq),
            checkpoint BLOB NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE ledger_pruned (
            id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 32)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX ledger_channels_by_payer ON ledger_channels (payer, id)",
    ),
    (
        # Jobs are paid by vouchers: no pay is looked for any more, and no bill waits for one.
        "DROP TABLE bill_incomes",
        "DROP INDEX bills_open",
    ),
)
