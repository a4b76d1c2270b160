"""Fits that are kept beside an index: made once, used by whoever asks, never those of another index."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex, Estimator, build_index, fit_recall
from corpus_index.estimators import fits

TOKENS = np.random.default_rng(0).integers(0, 6, 400)
STARTS = np.arange(0, 401, 40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    build_index(TOKENS, tmp_path / "index", doc_starts=STARTS).close()
    return tmp_path / "index"


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the estimators that are fitted while a test runs."""
    done: list[str] = []
    fit = Estimator.fit

    def counted(self: Estimator, index: Any) -> Estimator:
        done.append(self.name)
        return fit(self, index)

    monkeypatch.setattr(Estimator, "fit", counted)
    return done


@pytest.mark.parametrize("name", ["auto", "pitman-yor", "jelinek-mercer", "dirichlet"])
def test_what_takes_long_is_fitted_once(path: Path, count: list[str], name: str) -> None:
    with CorpusIndex.open(path) as index:
        first = index.fitted(name, 3)
        file = fits.fit_file(index, first)
    assert file is not None
    assert file.parent == path.with_name("index.fits")
    assert [one.name for one in file.parent.iterdir()] == [file.name]
    with CorpusIndex.open(path) as index:
        again = index.fitted(name, 3)
        assert again == first
        assert again.facts == json.loads(json.dumps(first.facts))
        assert index.fitted(str(file)) == first  # the same kind of file as `Estimator.save` writes
        assert index.fitted(name, 2) != first
    assert count == [name, name]


def test_what_is_fast_is_not_kept(path: Path, count: list[str]) -> None:
    with CorpusIndex.open(path) as index:
        for name in ("witten-bell", "modified-kneser-ney", "katz"):
            assert fits.fit_file(index, index.fitted(name, 3)) is None
    assert not path.with_name("index.fits").exists()


def test_of_an_index_that_was_replaced_nothing_is_used(path: Path, count: list[str]) -> None:
    with CorpusIndex.open(path) as index:
        index.fitted("auto", 3)
    build_index(TOKENS[::-1].copy(), path, doc_starts=STARTS, overwrite=True).close()
    with CorpusIndex.open(path) as index:
        assert index.fitted("auto", 3).fingerprint == index.fingerprint
    assert count == ["auto", "auto"]


@pytest.mark.parametrize("content", ["", "{}", "[1", '{"name": "witten-bell"}'])
def test_a_damaged_file_is_made_anew(path: Path, count: list[str], content: str) -> None:
    with CorpusIndex.open(path) as index:
        first = index.fitted("auto", 3)
        file = fits.fit_file(index, first)
    assert file is not None
    file.write_text(content)
    for _ in range(2):
        with CorpusIndex.open(path) as index:
            assert index.fitted("auto", 3) == first
    assert count == ["auto", "auto"]


def test_a_place_that_cannot_be_written(path: Path) -> None:
    path.with_name("index.fits").write_text("in the way")
    with CorpusIndex.open(path) as index:
        assert index.fitted("auto", 3).is_fitted


def test_settings_have_files_of_their_own(path: Path) -> None:
    with CorpusIndex.open(path) as index:
        made = index.fitted("auto", 3)
        assert fits.fit_file(index, made) != fits.fit_file(index, dataclasses.replace(made, max_order=None))


def test_recall_is_fitted_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from corpus_index.targets import recall

    with CorpusIndex.open(path) as index:
        first = fit_recall(index, "auto", 2)
    monkeypatch.setattr(recall, "_fit_weights", lambda *_: pytest.fail("fitted again"))
    with CorpusIndex.open(path) as index:
        again = fit_recall(index, "auto", 2)
    np.testing.assert_array_equal(again.weights, first.weights)
    assert again.nats == first.nats


def test_recall_at_last_positions_equals_that_of_all(path: Path) -> None:
    with CorpusIndex.open(path) as index:
        mixture = fit_recall(index, "witten-bell", 2)
        rows = TOKENS[:60].reshape(3, 20)
        whole = mixture.smoothed_targets(index, rows, top_k=6)
        last = mixture.smoothed_targets(index, rows, top_k=6, only_last=True)
        for row in range(3):
            place = 20 * row + 19
            for part in ("token_ids", "probs"):
                expected = getattr(whole, part)[whole.offsets[place] : whole.offsets[place + 1]]
                np.testing.assert_array_equal(getattr(last, part)[last.offsets[row] : last.offsets[row + 1]], expected)
            assert last.rest[row] == whole.rest[place]
