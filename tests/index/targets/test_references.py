"""Rows read where they lie against rows written out."""

from __future__ import annotations

import numpy as np
import pytest
from corpus_index._kernels import row_sums
from corpus_index.targets.references import References


def _some(rng: np.random.Generator, num_positions: int, vocab_size: int) -> tuple[References, np.ndarray]:
    """References to six rows, half of them cut, and the same written out, (positions, vocab_size)."""
    lengths = rng.integers(1, vocab_size + 1, 6)
    offsets = np.append(0, np.cumsum(lengths))
    tokens = np.concatenate([np.sort(rng.permutation(vocab_size)[:length]) for length in lengths]).astype(np.int32)
    counts = rng.integers(1, 6, tokens.size).astype(np.float32)
    positions = np.sort(rng.integers(0, num_positions, 2 * num_positions))
    rows = rng.integers(0, 6, positions.size)
    coefficients = rng.uniform(0.01, 0.1, (positions.size, 4)).astype(np.float32)
    coefficients[rng.random(positions.size) < 0.5, 1:] = 0
    dense = np.zeros((num_positions, vocab_size))
    for position, row, (scale, *cuts) in zip(positions, rows, coefficients.tolist(), strict=True):
        for i in range(offsets[row], offsets[row + 1]):
            dense[position, tokens[i]] += scale * float(counts[i]) - cuts[min(int(counts[i]), 3) - 1]
    return References(tokens, counts, offsets[rows], offsets[rows + 1], coefficients, positions), dense


@pytest.mark.parametrize("interpreted", [False, True])
@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_equals_the_rows_written_out(
    dtype: type, close: float, interpreted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if interpreted:
        for name in ("add_expectations", "subtract_rows"):
            monkeypatch.setattr(row_sums, name, getattr(row_sums, name).py_func)
    rng = np.random.default_rng(0)
    references, dense = _some(rng, 9, 20)
    for begin, end in ((0, 9), (3, 7), (8, 9), (4, 4)):
        part = dense[begin:end]
        values, factors = rng.normal(size=(end - begin, 23)).astype(dtype), rng.normal(size=end - begin).astype(dtype)
        sums = np.ones(end - begin, dtype)
        references.add_expectations(values, begin, sums)
        assert sums == pytest.approx(1 + (part * values[:, :20]).sum(1), rel=close, abs=close)
        expected = values.astype(np.float64)
        expected[:, :20] -= factors[:, None] * part
        references.subtract(factors, begin, values)
        assert values == pytest.approx(expected, rel=close, abs=close)
