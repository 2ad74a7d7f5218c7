"""Who does a job for whom, at what price: quotes given and providers chosen."""
