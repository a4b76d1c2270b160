"""The table of estimators: what every row must have, so that a forgotten field is found here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, replace

import corpus_index.reference.estimators as naive
import numpy as np
import pytest
from corpus_index import ESTIMATORS, CorpusIndex
from corpus_index._kernels import rules
from corpus_index.estimators.registry import PARAMETERS, REGISTRY, Row

Make = Callable[..., CorpusIndex]
DOCUMENTS = [[1, 2, 1, 2, 3, 0], [1, 2, 3, 3, 0], [2, 1, 1, 2, 0], [3, 1, 2, 1, 2, 3]]


def test_every_field_of_a_row_must_be_given() -> None:
    assert all(field.default is MISSING and field.default_factory is MISSING for field in fields(Row))
    with pytest.raises(TypeError, match="missing"):
        Row(name="new", rule=rules.WITTEN_BELL)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "change",
    [{"base": "left"}, {"base": "other"}, {"fitted": "alpha"}, {"parameters": ("beta",)}, {"fit": lambda *_: {}}],
)
def test_a_row_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="the row of witten-bell"):
        replace(REGISTRY["witten-bell"], **change)  # type: ignore[arg-type]


def test_every_rule_of_the_kernels_has_a_row() -> None:
    known = {value for name, value in vars(rules).items() if name.isupper() and isinstance(value, int)}
    assert {row.rule for row in REGISTRY.values()} == known
    assert {parameter for row in REGISTRY.values() for parameter in row.parameters} == set(PARAMETERS)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_row_has_a_twin_a_fit_that_fits_and_a_summary(make_index: Make, name: str) -> None:
    row = REGISTRY[name]
    twin = getattr(naive, row.twin)
    assert {"max_order", "leave_out"} <= set(inspect.signature(twin).parameters)
    index = make_index(DOCUMENTS, vocab_size=5)
    fitted = index.fitted(name, 2)
    assert fitted.is_fitted
    heads, lines = fitted.summary()
    assert bool(heads) == bool(lines) == (row.fit is not None)
    assert all(len(line) == 1 + len(heads) for line in lines)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_row_can_be_explained(make_index: Make, name: str) -> None:
    index = make_index(DOCUMENTS, vocab_size=5)
    answer = index.explain([1, 2], estimator=name, max_order=2, top=5)
    dense = index.smoothed_targets([[1, 2]], estimator=name, max_order=2, shortlist=None, only_last=True).dense()[0]
    assert answer.probs == pytest.approx(dense[answer.token_ids], abs=1e-6)
    assert answer.probs.sum() == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(answer.contributions.sum(axis=1), answer.probs, atol=1e-12)
