"""What a node remembers on disk: one SQLite database, one writer; digests, counts and money."""
