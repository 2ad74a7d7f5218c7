"""Commented example configurations, the model catalogue and the default testnet, as data."""
