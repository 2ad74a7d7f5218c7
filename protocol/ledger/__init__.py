"""The ledger: today its genesis document, whose digest names a network."""
