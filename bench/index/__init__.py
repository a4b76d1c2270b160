"""The bench of the index: ours and the peers on the same tokens."""
