"""From windows of tokens to a batch: the one way in which all collators of this project do it.

The naive definition is ``torch.stack``. Beside that: windows of unequal lengths are padded on the right, the user's own
labels, masks and position ids stay what they are, and columns that nobody here reads pass through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.segments import UNKNOWN, as_array

IGNORED = -100
"""The label of a token that isn't to be learnt."""

_FILLS = {"attention_mask": 0, "position_ids": 0, "document_ids": -1, "seq_idx": -1, "labels": IGNORED}
_FACTS = ("starts_document", "position", "positions", "seq_lengths", "end_token")

Array = npt.NDArray[Any]


def check_padding(pad_token: int, pad_to_multiple_of: int | None) -> None:
    """Refuse settings of padding that make no sense.

    Raises
    ------
    ConfigError
    """
    if pad_token < 0:
        raise ConfigError(f"pad_token is {pad_token}: give a token id, the student reads it (nobody learns it)")
    if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
        raise ConfigError(f"pad_to_multiple_of is {pad_to_multiple_of}: give at least 1, or None")


def collate_windows(
    windows: Sequence[Mapping[str, Any] | npt.ArrayLike], pad_token: int = 0, pad_to_multiple_of: int | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Collate.

    Parameters
    ----------
    windows : sequence of B mappings or arrays of shape (T,)
        Mappings hold "input_ids", and what else is known: "labels", "attention_mask", "position_ids", "document_ids"
        (or "seq_idx"), each of shape (T,); "starts_document" and the corpus "position" of the window, or of each token,
        (T,); "seq_lengths", of the examples of a packed window. Other columns pass through: numbers as tensors, what
        makes no tensor as lists.
    pad_token : int
        What shorter windows are filled up with, on the right.
    pad_to_multiple_of : int, optional
        Of the batch's length.

    Returns
    -------
    batch : dict
        input_ids and labels, (B, T) int64, and the other columns. Labels are the windows' own, else the input_ids;
        -100 where the mask is 0, and in the padding. With padding there is an attention_mask.
    facts : dict
        What teachers read and students don't: starts_document and positions, for rows or for tokens.

    Raises
    ------
    InputError
        No windows, columns of other lengths than their input_ids, or labels in some windows only.
    """
    if not isinstance(windows, Iterable):
        raise InputError(f"a batch is {type(windows).__name__}: give a list of windows")
    windows = list(windows)
    if not windows:
        raise InputError("a batch of no windows: give at least one")
    rows = [_window(window) for window in windows]
    lengths = [row["input_ids"].size for row in rows]
    length = max(lengths)
    if pad_to_multiple_of is not None:
        length = -(-length // pad_to_multiple_of) * pad_to_multiple_of
    batch: dict[str, Any] = {"input_ids": _stack([row["input_ids"] for row in rows], length, pad_token)}
    for name in dict.fromkeys(name for row in rows for name in row if name not in _FACTS):
        if name == "labels" or name in _FILLS:
            columns = [_column(row, name, size) for row, size in zip(rows, lengths, strict=True)]
            batch[name] = _stack(columns, length, _FILLS[name])
        elif name != "input_ids":
            batch[name] = _passed([row.get(name) for row in rows], lengths, length)
    if length != min(lengths) and "attention_mask" not in batch:
        batch["attention_mask"] = _stack([np.ones(size, np.int64) for size in lengths], length, 0)
    if "labels" not in batch:
        real = batch["input_ids"] >= 0
        if "attention_mask" in batch:
            real &= batch["attention_mask"] > 0
        batch["labels"] = torch.where(real, batch["input_ids"], IGNORED)
    return batch, _facts(rows, lengths, length)


def _window(window: Mapping[str, Any] | npt.ArrayLike) -> dict[str, Any]:
    """The columns of a window, its tokens as an array."""
    columns: dict[str, Any] = dict(window) if isinstance(window, Mapping) else {"input_ids": window}
    if "input_ids" not in columns:
        raise InputError(f"a window holds {', '.join(sorted(columns)) or 'nothing'} and no input_ids: give them")
    ids = as_array(columns["input_ids"])
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise InputError(f"the input_ids of a window are {ids.dtype} of shape {ids.shape}: give token ids, (T,)")
    columns["input_ids"] = ids.astype(np.int64)
    if columns.get("seq_lengths") is not None and columns.get("position_ids") is None:
        columns["position_ids"] = np.concatenate([np.arange(size) for size in columns["seq_lengths"]])
    return {name: value for name, value in columns.items() if value is not None}


def _column(row: Mapping[str, Any], name: str, size: int) -> Array:
    """One number for each token of a window; where a window lacks the column, what it means by that."""
    if name not in row:
        if name == "labels":
            raise InputError(
                f"the labels of a window have none and its input_ids shape ({size},): give one a token, for every "
                "window of a batch or for none"
            )
        if name == "position_ids":
            return np.arange(size)
        return np.ones(size, np.int64) if name == "attention_mask" else np.zeros(size, np.int64)
    values = as_array(row[name])
    if values.shape != (size,):
        raise InputError(
            f"the {name} of a window have shape {values.shape} and its input_ids shape ({size},): give one a token, "
            "for every window of a batch or for none"
        )
    return values.astype(np.int64)


def _stack(columns: Sequence[Array], length: int, fill: Any) -> torch.Tensor:
    """Columns as rows of one tensor, filled up on the right."""
    made = np.full((len(columns), length), fill, columns[0].dtype)
    for row, values in zip(made, columns, strict=True):
        row[: values.size] = values
    return torch.from_numpy(made)


def _passed(values: Sequence[Any], lengths: Sequence[int], length: int) -> Any:
    """A column that nobody here reads."""
    if any(value is None or isinstance(value, (str, bytes)) for value in values):
        return list(values)
    try:
        arrays = [as_array(value) for value in values]
    except ValueError:  # lists of lists of other lengths
        return list(values)
    if any(array.dtype.kind not in "biuf" for array in arrays):
        return list(values)
    if all(array.shape == (size,) for array, size in zip(arrays, lengths, strict=True)):
        return _stack(arrays, length, 0)
    if len({array.shape for array in arrays}) == 1:
        return torch.from_numpy(np.stack(arrays))
    return list(values)


def _facts(rows: Sequence[Mapping[str, Any]], lengths: Sequence[int], length: int) -> dict[str, Any]:
    """Which windows begin documents and where they stand, by row, or by token where one of them says so."""
    starts = [row.get("starts_document", False) for row in rows]
    places = [row.get("positions", row.get("position", UNKNOWN)) for row in rows]
    facts: dict[str, Any] = {}
    for name, values, fill in (("starts_document", starts, False), ("positions", places, UNKNOWN)):
        arrays = [as_array(value) for value in values]
        if all(array.ndim == 0 for array in arrays):
            facts[name] = np.array(arrays)
            continue
        columns = [_by_token(array, size, name, fill) for array, size in zip(arrays, lengths, strict=True)]
        facts[name] = _stack(columns, length, fill).numpy()
    if all(array.ndim == 0 and int(array) < 0 for array in map(as_array, places)):
        facts["positions"] = None
    return facts


def _by_token(values: Array, size: int, name: str, fill: Any) -> Array:
    """What a window says of itself, for each of its tokens."""
    if values.ndim == 0:
        known = np.full(size, fill, np.asarray(fill).dtype)
        if name == "positions" and int(values) >= 0:
            known = int(values) + np.arange(size)
        elif name == "starts_document":
            known[:1] = bool(values)
        return known
    if values.shape != (size,):
        raise InputError(f"the {name} of a window have shape {values.shape} and its input_ids ({size},): give one each")
    return values.astype(np.asarray(fill).dtype)
