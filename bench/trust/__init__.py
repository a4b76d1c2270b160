"""Faults on purpose, many of them: flipped bits, hostile input, kills, load; what stands after each is counted."""
