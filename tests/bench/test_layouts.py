"""The bench of layouts on a corpus of a second: what it says, and that it judges what it times."""

from __future__ import annotations

import numpy as np

from bench.layouts import measure


def test_both_layouts_are_measured_and_judged() -> None:
    tokens = np.minimum(np.random.default_rng(0).geometric(0.2, 4_000), 50).astype(np.uint16)
    row = measure(tokens, np.array([0, 1_000, 4_000]), tokens[::-1][:2_000], 60)
    assert row["same_bytes_back"]
    assert row["same_probabilities"]
    assert row["compact"]["bytes_per_token"] < row["full"]["bytes_per_token"]
    assert row["full"]["us_per_position"].keys() == row["compact"]["us_per_position"].keys()
    assert all(value > 0 for value in row["compact"]["us_per_position"].values())
