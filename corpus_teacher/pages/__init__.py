"""Pages for a browser, each one file: evaluation, near-duplicates, and the parts they share."""
