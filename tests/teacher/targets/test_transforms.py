"""Tempered and permuted targets against dense rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.errors import TargetError
from corpus_teacher.losses import permute_targets, temper_targets
from corpus_teacher.targets.soft import SoftTargets

from ..dense_losses import dense_rows

MakeTargets = Callable[..., SoftTargets]


@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 2.0, 7.0]))
def test_tempered_is_the_power_normalised(random_targets: MakeTargets, seed: int, temperature: float) -> None:
    targets = random_targets(seed)
    actual = temper_targets(targets, temperature).validate()
    expected = dense_rows(targets, 7) ** (1 / temperature)
    expected /= expected.sum(1, keepdim=True)
    torch.testing.assert_close(dense_rows(actual, 7), expected, atol=1e-6, rtol=1e-5)


def test_tempered_zeros_stay_zeros() -> None:
    targets = SoftTargets.from_arrays([0, 2, 3, 3], [1, 2, 0], [0.3, 0.7, 1], [0, 0, 1], [0.5, 0, 0.5, 0])
    actual = temper_targets(targets, 2.0).dense()
    assert ((actual == 0) == (targets.dense() == 0)).all()


def test_tempered_flattens_and_sharpens(random_targets: MakeTargets) -> None:
    targets = random_targets(4)
    sharper, flatter = temper_targets(targets, 0.5), temper_targets(targets, 2.0)
    assert (sharper.entropy() < targets.entropy()).all()
    assert (targets.entropy() < flatter.entropy()).all()


@given(st.integers(0, 10_000), st.integers(0, 5))
def test_permuted_is_another_position_s_target(random_targets: MakeTargets, seed: int, other_seed: int) -> None:
    targets = replace(random_targets(seed, positions=9, invalid=True), context_count=torch.arange(9))  # names
    actual = permute_targets(targets, other_seed).validate()
    dense, permuted = targets.dense(), actual.dense()
    valid = targets.valid.nonzero()[:, 0].tolist()
    sources = actual.context_count[targets.valid].tolist()
    for position, source in zip(valid, sources, strict=True):
        assert torch.equal(permuted[position], dense[source])
        assert len(valid) == 1 or source != position
        assert actual.match_len[position] == targets.match_len[source]
        assert actual.cut_mass[position] == targets.cut_mass[source]
    assert sorted(sources) == valid
    assert torch.equal(actual.valid, targets.valid)
    assert torch.equal(permuted[~targets.valid], dense[~targets.valid])
    assert actual.mean_entropy == pytest.approx(targets.mean_entropy, abs=1e-6)


def test_permutation_is_the_seed_s(random_targets: MakeTargets) -> None:
    targets = random_targets(2, positions=40)
    first, again, other = (permute_targets(targets, seed).dense() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_wrong_temperature_is_named(random_targets: MakeTargets) -> None:
    with pytest.raises(TargetError, match=r"temperature is -1\.0: give a positive number"):
        temper_targets(random_targets(1), -1.0)
