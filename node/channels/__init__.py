"""Channels: what jobs are paid through, from both sides."""
