"""The torch process: it sees prompts and weights, and no key, network or ledger."""
