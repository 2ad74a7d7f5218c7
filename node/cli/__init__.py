"""The command line: one file a group of verbs; it speaks to the daemon over its local API."""
