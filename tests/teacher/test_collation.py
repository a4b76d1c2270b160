"""What becomes of windows: both collators make the same batch of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.collation import collate_windows
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.teacher import TeacherCollator
from corpus_teacher.training.collator import DistillationCollator

COLLATORS: list[Callable[..., Any]] = [TeacherCollator, DistillationCollator]


@pytest.mark.parametrize("make", COLLATORS)
def test_what_a_user_gives_is_kept(make: Callable[..., Any]) -> None:
    windows = [
        {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8], "position_ids": [0, 1, 0, 1], "source": "a",
         "score": 0.5, "weights": [1.0, 2.0, 3.0, 4.0], "position": 3, "starts_document": True},
        {"input_ids": [9, 10], "labels": [-100, 10], "attention_mask": [0, 1], "source": "b", "score": 1.5,
         "weights": [5.0, 6.0]},
    ]  # fmt: skip
    batch = make(pad_token=2, pad_to_multiple_of=3)(windows)
    assert batch.pop("source") == ["a", "b"]
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [[5, 6, 7, 8, 2, 2], [9, 10, 2, 2, 2, 2]],
        "labels": [[-100, -100, 7, 8, -100, -100], [-100, 10, -100, -100, -100, -100]],
        "attention_mask": [[1, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0]],
        "position_ids": [[0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]],
        "score": [0.5, 1.5],
        "weights": [[1.0, 2.0, 3.0, 4.0, 0.0, 0.0], [5.0, 6.0, 0.0, 0.0, 0.0, 0.0]],
    }


@pytest.mark.parametrize("make", COLLATORS)
def test_labels_that_nobody_gave(make: Callable[..., Any]) -> None:
    plain = make()([[1, 2], np.array([3, 4], np.uint16)])
    assert {name: value.tolist() for name, value in plain.items()} == {
        "input_ids": [[1, 2], [3, 4]], "labels": [[1, 2], [3, 4]]
    }  # fmt: skip
    padded = make()([torch.tensor([1, 2, 3]), {"input_ids": [4, -100], "attention_mask": None}])
    assert padded["labels"].tolist() == [[1, 2, 3], [4, -100, -100]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=4), st.integers(1, 4))
def test_padding_changes_no_window(rows: list[list[int]], multiple: int) -> None:
    batch, _ = collate_windows(rows, 3, multiple)
    length = batch["input_ids"].shape[1]
    assert length % multiple == 0
    assert length - multiple < max(map(len, rows)) <= length
    for row, ids, labels in zip(rows, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        assert ids == row + [3] * (length - len(row))
        assert labels == row + [-100] * (length - len(row))


def test_facts_for_rows_and_for_tokens() -> None:
    _, facts = collate_windows([{"input_ids": [1, 2], "position": 4, "starts_document": True}, {"input_ids": [3, 4]}])
    assert facts["positions"].tolist() == [4, -1]
    assert facts["starts_document"].tolist() == [True, False]
    packed = {"input_ids": [1, 2, 3], "positions": [7, 8, 2], "starts_document": [False, False, True]}
    _, facts = collate_windows([packed, {"input_ids": [3, 4], "position": 5, "starts_document": True}])
    assert facts["positions"].tolist() == [[7, 8, 2], [5, 6, -1]]
    assert facts["starts_document"].tolist() == [[False, False, True], [True, False, False]]
    batch, facts = collate_windows([{"input_ids": [1, 2, 3], "seq_lengths": [2, 1]}])
    assert batch["position_ids"].tolist() == [[0, 1, 0]]
    assert facts["positions"] is None


@pytest.mark.parametrize(
    ("windows", "match"),
    [
        ([], "a batch of no windows: give at least one"),
        ([{"ids": [1]}], "a window holds ids and no input_ids"),
        ([[[1, 2]]], r"input_ids of a window are int64 of shape \(1, 2\): give token ids, \(T,\)"),
        ([{"input_ids": [1, 2], "labels": [1]}], r"the labels of a window have shape \(1,\) and its input_ids shape"),
        ([{"input_ids": [1], "labels": [1]}, [2]], "the labels of a window have none and its input_ids shape"),
        ([{"input_ids": [1, 2], "positions": [1]}], r"the positions of a window have shape \(1,\)"),
    ],
)
def test_windows_that_make_no_batch(windows: list[Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        collate_windows(windows)


def test_padding_that_makes_no_sense() -> None:
    with pytest.raises(ConfigError, match="pad_token is -1"):
        TeacherCollator(pad_token=-1)
    with pytest.raises(ConfigError, match="pad_to_multiple_of is 0"):
        DistillationCollator(pad_to_multiple_of=0)
