"""Where contexts begin in a batch: rows, packed rows, padding and flattened batches in one form.

A teacher's answer at a token depends on the tokens of its segment up to there, and on nothing else. What tells where
segments begin comes in many shapes: the rows themselves, position ids that return to 0, numbers of documents,
cumulative lengths, a token that ends documents, a mask. `read_batch` reads all of them into `Segments`: the tokens that
are no padding, and at each whether a segment begins there, whether that is a document's beginning, and where in the
indexed corpus it stands. Every teacher reads that form, so the target of a packed, padded or flattened batch is the
target of each segment asked alone.

Shape letters: B rows, T tokens of a row, n tokens that are no padding, S segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpus_teacher.errors import InputError

UNKNOWN = -1
"""The next token of a position whose next token isn't known, and the corpus position of text that isn't known to be
in the corpus."""

ALIASES = {
    "seq_idx": "document_ids",
    "cu_seq_lens_q": "cu_seq_lens",
    "cu_seqlens": "cu_seq_lens",
    "cu_seqlens_q": "cu_seq_lens",
    "position": "positions",
}
"""Names under which collators of other projects give a column."""

COLUMNS = ("attention_mask", "position_ids", "document_ids", "cu_seq_lens", "end_token")
"""What a batch can say of its segments, beside starts_document and positions."""

NOT_READ = frozenset({
    "labels", "token_type_ids", "special_tokens_mask", "cu_seq_lens_k", "cu_seqlens_k", "max_length_q", "max_length_k",
    "use_cache", "return_dict", "logits_to_keep", "soft_targets", "neural_targets", "distinct", "evidence", "teacher_s",
    "length",
})  # fmt: skip
"""Columns of a batch that a teacher is given by ``teacher(**batch)`` and has no use for."""

_MOST_PADDING = 0.25  # of a group's tokens

Batch: TypeAlias = npt.ArrayLike | Tensor | Mapping[str, Any]
"""Token ids, (B, T) or (T,), or a mapping that holds them as "input_ids" beside other columns."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Group(NamedTuple):
    """Segments as the rows of one array, padded on the right with 0.

    Attributes
    ----------
    rows, next_ids, positions : ndarray of shape (G, L), int64
        next_ids and positions are `UNKNOWN` in the padding.
    starts_document : ndarray of shape (G,), bool
    inside : ndarray of shape (G, L), bool
        False in the padding.
    places : ndarray of shape (tokens,), int64
        Which of the B · T positions each token inside is.
    """

    rows: Ints
    next_ids: Ints
    positions: Ints
    starts_document: Bools
    inside: Bools
    places: Ints


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of a batch.

    Attributes
    ----------
    shape : (int, int)
        B and T.
    tokens : ndarray of shape (n,), int64
        Without padding, row by row.
    places : ndarray of shape (n,), int64
        Which of the B · T positions each is, ascending.
    begins : ndarray of shape (n,), bool
        Whether a segment begins at the token.
    starts_document : ndarray of shape (n,), bool
        Whether a document begins there; read where a segment begins.
    positions : ndarray of shape (n,), int64
        Where in the indexed corpus the token stands; `UNKNOWN` where that isn't known.
    next_ids : ndarray of shape (n,), int64
        The token that follows; `UNKNOWN` where there is none.
    """

    shape: tuple[int, int]
    tokens: Ints
    places: Ints
    begins: Bools
    starts_document: Bools
    positions: Ints
    next_ids: Ints

    @property
    def num_positions(self) -> int:
        """B · T."""
        return self.shape[0] * self.shape[1]

    @property
    def first(self) -> Ints:
        """Where among the n tokens each segment begins, (S,)."""
        return np.flatnonzero(self.begins)

    @property
    def lengths(self) -> Ints:
        """Tokens of each segment, (S,)."""
        return np.diff(self.first, append=self.tokens.size)

    @property
    def is_plain(self) -> bool:
        """Whether every row is one segment, without padding."""
        rows, length = self.shape
        return self.tokens.size == rows * length and self.first.size == rows

    def whole(self) -> Group:
        """All of a plain batch as one group."""
        rows, following, positions = (
            column.reshape(self.shape) for column in (self.tokens, self.next_ids, self.positions)
        )
        inside = np.ones(self.shape, np.bool_)
        return Group(rows, following, positions, self.starts_document[self.first], inside, self.places)

    def kept(self, kept: Bools) -> Segments:
        """Without some tokens: where one is dropped the next one of its segment begins another."""
        at = np.flatnonzero(kept)
        dropped_before = np.zeros(at.size, np.bool_)
        dropped_before[1:] = np.diff(at) > 1
        dropped_before[:1] = at[:1] > 0
        names = ("tokens", "places", "starts_document", "positions", "next_ids")
        made = {name: getattr(self, name)[at] for name in names}
        return Segments(shape=self.shape, begins=self.begins[at] | dropped_before, **made)

    def split(self, begins: Bools, starts_document: bool = True) -> Segments:
        """With more segments: where one begins anew, its last token before has no next one that is known."""
        new = begins & ~self.begins
        following = self.next_ids.copy()
        following[:-1][new[1:]] = UNKNOWN
        return replace(
            self,
            begins=self.begins | new,
            starts_document=np.where(new, starts_document, self.starts_document),
            next_ids=following,
        )

    def groups(self, *, pad: bool = True) -> Iterator[Group]:
        """All segments, those of similar length together; without padding only those of equal length."""
        first, lengths = self.first, self.lengths
        if not lengths.size:  # nothing but padding
            nothing = np.zeros((1, 1), np.int64)
            unknown = nothing + UNKNOWN
            yield Group(nothing, unknown, unknown, nothing[0] > 0, nothing > 0, nothing[0, :0])
            return
        order = np.argsort(-lengths, kind="stable")
        begin = 0
        while begin < order.size:
            longest = int(lengths[order[begin]])
            tokens = np.cumsum(lengths[order[begin:]])
            room = longest * np.arange(1, tokens.size + 1)
            fits = lengths[order[begin:]] == longest
            if pad:
                fits |= room - tokens <= _MOST_PADDING * tokens
            stop = begin + (int(np.argmin(fits)) if not fits.all() else fits.size)
            yield self._group(np.sort(order[begin:stop]), first, lengths, longest)
            begin = stop

    def _group(self, chosen: Ints, first: Ints, lengths: Ints, width: int) -> Group:
        inside = np.arange(width) < lengths[chosen, None]
        at = (first[chosen, None] + np.arange(width))[inside]
        columns = []
        for name, fill in (("tokens", 0), ("next_ids", UNKNOWN), ("positions", UNKNOWN)):
            column = np.full(inside.shape, fill, np.int64)
            column[inside] = getattr(self, name)[at]
            columns.append(column)
        rows, following, positions = columns
        return Group(rows, following, positions, self.starts_document[first[chosen]], inside, self.places[at])


def read_batch(
    input_ids: Any,
    next_ids: Any = None,
    *,
    starts_document: Any = False,
    positions: Any = None,
    columns: Mapping[str, Any] | None = None,
) -> Segments:
    """The segments of a batch.

    Parameters
    ----------
    input_ids : array_like or Tensor of shape (B, T) or (T,), integer; or a mapping
        A mapping (a `BatchEncoding`, say) holds "input_ids" and any of the other columns; what else it holds isn't
        read. A negative id is padding, as is a token whose attention_mask is 0.
    next_ids : array_like or Tensor of the same shape, optional
        The token that truly follows each position, negative where unknown; by default the next one of the segment.
    starts_document : bool, or array_like of shape (B,), (S,) or (B, T)
        Whether rows begin where documents begin. Segments that begin inside of a row begin a document, unless their
        position id is above 0. Of shape (B, T): True where a document begins, and a segment begins there; of shape
        (S,): of each segment.
    positions : array_like of shape (B,), (S,) or (B, T), int, optional
        Where in the indexed corpus each row begins, or each segment, or stands each token; negative where unknown.
    columns : mapping, optional
        attention_mask (B, T): 0 for padding; values above 1 are numbers of documents. position_ids (B, T): a segment
        begins where they don't ascend. document_ids (B, T), also named seq_idx: a segment begins where they change.
        cu_seq_lens (S + 1,), also named cu_seq_lens_q: where the segments of a flattened batch begin and end.
        end_token, int: a segment begins after it. `NOT_READ` is passed over.

    Returns
    -------
    Segments

    Raises
    ------
    InputError
        Another shape or type, a name that isn't known, or columns that contradict each other.

    Examples
    --------
    >>> packed = read_batch([[5, 6, 7, 8]], columns={"position_ids": [[0, 1, 0, 1]]})
    >>> packed.begins.tolist(), packed.starts_document.tolist(), packed.next_ids.tolist()
    ([True, False, True, False], [False, False, True, False], [6, -1, 8, -1])
    """
    asked = {"starts_document": starts_document, "positions": positions, **(columns or {})}
    if isinstance(input_ids, Mapping) or hasattr(input_ids, "input_ids"):
        batch = dict(input_ids)
        known = {*COLUMNS, *ALIASES, "starts_document", "positions"}
        asked |= {name: value for name, value in batch.items() if name in known and value is not None}
        if "input_ids" not in batch:
            raise InputError(f"the batch holds {', '.join(sorted(batch)) or 'nothing'} and no input_ids: give them")
        input_ids = batch["input_ids"]
    given = _named(asked)
    ids = _as_rows(input_ids, "input_ids")
    real, numbers = _real(ids, given)
    places = np.flatnonzero(real)
    tokens = ids.reshape(-1)[places].astype(np.int64)
    row_of = places // max(1, ids.shape[1])
    first_of_row = np.diff(row_of, prepend=-1) > 0
    inner = np.zeros(tokens.size, np.bool_)  # begins inside of a row
    for column, changes in ((numbers, np.not_equal), (_like(ids, given, "document_ids"), np.not_equal)):
        if column is not None:
            at = column.reshape(-1)[places]
            inner[1:] |= changes(at[1:], at[:-1])
    continued = np.zeros(tokens.size, np.bool_)  # a segment that begins here doesn't begin a document
    position_ids = _like(ids, given, "position_ids")
    if position_ids is not None:
        at = position_ids.reshape(-1)[places]
        inner[1:] |= at[1:] <= at[:-1]
        continued = at > 0
    if given.get("cu_seq_lens") is not None:
        inner |= np.isin(places, _edges(ids, given["cu_seq_lens"]))
    if given.get("end_token") is not None:
        inner[1:] |= tokens[:-1] == int(given["end_token"])
    inner &= ~first_of_row
    begins, starts = _starts(ids, places, row_of, first_of_row, inner, continued, given["starts_document"])
    following = _following(ids, places, tokens, begins, next_ids)
    made = Segments(ids.shape, tokens, places, begins, starts, np.empty(0, np.int64), following)
    return replace(made, positions=_positions(made, row_of, first_of_row, given["positions"]))


def scattered(parts: Sequence[tuple[Any, Group]], num_positions: int) -> Any:
    """Targets of groups, put where their tokens stand in the batch; padding has none.

    Parameters
    ----------
    parts : sequence of (targets, Group)
        Of one teacher, of all groups; targets of any form, of the positions of the group's rows.
    num_positions : int
        B · T.

    Returns
    -------
    SoftTargets, MixedTargets or DenseTargets
        Of B · T positions.
    """
    source, before = np.full(num_positions, -1, np.int64), 0
    for targets, group in parts:
        source[group.places] = np.flatnonzero(group.inside) + before
        before += targets.num_positions
    source[source < 0] = before
    said = [targets for targets, _ in parts]
    whole = said[0].concatenate([*said, said[0].silent()])
    return whole.take(torch.from_numpy(source).to(whole.valid.device))


def _named(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The columns by their own names."""
    given: dict[str, Any] = {}
    for name, value in asked.items():
        own = ALIASES.get(name, name)
        if own not in {*COLUMNS, "starts_document", "positions"}:
            if name in NOT_READ:
                continue
            raise InputError(
                f"a teacher has no argument {name!r}: it reads input_ids, next_ids, starts_document, positions, "
                f"{', '.join(COLUMNS)}"
            )
        if value is not None or own not in given:
            given[own] = value
    return given


def as_array(values: Any) -> npt.NDArray[Any]:
    """An array or tensor, on whatever device, as an array on the CPU."""
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of unequal lengths
        raise InputError(f"{type(values).__name__} of unequal lengths: pad the rows to one length") from error


def _as_rows(values: Any, name: str) -> npt.NDArray[Any]:
    """Token ids as a (B, T) array."""
    array = as_array(values)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise InputError(
            f"{name} is {array.dtype} of shape {array.shape}: give integer token ids of shape (B, T) or (T,)"
        )
    return array


def _like(ids: npt.NDArray[Any], given: Mapping[str, Any], name: str) -> npt.NDArray[Any] | None:
    """A column of numbers of the shape of the ids; one row counts for all."""
    if given.get(name) is None:
        return None
    array = as_array(given[name])
    if array.dtype.kind not in "iub" or array.ndim > 2 or array.shape[-1:] != ids.shape[1:]:
        raise InputError(
            f"{name} is {array.dtype} of shape {array.shape} and input_ids has shape {ids.shape}: "
            "give one whole number for each token"
        )
    if array.shape[:-1] not in ((), (1,), ids.shape[:1]):
        raise InputError(f"{name} has shape {array.shape} and input_ids {ids.shape}: give one number for each token")
    return np.broadcast_to(array, ids.shape).astype(np.int64)


def _real(ids: npt.NDArray[Any], given: Mapping[str, Any]) -> tuple[Bools, npt.NDArray[Any] | None]:
    """Which tokens are no padding, (B, T), and the numbers of documents that the mask may hold."""
    present = ids >= 0 if ids.dtype.kind == "i" else np.ones(ids.shape, np.bool_)
    if given.get("attention_mask") is None:
        return present, None
    mask = as_array(given["attention_mask"])
    if mask.dtype.kind == "f" and mask.shape == ids.shape and np.isin(mask, (0, 1)).all():
        mask = mask.astype(np.int64)
    if mask.ndim > 2 or mask.dtype.kind == "f":
        raise InputError(
            f"attention_mask is {mask.dtype} of shape {mask.shape}: give (B, T), 1 for tokens and 0 for padding, and "
            "say with document_ids or position_ids where contexts begin"
        )
    numbers = _like(ids, {"attention_mask": mask}, "attention_mask")
    assert numbers is not None
    wrong = np.argwhere((numbers > 0) & ~present)
    if wrong.size:
        row, column = wrong[0]
        raise InputError(
            f"input_ids holds {int(ids[row, column])} at row {row}, token {column}, where attention_mask is "
            f"{int(numbers[row, column])}: give token ids, or a mask of 0 there"
        )
    return numbers > 0, numbers if int(numbers.max(initial=0)) > 1 else None


def _edges(ids: npt.NDArray[Any], cu_seq_lens: Any) -> npt.NDArray[Any]:
    """Where the segments of a flattened batch begin."""
    edges = as_array(cu_seq_lens).reshape(-1)
    ascends = edges.dtype.kind in "iu" and edges.size > 1 and edges[0] == 0 and bool((np.diff(edges) >= 0).all())
    if not ascends or int(edges[-1]) > ids.size:
        raise InputError(
            f"cu_seq_lens is {edges[:4].tolist()} … {edges[-1:].tolist()} for {ids.size} tokens: give the ascending "
            "cumulative lengths of a flattened batch, from 0"
        )
    return edges


def _starts(
    ids: npt.NDArray[Any],
    places: Ints,
    row_of: Ints,
    first_of_row: Bools,
    inner: Bools,
    continued: Bools,
    given: Any,
) -> tuple[Bools, Bools]:
    """Where segments begin, and which of them begin a document, (n,) both."""
    array = as_array(given)
    begins = first_of_row | inner
    if array.dtype.kind not in "biu" or array.ndim > 2:
        raise InputError(
            f"starts_document is {array.dtype} of shape {array.shape}: give a bool, or one for each row, segment or "
            "token"
        )
    if array.ndim == 2:
        if array.shape != ids.shape:
            raise InputError(f"starts_document has shape {array.shape} and input_ids {ids.shape}: give one per token")
        starts = array.reshape(-1)[places].astype(np.bool_)
        return begins | starts, starts
    segments = int(begins.sum())
    starts = inner & ~continued
    if array.ndim == 1 and array.shape != ids.shape[:1]:
        if array.shape != (segments,):
            raise InputError(
                f"starts_document has {array.size} values for {ids.shape[0]} rows and {segments} segments: give one "
                "per row, per segment, or (B, T)"
            )
        starts[begins] = array
        return begins, starts
    of_rows = np.broadcast_to(array, ids.shape[:1]).astype(np.bool_)
    starts[first_of_row] = of_rows[row_of[first_of_row]]
    return begins, starts


def _following(ids: npt.NDArray[Any], places: Ints, tokens: Ints, begins: Bools, next_ids: Any) -> Ints:
    """The token that follows each, (n,)."""
    if next_ids is not None:
        given = _as_rows(next_ids, "next_ids")
        if given.shape != ids.shape:
            raise InputError(f"next_ids has shape {given.shape} and input_ids {ids.shape}: give one a position")
        return np.maximum(given.reshape(-1)[places].astype(np.int64), UNKNOWN)
    following = np.full(tokens.size, UNKNOWN, np.int64)
    following[:-1] = np.where(begins[1:], UNKNOWN, tokens[1:])
    return following


def _positions(made: Segments, row_of: Ints, first_of_row: Bools, given: Any) -> Ints:
    """Where each token stands in the corpus, (n,)."""
    unknown = np.full(made.tokens.size, UNKNOWN, np.int64)
    if given is None:
        return unknown
    array = as_array(given)
    segments = int(made.begins.sum())
    if array.dtype.kind not in "iu" or array.shape not in (made.shape, made.shape[:1], (segments,), ()):
        raise InputError(
            f"positions is {array.dtype} of shape {array.shape} for {made.shape[0]} rows and {segments} segments: give "
            "one whole number per row, per segment, or (B, T)"
        )
    if array.ndim == 2:
        return np.maximum(array.reshape(-1)[made.places].astype(np.int64), UNKNOWN)
    if array.shape == made.shape[:1] or array.ndim == 0:  # a row is text that stands together
        origin, of = np.broadcast_to(array, made.shape[:1])[row_of], first_of_row
    else:
        origin, of = array[np.cumsum(made.begins) - 1], made.begins
    steps = np.arange(made.tokens.size) - np.flatnonzero(of)[np.cumsum(of) - 1] if made.tokens.size else unknown
    return np.where(origin >= 0, origin + steps, UNKNOWN).astype(np.int64)
