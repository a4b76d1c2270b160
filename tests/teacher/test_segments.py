"""Packed, padded and flattened batches: the target at each token is that of its segment asked alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from corpus_index import CorpusIndex, build_index
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import InputError, TeacherWarning
from corpus_teacher.neural import CachedTeacher, EmaTeacher, NeuralTeacher, TargetFormat
from corpus_teacher.neural.caching import write_cache
from corpus_teacher.segments import read_batch
from corpus_teacher.targets import DenseTargets
from corpus_teacher.teacher import CorpusTeacher

from .neural_models import VOCAB, make_model

END, ADDED, BOS = 7, 38, 37  # ids of the index end below 38; BOS is one that it never saw
LENGTH = 6  # of cached windows
RNG = np.random.default_rng(5)
DOCUMENTS = [[*(RNG.geometric(0.2, size) % 30).tolist(), END] for size in (40, 60, 25, 70, 33)]
DOCUMENTS = [[*(token + (token == END) for token in document[:-1]), END] for document in DOCUMENTS]
TEXT = np.concatenate(DOCUMENTS)
STARTS = np.cumsum([0, *map(len, DOCUMENTS)])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    path = tmp_path_factory.mktemp("segments") / "index"
    return build_index(TEXT.astype(np.uint16), path, doc_starts=STARTS, vocab_size=ADDED, end_of_document=END)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> CachedTeacher:
    path = tmp_path_factory.mktemp("segments") / "cache"
    kept = TargetFormat("top-k", k=8)
    write_cache(NeuralTeacher(make_model(), kept=kept), TokenWindows(TEXT, LENGTH), path, kept=kept)
    return CachedTeacher(path)


def make_teacher(kind: str, index: CorpusIndex, cache: CachedTeacher) -> Any:
    options = {"max_order": 3, "leave_out": None}
    return {
        "witten-bell": lambda: CorpusTeacher(index, **options),
        "self": lambda: CorpusTeacher(index, max_order=3, leave_out="self"),
        "kneser-ney": lambda: CorpusTeacher(index, estimator="modified-kneser-ney", **options),
        "katz": lambda: CorpusTeacher(index, estimator="katz", **options),
        "recall": lambda: CorpusTeacher(index, recall=True, **options),
        "mixed": lambda: CorpusTeacher(index, **options).mixed,
        "document": lambda: CorpusTeacher(index, max_order=3, leave_out="document"),
        "mixed document": lambda: CorpusTeacher(index, max_order=3, leave_out="document").mixed,
        "live": lambda: NeuralTeacher(make_model(), kept=TargetFormat("top-k", k=8)),
        "gpt2": lambda: NeuralTeacher(make_model("gpt2"), kept=TargetFormat("all")),
        "draws": lambda: NeuralTeacher(make_model(), kept=TargetFormat("sample", draws=5)),
        "average": lambda: EmaTeacher(make_model(), kept=TargetFormat("top-p", k=20, p=0.9)),
        "cached": lambda: cache,
    }[kind]()


KINDS = [
    "witten-bell", "self", "kneser-ney", "katz", "recall", "mixed", "document", "mixed document", "live", "gpt2",
    "draws", "average", "cached",
]  # fmt: skip


def dense_of(targets: Any) -> torch.Tensor:
    return targets.logits.softmax(-1) if isinstance(targets, DenseTargets) else targets.dense()


class Text:
    """Pieces of the corpus, and where each stands."""

    def __init__(self, rng: np.random.Generator, count: int, length: int | None) -> None:
        longest = 9 if length is None else length
        self.lengths = [int(rng.integers(1, 9)) if length is None else length for _ in range(count)]
        starts = rng.integers(0, len(TEXT) - longest, count)
        if length is not None:
            starts = starts // length * length
        self.positions = starts.tolist()
        self.pieces = [TEXT[start : start + size].tolist() for start, size in zip(starts, self.lengths, strict=True)]


def packed(text: Text, width: int) -> tuple[dict[str, Any], list[list[int]]]:
    """Rows that pieces fill one after the other, padded on the right; and where each piece's tokens are."""
    rows: list[list[int]] = [[]]
    places: list[list[int]] = []
    numbers: list[list[int]] = [[]]
    positions: list[list[int]] = [[]]
    for piece, position in zip(text.pieces, text.positions, strict=True):
        if len(rows[-1]) + len(piece) > width:
            rows.append([])
            numbers.append([])
            positions.append([])
        base = (len(rows) - 1) * width + len(rows[-1])
        places.append(list(range(base, base + len(piece))))
        rows[-1] += piece
        numbers[-1] += range(len(piece))
        positions[-1] += range(position, position + len(piece))
    pad = [width - len(row) for row in rows]
    return {
        "input_ids": [row + [-100] * n for row, n in zip(rows, pad, strict=True)],
        "position_ids": [row + [0] * n for row, n in zip(numbers, pad, strict=True)],
        "positions": [row + [-1] * n for row, n in zip(positions, pad, strict=True)],
        "starts_document": [
            [p in STARTS and number == 0 for p, number in zip(row, own, strict=True)] + [False] * n
            for row, own, n in zip(positions, numbers, pad, strict=True)
        ],
    }, places


def layouts(text: Text) -> dict[str, tuple[dict[str, Any], list[list[int]]]]:
    """The same pieces in every way in which batches hold them."""
    ids, sizes = text.pieces, text.lengths
    width = max(sizes) + 1
    starts = [position in STARTS for position in text.positions]
    per_segment = {"positions": text.positions, "starts_document": starts}
    edges = np.cumsum([0, *sizes])
    flat_places = [list(range(lo, hi)) for lo, hi in pairwise(edges.tolist())]
    whole = [[token for piece in ids for token in piece]]
    numbers = [[place for size in sizes for place in range(size)]]
    documents = [[number for number, size in enumerate(sizes) for _ in range(size)]]
    mask = [[1] * size + [0] * (width - size) for size in sizes]
    right = [list(range(row * width, row * width + size)) for row, size in enumerate(sizes)]
    left = [list(range((row + 1) * width - size, (row + 1) * width)) for row, size in enumerate(sizes)]
    rows = packed(text, 10)
    return {
        "right": ({"input_ids": [i + [ADDED + 1] * (width - len(i)) for i in ids], "attention_mask": mask,
                   **per_segment}, right),
        "left": ({"input_ids": [[END] * (width - len(i)) + i for i in ids],
                  "attention_mask": [row[::-1] for row in mask], **per_segment}, left),
        "negative": ({"input_ids": [i + [-100] * (width - len(i)) for i in ids], **per_segment}, right),
        "position_ids": ({"input_ids": whole, "position_ids": numbers, **per_segment}, flat_places),
        "seq_idx": ({"input_ids": whole, "seq_idx": documents, **per_segment}, flat_places),
        "cu_seq_lens": ({"input_ids": whole, "cu_seq_lens_q": edges, "max_length_q": width, **per_segment},
                        flat_places),
        "mask of documents": ({"input_ids": whole, "attention_mask": [[n + 1 for n in documents[0]]], **per_segment},
                              flat_places),
        "packed": rows,
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=8, deadline=None)
def test_every_layout_is_each_segment_alone(
    kind: str, index: CorpusIndex, cache: CachedTeacher, seed: int, count: int
) -> None:
    teacher = make_teacher(kind, index, cache)
    text = Text(np.random.default_rng(seed), count, LENGTH if kind == "cached" else None)
    alone = [
        teacher(np.array([piece]), starts_document=position in STARTS, positions=[position])
        for piece, position in zip(text.pieces, text.positions, strict=True)
    ]
    for name, (batch, places) in layouts(text).items():
        targets = teacher(**batch)
        said, width = dense_of(targets), len(np.ravel(batch["input_ids"]))
        assert said.shape[0] == width, name
        for own, at in zip(alone, places, strict=True):
            torch.testing.assert_close(said[at], dense_of(own), atol=2e-6, rtol=1e-5, msg=name)
            assert targets.valid[at].tolist() == own.valid.tolist(), name
        padding = np.setdiff1d(np.arange(width), np.concatenate(places))
        assert not targets.valid[torch.from_numpy(padding)].any(), name


def test_a_token_that_ends_documents(index: CorpusIndex) -> None:
    """One that the index doesn't know: contexts begin anew after it, as after the index's own."""
    teacher = CorpusTeacher(index, leave_out=None)
    first, second = [3, 4, 1], DOCUMENTS[2][:4]
    known, unknown = [[*first, END, *second]], [[*first, BOS, *second]]
    expected = teacher(known).dense()
    actual = teacher(unknown, end_token=BOS).dense()
    torch.testing.assert_close(actual[:3], expected[:3])
    torch.testing.assert_close(actual[4:], expected[4:])
    assert not torch.equal(teacher(unknown).dense()[4:], expected[4:])


@pytest.mark.parametrize("bos", [BOS, ADDED, ADDED + 1])
def test_a_start_that_the_index_never_saw(index: CorpusIndex, bos: int) -> None:
    """A BOS is what the end of a document is to the index: documents begin after it."""
    teacher = CorpusTeacher(index, leave_out="self")
    text = DOCUMENTS[1][:6]
    expected = teacher([[END, *text]], starts_document=True)
    actual = teacher([[bos, *text]], starts_document=True)
    torch.testing.assert_close(actual.dense(), expected.dense())
    assert torch.equal(actual.valid, expected.valid)
    alone = teacher([text], starts_document=True)
    torch.testing.assert_close(actual.dense()[1:], alone.dense())
    documents = CorpusTeacher(index, leave_out="document")
    given = documents([[bos, *text]], starts_document=True, positions=[int(STARTS[1])])
    torch.testing.assert_close(
        given.dense()[1:], documents([text], starts_document=True, positions=[int(STARTS[1])]).dense()
    )
    assert given.valid.tolist() == [False, *[True] * 5, False]


def test_added_tokens_break_contexts(index: CorpusIndex) -> None:
    teacher = CorpusTeacher(index, leave_out="self")
    targets = teacher([[3, 4, ADDED, 5, 2]])
    assert targets.valid.tolist() == [True, False, False, True, False]  # what follows 4 has no target
    torch.testing.assert_close(targets.dense()[3:], teacher([[5, 2]]).dense())


def test_windows_across_documents_without_an_end_token(tmp_path: Path) -> None:
    """Where the rows stand in the corpus is where its documents end."""
    tokens = np.concatenate([document[:-1] for document in DOCUMENTS])
    starts = np.cumsum([0, *(len(document) - 1 for document in DOCUMENTS)])
    index = build_index(tokens.astype(np.uint16), tmp_path / "index", doc_starts=starts, vocab_size=ADDED)
    boundary = int(starts[1])
    row, position = tokens[boundary - 5 : boundary + 6], boundary - 5
    for leave_out in ("auto", "document", "self", None):
        teacher = CorpusTeacher(index, leave_out=leave_out, max_order=3)
        whole = teacher([row], positions=[position])
        before = teacher([row[:5]], positions=[position])
        after = teacher([row[5:]], positions=[boundary], starts_document=True)
        torch.testing.assert_close(whole.dense(), torch.cat([before.dense(), after.dense()]))
        assert whole.valid[4].item() is (leave_out is None)  # no document says what follows its end


def test_a_batch_encoding_and_its_columns(index: CorpusIndex) -> None:
    teacher = CorpusTeacher(index, leave_out=None)
    ids = torch.tensor([[3, 4, 1, 0], [5, 2, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    batch = transformers.BatchEncoding({"input_ids": ids, "attention_mask": mask, "token_type_ids": ids, "labels": ids})
    expected = teacher(ids, attention_mask=mask)
    assert expected.valid.tolist() == [True, True, True, False, True, True, False, False]
    for said in (teacher(batch), teacher(**batch), teacher(dict(batch))):
        assert torch.equal(said.dense(), expected.dense())
    live = NeuralTeacher(make_model(), kept=TargetFormat(k=4))
    assert torch.equal(live(batch).dense(), live(ids, attention_mask=mask).dense())
    assert not teacher(torch.full((2, 3), -100)).valid.any()
    assert not live(torch.full((2, 3), -100)).valid.any()


def test_holes_in_a_mask_are_read_over(index: CorpusIndex) -> None:
    teacher = CorpusTeacher(index, leave_out=None)
    targets = teacher([[3, 9, 9, 4, 1]], attention_mask=[[1, 0, 0, 1, 1]])
    torch.testing.assert_close(targets.dense()[[0, 3, 4]], teacher([[3, 4, 1]]).dense())


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"start_document": True}, "a teacher has no argument 'start_document': it reads input_ids"),
        ({"attention_mask": [[1, 1]]}, r"attention_mask is int64 of shape \(1, 2\) and input_ids has shape \(2, 3\)"),
        (
            {"attention_mask": np.zeros((2, 1, 3, 3))},
            r"attention_mask is float64 of shape \(2, 1, 3, 3\): give \(B, T\)",
        ),
        ({"position_ids": np.zeros((3, 2, 3), int)}, r"position_ids is int64 of shape \(3, 2, 3\)"),
        ({"document_ids": [[0.0] * 3] * 2}, "document_ids is float64"),
        ({"cu_seq_lens": [0, 4, 9]}, r"cu_seq_lens is \[0, 4, 9\] … \[9\] for 6 tokens: give the ascending"),
        ({"starts_document": [True, False, True]}, "starts_document has 3 values for 2 rows and 2 segments"),
        ({"starts_document": np.zeros((3, 2), bool)}, r"starts_document has shape \(3, 2\) and input_ids \(2, 3\)"),
        ({"starts_document": np.zeros((2, 3, 1), bool)}, r"starts_document is bool of shape \(2, 3, 1\)"),
        ({"positions": [0, 1, 2]}, r"positions is int64 of shape \(3,\) for 2 rows and 2 segments"),
        ({"positions": [0.5, 1]}, "positions is float64"),
        ({"next_ids": [[1]]}, r"next_ids has shape \(1, 1\) and input_ids \(2, 3\): give one a position"),
    ],
)
def test_refusals_name_the_argument(index: CorpusIndex, columns: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        CorpusTeacher(index, leave_out=None)([[1, 2, 3], [4, 5, 6]], **columns)


def test_a_negative_token_under_the_mask_is_refused() -> None:
    with pytest.raises(InputError, match="input_ids holds -100 at row 0, token 1, where attention_mask is 1"):
        read_batch([[1, -100]], columns={"attention_mask": [[1, 1]]})


def test_documents_are_found_by_their_text(index: CorpusIndex) -> None:
    """No column says where rows stand: the index does."""
    auto, document = CorpusTeacher(index), CorpusTeacher(index, leave_out="document")
    rows = np.stack([TEXT[start : start + 20] for start in (0, 35, 41, 90)])
    starts, positions = [True, False, True, False], [0, 35, 41, 90]
    expected = document(rows, positions=positions, starts_document=starts)
    for said in (auto(rows), document(rows), CorpusTeacher(index, strict=True)(rows)):
        assert torch.equal(said.dense(), expected.dense())
        assert torch.equal(said.valid, expected.valid)
    flattened = auto([rows.reshape(-1)], cu_seq_lens=np.arange(5) * 20)
    torch.testing.assert_close(flattened.dense(), expected.dense())


def test_texts_that_are_not_found_are_reported_once(index: CorpusIndex) -> None:
    known, foreign = TEXT[5:20], np.full(15, 33)
    teacher = CorpusTeacher(index)
    with pytest.warns(TeacherWarning, match=r"1 of 2 texts of a batch come without positions .* \(said once\); give"):
        both = teacher([known, foreign])
    teacher([known, foreign])  # a second warning would be an error
    own = CorpusTeacher(index, leave_out="self")([foreign])
    torch.testing.assert_close(both.dense()[15:], own.dense())
    torch.testing.assert_close(both.dense()[:15], CorpusTeacher(index, leave_out="document")([known]).dense())
    with pytest.raises(InputError, match="whose documents a strict teacher leaves out: give positions, or say leave_"):
        CorpusTeacher(index, strict=True)([known, foreign])
    with pytest.raises(InputError, match="leave_out is 'document', and 1 of 2 texts of a batch"):
        CorpusTeacher(index, leave_out="document")([known, foreign])
    short = [[TEXT[5]]]  # stands at many places: nobody knows which is meant
    with pytest.raises(InputError, match="1 of 1 texts"):
        CorpusTeacher(index, strict=True)(short)


def test_one_position_in_a_row_does_not_do_for_packed_documents(index: CorpusIndex) -> None:
    rows = [np.concatenate([TEXT[5:15], TEXT[80:90]])]
    with pytest.raises(InputError, match=r"row 0 isn't what the index holds at position .*one per segment"):
        CorpusTeacher(index)(rows, positions=[5], document_ids=[[0] * 10 + [1] * 10])


def test_distinct_continuations_of_segments(index: CorpusIndex) -> None:
    teacher = CorpusTeacher(index, leave_out=None)
    rows = np.array([[3, 4, 1], [5, 2, 2]])
    expected = teacher.distinct(rows)
    packed_rows = {
        "input_ids": rows.reshape(1, -1),
        "position_ids": [[0, 1, 2, 0, 1, 2]],
        "starts_document": [False] * 2,
    }
    assert torch.equal(teacher.distinct(packed_rows), expected)
    assert torch.equal(teacher.evidence(["distinct"], packed_rows)["distinct"], expected)
    padded = teacher.distinct([[3, 4, 1, -100], [5, 2, 2, -100]]).reshape(2, 4)
    assert torch.equal(padded[:, :3].reshape(-1), expected)
    assert not padded[:, 3].any()


def test_a_cache_asked_for_other_lengths(cache: CachedTeacher) -> None:
    with pytest.raises(InputError, match="the windows have 3 tokens and those of the cache"):
        cache([TEXT[:9]], position_ids=[[0, 1, 2, 3, 4, 5, 0, 1, 2]])
    lenient = CachedTeacher(cache.path, missing="invalid")
    said = lenient([TEXT[:9]], position_ids=[[0, 1, 2, 3, 4, 5, 0, 1, 2]])
    assert said.valid.tolist() == [True] * 6 + [False] * 3
    torch.testing.assert_close(said.dense()[:6], cache([TEXT[:6]]).dense())
    assert VOCAB > ADDED
