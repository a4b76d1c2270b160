"""Soft targets against their dense form."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.errors import CorpusIndexError, TargetError
from corpus_teacher.targets.soft import SoftTargets

MakeTargets = Callable[..., SoftTargets]


def dense_entropy(targets: SoftTargets) -> torch.Tensor:
    dense = targets.dense().double()
    return torch.where(targets.valid, -torch.special.xlogy(dense, dense).sum(1), 0.0)


@given(st.integers(0, 10_000))
def test_sums_to_one_and_entropy_is_that_of_the_dense_form(random_targets: MakeTargets, seed: int) -> None:
    targets = random_targets(seed, invalid=True).validate()
    torch.testing.assert_close(targets.dense().sum(1), torch.ones(6))
    expected = dense_entropy(targets)
    torch.testing.assert_close(targets.entropy().double(), expected, atol=1e-5, rtol=1e-5)
    mean = expected.sum() / targets.valid.sum().clamp_min(1)
    assert targets.mean_entropy == pytest.approx(float(mean), abs=1e-5)


def test_by_hand() -> None:
    targets = SoftTargets.from_arrays([0, 1, 1], [1], [0.5], [0.5, 1.0], [0.5, 0.5]).validate()
    assert targets.dense().tolist() == [[0.25, 0.75], [0.5, 0.5]]
    expected = [-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)), np.log(2)]
    np.testing.assert_allclose(targets.entropy(), expected, rtol=1e-6)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_with_labels_mixes_the_dense_form(random_targets: MakeTargets, seed: int, label_weight: float) -> None:
    targets = random_targets(seed)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(-1, 7, 6))
    mixed = targets.with_labels(labels, label_weight).validate()
    expected = targets.dense()
    known = labels >= 0
    onehot = torch.nn.functional.one_hot(labels.clamp_min(0), 7).float()
    expected[known] = label_weight * onehot[known] + (1 - label_weight) * expected[known]
    torch.testing.assert_close(mixed.dense(), expected)


def test_probability_of_one_token(random_targets: MakeTargets) -> None:
    targets, tokens = random_targets(11), torch.tensor([0, 6, 3, 3, 2, 5])
    expected = targets.dense()[torch.arange(6), tokens]
    torch.testing.assert_close(targets.probability_of(tokens.reshape(2, 3)), expected)
    with pytest.raises(TargetError, match="5 tokens for 6"):
        targets.probability_of(tokens[:5])


@given(st.integers(0, 10_000))
def test_select_and_concatenate(random_targets: MakeTargets, seed: int) -> None:
    targets = random_targets(seed, invalid=True)
    mask = torch.from_numpy(np.random.default_rng(seed).random(6) < 0.5)
    first, second = targets.select(mask), targets.select(~mask)
    torch.testing.assert_close(first.dense(), targets.dense()[mask])
    joined = SoftTargets.concatenate([first, second])
    order = torch.cat([mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]])
    torch.testing.assert_close(joined.dense(), targets.dense()[order])
    assert joined.match_len.tolist() == targets.match_len[order].tolist()
    assert joined.valid.tolist() == targets.valid[order].tolist()


def test_moves_and_pickles(random_targets: MakeTargets) -> None:
    targets = random_targets(3)
    for copy in (targets.to("cpu", non_blocking=True), pickle.loads(pickle.dumps(targets))):
        assert torch.equal(copy.dense(), targets.dense())
        assert copy.match_len.dtype == torch.int32
    assert targets.to("meta").device.type == "meta"
    assert len(targets) == 6
    assert "Q=6, V=7" in repr(targets)


def test_read_only_arrays_are_copied() -> None:
    base = np.full(4, 0.25, np.float32)
    base.flags.writeable = False
    targets = SoftTargets.from_arrays([0, 0], [], [], [1.0], base)
    assert targets.base.tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rest": [0.5, 0.5, 0.1]}, "3 values for 2 positions"),
        ({"probs": [0.5, 0.5]}, "1 entries and probs 2"),
        ({"probs": [[0.5]]}, "flat arrays"),
        ({"offsets": [1, 1, 1]}, "ascend from 0"),
        ({"token_ids": [2]}, "token id 2 is outside"),
        ({"rest": [0.5, 0.9]}, "position 1 sums to 0.9"),
        ({"base": [0.5, 0.6]}, "base sums to 1.1"),
        ({"probs": [-0.5], "rest": [1.5, 1.0], "base": [0.9, 0.1]}, "negative"),
        ({"offsets": [0, 2, 2], "token_ids": [1, 1], "probs": [0.25, 0.25]}, "twice"),
    ],
)
def test_wrong_values_are_named(change: dict, message: str) -> None:
    arrays = {"offsets": [0, 1, 1], "token_ids": [1], "probs": [0.5], "rest": [0.5, 1.0], "base": [0.5, 0.5]}
    with pytest.raises(TargetError, match=message) as caught:
        SoftTargets.from_arrays(**{**arrays, **change}).validate()
    assert isinstance(caught.value, CorpusIndexError)


def test_wrong_calls_are_named(random_targets: MakeTargets) -> None:
    targets = random_targets(1)
    with pytest.raises(TargetError, match="6 booleans"):
        targets.select(torch.ones(5, dtype=torch.bool))
    with pytest.raises(TargetError, match="label_weight is 2"):
        targets.with_labels(torch.zeros(6, dtype=torch.long), 2)
    with pytest.raises(TargetError, match="5 labels for 6"):
        targets.with_labels(torch.zeros(5, dtype=torch.long), 0.5)
    with pytest.raises(TargetError, match="label 7 is outside"):
        targets.with_labels(torch.full((6,), 7), 0.5)
    with pytest.raises(TargetError, match="no targets to concatenate"):
        SoftTargets.concatenate([])
    with pytest.raises(TargetError, match="different base"):
        SoftTargets.concatenate([targets, random_targets(2)])
