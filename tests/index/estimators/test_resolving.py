"""What names an estimator, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import (
    ESTIMATORS,
    CorpusIndex,
    CorpusIndexError,
    Estimator,
    IndexFormatError,
    IndexWriteError,
    QueryError,
    load_estimator,
    make_estimator,
    resolve_estimator,
)

Make = Callable[..., CorpusIndex]

DOCUMENTS = [[1, 2, 3, 1, 2], [1, 2, 2, 0], [3, 3, 1]]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_all_four_kinds_mean_the_same(make_index: Make, tmp_path: Path, name: str) -> None:
    index = make_index(DOCUMENTS, vocab_size=5)
    path = tmp_path / f"{name}.json"
    fitted = index.fitted(name, 2)
    fitted.save(path)
    assert load_estimator(path, index) == fitted
    row, following = [[1, 2, 3]], [[2, 3, 4]]
    expected = index.next_probabilities(row, following, estimator=name, max_order=2)
    for spec in (fitted, path, str(path), {"name": name, "max_order": 2}, make_estimator(name, 2)):
        actual = index.next_probabilities(row, following, estimator=spec, max_order=7 if spec is not fitted else None)
        assert np.array_equal(actual, expected)
    assert np.array_equal(index.next_probabilities(row, following, estimator={"name": name}, max_order=2), expected)
    assert index.fitted({"name": name, "max_order": "none"}, 3).max_order is None


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"discounts": 0.7}, ((0.7, 0.7, 0.7),)),
        ({"discounts": [0.5, 0.75]}, ((0.5, 0.5, 0.5), (0.75, 0.75, 0.75))),
        ({"discounts": [[0.5, 1.0, 1.5], 1]}, ((0.5, 1.0, 1.5), (1.0, 1.0, 1.0))),
    ],
)
def test_numbers_stand_for_all_counts_of_an_order(make_index: Make, table: dict[str, Any], expected: Any) -> None:
    index = make_index(DOCUMENTS, vocab_size=5)
    made = resolve_estimator({"name": "modified-kneser-ney", **table}, index, 2)
    assert (made.discounts, made.max_order) == (expected, 2)
    assert index.fitted(made) is made  # nothing is left to fit


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("witten-bel", "no estimator 'witten-bel': did you mean 'witten-bell'"),
        ("best", "no estimator 'best': choose one of mle"),
        (7, "estimator 7 names no estimator"),
        ({"max_order": 3}, "has no name"),
        ({"name": "autos"}, "did you mean 'auto'"),
        ({"name": "katz", "ratio": 1}, "no 'ratio': did you mean 'ratios'"),
        ({"name": "kneser-ney", "discount": 0.7}, "no 'discount': did you mean 'discounts'"),
        ({"name": "witten-bell", "alpha": 0.4}, "witten-bell takes no alpha: it takes max_order"),
        ({"name": "stupid-backoff", "alpha": "0.4"}, "alpha holds '0.4'"),
        ({"name": "stupid-backoff", "alpha": 2}, "alpha 2.0 must be"),
        ({"name": "add-k", "k": True}, "k holds True"),
        ({"name": "mle", "max_order": "all"}, "max_order 'all' must be a whole number, or 'none'"),
        ({"name": "mle", "max_order": -1}, "max_order -1"),
        ({"name": "kneser-ney", "discounts": 1.5}, "0 ≤ D_i ≤ i"),
        ({"name": "kneser-ney", "discounts": [[0.5, 0.5]]}, "three numbers"),
        ({"name": "jelinek-mercer", "strengths": 1.0}, "below 1, not 1.0"),
        ({"name": "dirichlet", "strengths": 0}, "above 0, not 0"),
        ({"name": "pitman-yor", "discounts": 0.5, "strengths": -1}, "0 or more, not -1"),
        ({"name": "kneser-ney", "convention": "srilm"}, "convention 'srilm'"),
    ],
)
def test_what_is_wrong_is_named(make_index: Make, spec: Any, message: str) -> None:
    index = make_index(DOCUMENTS, vocab_size=5)
    with pytest.raises(QueryError, match=message):
        resolve_estimator(spec, index)


def test_files_that_hold_no_estimator(make_index: Make, tmp_path: Path) -> None:
    index = make_index(DOCUMENTS, vocab_size=5)
    path = tmp_path / "kept.json"
    with pytest.raises(IndexFormatError, match="there is no estimator at"):
        index.fitted(path)
    index.fitted("auto", 2).save(path)
    content = json.loads(path.read_text())
    for wrong in ([], {}, {**content, "name": "best"}, {**content, "max_order": -1}, {**content, "color": 1}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(IndexFormatError, match="is not an estimator"):
            index.fitted(str(path))
    path.write_text(json.dumps(content))
    other = make_index([*DOCUMENTS, [1]], vocab_size=5)
    for spec in (path, Estimator("mle", fingerprint=content["fingerprint"])):
        with pytest.raises(CorpusIndexError, match="fitted on another index"):
            other.fitted(spec)
    with pytest.raises(IndexWriteError, match="can't be written"):
        other.fitted("mle").save(tmp_path / "nowhere" / "kept.json")


def test_a_file_is_read_anew(make_index: Make, tmp_path: Path) -> None:
    index = make_index(DOCUMENTS, vocab_size=5)
    path = tmp_path / "kept.json"
    index.fitted("witten-bell", 1).save(path)
    assert index.fitted(path).max_order == 1
    index.fitted("witten-bell", 2).save(path)
    assert index.fitted(str(path)).max_order == 2
