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
)
