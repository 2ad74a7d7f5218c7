"""Models by name: which files they are, where to get them, and whether the bytes are right."""
