"""Talking to other nodes: one interface, a real one over libp2p and one in memory."""
