"""Segments of a batch as an index knows them: tokens it never saw, and where in the corpus a text stands.

Columns that say where a row comes from get lost on the way to a teacher: transformers' Trainer drops what the model's
forward doesn't name, collators pass on what they know. But the text is there, and an index answers where a text stands:
`placed` finds each segment that the caller gave no position for by matching it, at the cost of one walk.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex

from corpus_teacher.errors import InputError
from corpus_teacher.segments import UNKNOWN, Ints, Segments

_SURE = 32
"""Tokens from which on a text that stands several times counts as standing at one of its places: copies of a passage,
of which one is as good as the other. Shorter ones are turns of speech."""


def known_to(index: CorpusIndex, batch: Segments, *, replace_start: bool) -> Segments:
    """A batch without the tokens that the index can't know: contexts begin anew after them, and they have no target.

    Parameters
    ----------
    index : CorpusIndex
    batch : Segments
    replace_start : bool
        Whether a token that begins a document and that the index never saw (a BOS) becomes the index's own end of a
        document, after which documents begin, and so has the target of a document's first token. Else it has none.

    Returns
    -------
    Segments
        Next tokens outside of the vocabulary are unknown.
    """
    strange = batch.tokens >= index.vocab_size
    heads = batch.first[batch.starts_document[batch.first]]
    heads = heads[~strange[heads]]
    held = np.append(index.symbol_counts > 0, False)
    heads = heads[~held[index.symbols_of(batch.tokens[heads])]]
    following = np.where(batch.next_ids < index.vocab_size, batch.next_ids, UNKNOWN)
    if not heads.size and not strange.any():
        return batch if np.array_equal(following, batch.next_ids) else replace(batch, next_ids=following)
    strange[heads] = True
    segment = np.cumsum(batch.begins) - 1
    first = batch.first[segment]
    plain_before: Ints = np.cumsum(~strange) - ~strange
    leading: npt.NDArray[np.bool_] = (
        plain_before == plain_before[first]
    )  # nothing but such tokens before, in the segment
    strange_before: Ints = np.cumsum(strange) - strange
    steps: Ints = strange_before - strange_before[first]  # they don't stand in the corpus
    positions = np.where(batch.positions[first] >= 0, batch.positions - steps, batch.positions)
    starts = batch.starts_document[first] & leading
    tokens, begins = batch.tokens.copy(), batch.begins.copy()
    if replace_start and index.end_of_document is not None:
        last = np.zeros(strange.size, np.bool_)
        last[:-1] = strange[:-1] & starts[:-1] & ~strange[1:] & ~batch.begins[1:]
        tokens[last] = index.end_of_document
        begins |= last
        strange &= ~last
        positions = np.where(last, UNKNOWN, positions)
    changed = replace(
        batch, tokens=tokens, begins=begins, starts_document=starts, positions=positions, next_ids=following
    )
    return changed.kept(~strange)


def placed(index: CorpusIndex, batch: Segments) -> Segments:
    """A batch with the positions of those segments that are found in the index and had none.

    Parameters
    ----------
    index : CorpusIndex
    batch : Segments
        Of tokens of the index.

    Returns
    -------
    Segments
        Segments that are found know whether they begin a document. Not found are those that stand nowhere, and those
        of fewer than 32 tokens that stand at several places.

    Notes
    -----
    One walk over the tokens that have no position, as for contexts without a bound.
    """
    missing = batch.positions[batch.first][np.cumsum(batch.begins) - 1] < 0
    if not missing.any():
        return batch
    positions, starts = batch.positions.copy(), batch.starts_document.copy()
    number = np.full(batch.num_positions, -1, np.int64)
    number[batch.places] = np.arange(batch.places.size)
    text, order = index.array("tokens"), index.array("order")
    for group in batch.kept(missing).groups():
        match, _ = index.match_nodes(group.rows)
        lengths = np.where(group.inside, match.match_len, -1)
        best = lengths.argmax(1)
        at = (np.arange(best.size), best)
        lo, hi, longest = match.lo[at], match.hi[at], lengths[at]
        found = (hi > lo) & (longest > 0) & ((hi - lo == 1) | (longest >= _SURE))
        begin = order[np.where(found, lo, 0)].astype(np.int64) - (best + 1)
        stands = begin[:, None] + np.arange(group.rows.shape[1])
        fits = (stands >= 0) & (stands < index.num_tokens)
        same = index.ids_of(text[np.where(fits, stands, 0)]) == group.rows
        found &= ((fits & same) | ~group.inside).all(1)
        tokens = number[group.places]
        positions[tokens] = np.where(found[:, None], stands, UNKNOWN)[group.inside]
        heads = tokens[np.cumsum(group.inside.sum(1)) - group.inside.sum(1)]
        starts[heads] |= found & _begins_document(index, np.where(found, begin, 0))
    return replace(batch, positions=positions, starts_document=starts)


def split_documents(index: CorpusIndex, batch: Segments) -> Segments:
    """A batch whose segments end where documents of the corpus end, where the text says that it stands there.

    An end-of-document token makes the index begin anew by itself: there nothing is split.
    """
    inner = (batch.positions > 0) & ~batch.begins
    inner[inner] = _begins_document(index, batch.positions[inner])
    if index.end_of_document is not None:
        inner[1:] &= batch.tokens[:-1] != index.end_of_document
    return batch.split(inner) if inner.any() else batch


def stands_there(index: CorpusIndex, batch: Segments) -> npt.NDArray[np.bool_]:
    """Whether each token stands at its position, (n,); False where none is known."""
    known = (batch.positions >= 0) & (batch.positions < index.num_tokens)
    text = index.array("tokens")
    found = known.copy()
    found[known] = index.ids_of(text[batch.positions[known]]) == batch.tokens[known]
    return found


def check_positions(index: CorpusIndex, batch: Segments) -> None:
    """Refuse rows that don't stand at the positions they were given: another document than theirs would be left out.

    Raises
    ------
    InputError
    """
    wrong = (batch.positions >= 0) & ~stands_there(index, batch)
    begin_known = batch.positions[batch.first][np.cumsum(batch.begins) - 1] >= 0
    wrong |= begin_known & (batch.positions < 0)
    if not wrong.any():
        return
    token = int(np.flatnonzero(wrong)[0])
    segment = int(np.cumsum(batch.begins)[token]) - 1
    row = int(batch.places[token]) // batch.shape[1]
    raise InputError(
        f"row {row} isn't what the index holds at position {int(batch.positions[batch.first[segment]]):,}: give "
        "positions in the indexed corpus (one per segment, where rows are packed), or leave_out='self' for windows of "
        "another text"
    )


def _begins_document(index: CorpusIndex, positions: Ints) -> npt.NDArray[np.bool_]:
    starts = index.doc_starts
    place = np.searchsorted(starts, positions)
    return np.asarray(starts[np.minimum(place, starts.size - 1)] == positions)
