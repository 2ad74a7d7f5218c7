"""Several real daemons on loopback: a whole network on one machine."""
