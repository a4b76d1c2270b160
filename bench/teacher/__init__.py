"""Benches of the teacher: smoothed targets, probabilities and tails, ours and the peers'. See bench/README.md."""
