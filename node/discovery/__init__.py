"""Who is there and what they offer: our own advert out, theirs in, and connections to a few."""
