"""Drawing from sparse + rest · base, against distributions written out over the vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from corpus_index import SparseTargets

from corpus_teacher.data.drawing import Drawer, DrawOptions
from corpus_teacher.errors import ConfigError

DRAWS = 40_000


def dense(row: dict[int, float], rest: float, base: np.ndarray, options: DrawOptions) -> np.ndarray:
    """The naive twin: over V, tempered, cut, divided by the sum."""
    p = rest * base.astype(np.float64)
    for token, mass in row.items():
        p[token] += mass
    top_k = options.top_k
    if options.temperature == 0:
        top_k = 1
    else:
        p = p ** (1 / options.temperature)
    if top_k is not None and top_k < p.size:
        p[p < np.sort(p)[-top_k] * (1 - 1e-9)] = 0
    if options.top_p is not None:
        ranked = np.sort(p)[::-1]
        needed = int(np.argmax(ranked.cumsum() >= options.top_p * p.sum() * (1 - 1e-12)))
        p[p < ranked[needed] * (1 - 1e-9)] = 0
    return p / p.sum()


def targets_of(rows: list[dict[int, float]], base: np.ndarray) -> SparseTargets:
    sizes = [len(row) for row in rows]
    probs = np.array([mass for row in rows for mass in row.values()], np.float32)
    rest = np.array([1 - sum(row.values()) for row in rows], np.float32)
    tokens = np.array([token for row in rows for token in row], np.int64)
    nothing = np.zeros(len(rows), np.int64)
    return SparseTargets(np.cumsum([0, *sizes]), tokens, probs, rest, base, nothing.astype(np.int32), nothing, rest * 0)


OPTIONS = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"temperature": 0.0},
    {"top_k": 1},
    {"top_k": 3},
    {"top_k": 99},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"top_k": 4, "top_p": 0.7},
    {"temperature": 1.7, "top_k": 5, "top_p": 0.8},
]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("tied", [False, True])
def test_draws_what_the_dense_distribution_says(option: dict[str, float], tied: bool) -> None:
    generator = np.random.default_rng(1)
    vocab_size = 9
    base = np.full(vocab_size, 1 / vocab_size) if tied else generator.dirichlet(np.ones(vocab_size))
    base = base.astype(np.float32)
    rows = [{}, {0: 0.25, 4: 0.5}, {2: 1.0}, dict.fromkeys(range(8), 0.1), {8: 0.05}]
    options = DrawOptions(**option)  # type: ignore[arg-type]
    drawer = Drawer(base, options, np.random.default_rng(2))
    repeated = targets_of([row for row in rows for _ in range(DRAWS // 4)], base)
    drawn = drawer.draw(repeated).reshape(len(rows), -1)
    for row, tokens in zip(rows, drawn, strict=True):
        expected = dense(row, 1 - sum(row.values()), base, options)
        actual = np.bincount(tokens, minlength=vocab_size) / tokens.size
        assert not actual[expected == 0].any()
        assert np.abs(actual - expected).max() < 4.5 * np.sqrt(0.25 / tokens.size)


def test_without_rest_nothing_comes_from_the_base() -> None:
    base = np.array([0.0, 0.0, 0.5, 0.5], np.float32)
    for option in OPTIONS:
        drawer = Drawer(base, DrawOptions(**option), np.random.default_rng(0))  # type: ignore[arg-type]
        assert set(drawer.draw(targets_of([{0: 0.25, 1: 0.75}] * 200, base)).tolist()) <= {0, 1}


def test_a_tail_that_is_nearly_all_explicit() -> None:
    base = np.full(1000, 1e-9, np.float64)
    base[0] = 1 - 999e-9
    row = {0: 1e-12}
    drawer = Drawer(base.astype(np.float32), DrawOptions(temperature=2.0), np.random.default_rng(0))
    tokens = drawer.draw(targets_of([row] * 3000, base.astype(np.float32)))
    share = float((tokens != 0).mean())
    weights = np.sqrt(base)
    assert share == pytest.approx(1 - weights[0] / weights.sum(), abs=0.03)


def test_a_seed_repeats_the_draws() -> None:
    base = np.random.default_rng(0).dirichlet(np.ones(50)).astype(np.float32)
    targets = targets_of([{3: 0.3, 7: 0.2}] * 100, base)
    for option in OPTIONS:
        drawn = [
            Drawer(base, DrawOptions(**option), np.random.default_rng(5)).draw(targets)  # type: ignore[arg-type]
            for _ in range(2)
        ]
        assert drawn[0].tolist() == drawn[1].tolist()


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": "x"},
        {"temperature": None},
        {"top_k": 0},
        {"top_k": 1.5},
        {"top_k": 2.0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": "x"},
    ],
    ids=str,
)
def test_wrong_options(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"must be|give a whole number"):
        DrawOptions(**option)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [1e-4, 1e-9, 1e-300, 5e-324])
def test_near_temperature_0_the_likeliest_token_is_drawn(temperature: float) -> None:
    base = np.random.default_rng(0).dirichlet(np.ones(50)).astype(np.float32)
    rows = [{}, {3: 0.3, 7: 0.2}, {5: 1e-3}, {int(base.argmin()): 0.9}]
    expected = [int(dense(row, 1 - sum(row.values()), base, DrawOptions()).argmax()) for row in rows]
    drawn = Drawer(base, DrawOptions(temperature=temperature), np.random.default_rng(1)).draw(targets_of(rows, base))
    assert drawn.tolist() == expected


@pytest.mark.parametrize("option", OPTIONS)
def test_pairs_below_zero_take_from_the_base(option: dict[str, float]) -> None:
    """As estimators with exclusion give them: p(w) − rest · base(w)."""
    base = np.array([0.5, 0.3, 0.1, 0.1], np.float32)
    row = {0: -0.2, 2: 0.4}
    options = DrawOptions(**option)  # type: ignore[arg-type]
    drawn = Drawer(base, options, np.random.default_rng(0)).draw(targets_of([row] * DRAWS, base))
    expected = dense(row, 0.8, base, options)
    assert np.abs(np.bincount(drawn, minlength=4) / DRAWS - expected).max() < 5 * np.sqrt(0.25 / DRAWS)
