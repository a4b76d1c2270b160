"""The same corpus as one index and in shards, cut where a test likes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex, ShardedIndex, remove_documents
from corpus_index.build import build_part
from corpus_index.corpus import check_corpus
from corpus_index.names import pack_names
from corpus_index.sharded import masked_shard, shard_answers
from corpus_index.sharded.shard_writer import event, shard_writer
from hypothesis import strategies as st

Both = Callable[..., tuple[CorpusIndex, ShardedIndex]]


def parts_of(documents: list[list[int]], cuts: list[int]) -> list[tuple[int, int]]:
    """Documents first … end − 1 of each shard; a part without tokens goes with its neighbour, as in a build."""
    bounds = sorted({0, len(documents), *(cut for cut in cuts if cut <= len(documents))})
    parts: list[tuple[int, int]] = []
    for first, end in pairwise(bounds):
        if any(documents[first:end]) and any(any(documents[lo:hi]) for lo, hi in parts):
            parts.append((first, end))
        elif parts:
            parts[-1] = (parts[-1][0], end)
        else:
            parts.append((first, end))
    return parts


@pytest.fixture
def make_sharded(make_index: Callable[..., CorpusIndex], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    """One index of a corpus, and shards of it with cuts before the given documents."""

    def make(corpus: dict[str, Any], cuts: list[int]) -> tuple[CorpusIndex, ShardedIndex]:
        index = make_index(**corpus)
        documents = corpus["documents"]
        checked = check_corpus(
            np.array([token for document in documents for token in document], np.int64),
            np.cumsum([0, *map(len, documents)]),
            corpus["vocab_size"],
            corpus["end_of_document"],
        )
        names = pack_names([f"document {number}" for number in range(len(documents))])
        with shard_writer(tmp_path / "shards", overwrite=True) as writer:
            for first, end in parts_of(documents, cuts):
                writer.add(lambda path, a=first, b=end: build_part(checked, a, b, path, names=names[:], workers=1))
            writer.finish(checked.vocab_size, index.metadata, [event("build")])
        monkeypatch.setattr(shard_answers, "_LONG", 2)
        return index, ShardedIndex.open(tmp_path / "shards")

    return make


def with_strangers(documents: list[list[int]], end: int | None, seed: int) -> tuple[list[list[int]], list[int]]:
    """Documents among which others stand, and the numbers of these: copies, parts, continued ones, and empty ones."""
    rng, mixed, strangers = np.random.default_rng(seed), list[list[int]](), list[int]()
    known = [token for document in documents for token in document if token != end]
    for document in [*documents, None]:
        for _ in range(int(rng.integers(0, 3))):
            model = documents[int(rng.integers(len(documents)))]
            other = [model, model[: len(model) // 2], model + model[1:], known[:9], []][int(rng.integers(5))]
            other = [token for token in other if token != end]
            strangers.append(len(mixed))
            mixed.append(other if end is None else [*other, end])
        if document is not None:
            mixed.append(document)
    return mixed, strangers


@pytest.fixture
def make_masked(make_index: Callable[..., CorpusIndex], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    """One index of a corpus, and shards of it from which other documents were removed, in two steps."""

    def make(corpus: dict[str, Any], cuts: list[int]) -> tuple[CorpusIndex, ShardedIndex]:
        index = make_index(**corpus)
        documents, end = corpus["documents"], corpus["end_of_document"]
        monkeypatch.setattr(masked_shard, "_NARROW", corpus["light"] - 1)
        gone: list[int] = []
        names: list[str] = []
        texts: list[list[int]] = []
        parts = []
        for first, stop in parts_of(documents, cuts):
            mixed, strangers = with_strangers(documents[first:stop], end, len(texts) + len(documents))
            parts.append((len(texts), len(texts) + len(mixed)))
            gone += [len(texts) + number for number in strangers]
            own = iter(range(first, stop))
            names += ["a stranger" if number in strangers else f"document {next(own)}" for number in range(len(mixed))]
            texts += mixed
        checked = check_corpus(
            np.array([token for text in texts for token in text], np.int64),
            np.cumsum([0, *map(len, texts)]),
            corpus["vocab_size"],
            end,
        )
        packed = pack_names(names)
        path = tmp_path / "masked"
        with shard_writer(path, overwrite=True) as writer:
            for first, stop in parts:
                writer.add(lambda path, a=first, b=stop: build_part(checked, a, b, path, names=packed[:], workers=1))
            writer.finish(checked.vocab_size, index.metadata, [event("build")])
        half = gone[len(gone) // 2 :]
        for some in (half, gone[: len(gone) // 2]):
            if some:
                remove_documents(path, some, workers=1).close()
        monkeypatch.setattr(shard_answers, "_LONG", 2)
        return index, ShardedIndex.open(path)

    return make


cut_places = st.lists(st.integers(1, 4), max_size=3)
