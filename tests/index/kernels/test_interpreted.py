"""Small first questions are interpreted while their kernels are compiled beside: the answers are the same bits."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex, build_index
from corpus_index._kernels import flatten, jit, left_out, mixed, nodes, walk
from corpus_index.targets import interpolated, request

INTERPRETED = {mixed: "mixed_targets", flatten: "flat_targets", left_out: "label_losses", walk: "match_rows"}
ROWS, LENGTH = 3, 40


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CorpusIndex]:
    """Some contexts with rows of many tokens, which are stored, and some with few."""
    rng = np.random.default_rng(0)
    tokens = np.minimum(rng.geometric(0.05, 6_000), 60)
    tokens[rng.random(tokens.size) < 0.3] = 1
    path = tmp_path_factory.mktemp("interpreted") / "index"
    with build_index(tokens, path, doc_starts=np.arange(0, 6_001, 300), vocab_size=64) as index:
        yield index


@contextmanager
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for module in (interpolated, request):
            patch.setattr(module, "compile_beside", lambda *arguments, **options: None)
        for module, name in INTERPRETED.items():
            patch.setattr(module, name, jit._without_warnings(jit.plain(getattr(module, name))))
        yield


def answers(index: CorpusIndex, options: dict[str, Any]) -> list[Any]:
    begins = np.array([0, 310, 2_950])
    places = begins[:, None] + np.arange(LENGTH)
    ids, following = (index.tokens[places + n].astype(np.int64) for n in (0, 1))
    following[1] = np.roll(following[1], 1)  # of which the corpus lacks some
    if options.get("leave_out") == "document":
        following = index.tokens[places + 1].astype(np.int64)
        options = {**options, "positions": begins}
    flat = index.smoothed_targets(ids, following, top_k=5, **options)
    both = (flat, index.mixed_targets(ids, following, **options))
    parts = [part for one in both for part in one if isinstance(part, np.ndarray)]
    parts.append(index.next_probabilities(ids, following, **options))
    return [(part.dtype, part.tobytes()) for part in parts]


@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@pytest.mark.parametrize("name", ["mle", "witten-bell", "kneser-ney", "modified-kneser-ney"])
def test_the_same_bits(monkeypatch: pytest.MonkeyPatch, index: CorpusIndex, name: str, leave_out: str | None) -> None:
    options = {"estimator": index.fitted(name, 3), "leave_out": leave_out}
    expected = answers(index, options)
    with interpreted(monkeypatch):
        assert answers(index, options) == expected


def test_the_work_of_a_call_is_its_positions_and_the_documents_that_it_looks_at() -> None:
    names = {
        kernel.__name__: [*inspect.signature(kernel.py_func).parameters]
        for kernel in (mixed.mixed_targets, flatten.flat_targets)
    }
    positions, two = np.zeros(7), np.array([0, 5])
    documents = request.Documents.empty(1, np.dtype(np.uint16))._replace(first=two, last=np.array([5, 25_600 + 5]))
    given = dict.fromkeys(names["mixed_targets"]) | {"lo": positions, "documents": documents}
    assert mixed.mixed_targets.work(*given.values()) == 7 + 100
    assert mixed.mixed_targets.work(*(given | {"documents": None}).values()) == 7
    given = dict.fromkeys(names["flat_targets"]) | {"first": 3, "stop": 12}
    assert flatten.flat_targets.work(*given.values()) == 9


def test_what_has_no_bound_is_asked_as_python_asks_it() -> None:
    """Copies share thousands of symbols: interpreted callers must not interpret that too, however small they are."""
    names = jit.plain(nodes.parent_depth).__globals__["shared_by_ranks"].__globals__
    assert names["shared_texts"] is nodes.shared_texts
    assert names["compact_shared"] is nodes.compact_shared
