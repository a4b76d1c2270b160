"""What is kept of a distribution, against the whole of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corpus_teacher.errors import ConfigError
from corpus_teacher.neural import SparseRows, TargetFormat, soft_targets, sparsify
from corpus_teacher.neural.coding import narrow_floats, wide_floats
from corpus_teacher.neural.formats import uniforms_of
from corpus_teacher.neural.identity import window_keys

POSITIONS, VOCAB = 7, 30


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(POSITIONS, VOCAB, generator=torch.Generator().manual_seed(1)) * 2


def naive_head(probs: list[float], k: int, mass: float | None) -> dict[int, float]:
    """The most probable tokens, one after the other, until k or the mass is reached."""
    kept: dict[int, float] = {}
    for token in sorted(range(len(probs)), key=lambda token: -probs[token]):
        if len(kept) == k or (mass is not None and sum(kept.values()) >= mass):
            break
        kept[token] = probs[token]
    return kept


def as_dicts(rows: SparseRows) -> list[dict[int, float]]:
    pairs = list(zip(rows.token_ids.tolist(), rows.probs.tolist(), strict=True))
    ends = rows.lengths.cumsum(0).tolist()
    return [dict(pairs[lo:hi]) for lo, hi in zip([0, *ends[:-1]], ends, strict=True)]


@pytest.mark.parametrize(
    ("kind", "k", "p"), [("top-k", 5, None), ("top-k", VOCAB, None), ("top-p", 30, 0.8), ("top-p", 3, 0.99)]
)
def test_heads(logits: torch.Tensor, kind: str, k: int, p: float | None) -> None:
    rows = sparsify(logits, TargetFormat(kind, k=k, p=p or 0.5))
    probs = logits.double().softmax(-1).tolist()
    for actual, whole, tail in zip(as_dicts(rows), probs, rows.tail.tolist(), strict=True):
        expected = naive_head(whole, k, p)
        assert list(actual) == list(expected)
        assert list(actual.values()) == pytest.approx(list(expected.values()), abs=1e-6)
        assert tail == pytest.approx(1 - sum(expected.values()), abs=1e-6)


def test_top_p_keeps_one_token_at_least() -> None:
    rows = sparsify(torch.tensor([[9.0, 0, 0], [0, 0, 0]]), TargetFormat("top-p", k=3, p=1e-6))
    assert rows.lengths.tolist() == [1, 1]


@pytest.mark.parametrize("tail", ["base", "renormalize"])
@pytest.mark.parametrize("peaked", [False, True])
def test_soft_targets_give_kept_tokens_their_own_probability(logits: torch.Tensor, tail: str, peaked: bool) -> None:
    base = torch.full((VOCAB,), 1 / VOCAB)
    if peaked:
        base = torch.softmax(torch.arange(VOCAB) / 4.0, 0)
    rows = sparsify(logits, TargetFormat("top-k", k=6))
    targets = soft_targets(rows, base, tail=tail).validate()
    dense, whole = targets.dense().double(), logits.double().softmax(-1)
    kept = torch.zeros_like(whole, dtype=torch.bool).scatter(1, rows.token_ids.view(-1, 6), True)
    head = whole.masked_fill(~kept, 0).sum(1, keepdim=True)
    if tail == "base":
        spread = (1 - head) * base / base.expand_as(whole).masked_fill(kept, 0).sum(1, keepdim=True)
        expected = torch.where(kept, whole, spread)
    else:
        expected = torch.where(kept, whole / head, 0)
    torch.testing.assert_close(dense, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(targets.cut_mass.double(), 1 - head[:, 0], atol=1e-6, rtol=0)


def test_a_small_tail_is_kept() -> None:
    rows = sparsify(torch.tensor([[40.0, 1.0, 1.0, 0.0]]), TargetFormat("top-k", k=1))
    assert rows.tail.tolist() == pytest.approx([(2 * np.e + 1) * np.exp(-40)], rel=1e-5)
    assert bool((soft_targets(rows, torch.full((4,), 0.25)).dense() > 0).all())


def test_a_base_on_kept_tokens_only_takes_the_tail() -> None:
    base = torch.tensor([0.5, 0.5, 0, 0])
    rows = sparsify(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), TargetFormat("top-k", k=2))
    targets = soft_targets(rows, base).validate()
    assert targets.dense()[0, 2:].tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["sample", "systematic"])
def test_draws_are_unbiased(logits: torch.Tensor, kind: str) -> None:
    draws, repeats = 8, 4000
    kept = TargetFormat(kind, draws=draws)
    generator = torch.Generator().manual_seed(3)
    total = torch.zeros(VOCAB, dtype=torch.float64)
    squares = torch.zeros(VOCAB, dtype=torch.float64)
    uniforms = torch.rand(repeats, draws, dtype=torch.float64, generator=generator)
    targets = soft_targets(sparsify(logits[:1].expand(repeats, -1), kept, uniforms), torch.full((VOCAB,), 1 / VOCAB))
    dense = targets.dense().double()
    total, squares = dense.sum(0), (dense**2).sum(0)
    probs = logits[0].double().softmax(-1)
    mean = total / repeats
    error = ((squares / repeats - mean**2) / repeats).sqrt() + 1e-4
    assert bool(((mean - probs).abs() < 5 * error).all())
    variance = float((squares / repeats - mean**2).sum())
    independent = float((probs * (1 - probs)).sum()) / draws
    if kind == "sample":
        assert variance == pytest.approx(independent, rel=0.05)
    else:
        assert variance < 0.5 * independent
        counts = torch.round(dense * draws)
        assert bool(((counts - probs * draws).abs() < 1 + 1e-9).all())


def test_draws_are_of_the_content() -> None:
    keys = window_keys(np.array([[1, 2, 3], [1, 2, 4]]))
    kept = TargetFormat("sample", draws=4)
    one, other = (uniforms_of(key, 3, kept) for key in keys)
    assert torch.equal(one, uniforms_of(keys[0], 3, kept))
    assert not torch.equal(one, other)
    assert not torch.equal(one, uniforms_of(keys[0], 3, TargetFormat("sample", draws=4, seed=1)))
    assert float(one.min()) >= 0
    assert float(one.max()) < 1
    assert uniforms_of(keys[0], 3, TargetFormat("systematic", draws=4)).shape == (3, 1)


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0, -torch.inf]])
    uniforms = torch.tensor([[0.0, 0.4999, 0.5, 1 - 1e-16]], dtype=torch.float64)
    rows = sparsify(logits, TargetFormat("sample", draws=4), uniforms)
    assert as_dicts(rows) == [{0: 0.5, 2: 0.5}]


def test_refusals(logits: torch.Tensor) -> None:
    for settings, words in (
        ({"kind": "best"}, "kind is 'best': give one of top-k"),
        ({"precision": "fp4"}, "precision is 'fp4'"),
        ({"k": 0}, "k is 0"),
        ({"p": 0.0}, "p is 0.0"),
        ({"p": 1.5}, "p is 1.5"),
        ({"draws": 0}, "draws is 0"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(ConfigError, match=words):
            TargetFormat(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="k is 31 and the vocabulary has 30"):
        sparsify(logits, TargetFormat("top-k", k=VOCAB + 1))
    with pytest.raises(ConfigError, match="not a sparse target"):
        sparsify(logits, TargetFormat("hidden"))
    with pytest.raises(ConfigError, match="has no random numbers"):
        sparsify(logits, TargetFormat("sample"))
    with pytest.raises(ConfigError, match="tail is 'zero'"):
        soft_targets(sparsify(logits, TargetFormat("top-k", k=1)), torch.full((VOCAB,), 1 / VOCAB), tail="zero")


def test_seeds_are_independent_streams() -> None:
    """Once the seed was the counter of the stream: of 50 draws 46 were shared by seeds 0 and 1."""
    key, positions, draws = bytes(range(16)), 400, 50
    first, second = (uniforms_of(key, positions, TargetFormat("sample", draws=draws, seed=seed)) for seed in (0, 1))
    assert not np.isin(first.numpy(), second.numpy()).any()

    def mean_square(seeds: range) -> float:
        kept = [TargetFormat("sample", draws=draws, seed=seed) for seed in seeds]
        rows = [sparsify(torch.zeros(positions, 40), one, uniforms_of(key, positions, one)) for one in kept]
        uniform = torch.full((40,), 1 / 40)
        dense = torch.stack([soft_targets(one, uniform).dense() for one in rows]).mean(0)
        return float((dense - 1 / 40).square().mean())

    assert mean_square(range(8)) / mean_square(range(1)) == pytest.approx(1 / 8, rel=0.1)


@pytest.mark.parametrize(
    ("precision", "least", "most", "bound"),
    [("fp16", 0.0184, 1.0, 1e-3), ("fp16", 3.4e-4, 0.0183, 2e-3), ("fp16", 1.2e-7, 3.3e-4, 4e-3),
     ("fp16", 1.3e-14, 1.1e-7, 8e-3), ("bf16", 1e-14, 1.0, 4e-3)],
)  # fmt: skip
def test_stated_precisions(precision: str, least: float, most: float, bound: float) -> None:
    """What the table of `corpus_teacher.neural.coding` says holds, and is nearly reached."""
    probs = np.geomspace(least, most, 20001).astype(np.float32)
    if precision == "fp16":
        stored = np.exp(wide_floats(narrow_floats(np.log(probs), precision).view(np.uint8), precision))
    else:
        stored = wide_floats(narrow_floats(probs, precision).view(np.uint8), precision)
    worst = float(np.abs(stored / probs - 1).max())
    assert 0.9 * bound < worst <= bound
