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
)
