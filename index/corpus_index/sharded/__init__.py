"""Several indexes that answer as one: a corpus larger than memory, cut at document boundaries."""
