"""`/v1/targets`: batches of ids in, flat targets out, as arrays. What a `RemoteTeacher` asks.

The teacher is the one that would be asked in the same process, so its targets are the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from starlette.requests import Request
from starlette.responses import Response

from corpus_teacher.segments import ALIASES, COLUMNS
from corpus_teacher.serve.limits import RefusedRequest
from corpus_teacher.serve.requests import body_of, json_of, state_of
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.teacher import EVIDENCE, CorpusTeacher
from corpus_teacher.wire import ARROW, FORMS, PAIRS, POSITIONS, SAFETENSORS, pack_targets, rows_as_array, unpack_batch

_SETTINGS = ("estimator", "max_order", "leave_out", "top_k", "top_p")
_BATCH = {"input_ids", "next_ids", "starts_document", "positions", *COLUMNS, *ALIASES}
_FIELDS = {*_SETTINGS, "index", "form", "base", "evidence"}

_base_ids: WeakKeyDictionary[CorpusTeacher, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Asked:
    """A batch of one client."""

    teacher: CorpusTeacher
    columns: dict[str, Any]
    evidence: tuple[str, ...]
    wants_base: bool
    content_type: str

    @property
    def rows(self) -> tuple[int, int]:
        """B and T."""
        ids = self.columns["input_ids"]
        return (1, int(ids.size)) if ids.ndim == 1 else (int(ids.shape[0]), int(ids.shape[1]))

    @property
    def key(self) -> Any:
        """What it may be joined by: rows of one length of which no more is known than where they begin."""
        by_row = {"input_ids", "next_ids", "starts_document", "positions"}
        ids = self.columns["input_ids"]
        if self.evidence or not self.columns.keys() <= by_row or ids.ndim != 2 or not ids.size:
            return None
        rows = ids.shape[0]
        for name in ("starts_document", "positions"):
            given = self.columns.get(name)
            if given is not None and np.shape(given) not in ((), (rows,)):
                return None
        given = self.columns.get("next_ids")
        if given is not None and np.shape(given) != ids.shape:
            return None
        return "targets", id(self.teacher), int(ids.shape[1]), given is not None


async def targets(request: Request) -> Response:
    """A batch in, its targets out: Arrow's IPC stream, or safetensors, as the client accepts it."""
    state = state_of(request)
    arrays, fields = await _read(request)
    served = state.served.named(fields.get("index"))
    unknown = (arrays.keys() - _BATCH) | (fields.keys() - _FIELDS)
    if unknown:
        raise RefusedRequest(
            f"there is no field {sorted(unknown)[0]!r}: give input_ids, next_ids, starts_document, positions, "
            f"{', '.join(COLUMNS)}, and {', '.join(sorted(_FIELDS))}"
        )
    if "input_ids" not in arrays:
        raise RefusedRequest("there are no input_ids: give token ids, (B, T)")
    if not isinstance(arrays["input_ids"], np.ndarray):
        raise RefusedRequest(f"input_ids is {arrays['input_ids']!r}: give token ids, (B, T)")
    positions = int(np.size(arrays["input_ids"]))
    if positions > state.options.limits.positions:
        raise RefusedRequest(
            f"the batch has {positions:,} positions and a request at most {state.options.limits.positions:,}: send it "
            "in parts",
            status=413,
        )
    evidence = fields.get("evidence") or ()
    if not isinstance(evidence, (list, tuple)) or not all(isinstance(name, str) for name in evidence):
        raise RefusedRequest(f"evidence is {evidence!r}: give a list of {', '.join(EVIDENCE)}")
    wrong = next((name for name in evidence if name not in EVIDENCE), None)
    if wrong is not None:
        raise RefusedRequest(f"there is no evidence {wrong!r}: give {', '.join(EVIDENCE)}")
    settings = {name: fields[name] for name in _SETTINGS if name in fields}
    teacher = await state.joiner.run(served.teacher, settings)
    asked = _Asked(teacher, arrays, tuple(evidence), bool(fields.get("base", True)), _form(request, fields))
    content = await state.joiner.ask(asked.key, answer, asked, positions)
    return Response(content, media_type=asked.content_type)


def answer(asked: Sequence[_Asked]) -> list[bytes]:
    """The answers to batches of one key, joined: as if each was asked alone."""
    if len(asked) == 1:
        return [_packed(asked[0], _said(asked[0]), 0, None)]
    rows = [one.columns["input_ids"].shape[0] for one in asked]
    joined: dict[str, Any] = {"input_ids": np.concatenate([one.columns["input_ids"] for one in asked])}
    for name, fill, kind in (("starts_document", False, np.bool_), ("positions", -1, np.int64)):
        parts = [
            np.broadcast_to(np.asarray(one.columns.get(name, fill)), (size,))
            for one, size in zip(asked, rows, strict=True)
        ]
        joined[name] = np.concatenate(parts).astype(kind)
    if "next_ids" in asked[0].columns:
        joined["next_ids"] = np.concatenate([one.columns["next_ids"] for one in asked])
    said = asked[0].teacher(**joined)
    length = joined["input_ids"].shape[1]
    edges = np.concatenate([[0], np.cumsum(rows)]) * length
    return [_packed(one, said, int(lo), int(hi)) for one, lo, hi in zip(asked, edges[:-1], edges[1:], strict=True)]


def _said(asked: _Asked) -> SoftTargets:
    columns = {name: value for name, value in asked.columns.items() if name != "input_ids"}
    if not asked.columns["input_ids"].size:  # asked for what the teacher is, and its base
        base = asked.teacher.index.base_distribution(asked.teacher.estimator)
        return SoftTargets.from_arrays([0], [], [], [], base)
    return asked.teacher(asked.columns["input_ids"], **columns)


def _packed(asked: _Asked, said: SoftTargets, lo: int, hi: int | None) -> bytes:
    """Positions lo to hi of what was said, as bytes."""
    hi = said.num_positions if hi is None else hi
    offsets = said.offsets[lo : hi + 1].numpy()
    arrays = {name: getattr(said, name)[lo:hi].numpy() for name in POSITIONS}
    arrays |= {name: getattr(said, name)[int(offsets[0]) : int(offsets[-1])].numpy() for name in PAIRS}
    arrays["offsets"] = offsets - offsets[0]
    about = {
        "teacher": asked.teacher.describe(),
        "vocab_size": asked.teacher.vocab_size,
        "base_id": base_id(asked.teacher, said.base),
        "shape": list(asked.rows),
    }
    if asked.wants_base:
        arrays["base"] = said.base.numpy()
    if asked.evidence:
        columns = {name: value for name, value in asked.columns.items() if name != "input_ids"}
        told = asked.teacher.evidence(asked.evidence, asked.columns["input_ids"], **columns)
        arrays |= {f"evidence.{name}": value.numpy() for name, value in told.items()}
    return pack_targets(arrays, about, asked.content_type)


def base_id(teacher: CorpusTeacher, base: torch.Tensor) -> str:
    """What a teacher's base distribution is recognised by; hashed once for each teacher."""
    if teacher not in _base_ids:
        _base_ids[teacher] = hashlib.sha256(base.numpy().tobytes()).hexdigest()[:16]
    return _base_ids[teacher]


async def _read(request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and the settings of a request."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind in (ARROW, SAFETENSORS):
        columns, said = unpack_batch(await body_of(request), kind)
        if "end_token" in said:
            columns["end_token"] = said.pop("end_token")
        return columns, said
    given = await json_of(request)
    arrays: dict[str, Any] = {}
    for name in list(given):
        if name in _BATCH:
            arrays[name] = _array(given.pop(name), name)
    return arrays, given


def _array(value: Any, name: str) -> Any:
    """An array of JSON's lists; rows of different lengths are filled up."""
    if not isinstance(value, list):
        return value
    rows = bool(value) and isinstance(value[0], list)
    try:
        return rows_as_array(value, 0 if name == "attention_mask" else -1) if rows else np.array(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RefusedRequest(f"{name} is no array of whole numbers: give (B, T), or rows of token ids") from error


def _form(request: Request, fields: dict[str, Any]) -> str:
    """In which form the answer travels."""
    form = fields.get("form")
    if form is not None:
        if not isinstance(form, str) or form not in FORMS:
            raise RefusedRequest(f"form is {form!r}: give {' or '.join(FORMS)}")
        return FORMS[form]
    return SAFETENSORS if SAFETENSORS in request.headers.get("accept", "") else ARROW
