"""How often pairs occur in rows, wherever these stand: beside dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
from corpus_index._kernels import union_pairs
from corpus_index._kernels.union_pairs import KeptPairs, PairRows

WIDTH = 12  # one more than the ids


def _drawn(rng: np.random.Generator, rows: int) -> list[dict[int, int]]:
    """Rows of pairs: code → count; none is empty."""
    sizes = rng.integers(1, 60, rows)
    return [{int(c): int(rng.integers(1, 9)) for c in rng.integers(0, (WIDTH - 1) * WIDTH, size)} for size in sizes]


def _rows_of(rows: list[dict[int, int]], kind: type) -> PairRows:
    codes = [code for row in rows for code in sorted(row)]
    counts = [row[code] for row in rows for code in sorted(row)]
    offsets = np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64)
    return PairRows(offsets, np.array(codes, np.int64), np.array(counts, kind))


def _kept_of(rows: list[dict[int, int]]) -> KeptPairs:
    tokens, before, sizes = [], [], []
    for row in rows:
        mine = sorted({code // WIDTH for code in row})
        tokens += mine
        before += [sum(code // WIDTH < token for code in row) for token in mine]
        sizes.append(len(mine))
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int64)
    return KeptPairs(offsets, np.array(tokens, np.uint16), np.array(before, np.uint32), _rows_of(rows, np.uint32))


@pytest.mark.parametrize("seed", range(6))
def test_pairs_are_counted_in_kept_rows_those_of_the_batch_and_the_empty_context(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kept, batch, (whole,) = _drawn(rng, 4), _drawn(rng, 5), _drawn(rng, 1)
    stored = np.array([-1, 2, -1, 0, 3, -1, -1])  # six rows, the empty context last
    by_token = [{code: whole[code] for code in whole if code // WIDTH == token} for token in range(WIDTH - 1)]
    rows_of_batch = [{} if number >= 0 else batch[row % 5] for row, number in enumerate(stored[:-1])]
    tables = [whole if row == 6 else kept[stored[row]] if stored[row] >= 0 else batch[row % 5] for row in range(7)]
    asked = [(row, code) for row in range(7) for code in tables[row] if rng.random() < 0.7]
    if seed % 2:
        asked = [asked[i] for i in rng.permutation(len(asked))]
    else:
        asked.sort()
    rows, codes = (np.array(column, np.int64) for column in zip(*asked, strict=True))
    totals, (begins, ends) = np.full(rows.size, -7), np.empty((2, union_pairs.LANES), np.int64)
    union_pairs.total_pairs(
        rows,
        codes,
        WIDTH,
        stored,
        _rows_of(rows_of_batch, np.int64),
        _kept_of(kept),
        _rows_of(by_token, np.int64),
        begins,
        ends,
        totals,
    )
    assert totals.tolist() == [tables[row][code] for row, code in asked]
