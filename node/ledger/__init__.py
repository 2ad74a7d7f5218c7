"""This node and the ledger: its own entries, its votes, and the chains of others."""
