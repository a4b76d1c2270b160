"""How often pairs occur in kept rows, beside dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
from corpus_index._kernels import union_pairs
from corpus_index._kernels.union_pairs import KeptPairs

WIDTH = 12  # one more than the ids


def _drawn(rng: np.random.Generator, rows: int) -> list[dict[int, int]]:
    """Rows of pairs: code → count; none is empty."""
    sizes = rng.integers(1, 60, rows)
    return [{int(c): int(rng.integers(1, 9)) for c in rng.integers(0, (WIDTH - 1) * WIDTH, size)} for size in sizes]


def _kept_of(rows: list[dict[int, int]]) -> KeptPairs:
    tokens = [sorted({code // WIDTH for code in row}) for row in rows]
    before = [sum(c // WIDTH < token for c in row) for row, mine in zip(rows, tokens, strict=True) for token in mine]
    entries = [(code, row[code]) for row in rows for code in sorted(row)]
    codes, counts = np.array(entries, np.int64).T
    return KeptPairs(
        np.append(0, np.cumsum([len(mine) for mine in tokens])).astype(np.int64),
        np.concatenate(tokens).astype(np.uint16),
        np.array(before, np.uint32),
        np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64),
        codes.copy(),
        counts.astype(np.uint32),
    )


@pytest.mark.parametrize("seed", range(6))
def test_pairs_are_counted_in_kept_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = _drawn(rng, 5)
    kept = _kept_of(drawn)
    asked = [(row, code) for row in range(5) for code in drawn[row] if rng.random() < 0.7]
    asked = [asked[i] for i in rng.permutation(len(asked))] if seed % 2 else sorted(asked)
    rows, codes = (np.array(column, np.int64) for column in zip(*asked, strict=True))
    begins, ends, totals = np.full((3, rows.size), -7)
    union_pairs.find_tokens(kept, rows, codes // WIDTH, begins, ends)
    for (row, code), begin, end in zip(asked, begins.tolist(), ends.tolist(), strict=True):
        of_token = sorted(each for each in drawn[row] if each // WIDTH == code // WIDTH)
        assert kept.codes[begin:end].tolist() == of_token
    union_pairs.count_pairs(kept.codes, kept.counts, begins, ends, codes, totals)
    assert totals.tolist() == [drawn[row][code] for row, code in asked]
