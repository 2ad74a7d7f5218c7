"""Jobs: ordering them, serving them, and the pool of worker processes."""
