"""The table of n-grams against its definition, position by position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.errors import ConfigError
from corpus_teacher.segments import read_batch
from corpus_teacher.students import NgramTable, NgramTableSettings, make_ngram_table
from corpus_teacher.students.ngram_table import segments_of

HIDDEN, VOCAB = 4, 9


def table_of(**settings: Any) -> NgramTable:
    table = NgramTable(NgramTableSettings(**settings), HIDDEN, VOCAB)
    generator = torch.Generator().manual_seed(0)
    for parameter in table.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return table


def naive(table: NgramTable, ids: list[int], segments: list[int]) -> list[list[float]]:
    """Each position alone: hash, look up, concatenate the heads, add the orders."""
    made = []
    for t, segment in enumerate(segments):
        total = torch.zeros(HIDDEN)
        for place, order in enumerate(table.orders):
            first = t - order + 1
            if first < 0 or segments[first] != segment or ids[t] < 0:
                continue
            rows = []
            for head in range(table.heads):
                number = sum(ids[t - j] * int(table.multipliers[place, j, head]) for j in range(order))
                row = number % (2**31 - 1) % table.rows
                rows.append(table.weight[(place * table.heads + head) * table.rows + row])
            total = total + table.gate[place] * torch.cat(rows)
        made.append(total.tolist())
    return made


@given(
    ids=st.lists(st.integers(-1, VOCAB - 1), min_size=1, max_size=9),
    orders=st.sampled_from([(2,), (3,), (2, 3), (2, 4)]),
    heads=st.sampled_from([1, 2]),
    length=st.integers(1, 9),
)
def test_each_position_has_the_rows_of_its_n_grams(
    ids: list[int], orders: tuple[int, ...], heads: int, length: int
) -> None:
    table = table_of(orders=orders, heads=heads, rows=5)
    length = min(length, len(ids))
    segments = segments_of(torch.tensor([ids]), end_token=0)
    actual = table(torch.tensor([ids]), segments, length)[0]
    expected = torch.tensor(naive(table, ids, segments[0].tolist()))[-length:]
    torch.testing.assert_close(actual, expected)


def test_rows_of_a_batch_are_those_of_each_row() -> None:
    table = table_of(rows=7)
    ids = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])
    whole = table(ids, segments_of(ids), 4)
    for row in range(2):
        torch.testing.assert_close(whole[row], table(ids[row : row + 1], segments_of(ids[row : row + 1]), 4)[0])


def test_the_hash_stays_the_one_that_students_were_saved_with() -> None:
    assert table_of(orders=(2, 3), heads=2).multipliers.tolist() == [
        [[1843786063, 1275296964], [1997001908, 342025952], [0, 0]],
        [[136570348, 444135239], [1885316366, 1813282186], [314902901, 371027433]],
    ]


def test_orders_and_heads_hash_differently() -> None:
    drawn = table_of(orders=(2, 3), heads=2).multipliers
    assert len(set(drawn[drawn > 0].tolist())) == int((drawn > 0).sum())


@given(
    ids=st.lists(st.integers(0, 4), min_size=2, max_size=10),
    ends=st.booleans(),
    edges=st.sets(st.integers(1, 9)),
)
def test_segments_are_those_that_teachers_read(ids: list[int], ends: bool, edges: set[int]) -> None:
    starts = sorted({0, *(edge for edge in edges if edge < len(ids))})
    position_ids = [t - max(start for start in starts if start <= t) for t in range(len(ids))]
    documents = [sum(start <= t for start in starts) for t in range(len(ids))]
    end = 0 if ends else None
    columns = {"position_ids": [position_ids], **({"end_token": 0} if ends else {})}
    expected = read_batch([ids], columns=columns).begins.cumsum().tolist()
    row = torch.tensor([ids])
    for told in (
        {"position_ids": torch.tensor([position_ids])},
        {"documents": torch.tensor([documents])},
        {"edges": torch.tensor([*starts, len(ids)])},
    ):
        assert segments_of(row, end_token=end, **told)[0].tolist() == expected


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("large", "ngram_table is 'large'"),
        ({"order": [2]}, "did you mean 'orders'"),
        ({"orders": [1]}, r"orders is \[1\]"),
        ({"orders": []}, r"orders is \[\]"),
        ({"orders": [2, 2]}, r"orders is \[2, 2\]"),
        ({"heads": 0}, "heads is 0"),
        ({"rows": 0}, "rows is 0"),
        ({"rows": 3, "parameters": 3}, "give one of them"),
    ],
)
def test_settings_that_make_no_table(said: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make_ngram_table(said)


def test_sizes() -> None:
    assert make_ngram_table(False) is None
    assert NgramTableSettings().rows_for(8, 100) == 100
    assert NgramTableSettings(parameters=1700).rows_for(8, 100) == 106
    table = NgramTable(NgramTableSettings(parameters=1700), 8, 100)
    assert table.weight.numel() == 106 * 2 * 8 <= 1700
    with pytest.raises(ConfigError, match="not a multiple"):
        NgramTableSettings(heads=3).rows_for(8, 100)
    with pytest.raises(ConfigError, match="takes 16 already"):
        NgramTableSettings(parameters=15).rows_for(8, 100)
