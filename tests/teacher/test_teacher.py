"""The corpus teacher against the naive engine, and on its way through loaders and pickles."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_index import CorpusIndex, build_index
from corpus_index.errors import IndexFormatError, QueryError
from corpus_index.reference.engine import ReferenceIndex
from corpus_index.reference.estimators import witten_bell
from torch.utils.data import DataLoader

from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.teacher import CorpusTeacher, TeacherCollator

VOCAB = 5
DOCUMENTS = [[1, 2, 1, 2, 3, 0], [2, 1, 2, 1, 1, 0], [3, 3, 1, 2, 1, 0], [1, 0]]
END = 0


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    tokens = np.concatenate(DOCUMENTS).astype(np.uint16)
    starts = np.cumsum([0, *map(len, DOCUMENTS)])
    path = tmp_path_factory.mktemp("teacher") / "index"
    return build_index(tokens, path, doc_starts=starts, vocab_size=VOCAB, end_of_document=END)


@pytest.fixture(scope="module")
def reference() -> ReferenceIndex:
    return ReferenceIndex(DOCUMENTS, VOCAB, end_of_document=END)


@pytest.mark.parametrize("leave_out", [None, "self"])
@pytest.mark.parametrize("max_order", [0, 1, 3])
def test_equals_the_reference(
    index: CorpusIndex, reference: ReferenceIndex, leave_out: str | None, max_order: int
) -> None:
    batch = np.array([[1, 2, 1, 2, 3, 0, 1], [4, 2, 1, 1, 0, 3, 3]])
    starts = np.array([True, False])
    teacher = CorpusTeacher(index, max_order=max_order, leave_out=leave_out)
    actual = teacher(batch, starts_document=starts).validate()
    dense = actual.dense().reshape(2, 7, VOCAB)
    for row in range(2):
        for t in range(7):
            label = int(batch[row, t + 1]) if t < 6 else None
            expected = witten_bell(
                reference,
                reference.known_symbols(batch[row, : t + 1].tolist(), bool(starts[row])),
                max_order=max_order,
                leave_out=("self", label) if leave_out and label is not None else None,
            )
            np.testing.assert_allclose(dense[row, t], expected, atol=1e-6)
    last_known = actual.valid.reshape(2, 7)[:, -1]
    assert last_known.tolist() == [leave_out is None] * 2
    assert bool(actual.valid.reshape(2, 7)[:, :-1].all())


def test_the_label_s_own_occurrence_is_left_out(index: CorpusIndex) -> None:
    row = np.array(DOCUMENTS[2])
    seen = CorpusTeacher(index, leave_out=None)(row)
    honest = CorpusTeacher(index)(row)
    label = torch.from_numpy(row[1:])
    with_self = seen.dense()[torch.arange(5), label]
    without = honest.dense()[torch.arange(5), label]
    assert bool((without < with_self).all())


def test_next_ids_of_the_caller(index: CorpusIndex) -> None:
    row = np.array([[1, 2, 1]])
    teacher = CorpusTeacher(index, leave_out="self")
    given = teacher(row, [[2, 1, 3]])
    assert given.valid.tolist() == [True] * 3
    torch.testing.assert_close(given.dense()[:2], teacher(row).dense()[:2])
    assert teacher(row, [[2, -1, 3]]).valid.tolist() == [True, False, True]


def test_takes_tensors_and_single_rows(index: CorpusIndex) -> None:
    teacher = CorpusTeacher(index, leave_out=None)
    expected = teacher(np.array([[1, 2, 3]], dtype=np.uint16)).dense()
    for row in (torch.tensor([[1, 2, 3]]), torch.tensor([1, 2, 3]), [1, 2, 3]):
        assert torch.equal(teacher(row).dense(), expected)


def test_top_k_moves_mass_to_the_base(index: CorpusIndex) -> None:
    few = CorpusTeacher(index, leave_out=None, top_k=1)([[2, 1, 2]]).validate()
    assert int(few.offsets.diff().max()) == 1
    assert float(few.cut_mass.sum()) > 0


def test_pickles_as_a_path(index: CorpusIndex) -> None:
    teacher = CorpusTeacher(index, max_order=2, top_k=3, leave_out="self")
    data = pickle.dumps(teacher)
    assert len(data) < 2000
    copy = pickle.loads(data)
    assert repr(copy) == repr(teacher)
    assert copy.describe() == teacher.describe()
    assert torch.equal(copy([[1, 2, 1]]).dense(), teacher([[1, 2, 1]]).dense())


def test_opens_a_path(index: CorpusIndex) -> None:
    assert CorpusTeacher(index.path).vocab_size == VOCAB


def test_collator(index: CorpusIndex) -> None:
    windows = TokenWindows(index.tokens, 4, doc_starts=index.doc_starts, shuffle=False)
    batch = TeacherCollator(CorpusTeacher(index))([windows[0], windows[1]])
    assert batch["input_ids"].tolist() == [[1, 2, 1, 2], [3, 0, 2, 1]]
    assert torch.equal(batch["labels"], batch["input_ids"])
    expected = CorpusTeacher(index)(batch["input_ids"], starts_document=np.array([True, False]), positions=[0, 4])
    assert torch.equal(batch["soft_targets"].dense(), expected.dense())
    assert batch["teacher_s"] > 0
    assert set(TeacherCollator()([windows[0]["input_ids"]])) == {"input_ids", "labels"}


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_workers_give_the_same(index: CorpusIndex, context: str) -> None:
    windows = TokenWindows(index.tokens, 4, doc_starts=index.doc_starts, seed=3)
    options = {"batch_size": 2, "collate_fn": TeacherCollator(CorpusTeacher(index))}
    expected = list(DataLoader(windows, **options))
    actual = list(DataLoader(windows, num_workers=1, multiprocessing_context=context, **options))
    assert len(actual) == len(expected) == 3
    for one, other in zip(actual, expected, strict=True):
        assert isinstance(one["soft_targets"], SoftTargets)
        assert torch.equal(one["input_ids"], other["input_ids"])
        assert torch.equal(one["soft_targets"].dense(), other["soft_targets"].dense())


def test_wrong_settings_and_calls_are_named(index: CorpusIndex, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave_out is 'all'"):
        CorpusTeacher(index, leave_out="all")
    with pytest.raises(ConfigError, match="max_order is -1"):
        CorpusTeacher(index, max_order=-1)
    with pytest.raises(ConfigError, match="top_k is 0"):
        CorpusTeacher(index, top_k=0)
    with pytest.raises(InputError, match="float64"):
        CorpusTeacher(index)([[0.5]])
    with pytest.raises(InputError, match="next_ids has shape"):
        CorpusTeacher(index)([[1, 2]], [[1]])
    with pytest.raises(QueryError, match="good-turing-2"):
        CorpusTeacher(index, estimator="good-turing-2")
    with pytest.raises(QueryError, match="did you mean 'alpha'"):
        CorpusTeacher(index, estimator={"name": "stupid-backoff", "alfa": 0.3})
    with pytest.raises(IndexFormatError, match="no estimator at"):
        CorpusTeacher(index, estimator=tmp_path / "kept.json")


def test_leaves_the_document_out(index: CorpusIndex, reference: ReferenceIndex) -> None:
    """The collator hands over where its windows stand; at the token that follows the target is the naive one."""
    windows = TokenWindows(index.tokens, 4, shuffle=False, doc_starts=index.doc_starts)
    teacher = CorpusTeacher(index, max_order=3, leave_out="document")
    batch = TeacherCollator(teacher)([windows[i] for i in range(len(windows))])
    targets: SoftTargets = batch["soft_targets"].validate()
    dense = targets.dense().reshape(len(windows), 4, VOCAB)
    for i in range(len(windows)):
        row, start = windows[i]["input_ids"].tolist(), windows[i]["position"]
        for t in range(3):
            left = ("document", reference.document_of(start + t + 1))
            known = reference.known_symbols(row[: t + 1], windows[i]["starts_document"])
            expected = witten_bell(reference, known, max_order=3, leave_out=left)
            label = row[t + 1]
            assert dense[i, t, label].item() == pytest.approx(expected[label], abs=1e-6)
    with pytest.raises(
        InputError, match=r"leave_out is 'document', and 1 of 1 texts .* are not found in the index: give"
    ):
        teacher([[1, 2, 1]])


def test_the_document_is_left_out_where_it_is_known(index: CorpusIndex, tmp_path: Path) -> None:
    """By default: where the text's place is given or found; where the index has one document, the occurrence itself."""
    rows, positions = index.tokens[:12].astype(np.int64).reshape(2, 6), [0, 6]
    by_default, own = CorpusTeacher(index), CorpusTeacher(index, leave_out="self")
    document = CorpusTeacher(index, leave_out="document")
    assert by_default.describe()["leave_out"] == "auto"
    starts = np.array([True, True])
    found, placed = by_default(rows).dense(), by_default(rows, positions=positions, starts_document=starts).dense()
    assert torch.equal(found, placed)
    assert torch.equal(placed, document(rows, positions=positions, starts_document=starts).dense())
    assert torch.equal(placed, document(rows).dense())
    assert not torch.equal(placed, own(rows, starts_document=starts).dense())
    mixed = by_default.mixed(rows, positions=positions)
    assert torch.equal(mixed.pairs.rest, document.mixed(rows, positions=positions).pairs.rest)
    whole = build_index(np.concatenate(DOCUMENTS), tmp_path / "whole", vocab_size=VOCAB)
    alone = CorpusTeacher(whole)(rows, positions=positions)
    assert torch.equal(alone.dense(), CorpusTeacher(whole, leave_out="self")(rows).dense())


def test_rows_that_stand_elsewhere_are_refused(index: CorpusIndex) -> None:
    rows = index.tokens[6:12].astype(np.int64)
    for teacher in (CorpusTeacher(index), CorpusTeacher(index, leave_out="document")):
        for position in (5, index.num_tokens - 3):
            with pytest.raises(InputError, match=f"row 0 isn't what the index holds at position {position}"):
                teacher(rows, positions=[position])
        with pytest.raises(InputError, match=r"positions is int64 of shape \(2,\) for 1 rows and 1 segments"):
            teacher(rows, positions=[0, 6])
        assert torch.equal(teacher(rows, positions=[-1]).dense(), teacher(rows).dense())  # not known
    CorpusTeacher(index, leave_out="self")(rows, positions=[5])
    CorpusTeacher(index, leave_out=None)(rows, positions=[5])


def test_estimators_by_file_table_and_object(index: CorpusIndex, tmp_path: Path) -> None:
    fitted = index.fitted("modified-kneser-ney", 2)
    fitted.save(tmp_path / "kept.json")
    expected = CorpusTeacher(index, estimator="modified-kneser-ney", max_order=2, leave_out=None)([[1, 2, 1]])
    for spec in (fitted, tmp_path / "kept.json", {"name": "modified-kneser-ney", "max_order": 2}):
        teacher = CorpusTeacher(index, estimator=spec, leave_out=None)
        assert teacher.max_order == teacher.describe()["max_order"] == 2
        assert torch.equal(pickle.loads(pickle.dumps(teacher))([[1, 2, 1]]).dense(), expected.dense())


@pytest.mark.parametrize("leave_out", [None, "self"])
@pytest.mark.parametrize("max_order", [0, 1, 3])
def test_distinct_continuations(
    index: CorpusIndex, reference: ReferenceIndex, leave_out: str | None, max_order: int
) -> None:
    batch = np.array([[1, 2, 1, 2, 3, 0, 1], [4, 2, 1, 1, 0, 3, 3]])
    teacher = CorpusTeacher(index, max_order=max_order, leave_out=leave_out)
    actual = teacher.distinct(batch, starts_document=np.array([True, False])).reshape(2, 7)
    for row in range(2):
        for t in range(7):
            others, _ = reference.next_tokens(
                batch[row, : t + 1].tolist(), max_order=max_order, min_count=2 if leave_out else 1,
                starts_document=row == 0,
            )  # fmt: skip
            if leave_out and t < 6 and others.get(int(batch[row, t + 1])) == 1:
                del others[int(batch[row, t + 1])]
            assert int(actual[row, t]) == len(others)
    batch = TeacherCollator(teacher, distinct=True)([{"input_ids": row} for row in batch])
    assert batch["distinct"].shape == (14,)


def test_recall_of_the_row(index: CorpusIndex) -> None:
    """What followed the same tokens in the row counts, even if the corpus doesn't hold it."""
    row = [[4, 3, 1, 4, 3, 1, 4]]
    plain = CorpusTeacher(index, leave_out=None)(row).dense()
    teacher = CorpusTeacher(index, leave_out=None, recall=True)
    assert teacher.describe()["recall"]
    found = teacher(row).validate().dense()
    assert found[-1, 3] > plain[-1, 3]
    assert torch.equal(found[0], plain[0])
    again = CorpusTeacher(index, leave_out=None, recall=teacher.recall)
    assert torch.equal(pickle.loads(pickle.dumps(again))(row).dense(), found)
    with pytest.raises(ConfigError, match="no mixed form"):
        teacher.mixed(row)
