"""Ours and the peers on the same tokens, in one run: `python -m bench` (see bench/README.md)."""
