"""Every option of every public function is given what it isn't made for: it answers, or ends in one sentence of ours.

A table has a valid call of each function; each of its options in turn is exchanged for each odd value.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import corpus_index
import numpy as np
import pytest
from corpus_index import CorpusIndex, CorpusIndexError, build_index, make_estimator


class Odd:
    """Something else."""


ODD: tuple[Any, ...] = (
    *(5, -1, 1.5, float("nan"), 2**63, True, "x", "", b"x", None, [], [1.5], [[1], [1, 2]], (1, 2), {}, {"a": 1}),
    *(Odd(), np.array(["x"]), np.zeros((2, 2, 2)), lambda *given: None),
)
TOKENS = np.tile(np.array([1, 2, 3, 1, 2, 0], np.uint16), 4)
ROWS, LABELS = np.array([[1, 2], [2, 3]]), np.array([[2, 3], [3, 1]])
Call = tuple[Callable[..., Any], Mapping[str, Any]]


@pytest.fixture(scope="module", params=["single", "sharded"])
def index(request: Any, tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    names = [f"document {number}" for number in range(4)]
    cut = 12 if request.param == "sharded" else None
    place = tmp_path_factory.mktemp("odd") / "index"
    return build_index(TOKENS, place, end_of_document=0, document_names=names, shard_tokens=cut)


def asked(index: CorpusIndex) -> dict[str, Call]:
    """Questions to an index, and functions of one, each with options that are right."""
    options: dict[str, Any] = {"estimator": "witten-bell", "max_order": 3, "starts_document": False}
    left = {"next_ids": LABELS, "leave_out": "document", "positions": np.array([0, 6]), **options}
    generator = np.random.default_rng(0)
    kneser_ney = make_estimator("kneser-ney", max_order=2)
    targets, base = index.smoothed_targets(ROWS), corpus_index.sorted_base(np.full(index.vocab_size, 0.25))
    first = {"index": index, "input_ids": ROWS}
    bounds = {"max_order": 2, "min_count": 1}
    return {
        "count": (lambda context: index.count(context), {"context": [1, 2]}),
        "positions": (lambda context, limit: index.positions(context, limit=limit), {"context": [1], "limit": 2}),
        "next_tokens": (index.next_tokens, {"context": [1], **bounds}),
        "next_tokens_batch": (index.next_tokens_batch, {"input_ids": ROWS, "starts_document": False, **bounds}),
        "match": (index.match, {"input_ids": ROWS, "starts_document": False, **bounds}),
        "documents_of": (index.documents_of, {"context": [1], "next_token": 2, "limit": 2}),
        "document": (index.document, {"number": 1}),
        "attachment": (index.attachment, {"name": "documents.names"}),
        "smoothed_targets": (
            index.smoothed_targets, {"input_ids": ROWS, "top_k": 4, "top_p": 1.0, "shortlist": 4, **left},
        ),
        "mixed_targets": (index.mixed_targets, {"input_ids": ROWS, **left}),
        "next_probabilities": (index.next_probabilities, {"input_ids": ROWS, **left}),
        "sampled_targets": (index.sampled_targets, {"input_ids": ROWS, "draws": 3, "seed": 1}),
        "backoff_scores": (index.backoff_scores, {"input_ids": ROWS, "next_ids": LABELS, "max_order": 3}),
        "explain": (index.explain, {"context": [1, 2], "top": 2, "estimator": "witten-bell", "max_order": 2}),
        "fitted": (index.fitted, {"estimator": "witten-bell", "max_order": 2}),
        "draw_tokens": (corpus_index.draw_tokens, {"generator": generator, **first, **options}),
        "draw_from": (
            lambda **given: corpus_index.draw_from(targets, base, **given),
            {"generator": generator, "top_k": 2, "top_p": 0.5},
        ),
        "sorted_base": (corpus_index.sorted_base, {"base": np.full(4, 0.25), "power": 1.0}),
        "measure": (corpus_index.measure, {"starts_document": False, **first}),
        "near_duplicates": (
            lambda index, **given: corpus_index.near_duplicates(index, **given),
            {"index": index, "lengths": [2], "top": 2, "top_length": 2},
        ),
        "fit_recall": (corpus_index.fit_recall, {"index": index, "estimator": "witten-bell"}),
        "fit": (lambda index: make_estimator("witten-bell").fit(index), {"index": index}),
        "write_arpa": (
            lambda index, file: corpus_index.write_arpa(index, kneser_ney, file),
            {"index": index, "file": io.BytesIO()},
        ),
        "load_estimator": (corpus_index.load_estimator, {"path": "fit.json", "index": index}),
        "find_documents": (corpus_index.find_documents, {"index": index, "names": ["document 1"]}),
        "smoothed": (corpus_index.smoothed_targets, first),
        "probabilities": (corpus_index.next_probabilities, {"next_ids": LABELS, **first}),
        "make_estimator": (make_estimator, {"name": "witten-bell", "max_order": 2}),
        "open_index": (corpus_index.open_index, {"path": index.path, "check": "first"}),
        "open": (CorpusIndex.open, {"path": index.path, "check": "first"}),
        "verify_index": (corpus_index.verify_index, {"path": index.path, "full": False}),
    }  # fmt: skip


def changed(index: CorpusIndex) -> dict[str, Call]:
    """What builds and changes an index, each with options that are right; the index stays."""
    numbers = itertools.count()
    shared = {"workers": 1, "progress": None, "memory": 10**9}
    building = {
        "tokens": TOKENS[:6], "doc_starts": np.array([0, 6]), "vocab_size": 10, "end_of_document": None,
        "metadata": {"a": 1}, "attachments": {"a": b"x"}, "document_names": ["x"], "overwrite": False,
        "shard_tokens": 100, **shared,
    }  # fmt: skip
    fresh = {"path": index.path.parent / "other", "tokens": TOKENS[:6]}
    texts = {"tokens": TOKENS[:6], "doc_starts": [0, 6], "document_names": ["y"], "metadata": {}, "shard_tokens": 9}
    gone = {"path": index.path.parent / "gone", **shared}  # so that nothing is changed where an option passes
    return {
        "build_index": (
            lambda **given: build_index(path=index.path.parent / f"new-{next(numbers)}", **given).close(), building,
        ),
        "build_index to": (lambda path, tokens: build_index(tokens, path, overwrite=True).close(), fresh),
        "append_documents": (
            corpus_index.append_documents, {**texts, **gone},
        ),
        "remove_documents": (corpus_index.remove_documents, {"documents": [0], **gone}),
        "merge_shards": (corpus_index.merge_shards, {"shard_tokens": 9, **gone}),
    }  # fmt: skip


def slips(calls: Mapping[str, Call]) -> list[str]:
    """What ended in another exception than ours, or in more than a line."""
    found = []
    for name, (function, options) in calls.items():
        for option, value in itertools.product(options, ODD):
            try:
                function(**{**options, option: value})
            except CorpusIndexError as error:
                if "\n" in str(error) or not str(error):
                    found.append(f"{name}({option}={value!r}): more than a line")
            except Exception as error:
                found.append(f"{name}({option}={value!r}): {type(error).__name__}: {error}")
    return found


def test_questions(index: CorpusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an odd path may be a name of a file
    calls = asked(index)
    for name, (function, options) in calls.items():
        if name not in ("load_estimator", "open"):  # there is no such file; of shards, open_index opens them
            function(**options)
    assert not slips(calls)


def test_builds_and_changes(index: CorpusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not slips(changed(index))


def test_a_slip_is_found() -> None:
    """The check can fail."""
    assert len(slips({"len": (lambda of: len(of), {"of": []})})) > 5
