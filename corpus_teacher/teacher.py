"""The corpus as a teacher: what the indexed text itself says of the next token, at every position of a batch.

The naive definition: find all occurrences of a position's context in the corpus, and let each vote for the
token that followed it; back off to shorter contexts as the estimator says. `CorpusTeacher` asks the index for
just that and wraps the answer for torch. `TeacherCollator` is the same inside a DataLoader: it makes (B, T)
batches that carry their targets, so the work may be done ahead, in worker processes.

A text that is in the index has to be taught with its own occurrences left out, or the teacher knows the
label: of a context seen once it would say exactly the token that follows. That is the default.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from corpus_index import CorpusIndex, DocumentVotes, Estimator, EstimatorLike, Recall, fit_recall
from torch import Tensor

from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.targets.mixed import MixedTargets, RowTable, TableSource
from corpus_teacher.targets.soft import SoftTargets

FORMS = ("flat", "mixed")
"""Forms of targets: the likeliest tokens of each position, or all of them by reference to shared rows."""

LEAVE_OUT = ("auto", "self", "document", None)
"""What may be left out of the index: the occurrence of a position itself, all of its document, nothing; or as known."""

UNKNOWN = -1
"""The next token of a position whose next token isn't known."""


class CorpusTeacher:
    """An n-gram teacher over an index: (B, T) token ids in, one soft target a position out.

    Parameters
    ----------
    index : CorpusIndex or path
        The corpus; a path is opened.
    estimator : str, path, mapping or Estimator
        How counts become probabilities: a name, the file of a fitted one, a table of settings, or the object; see
        `corpus_index.resolve_estimator`. It is fitted here if it has to be, which takes seconds; "witten-bell", which
        interpolates all orders from the longest match down, has nothing to fit.
    max_order : int, optional
        Longest context in tokens; None for no bound. A file, an object, and a table that says it have their own.
    leave_out : {"auto", "self", "document", None}
        For texts that are in the index, or the teacher knows the label. "document": all that stands in the position's
        own document is left out, which is what unseen text will meet: documents repeat themselves. "self": one
        occurrence of (context, next token) is, at every order, before the longest match is chosen: right where
        documents don't repeat themselves, and all that can be done where they aren't known. "auto": "document" in calls
        that give `positions`, if the index has more than one document, else "self". None for texts that are not in
        the index.
    top_k : int
        Explicit tokens a position at most; the mass beyond them goes to the base, and is reported as
        `cut_mass`.
    top_p : float
        Below 1: of these only the likeliest, as many as hold this much mass.

    recall : bool or Recall
        Mix in what followed the same last tokens earlier in the row (`corpus_index.targets.recall`): True fits the
        mixture here, on the index alone. Of flat targets.

    Raises
    ------
    ConfigError, QueryError
        A setting out of range, or an estimator that there isn't.
    IndexFormatError
        A path that is not an index, or an estimator's file that isn't one of this index.

    Notes
    -----
    Pickles as the path of its index, so that each DataLoader worker (fork or spawn) opens its own memory map, of large
    pages where the system has them (`CorpusIndex.prefer_large_pages`).
    Leaving the document out takes about four times as long as leaving self out under Witten–Bell, and seven to eight
    times under the Kneser–Ney family, whose counts of left extensions have to be made anew, and "auto" (5.5 to 6, and
    11 to 12 us a position, flat, 100 million tokens): ask for "self" where the teacher is what the training waits for.
    """

    def __init__(
        self,
        index: CorpusIndex | str | Path,
        *,
        estimator: EstimatorLike = "witten-bell",
        max_order: int | None = 5,
        leave_out: str | None = "auto",
        top_k: int = 64,
        top_p: float = 1.0,
        recall: bool | Recall = False,
    ) -> None:
        if leave_out not in LEAVE_OUT:
            raise ConfigError(
                f"leave_out is {leave_out!r}: give 'auto', 'self', 'document', or None for text outside the index"
            )
        if max_order is not None and max_order < 0:
            raise ConfigError(f"max_order is {max_order}: give 0 or more context tokens, or None for no bound")
        if top_k < 1:
            raise ConfigError(f"top_k is {top_k}: keep at least 1 token a position")
        if not 0 < top_p <= 1:
            raise ConfigError(f"top_p is {top_p}: give a share above 0 and at most 1")
        self.index = CorpusIndex.open(index) if isinstance(index, (str, Path)) else index
        self.index.prefer_large_pages()
        self.estimator = self.index.fitted(estimator, max_order)
        self.max_order = self.estimator.max_order
        self.leave_out = leave_out
        self.top_k = top_k
        self.top_p = top_p
        self.recall: Recall | None = None
        if recall is not False:
            self.recall = fit_recall(self.index, self.estimator) if recall is True else recall
            self.estimator = self.index.fitted(self.recall.estimator)
            self.max_order = self.estimator.max_order
        # of estimators only those of the Kneser–Ney family have a table of their own
        key = f"{self.index.path}/{self.index.fingerprint}/{self.estimator.uses_left_counts}"
        self._tables = TableSource.of(key, functools.partial(_row_table, self.index, self.estimator))

    @property
    def vocab_size(self) -> int:
        """V of the index, and of every target."""
        return self.index.vocab_size

    def __repr__(self) -> str:
        return (
            f"CorpusTeacher({str(self.index.path)!r}, estimator={self.estimator.name!r}, "
            f"max_order={self.max_order}, leave_out={self.leave_out!r}, top_k={self.top_k})"
        )

    def describe(self) -> dict[str, Any]:
        """The settings and the identity of the corpus, for reports and checkpoints."""
        return {
            "estimator": self.estimator.name,
            "max_order": self.max_order,
            "leave_out": self.leave_out,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "recall": self.recall is not None,
            "index_fingerprint": self.index.fingerprint,
            "index_tokens": self.index.num_tokens,
        }

    def __call__(
        self,
        input_ids: npt.ArrayLike | Tensor,
        next_ids: npt.ArrayLike | Tensor | None = None,
        *,
        starts_document: bool | npt.ArrayLike = False,
        positions: npt.ArrayLike | None = None,
    ) -> SoftTargets:
        """Teach every position of a batch.

        Parameters
        ----------
        input_ids : array_like or Tensor of shape (B, T) or (T,), integer
            A tensor may be on any device; the targets are on the CPU.
        next_ids : array_like or Tensor of the same shape, optional
            The token that truly follows each position, -1 where unknown. By default the row itself shifted by
            one, so that only the last of each row is unknown. Without `leave_out` it isn't read.
        starts_document : bool or array_like of shape (B,)
            Whether rows begin where a document begins.
        positions : array_like of shape (B,), int, optional
            Where in the indexed corpus each row begins; needed to leave its document out. The corpus must hold the
            rows there.

        Returns
        -------
        SoftTargets
            Of Q = B · T positions, row by row; the target at t is the distribution of the token after
            ``input_ids[:, : t + 1]``. With `leave_out` a position whose next token is unknown isn't valid.

        Raises
        ------
        InputError
            Arrays of other shapes or types, or rows that don't stand at their positions.
        QueryError
            A token outside the vocabulary of the index.
        """
        rows, following, options = self._asked(input_ids, next_ids, starts_document, positions)
        options |= {"top_k": self.top_k, "top_p": self.top_p}
        if self.recall is not None:
            answer = self.recall.smoothed_targets(self.index, rows, following, **options)
        else:
            answer = self.index.smoothed_targets(rows, following, estimator=self.estimator, **options)
        return self._targets(answer, following, answer.cut_mass)

    def mixed(
        self,
        input_ids: npt.ArrayLike | Tensor,
        next_ids: npt.ArrayLike | Tensor | None = None,
        *,
        starts_document: bool | npt.ArrayLike = False,
        positions: npt.ArrayLike | None = None,
    ) -> MixedTargets:
        """Teach every position of a batch in mixed form: exact, nothing is cut; top_k and top_p don't count.

        Parameters and errors as of a call.

        Returns
        -------
        MixedTargets
            They find the table of rows that they refer to by themselves, on the device that they are moved to.
        """
        if self.recall is not None:
            raise ConfigError("recall has no mixed form: ask for flat targets, or make the teacher without it")
        rows, following, options = self._asked(input_ids, next_ids, starts_document, positions)
        answer = self.index.mixed_targets(rows, following, estimator=self.estimator, **options)
        return MixedTargets(
            self._targets(answer, following, None),
            torch.from_numpy(answer.row_offsets),
            torch.from_numpy(answer.rows),
            torch.from_numpy(answer.coefficients),
            RowTable.from_arrays(answer.own_offsets, answer.own_token_ids, answer.own_counts),
            self.index.array("row_offsets").size - 1,
            source=self._tables,
        )

    def documents_of(
        self, context: npt.ArrayLike, next_token: int | None = None, *, limit: int | None = 10
    ) -> DocumentVotes:
        """Which documents of the corpus taught what follows a context, with counts; see `CorpusIndex.documents_of`.

        Parameters
        ----------
        context : array_like of shape (n,), integer
            The tokens before the position; the teacher's own bound on the order holds.
        next_token : int, optional
            Count the votes for this token only.
        limit : int, optional
            That many documents at most.

        Raises
        ------
        QueryError
        """
        return self.index.documents_of(context, next_token, max_order=self.max_order, limit=limit)

    def distinct(
        self,
        input_ids: npt.ArrayLike | Tensor,
        next_ids: npt.ArrayLike | Tensor | None = None,
        *,
        starts_document: bool | npt.ArrayLike = False,
    ) -> Tensor:
        """Distinct continuations of the longest known context of every position: evidence for policies.

        Parameters and errors as of a call.

        Returns
        -------
        Tensor of shape (Q,), int64
            With `leave_out` of contexts that occur at least twice, and without a token that only the position itself
            brings. (The rest of its document stays in, whatever is left out of the targets.)
        """
        rows, following, _ = self._asked(input_ids, next_ids, starts_document, None)
        found = self.index.next_tokens_batch(
            rows,
            max_order=self.max_order,
            min_count=2 if self.leave_out else 1,
            starts_document=starts_document,
        )
        numbers, num_stored = found.rows.reshape(-1), found.stored_offsets.size - 1
        stored = numbers < num_stored
        distinct = np.zeros(numbers.size, np.int64)
        for chosen, places, offsets, token_ids, counts in (
            (stored, numbers, found.stored_offsets, found.stored_token_ids, found.stored_counts),
            (~stored, numbers - num_stored, found.offsets, found.token_ids, found.counts),
        ):
            lo, hi = offsets[places[chosen]], offsets[places[chosen] + 1]
            distinct[chosen] = hi - lo
            if self.leave_out:
                own = _search_rows(token_ids, lo, hi, following.reshape(-1)[chosen])
                distinct[chosen] -= (own >= 0) & (counts[np.maximum(own, 0)] == 1)
        return torch.from_numpy(distinct)

    def evidence(
        self,
        names: Iterable[str],
        input_ids: npt.ArrayLike | Tensor,
        next_ids: npt.ArrayLike | Tensor | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """What the corpus says of every position beside the targets, for policies that ask.

        Parameters
        ----------
        names : iterable of str
            Of `EVIDENCE`: "distinct".
        input_ids, next_ids, **options
            As in a call.

        Returns
        -------
        dict of str to Tensor of shape (Q,)

        Raises
        ------
        ConfigError
            A name that isn't known.
        InputError, QueryError
            As of a call.
        """
        unknown = sorted(set(names) - EVIDENCE.keys())
        if unknown:
            raise ConfigError(f"the corpus has no evidence {unknown[0]!r}: give one of {', '.join(EVIDENCE)}")
        return {name: EVIDENCE[name](self, input_ids, next_ids, **options) for name in sorted(set(names))}

    def _asked(
        self,
        input_ids: npt.ArrayLike | Tensor,
        next_ids: npt.ArrayLike | Tensor | None,
        starts_document: bool | npt.ArrayLike,
        positions: npt.ArrayLike | None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], dict[str, Any]]:
        rows = _as_rows(input_ids, "input_ids")
        if next_ids is None:
            following = np.full_like(rows, UNKNOWN)
            following[:, :-1] = rows[:, 1:]
        else:
            following = _as_rows(next_ids, "next_ids")
            if following.shape != rows.shape:
                raise InputError(
                    f"next_ids has shape {following.shape} and input_ids {rows.shape}: give one a position"
                )
        leave_out = self.leave_out
        if leave_out == "auto":
            leave_out = "document" if positions is not None and self.index.num_documents > 1 else "self"
        if leave_out == "document" and positions is not None:
            self._check_positions(rows, np.asarray(positions))
        options: dict[str, Any] = {
            "leave_out": leave_out,
            "starts_document": starts_document,
            "positions": positions,
        }
        return rows, following, options

    def _check_positions(self, rows: npt.NDArray[Any], positions: npt.NDArray[Any]) -> None:
        """Refuse rows that are no text of the index: another document than theirs would be left out."""
        if positions.shape != rows.shape[:1] or positions.dtype.kind not in "ui":
            return  # the index says what is wrong
        tokens = self.index.array("tokens")
        for number, (row, begin) in enumerate(zip(rows, positions.tolist(), strict=True)):
            held = self.index.ids_of(tokens[max(begin, 0) : begin + row.size])
            if begin < 0 or not np.array_equal(held, row):
                raise InputError(
                    f"row {number} isn't what the index holds at position {begin:,}: give positions in the indexed "
                    "corpus, or leave_out='self' for windows of another text"
                )

    def _targets(self, answer: Any, following: npt.NDArray[Any], cut_mass: Any) -> SoftTargets:
        known = following.reshape(-1) >= 0 if self.leave_out else np.ones(following.size, dtype=np.bool_)
        return SoftTargets.from_arrays(
            answer.offsets,
            answer.token_ids,
            answer.probs,
            answer.rest,
            answer.base,
            answer.match_len,
            answer.context_count,
            cut_mass,
            known,
        )

    def row_table(self) -> RowTable:
        """The rows that targets in mixed form refer to, on the CPU: copied from the index, once a process."""
        return self._tables.on(torch.device("cpu"))


EVIDENCE: dict[str, Callable[..., Tensor]] = {"distinct": CorpusTeacher.distinct}
"""By name, methods (input_ids, next_ids, starts_document=…) of a `CorpusTeacher` that give a number per position, (Q,);
policies read them by the names of `corpus_teacher.blend.evidence.CARRIED`."""


def _row_table(index: CorpusIndex, estimator: Estimator) -> RowTable:
    """The rows of heavy contexts, copied from the index."""
    table = index.row_table(estimator)
    return RowTable.from_arrays(table.offsets, table.token_ids, table.counts, table.left_extensions)


def _search_rows(
    values: npt.NDArray[Any], lo: npt.NDArray[Any], hi: npt.NDArray[Any], wanted: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Where each wanted value stands in its own ascending part lo:hi of the values, (Q,); -1 where it doesn't."""
    if values.size == 0:
        return np.full(lo.size, -1, np.int64)
    begin, end = lo.astype(np.int64), hi.astype(np.int64)
    while bool((begin < end).any()):
        middle = (begin + end) // 2
        below = (begin < end) & (values[np.minimum(middle, values.size - 1)].astype(np.int64) < wanted)
        begin, end = np.where(below, middle + 1, begin), np.where(below, end, np.minimum(middle, end))
    there = begin < hi
    return np.where(there & (values[np.minimum(begin, values.size - 1)] == wanted), begin, -1)


class TeacherCollator:
    """Windows of tokens → a batch for a causal language model, with its soft targets where there is a
    teacher.

    Parameters
    ----------
    teacher : CorpusTeacher, optional
        Without one the batches hold input_ids and labels only.
    form : {"flat", "mixed"}
        Of the targets: the likeliest tokens of each position, or exact by reference to rows (`CorpusTeacher.mixed`).
    distinct : bool
        Also report the distinct continuations of each context, as "distinct" of shape (Q,).
    evidence : iterable of str
        What else policies ask for (`CorpusTeacher.evidence`), as "evidence": a dict of tensors of shape (Q,).

    Raises
    ------
    ConfigError
        Another form.

    Notes
    -----
    To be given to a DataLoader as collate_fn; it runs where the loader runs it, in the main process or in
    workers.
    """

    def __init__(
        self,
        teacher: CorpusTeacher | None = None,
        form: str = "flat",
        *,
        distinct: bool = False,
        evidence: Iterable[str] = (),
    ) -> None:
        if form not in FORMS:
            raise ConfigError(f"form is {form!r}: give 'flat' or 'mixed'")
        self.teacher = teacher
        self.form = form
        self.distinct = distinct
        self.evidence = tuple(sorted(evidence))

    def __call__(self, windows: Sequence[Mapping[str, Any] | npt.ArrayLike]) -> dict[str, Any]:
        """Collate.

        Parameters
        ----------
        windows : sequence of B mappings or arrays of shape (T,)
            Mappings hold "input_ids", and "starts_document" and the corpus "position" where they are known.

        Returns
        -------
        dict
            input_ids and labels, (B, T) int64, as Hugging Face's causal models take them (the model, not the
            batch, shifts the labels); with a teacher soft_targets, `SoftTargets` of B · T positions, and
            teacher_s, the seconds that it took.

        Raises
        ------
        InputError
            No windows, or windows of different lengths.
        """
        rows = [
            np.asarray(window["input_ids"] if isinstance(window, Mapping) else window, dtype=np.int64)
            for window in windows
        ]
        starts = [
            bool(window.get("starts_document", False)) if isinstance(window, Mapping) else False for window in windows
        ]
        lengths = {len(row) for row in rows}
        if len(lengths) != 1:
            raise InputError(f"windows of lengths {sorted(lengths)} make no batch: give windows of one length")
        input_ids = np.stack(rows)
        batch: dict[str, Any] = {"input_ids": torch.from_numpy(input_ids)}
        batch["labels"] = batch["input_ids"].clone()
        if self.teacher is not None:
            begin = time.perf_counter()
            positions = [window.get("position") for window in windows if isinstance(window, Mapping)]
            known = len(positions) == len(windows) and None not in positions
            teach = self.teacher.mixed if self.form == "mixed" else self.teacher
            batch["soft_targets"] = teach(
                input_ids, starts_document=np.array(starts), positions=np.array(positions) if known else None
            )
            if self.distinct:
                batch["distinct"] = self.teacher.distinct(input_ids, starts_document=np.array(starts))
            if self.evidence:
                batch["evidence"] = self.teacher.evidence(self.evidence, input_ids, starts_document=np.array(starts))
            batch["teacher_s"] = time.perf_counter() - begin
        return batch


def _as_rows(values: npt.ArrayLike | Tensor, name: str) -> npt.NDArray[np.integer[Any]]:
    """Token ids as a (B, T) array."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise InputError(
            f"{name} is {array.dtype} of shape {array.shape}: give integer token ids of shape (B, T) or (T,)"
        )
    return array if array.dtype.kind == "i" else array.astype(np.int64)
