"""A compact index against the full one that it was made from: every answer to the last bit, and every byte back."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import (
    ESTIMATORS,
    CorpusIndex,
    IndexExistsError,
    IndexFormatError,
    QueryError,
    append_documents,
    build_index,
    convert_index,
    fit_recall,
    make_estimator,
    merge_shards,
    near_duplicates,
    remove_documents,
    verify_index,
    write_arpa,
)
from corpus_index._kernels.walk import step_range
from corpus_index.estimators.counts_of_counts import counts_of_counts
from corpus_index.estimators.held_out_evidence import leave_documents_out
from corpus_index.manifest import seal
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import corpora, draw_rows

Two = Callable[[dict[str, Any]], tuple[CorpusIndex, CorpusIndex]]
ORDERS = st.sampled_from([None, 0, 1, 3])


@pytest.fixture
def make_two(make_index: Callable[..., CorpusIndex], tmp_path: Path) -> Two:
    """The same index in both layouts."""

    def make(corpus: dict[str, Any]) -> tuple[CorpusIndex, CorpusIndex]:
        full = make_index(**corpus)
        return full, convert_index(full.path, "compact", out=tmp_path / "compact", overwrite=True)

    return make


def copying() -> tuple[np.ndarray, list[int]]:
    """A corpus of 6,000 tokens with rare and frequent ones, and copies of up to 600 of them."""
    rng = np.random.default_rng(5)
    tokens = np.minimum(rng.geometric(0.2, 6_000), 40) - 1 + 40 * (rng.random(6_000) < 0.05)
    tokens[3_000:3_600] = tokens[200:800]
    tokens[4_100:4_400] = tokens[3_100:3_400]
    tokens[5_000:5_400] = 7
    return tokens, [0, 1_500, 1_500, 2_900, 4_000, 5_600, 6_000]


@pytest.fixture
def copies(tmp_path: Path) -> tuple[CorpusIndex, CorpusIndex]:
    """Both layouts of the corpus of copies."""
    tokens, starts = copying()
    full = build_index(tokens, tmp_path / "full", doc_starts=np.array(starts), vocab_size=100, workers=1)
    return full, convert_index(full.path, "compact", out=tmp_path / "compact")


def same(actual: Any, expected: Any) -> None:
    """Equal to the last bit."""
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@given(data=st.data(), corpus=corpora(), order=ORDERS, starts=st.booleans())
def test_contexts(make_two: Two, data: st.DataObject, corpus: dict[str, Any], order: int | None, starts: bool) -> None:
    full, compact = make_two(corpus)
    rows = draw_rows(data, corpus, 3)
    options: dict[str, Any] = {"max_order": order, "starts_document": starts, "min_count": data.draw(st.integers(1, 3))}
    same(compact.match(rows, **options), full.match(rows, **options))
    for size in (0, 1, 2, 5):
        ngram = rows[0, :size]
        assert compact.count(ngram) == full.count(ngram)
        assert compact.positions(ngram).tolist() == full.positions(ngram).tolist()
        same(compact.next_tokens(ngram, **options), full.next_tokens(ngram, **options))
        same(compact.documents_of(ngram, **options), full.documents_of(ngram, **options))


@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=max(3, settings().max_examples // 10))
@given(data=st.data(), corpus=corpora(), order=ORDERS, starts=st.booleans())
def test_every_estimator(
    make_two: Two,
    data: st.DataObject,
    name: str,
    leave_out: str | None,
    corpus: dict[str, Any],
    order: int | None,
    starts: bool,
) -> None:
    full, compact = make_two(corpus | {"vocab_size": min(corpus["vocab_size"], 5)})  # kernels of one width
    tokens = np.asarray(full.tokens).astype(np.int64)
    begin = data.draw(st.integers(0, tokens.size - 1))
    rows = tokens[begin : begin + 8][None]
    following = np.append(rows[:, 1:], [[tokens[begin + rows.size] if begin + rows.size < tokens.size else -1]], axis=1)
    if name in ("kneser-ney", "modified-kneser-ney", "absolute-discounting") and order is None:
        order = 2
    options: dict[str, Any] = {"estimator": name, "max_order": order, "leave_out": leave_out, "starts_document": starts}
    if leave_out == "document":
        options["positions"] = np.array([begin])
        if begin + rows.size >= tokens.size:
            return
    same(
        compact.smoothed_targets(rows, following, top_k=3, **options),
        full.smoothed_targets(rows, following, top_k=3, **options),
    )
    same(compact.mixed_targets(rows, following, **options), full.mixed_targets(rows, following, **options))
    known = np.maximum(following, 0)
    same(compact.next_probabilities(rows, known, **options), full.next_probabilities(rows, known, **options))


@given(corpus=corpora())
def test_there_and_back_again(make_two: Two, tmp_path: Path, corpus: dict[str, Any]) -> None:
    full, compact = make_two(corpus)
    assert verify_index(compact.path)
    assert verify_index(compact.path, full=True)
    assert np.asarray(compact.tokens).tolist() == full.tokens.tolist()
    assert np.asarray(compact.array("order")).tolist() == full.array("order").tolist()
    back = convert_index(compact.path, "full", out=tmp_path / "back", overwrite=True)
    assert back.fingerprint == full.fingerprint  # which stands for every byte


def test_what_is_not_stored_is_read_like_an_array(copies: tuple[CorpusIndex, CorpusIndex]) -> None:
    full, compact = copies
    for name in ("tokens", "order"):
        found, stored = compact.array(name), full.array(name)
        assert (len(found), found.shape, found.dtype, found.nbytes) == (6_000, (6_000,), stored.dtype, stored.nbytes)
        for key in (
            slice(None),
            slice(63, 320),
            slice(5_990, None),
            slice(10, 90, 7),
            slice(8, 2),
            [3, 4, 5, 2, 5_999],
        ):
            assert found[key].tolist() == stored[key].tolist()
        assert found[np.array([[1, 2], [-1, 0]])].tolist() == stored[np.array([[1, 2], [-1, 0]])].tolist()
        assert (found[17], found[-1]) == (stored[17], stored[-1])
        assert found[np.arange(6_000) % 1_000 == 0].tolist() == stored[::1_000].tolist()
        assert list(found) == found.tolist() == found.astype(np.int64).tolist() == stored.tolist()
        assert pickle.loads(pickle.dumps(found))[:80].tolist() == stored[:80].tolist()
        for key in (6_000, -6_001, [6_000]):
            with pytest.raises(IndexError, match="outside of 0"):
                found[key]
    for name in ("row_offsets", "row_tokens", "row_counts"):
        same([compact.array(name)], [full.array(name)])


def copied_rows(index: CorpusIndex) -> np.ndarray:
    """Three rows of the copied text, where they begin at 3,000, 4,000 and 4,990, and one that it doesn't hold."""
    tokens = np.asarray(index.tokens).astype(np.int64)
    return np.stack([tokens[3_000:3_600], tokens[4_000:4_600], tokens[4_990:5_590], np.roll(tokens, 300)[:600]])


def test_steps_and_long_copies(copies: tuple[CorpusIndex, CorpusIndex]) -> None:
    full, compact = copies
    rng = np.random.default_rng(0)
    followed = np.flatnonzero(np.diff(full.array("symbols")[:, 0].astype(np.int64)))
    for c in followed.tolist():
        for lo in rng.integers(0, 6_001, 12).tolist():
            hi = int(rng.integers(lo, 6_001)) if rng.random() < 0.5 else min(6_000, lo + int(rng.integers(0, 9)))
            steps = full.kernel_arrays().steps, compact.kernel_arrays().steps
            assert step_range(steps[1], c, lo, hi) == step_range(steps[0], c, lo, hi)
    rows = copied_rows(full)
    for order in (None, 4, 300):
        for least in (1, 2):
            options: dict[str, Any] = {"max_order": order, "min_count": least}
            same(compact.match(rows, **options), full.match(rows, **options))


def test_scores_of_long_copies(copies: tuple[CorpusIndex, CorpusIndex]) -> None:
    full, compact = copies
    rows = copied_rows(full)[:3]
    for leave_out in ("self", "document"):
        options: dict[str, Any] = {"leave_out": leave_out, "positions": np.array([3_000, 4_000, 4_990])}
        for estimator in ("witten-bell", "pitman-yor"):
            expected = full.next_probabilities(rows[:, :-1], rows[:, 1:], estimator=estimator, **options)
            same(compact.next_probabilities(rows[:, :-1], rows[:, 1:], estimator=estimator, **options), expected)


def test_all_that_is_counted_over_the_whole(copies: tuple[CorpusIndex, CorpusIndex], tmp_path: Path) -> None:
    full, compact = copies
    same(near_duplicates(compact), near_duplicates(full))
    same(leave_documents_out(compact, 4), leave_documents_out(full, 4))
    same(counts_of_counts(compact, 3, left=True), counts_of_counts(full, 3, left=True))
    same([compact.left_counts, compact.symbol_counts], [full.left_counts, full.symbol_counts])
    same(compact.sorted_ranks(), full.sorted_ranks())
    same([compact.position_ranks(), compact.lost_from()], [full.position_ranks(), full.lost_from()])
    same(compact.document_ranks([4, 0, 1]), full.document_ranks([4, 0, 1]))
    rows = np.asarray(full.tokens)[:40].reshape(2, 20).astype(np.int64)
    same(*(fit_recall(one, "witten-bell", 3).next_probabilities(one, rows, rows) for one in copies))
    same(*([one.scorer("modified-kneser-ney", 3).probabilities(rows)] for one in copies))
    for one in copies:
        write_arpa(one, make_estimator("modified-kneser-ney", 3), tmp_path / f"{one.layout}.arpa")
    assert (tmp_path / "compact.arpa").read_bytes() == (tmp_path / "full.arpa").read_bytes()


def test_shards_of_either_layout(tmp_path: Path) -> None:
    tokens, starts = copying()
    options: dict[str, Any] = {"doc_starts": np.array(starts), "vocab_size": 100, "workers": 1, "shard_tokens": 3_000}
    names = [f"book {number}" for number in range(len(starts) - 1)]
    full = build_index(tokens, tmp_path / "full", document_names=names, **options)
    compact = build_index(tokens, tmp_path / "compact", document_names=names, layout="compact", **options)
    assert (full.layout, compact.layout) == ("full", "compact")
    rows, following = tokens[:60].reshape(3, 20), tokens[1:61].reshape(3, 20)
    positions = np.array([0, 20, 40])
    for leave_out in (None, "self", "document"):
        for estimator in ("auto", "modified-kneser-ney", "katz"):
            asked: dict[str, Any] = {"estimator": estimator, "max_order": 3, "leave_out": leave_out}
            asked |= {"positions": positions}
            same(
                compact.next_probabilities(rows, following, **asked), full.next_probabilities(rows, following, **asked)
            )
    assert np.asarray(compact.tokens).tolist() == tokens.tolist()
    assert np.sort(compact.positions(tokens[5:8])).tolist() == np.sort(full.positions(tokens[5:8])).tolist()
    with convert_index(tmp_path / "compact", "full") as back:
        assert back.layout == "full"
        assert back.history[-1]["what"] == "convert"
        assert [shard.fingerprint for shard in back.shards] == [shard.fingerprint for shard in full.shards]
    with convert_index(tmp_path / "full", "compact") as small:
        assert [shard.fingerprint for shard in small.shards] == [shard.fingerprint for shard in compact.shards]
    with append_documents(tmp_path / "full", tokens[:500], document_names=["one more"]) as grown:
        assert grown.layout == "compact"
        assert grown.count(tokens[5:30]) == full.count(tokens[5:30]) + 1
    with remove_documents(tmp_path / "full", [5]) as less:
        assert less.layout == "compact"
        assert less.num_tokens == 6_100
    for layout in ("full", "compact"):
        with convert_index(tmp_path / "full", layout) as again:
            assert again.layout == layout
            assert again.num_tokens == 6_100
            assert again.count(tokens[5:30]) == full.count(tokens[5:30]) + 1
    with merge_shards(tmp_path / "full") as merged:
        assert merged.layout == "compact"
        assert merged.document(5).name == "one more"
        assert verify_index(merged.path)


def test_converting_in_place_keeps_what_stands_there(copies: tuple[CorpusIndex, CorpusIndex], tmp_path: Path) -> None:
    full, compact = copies
    with pytest.raises(QueryError, match="layout 'small' is unknown: choose one of full, compact"):
        convert_index(full.path, "small")
    with pytest.raises(IndexExistsError, match="exists already"):
        convert_index(full.path, "compact", out=compact.path)
    with convert_index(full.path, "full") as unchanged:
        assert unchanged.fingerprint == full.fingerprint
    with convert_index(full.path, "compact") as small:
        assert small.path == full.path
        assert small.fingerprint == compact.fingerprint
    assert full.count([7]) == compact.count([7])  # who has the old one open goes on with it
    assert not list(tmp_path.glob(".*scratch*"))
    assert not list(tmp_path.glob(".*building*"))


def _change(path: Path, name: str, change: Callable[[np.ndarray], None]) -> None:
    """Change an array, and seal the manifest anew."""
    manifest = json.loads((path / "manifest.json").read_text())
    entry = manifest["arrays"][name]
    array = np.fromfile(path / f"{name}.bin", entry["dtype"]).reshape(entry["shape"])
    change(array)
    array.tofile(path / f"{name}.bin")
    manifest["fingerprint"] = seal(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


ARRAYS = ("list_high", "list_low", "list_ones", "list_zeros", "after_endings", "sample_marks", "sample_ones")
ARRAYS += ("sample_positions", "sample_ranks", "next_tokens", "common", "endings", "symbols", "row_bounds")


@pytest.mark.parametrize("name", ARRAYS)
def test_whatever_the_arrays_say_is_no_crash(copies: tuple[CorpusIndex, CorpusIndex], name: str) -> None:
    """Numbers at random, all ones and all zeros: refused in one sentence, or answered, wrongly."""
    path, rng = copies[1].path, np.random.default_rng(1)
    kept = (path / f"{name}.bin").read_bytes()
    rows = np.asarray(copies[0].tokens)[:400].reshape(4, 100).astype(np.int64)
    for fill in (lambda a: rng.integers(0, 256, a.nbytes, np.uint8), lambda a: 255, lambda a: 0):

        def change(array: np.ndarray, fill: Callable[[np.ndarray], Any] = fill) -> None:
            array.reshape(-1).view(np.uint8)[:] = fill(array)

        _change(path, name, change)
        said = str(path)
        try:
            with CorpusIndex.open(path, check="never") as index:
                index.match(rows)
                index.next_probabilities(rows[:, :-1], rows[:, 1:], leave_out="document", positions=np.arange(4) * 100)
                index.positions(rows[0, :2])
                index.array("tokens")[100:300]
                near_duplicates(index)
                convert_index(path, "full", out=path.with_name("back"), overwrite=True)
        except (IndexFormatError, QueryError) as error:
            said = str(error)
        assert str(path) in said
        with pytest.raises(IndexFormatError):
            verify_index(path)
        (path / f"{name}.bin").write_bytes(kept)


def _emptied(name: str) -> dict[str, Any]:
    return {f"arrays__{name}__shape": [0], f"arrays__{name}__bytes": 0, f"arrays__{name}__crc32": ""}


def test_a_manifest_that_lies_is_refused(copies: tuple[CorpusIndex, CorpusIndex]) -> None:
    path = copies[1].path
    original = json.loads((path / "manifest.json").read_text())
    assert (original["version"], original["layout"], original["sample_shift"]) == (4, "compact", 6)

    def opened(**changes: Any) -> None:
        manifest = json.loads(json.dumps(original))
        for key, value in changes.items():
            place = manifest
            for part in key.split("__")[:-1]:
                place = place[part]
            place[key.split("__")[-1]] = value
        manifest["fingerprint"] = seal(manifest)
        (path / "manifest.json").write_text(json.dumps(manifest))
        CorpusIndex.open(path).close()

    for changes, message in (
        ({"layout": "tiny"}, "wrong in 'layout': 'tiny' is none of full, compact"),
        ({"layout": 3}, "wrong in 'layout'"),
        ({"layout": "full"}, "'tokens' is missing"),
        ({"sample_shift": 40}, "wrong in 'sample_shift'"),
        ({"sample_shift": 5}, "wrong in 'arrays.sample_ranks.shape'"),
        ({"version": 5}, "reads up to 4"),
        (_emptied("list_ones"), "wrong in 'arrays.list_ones.shape'"),
        (_emptied("list_low"), "too short"),
    ):
        with pytest.raises(IndexFormatError, match=message):
            opened(**changes)
    opened()
