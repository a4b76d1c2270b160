"""Nodes of several chains as nodes of their union: lines in a table, spans, and values sought in rows."""

from __future__ import annotations

import numpy as np
import pytest
from corpus_index._kernels import union_nodes


def _chains(rng: np.random.Generator, shards: int, positions: int) -> list[list[list[tuple[int, int, int]]]]:
    """(depth, lo, hi) of each shard's chain at each position, the deepest first, the empty context last."""
    found: list[list[list[tuple[int, int, int]]]] = []
    for _ in range(shards):
        rows = []
        for _ in range(positions):
            depths = sorted(rng.choice(6, rng.integers(0, 4), replace=False) + 1, reverse=True)
            rows.append([(int(d), int(rng.integers(0, 3)), int(rng.integers(3, 5))) for d in depths] + [(0, 0, 9)])
        found.append(rows)
    return found


def _naively(chains: list[list[list[tuple[int, int, int]]]], position: int) -> list[tuple[int, ...]]:
    """The lines of a position, the deepest first, without the empty context."""
    rows = [shard[position] for shard in chains]
    lines = []
    for depth in sorted({node[0] for row in rows for node in row if node[0] > 0}, reverse=True):
        line: list[int] = []
        for row in rows:
            spanning = [node for node in row if node[0] >= depth]
            line += [*spanning[-1][1:], int(spanning[-1][0] == depth)] if spanning else [0, 0, 0]
        lines.append((*line, depth))
    return lines


@pytest.mark.parametrize("seed", range(6))
def test_each_position_has_the_nodes_of_all_its_chains_and_equal_ones_have_one_line(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shards, positions = int(rng.integers(1, 5)), 40
    chains = _chains(rng, shards, positions)
    flat = [
        [((q << 32) + 2**31 - depth, lo, hi, depth) for q, row in enumerate(shard) for depth, lo, hi in row]
        for shard in chains
    ]
    bounds = np.append(0, np.cumsum([len(one) for one in flat]))
    keys, lo, hi, depths = (
        np.array(column, np.int64) for column in zip(*(n for one in flat for n in one), strict=True)
    )
    room = keys.size
    offsets, found, rows, first = (np.empty(size, np.int64) for size in (positions + 1, room, room, room))
    lines, places = np.empty((room, 3 * shards + 1), np.int64), np.full(4096, union_nodes.FREE, np.int64)
    size = union_nodes.span_nodes(
        bounds, keys, lo, hi, depths, *np.empty((2, shards), np.int64), offsets, found, rows, lines, first, places
    )
    assert len({tuple(line) for line in lines[:size].tolist()}) == size
    for q in range(positions):
        expected = _naively(chains, q)
        mine = slice(int(offsets[q]), int(offsets[q + 1]))
        assert [tuple(lines[row]) for row in rows[mine][:-1]] == expected
        assert rows[mine][-1] == size
        assert found[mine].tolist() == [*(line[-1] for line in expected), 0]
    for number in range(size):
        assert rows[first[number]] == number
        assert number not in rows[: first[number]]


def test_lines_are_found_by_all_their_numbers_even_in_a_full_table() -> None:
    rng = np.random.default_rng(0)
    known = np.unique(rng.integers(0, 3, (200, 7)), axis=0)
    places = np.full(256, union_nodes.FREE, np.int64)
    union_nodes.add_lines(known, 0, known.shape[0], places)
    others = np.array([[9, 9, 9, 9, 9, 9, 9], [*known[0, :-2], 5, known[0, -1]]])
    asked = np.concatenate([known, others])
    found = np.full(asked.shape[0], -7, np.int64)
    union_nodes.find_lines(asked, np.arange(asked.shape[0]), known, places, found)
    assert found.tolist() == [*range(known.shape[0]), -1, -1]


@pytest.mark.parametrize("seed", range(4))
def test_values_are_found_in_their_rows_whatever_the_order_of_the_questions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [np.unique(rng.integers(0, 40, rng.integers(0, 30))) for _ in range(9)]
    offsets = np.append(0, np.cumsum([row.size for row in rows]))
    values = np.concatenate(rows)
    of, wanted = rng.integers(0, 9, 300), rng.integers(-1, 42, 300)
    if seed % 2:
        order = np.lexsort((wanted, of))
        of, wanted = of[order], wanted[order]
    places = np.empty(300, np.int64)
    union_nodes.find_in_rows(offsets, values, of, wanted, places)
    assert places.tolist() == [offsets[r] + np.searchsorted(rows[r], w) for r, w in zip(of, wanted, strict=True)]


@pytest.mark.parametrize("seed", range(4))
def test_losses_change_sums_and_classes_as_counting_anew_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = [{int(t): rng.integers(1, 6, 2).tolist() for t in rng.integers(0, 30, 12)} for _ in range(6)]
    stored = np.array([-1, 1, -1, 0])  # four rows, of them two among the kept ones
    tables = [made[2 + row] if stored[row] < 0 else made[stored[row]] for row in range(4)]
    of_batch = _flat([table if stored[row] < 0 else {} for row, table in enumerate(tables)], np.int64)
    of_kept = _flat(made[:2], np.uint32)
    rows = rng.integers(0, 4, 9)
    lost = [
        {t: [int(rng.integers(0, have + 1)) for have in both] for t, both in tables[row].items() if rng.random() < 0.6}
        for row in rows.tolist()
    ]
    lost[0] = {**lost[0], 31: [0, 0]}  # which the row hasn't
    losses = _flat(lost, np.int64)
    before, changes = np.full((2, losses[1].size), -7), np.zeros((9, 2, 4), np.int64)
    union_nodes.count_losses(*losses, rows, *of_batch, stored, *of_kept, before, changes)
    asked = [(row, t) for row, tokens in zip(rows.tolist(), lost, strict=True) for t in sorted(tokens)]
    assert before.T.tolist() == [tables[row].get(t, [0, 0]) for row, t in asked]
    for row, tokens, change in zip(rows.tolist(), lost, changes, strict=True):
        after = {t: np.subtract(both, tokens.get(t, [0, 0])) for t, both in tables[row].items()}
        for side in range(2):
            old, new = ([int(both[side]) for both in table.values()] for table in (tables[row], after))
            assert change[side].tolist() == [a - b for a, b in zip(_classes(new), _classes(old), strict=True)]


def _flat(rows: list[dict[int, list[int]]], kind: type) -> tuple[np.ndarray, ...]:
    """Offsets, tokens, counts and left extensions."""
    entries = [(t, *row[t]) for row in rows for t in sorted(row)]
    tokens, counts, lefts = np.array(entries, np.int64).reshape(-1, 3).T
    offsets = np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64)
    return offsets, tokens.astype(np.uint16 if kind is np.uint32 else kind), counts.astype(kind), lefts.astype(kind)


def _classes(counts: list[int]) -> list[int]:
    return [sum(counts), *(sum(c == k for c in counts) for k in (1, 2)), sum(c >= 3 for c in counts)]
