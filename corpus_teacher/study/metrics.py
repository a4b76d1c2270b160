"""What a student makes of held-out documents: one pass over the text, every number from it.

Naively: for each token of each document −log p(token | up to a window of tokens before it). From the same pass come its
rank-one hits, its calibration, and the losses of buckets that tell where a gain lies: how often the corpus has the
context, how long a context it knows, how frequent the token is, whether the text itself has shown it already.

Cost: a forward pass over the held-out text (and a quarter more, for the context that rows take over) and a look-up of
each position; O(rows · T · (T + V)) memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import transformers

from corpus_teacher.data.held_out import HeldOut

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONTEXT_COUNTS = (0, 1, 2, 5, 17, 65, 257)
MATCH_LENS = (0, 1, 2, 3, 4, 6, 9, 17)
TOKEN_FREQUENCIES = (0, 10, 100, 1000, 10_000)
"""Where buckets begin; each ends before the next."""

COPIED = ("continues a repeat", "was seen before", "is new")
"""What a token is to the window before it: the token before it was followed by it already; it stood there; neither."""

_BINS = 15


class Context(NamedTuple):
    """What the corpus knows at the positions, besides the student: an index, and how often it holds each token.

    Attributes
    ----------
    index : CorpusIndex
    frequencies : ndarray of shape (V,), int64
    order : int
        Tokens of the contexts that are counted.
    """

    index: Any
    frequencies: Ints
    order: int


@dataclass(frozen=True)
class Scored:
    """Arrays of one number a held-out token, in the order of the text.

    Attributes
    ----------
    nats, brier, confidence : ndarray of shape (N,), float64
        −log p(token); Σ (p − onehot)² over the vocabulary; the largest p.
    right : ndarray of shape (N,), bool
        Whether the likeliest token was the true one.
    context_count, match_len, token_frequency, copied : ndarray of shape (N,), int64
        Occurrences of the last `order` tokens in the index; longest context it has; occurrences of the token; a number
        of `COPIED`.
    """

    nats: Floats
    brier: Floats
    confidence: Floats
    right: npt.NDArray[np.bool_]
    context_count: Ints
    match_len: Ints
    token_frequency: Ints
    copied: Ints


def corpus_context(index: Any, order: int) -> Context:
    """The context of an index."""
    return Context(index, np.bincount(np.asarray(index.tokens), minlength=index.vocab_size).astype(np.int64), order)


@torch.no_grad()
def score(
    student: transformers.PreTrainedModel, held_out: HeldOut, context: Context, *, length: int, rows: int = 16
) -> Scored:
    """Score every token of held-out text.

    Parameters
    ----------
    student : PreTrainedModel
    held_out : HeldOut
        Of documents that end with the end-of-document token.
    context : Context
    length, rows : int
        T and B of a pass; a token sees the last T/4 tokens at least, or all of its document.
    """
    student.eval()
    pieces = []
    for batch in held_out.batches(length=length, rows=rows, overlap=length // 4):
        ids = torch.from_numpy(batch.input_ids).to(student.device)
        counted = torch.from_numpy(batch.next_ids >= 0).to(student.device)
        labels = torch.from_numpy(batch.next_ids).to(student.device)[counted]
        log_probs = student(input_ids=ids).logits[counted].float().log_softmax(-1)
        of_label = log_probs.gather(1, labels[:, None])[:, 0]
        best, tokens = log_probs.max(1)
        brier = log_probs.exp().square().sum(1) - 2 * of_label.exp() + 1
        where = batch.next_ids >= 0
        starts = batch.starts_document
        short = context.index.match(batch.input_ids, max_order=context.order, starts_document=starts)
        found = np.where(short.match_len >= context.order, short.hi - short.lo, 0)
        longest = context.index.match(batch.input_ids, starts_document=starts).match_len
        pieces.append(
            Scored(
                (-of_label).double().cpu().numpy(),
                brier.double().cpu().numpy(),
                best.exp().double().cpu().numpy(),
                (tokens == labels).cpu().numpy(),
                found[where].astype(np.int64),
                longest[where].astype(np.int64),
                context.frequencies[batch.next_ids[where]],
                copied(batch.input_ids, batch.next_ids)[where],
            )
        )
    names = [one.name for one in fields(Scored)]
    return Scored(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names))


def copied(input_ids: Ints, next_ids: Ints) -> Ints:
    """What each next token is to the tokens of its row up to its position: a number of `COPIED`; (B, T)."""
    length = input_ids.shape[1]
    earlier = np.tril(np.ones((length, length), np.bool_), -1)  # [t, j]: j before t
    is_label = input_ids[:, None, :] == next_ids[:, :, None]  # [b, t, j]
    seen = (is_label & (earlier | np.eye(length, dtype=np.bool_))).any(2)
    same = input_ids[:, None, :-1] == input_ids[:, :, None]  # token j is the one at t, and is followed by the label
    again = (same & is_label[:, :, 1:] & earlier[:, :-1]).any(2)
    return np.where(again, 0, np.where(seen, 1, 2)).astype(np.int64)


def summarize(scored: Scored, starts: Ints, size_bytes: int, vocab_size: int) -> dict[str, Any]:
    """The numbers of a row.

    Parameters
    ----------
    scored : Scored
    starts : ndarray of shape (D + 1,)
        Where the documents begin; none is empty.
    size_bytes : int
        UTF-8 bytes of all of them.
    vocab_size : int
        V: a Brier score has the same scale whatever V is, entropy hasn't.

    Returns
    -------
    dict
        nats (a token), bits_per_byte, tokens, ece, adaptive_ece, brier, top1, nats_if_uniform, reliability (bins of
        confidence, accuracy and tokens), documents ([nats, tokens] of each), buckets.
    """
    nats, tokens = float(scored.nats.sum()), len(scored.nats)
    ece, reliability = calibration(scored.confidence, scored.right)
    return {
        "nats": nats / tokens,
        "bits_per_byte": nats / math.log(2) / size_bytes,
        "tokens": tokens,
        "ece": ece,
        "adaptive_ece": adaptive_ece(scored.confidence, scored.right),
        "brier": float(scored.brier.mean()),
        "top1": float(scored.right.mean()),
        "nats_if_uniform": math.log(vocab_size),
        "reliability": reliability,
        "documents": [
            [float(total), int(count)]
            for total, count in zip(np.add.reduceat(scored.nats, starts[:-1]), np.diff(starts), strict=True)
        ],
        "buckets": {
            "context_count": bucketed(scored.nats, scored.context_count, CONTEXT_COUNTS),
            "match_len": bucketed(scored.nats, scored.match_len, MATCH_LENS),
            "token_frequency": bucketed(scored.nats, scored.token_frequency, TOKEN_FREQUENCIES),
            "copied": bucketed(scored.nats, scored.copied, range(len(COPIED)), COPIED),
        },
    }


def calibration(confidence: Floats, right: npt.NDArray[np.bool_]) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error of 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599), and the filled bins."""
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    counts, sums, hits = (np.bincount(bins, weights, _BINS) for weights in (None, confidence, right.astype(float)))
    error = float(np.abs(sums - hits).sum() / len(confidence))
    told = [
        {"confidence": float(sums[b] / counts[b]), "accuracy": float(hits[b] / counts[b]), "tokens": int(counts[b])}
        for b in np.flatnonzero(counts)
    ]
    return error, told


def adaptive_ece(confidence: Floats, right: npt.NDArray[np.bool_]) -> float:
    """The same with 15 bins of equal numbers of tokens (Nguyen and O'Connor 2015): no bin is nearly empty."""
    order = np.argsort(confidence, kind="stable")
    gap = confidence[order] - right[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gap, _BINS)) / len(gap))


def bucketed(nats: Floats, values: Ints, begins: Sequence[int], labels: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Mean nats and tokens of each bucket of values; nats is None in an empty one."""
    labels = labels or [_label(begin, end) for begin, end in zip(begins, [*begins[1:], None], strict=True)]
    number = np.searchsorted(np.asarray(begins), values, side="right") - 1
    tokens = np.bincount(number, minlength=len(begins))
    sums = np.bincount(number, nats, minlength=len(begins))
    return [
        {"label": label, "tokens": int(count), "nats": float(total / count) if count else None}
        for label, count, total in zip(labels, tokens, sums, strict=True)
    ]


def _label(begin: int, end: int | None) -> str:
    if end is None:
        return f"{begin:,}+"
    return f"{begin:,}" if end == begin + 1 else f"{begin:,}–{end - 1:,}"
