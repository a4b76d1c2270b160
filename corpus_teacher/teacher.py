"""The corpus as a teacher: what the indexed text itself says of the next token, at every position of a batch.

The naive definition: find all occurrences of a position's context in the corpus, and let each vote for the
token that followed it; back off to shorter contexts as the estimator says. `CorpusTeacher` asks the index for
just that and wraps the answer for torch. `TeacherCollator` is the same inside a DataLoader: it makes (B, T)
batches that carry their targets, so the work may be done ahead, in worker processes.

A text that is in the index has to be taught with its own occurrences left out, or the teacher knows the
label: of a context seen once it would say exactly the token that follows. That is the default.
"""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from corpus_index import CorpusIndex, DocumentVotes, Estimator, EstimatorLike, Recall, fit_recall
from corpus_index.integrity import Check
from torch import Tensor

from corpus_teacher.collation import check_padding, collate_windows
from corpus_teacher.errors import ConfigError, InputError, TeacherWarning
from corpus_teacher.placing import check_positions, known_to, placed, split_documents, stands_there
from corpus_teacher.segments import UNKNOWN, Batch, Segments, read_batch, scattered
from corpus_teacher.settings import is_number, is_whole
from corpus_teacher.storage import index_of
from corpus_teacher.targets.mixed import MixedTargets, RowTable, TableSource
from corpus_teacher.targets.soft import SoftTargets

FORMS = ("flat", "mixed")
"""Forms of targets: the likeliest tokens of each position, or all of them by reference to shared rows."""

LEAVE_OUT = ("auto", "self", "document", None)
"""What may be left out of the index: the occurrence of a position itself, all of its document, nothing; or as known."""


class CorpusTeacher:
    """An n-gram teacher over an index: (B, T) token ids in, one soft target a position out.

    Parameters
    ----------
    index : CorpusIndex or path
        The corpus, of one piece or of shards; a path is opened.
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
        documents don't repeat themselves, and all that can be done where they aren't known. "auto": "document" for
        texts whose place in the index is known, given by `positions` or found, if the index has more than one document,
        else "self", with a notice. None for texts that are not in the index.
    top_k : int
        Explicit tokens a position at most; the mass beyond them goes to the base, and is reported as
        `cut_mass`.
    top_p : float
        Below 1: of these only the likeliest, as many as hold this much mass.

    strict : bool
        Refuse texts whose documents "auto" can't leave out, since they come without positions and aren't found in the
        index; else it is said once, and they leave their own occurrences out.
    recall : bool or Recall
        Mix in what followed the same last tokens earlier in the row (`corpus_index.targets.recall`): True fits the
        mixture here, on the index alone. Of flat targets.
    check : {"first", "always", "never"}
        When the files of an index that is given by its path are compared with their checksums; see `CorpusIndex.open`.

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
    Leaving the document out takes longer than leaving self out: flat targets 1.4 to 1.5 times in documents of 5,000
    tokens, 2.4 times in whole books: ask for "self" where the teacher is what the training waits for.
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
        strict: bool = False,
        recall: bool | Recall = False,
        check: Check = "first",
    ) -> None:
        if not isinstance(leave_out, str | None) or leave_out not in LEAVE_OUT:
            raise ConfigError(
                f"leave_out is {leave_out!r}: give 'auto', 'self', 'document', or None for text outside the index"
            )
        if max_order is not None and (not is_whole(max_order) or max_order < 0):
            raise ConfigError(f"max_order is {max_order!r}: give 0 or more context tokens, or None for no bound")
        if not is_whole(top_k) or top_k < 1:
            raise ConfigError(f"top_k is {top_k!r}: keep at least 1 token a position")
        if not is_number(top_p) or not 0 < top_p <= 1:
            raise ConfigError(f"top_p is {top_p!r}: give a share above 0 and at most 1")
        if not isinstance(recall, bool | Recall):
            raise ConfigError(f"recall is {recall!r}: give true, false, or what fit_recall gave")
        self.index = index_of(index, check=check)
        self.index.prefer_large_pages()
        self.estimator = self.index.fitted(estimator, max_order)
        self.max_order = self.estimator.max_order
        self.leave_out = leave_out
        self.top_k = top_k
        self.top_p = top_p
        self.strict = strict
        self._noticed = False
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

    def base_distribution(self) -> Tensor:
        """The distribution of the empty context, which all targets share: (V,) float32."""
        return torch.from_numpy(np.array(self.index.base_distribution(self.estimator), np.float32))

    def for_new_text(self) -> CorpusTeacher:
        """The same teacher for text that is not in its index: nothing is left out."""
        return CorpusTeacher(
            self.index,
            estimator=self.estimator,
            max_order=self.max_order,
            leave_out=None,
            top_k=self.top_k,
            top_p=self.top_p,
        )

    def __call__(
        self,
        input_ids: Batch,
        next_ids: npt.ArrayLike | Tensor | None = None,
        *,
        starts_document: bool | npt.ArrayLike = False,
        positions: npt.ArrayLike | None = None,
        **columns: Any,
    ) -> SoftTargets:
        """Teach every position of a batch.

        Parameters
        ----------
        input_ids : array_like or Tensor of shape (B, T) or (T,), integer; or a mapping
            A tensor may be on any device; the targets are on the CPU. A mapping, such as a `BatchEncoding`, holds
            "input_ids" and any of the other columns. Negative ids are padding; ids from V on are none of the index:
            contexts begin anew after them.
        next_ids : array_like or Tensor of the same shape, optional
            The token that truly follows each position, negative where unknown. By default the next token of the
            segment, so that only the last of each segment is unknown. Without `leave_out` it isn't read.
        starts_document : bool or array_like of shape (B,), (S,) or (B, T)
            Whether rows, or each of S segments, begin where a document begins; of shape (B, T) where documents begin.
        positions : array_like of shape (B,), (S,) or (B, T), int, optional
            Where in the indexed corpus rows or segments begin, or tokens stand, negative where unknown: what is needed
            to leave their documents out. The corpus must hold them there. Where it isn't given the text is looked for.
        **columns
            Where segments begin: attention_mask, position_ids, document_ids (or seq_idx), cu_seq_lens, end_token; see
            `corpus_teacher.segments.read_batch`.

        Returns
        -------
        SoftTargets
            Of Q = B · T positions, row by row; the target at t is the distribution of the token after the segment's
            tokens up to t. Padding isn't valid, nor, with `leave_out`, a position whose next token is unknown.

        Raises
        ------
        InputError
            Arrays of other shapes or types, rows that don't stand at their positions, or documents that are to be left
            out and can't be found.
        """
        said: SoftTargets = self._taught("flat", input_ids, next_ids, starts_document, positions, columns)
        return said

    def _flat(self, rows: npt.NDArray[Any], following: npt.NDArray[Any], options: dict[str, Any]) -> SoftTargets:
        options = {**options, "top_k": self.top_k, "top_p": self.top_p}
        if self.recall is not None:
            answer = self.recall.smoothed_targets(self.index, rows, following, **options)
        else:
            answer = self.index.smoothed_targets(rows, following, estimator=self.estimator, **options)
        return self._targets(answer, following, answer.cut_mass)

    def mixed(
        self,
        input_ids: Batch,
        next_ids: npt.ArrayLike | Tensor | None = None,
        *,
        starts_document: bool | npt.ArrayLike = False,
        positions: npt.ArrayLike | None = None,
        **columns: Any,
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
        said: MixedTargets = self._taught("mixed", input_ids, next_ids, starts_document, positions, columns)
        return said

    def _mixed(self, rows: npt.NDArray[Any], following: npt.NDArray[Any], options: dict[str, Any]) -> MixedTargets:
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
        input_ids: Batch,
        next_ids: npt.ArrayLike | Tensor | None = None,
        *,
        starts_document: bool | npt.ArrayLike = False,
        positions: npt.ArrayLike | None = None,
        **columns: Any,
    ) -> Tensor:
        """Distinct continuations of the longest known context of every position: evidence for policies.

        Parameters and errors as of a call.

        Returns
        -------
        Tensor of shape (Q,), int64
            With `leave_out` of contexts that occur at least twice, and without a token that only the position itself
            brings. (The rest of its document stays in, whatever is left out of the targets.)
        """
        batch = self._read(input_ids, next_ids, starts_document, positions, columns, notice=False)
        distinct = np.zeros(batch.num_positions, np.int64)
        for group in batch.groups():
            found = self._distinct(group.rows, group.next_ids, group.starts_document)
            distinct[group.places] = found[group.inside.reshape(-1)]
        return torch.from_numpy(distinct)

    def _distinct(
        self, rows: npt.NDArray[Any], following: npt.NDArray[Any], starts_document: npt.NDArray[Any]
    ) -> npt.NDArray[np.int64]:
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
        return distinct

    def evidence(
        self,
        names: Iterable[str],
        input_ids: Batch,
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

    def _taught(
        self,
        form: str,
        input_ids: Any,
        next_ids: Any,
        starts_document: Any,
        positions: Any,
        columns: dict[str, Any],
    ) -> Any:
        """Targets of a batch: all of it in one question where it is rows of one kind, else segment by segment."""
        batch = self._read(input_ids, next_ids, starts_document, positions, columns)
        ask = self._mixed if form == "mixed" else self._flat
        kinds: list[tuple[str | None, Segments]] = [("self" if self.leave_out else None, batch)]
        if self._leaves_documents:
            known = batch.positions[batch.first][np.cumsum(batch.begins) - 1] >= 0
            if known.all():
                kinds = [("document", batch)]
            elif known.any():
                kinds = [("document", batch.kept(known)), ("self", batch.kept(~known))]
        parts = []
        for leave_out, part in kinds:
            whole = part is batch and batch.is_plain
            for group in [part.whole()] if whole else part.groups():
                options: dict[str, Any] = {"leave_out": leave_out, "starts_document": group.starts_document}
                if leave_out == "document":
                    options["positions"] = group.positions
                said = ask(group.rows, group.next_ids, options)
                if whole:
                    return said
                parts.append((said, group))
        return scattered(parts, batch.num_positions)

    @property
    def _leaves_documents(self) -> bool:
        """Whether documents are to be left out where they are known."""
        return self.leave_out == "document" or (self.leave_out == "auto" and self.index.num_documents > 1)

    def _read(
        self,
        input_ids: Any,
        next_ids: Any,
        starts_document: Any,
        positions: Any,
        columns: dict[str, Any],
        notice: bool = True,
    ) -> Segments:
        """The segments of a batch as the index knows them, with what is known of where they stand."""
        batch = read_batch(input_ids, next_ids, starts_document=starts_document, positions=positions, columns=columns)
        documents = self._leaves_documents
        batch = known_to(self.index, batch, replace_start=not documents)
        if documents:
            check_positions(self.index, batch)
            batch = placed(self.index, batch)
            if notice:
                self._notice_unknown(batch)
        elif (batch.positions >= 0).any():  # where contexts end is known as well, if that is the text
            there = stands_there(self.index, batch)
            batch = dataclasses.replace(batch, positions=np.where(there, batch.positions, UNKNOWN))
        return split_documents(self.index, batch)

    def _notice_unknown(self, batch: Segments) -> None:
        """Say it once, or refuse, where documents are to be left out and aren't known."""
        unknown = batch.positions[batch.first] < 0
        if not unknown.any() or (self._noticed and not self.strict and self.leave_out == "auto"):
            return
        which = f"{int(unknown.sum())} of {unknown.size} texts of a batch"
        way = "give positions, or say leave_out='self', or None for text that isn't in the index, if that is meant"
        if self.leave_out == "document":
            raise InputError(
                f"leave_out is 'document', and {which} come without positions and are not found in the index: {way}"
            )
        if self.strict:
            raise InputError(
                f"{which} come without positions and are not found in the index, whose documents a strict teacher "
                f"leaves out: {way}"
            )
        self._noticed = True
        warnings.warn(
            f"{which} come without positions and are not found in the index: of these only their own occurrences are "
            f"left out, not their documents (said once); {way}",
            TeacherWarning,
            stacklevel=5,
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
"""By name, methods of a `CorpusTeacher`, called as it is (with ids, or a batch), that give a number per position, (Q,);
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
    pad_token, pad_to_multiple_of
        As in `corpus_teacher.collation.collate_windows`, which says what becomes of windows.
    end_token : int, optional
        A token that ends documents in the windows and not in the index: contexts begin anew after it.

    Raises
    ------
    ConfigError
        Another form, or padding that makes no sense.

    Notes
    -----
    To be given to a DataLoader, or to a trainer, as its collator; it runs where the loader runs it, in the main process
    or in workers. Where a trainer has taken the windows' "position" away the teacher looks for their text.
    """

    def __init__(
        self,
        teacher: CorpusTeacher | None = None,
        form: str = "flat",
        *,
        distinct: bool = False,
        evidence: Iterable[str] = (),
        pad_token: int = 0,
        pad_to_multiple_of: int | None = None,
        end_token: int | None = None,
    ) -> None:
        if form not in FORMS:
            raise ConfigError(f"form is {form!r}: give 'flat' or 'mixed'")
        check_padding(pad_token, pad_to_multiple_of)
        self.teacher = teacher
        self.form = form
        self.distinct = distinct
        self.evidence = tuple(sorted(evidence))
        self.pad_token = pad_token
        self.pad_to_multiple_of = pad_to_multiple_of
        self.end_token = end_token

    def __call__(self, windows: Sequence[Mapping[str, Any] | npt.ArrayLike]) -> dict[str, Any]:
        """Collate.

        Parameters
        ----------
        windows : sequence of B mappings or arrays of shape (T,)
            As `corpus_teacher.collation.collate_windows` takes them.

        Returns
        -------
        dict
            input_ids and labels, (B, T) int64, as Hugging Face's causal models take them (the model, not the
            batch, shifts the labels), and the windows' other columns; with a teacher soft_targets, `SoftTargets` of
            B · T positions, and teacher_s, the seconds that it took.

        Raises
        ------
        InputError
            As of `collate_windows` and of the teacher.
        """
        batch, facts = self.collate(windows)
        return batch | self.said(batch, facts)

    def collate(self, windows: Sequence[Mapping[str, Any] | npt.ArrayLike]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The batch without its targets, and what teachers are told of it; see `collate_windows`."""
        batch, facts = collate_windows(windows, self.pad_token, self.pad_to_multiple_of)
        if self.end_token is not None:
            facts["end_token"] = self.end_token
        return batch, facts

    def said(self, batch: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
        """What the teacher says of a batch: soft_targets, and what else was asked for."""
        if self.teacher is None:
            return {}
        begin = time.perf_counter()
        teach = self.teacher.mixed if self.form == "mixed" else self.teacher
        told: dict[str, Any] = {"soft_targets": teach(batch, **facts)}
        if self.distinct:
            told["distinct"] = self.teacher.distinct(batch, **facts)
        if self.evidence:
            told["evidence"] = self.teacher.evidence(self.evidence, batch, **facts)
        return told | {"teacher_s": time.perf_counter() - begin}
