"""Log-probabilities of a completion's tokens: of the exact smoothed distribution, as vLLM and OpenAI write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from corpus_teacher.serve.completion_requests import Wanted
from corpus_teacher.serve.indexes import ServedIndex
from corpus_teacher.serve.joining import Joiner
from corpus_teacher.targets.likeliest import Entry, RankedBase, likeliest
from corpus_teacher.teacher import CorpusTeacher
from corpus_teacher.wire import rows_as_array

Ints = npt.NDArray[np.int64]

_POSITIONS_AT_ONCE = 2048

_bases: WeakKeyDictionary[CorpusTeacher, RankedBase] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Asked:
    """Log-probabilities of the tokens of one text from `begin` on."""

    teacher: CorpusTeacher
    ids: Ints
    begin: int
    k: int
    temperature: float
    starts_document: bool


async def log_probabilities(
    joiner: Joiner, wanted: Wanted, teacher: CorpusTeacher, ids: Ints, begin: int, k: int
) -> list[list[Entry]]:
    """Entries of the tokens of a text from `begin` on, joined with what other clients ask.

    Parameters
    ----------
    joiner : Joiner
    wanted : Wanted
        Whose temperature counts, and whether its prompts start documents.
    teacher : CorpusTeacher
        With all tokens explicit.
    ids : ndarray of shape (n,), int64
    begin : int
        At least 1: nothing is known of a first token.
    k : int
        The likeliest tokens at each, beside the actual one.

    Returns
    -------
    list of n − begin lists
    """
    if ids.size <= begin:
        return []
    known = teacher.estimator.max_order
    cut = 0 if known is None else max(0, begin - max(1, known))  # an estimator sees no more of a context
    starts = wanted.starts_document and not cut
    asked = _Asked(teacher, ids[cut:], begin - cut, k, wanted.draw.temperature, starts)
    said: list[list[Entry]] = await joiner.ask(("exact", id(teacher)), _answer, asked, int(ids.size) - cut)
    return said


def _answer(asked: Sequence[_Asked]) -> list[list[list[Entry]]]:
    """Of each text the entries of its tokens; the texts of many clients in few questions to one teacher."""
    told: list[list[list[Entry]]] = []
    begin = 0
    while begin < len(asked):
        end, size = begin, 0
        while end < len(asked) and (end == begin or size + asked[end].ids.size <= _POSITIONS_AT_ONCE):
            size += asked[end].ids.size
            end += 1
        told += _answered(asked[begin:end])
        begin = end
    return told


def _answered(asked: Sequence[_Asked]) -> list[list[list[Entry]]]:
    teacher = asked[0].teacher
    rows = rows_as_array([one.ids for one in asked])
    said = teacher(rows, starts_document=np.array([one.starts_document for one in asked]))
    if teacher not in _bases:
        _bases[teacher] = RankedBase(said.base.numpy())
    told = []
    for number, one in enumerate(asked):
        places = number * rows.shape[1] + np.arange(one.begin - 1, one.ids.size - 1)
        told.append(likeliest(said, places, one.ids[one.begin :], one.k, _bases[teacher], one.temperature))
    return told


def prompt_logprobs(wanted: Wanted, ids: Ints, entries: list[list[Entry]]) -> list[Any] | None:
    """Of each token of a prompt, as vLLM gives it; None where nobody asked.

    Parameters
    ----------
    wanted : Wanted
    ids : ndarray of shape (n,), int64
    entries : list of n − 1 lists
    """
    k = wanted.prompt_logprobs
    if k is None:
        return None
    pairs = zip(entries, ids[1:].tolist(), strict=True)
    return [None, *(_as_vllm(wanted.served, _only(one, k, token)) for one, token in pairs)] if ids.size else []


def _only(entries: list[Entry], k: int, actual: int) -> list[Entry]:
    """The k likeliest and the actual token."""
    kept = entries[:k]
    return (
        kept
        if any(one.token == actual for one in kept)
        else [*kept, *(one for one in entries[k:] if one.token == actual)]
    )


def _as_vllm(served: ServedIndex, entries: list[Entry]) -> dict[str, Any]:
    return {
        str(one.token): {"logprob": one.logprob, "rank": one.rank, "decoded_token": served.token_text(one.token)}
        for one in entries
    }


def as_openai(
    wanted: Wanted, listed: list[int], entries: Sequence[list[Entry] | None], place: int = 0
) -> dict[str, Any]:
    """Log-probabilities of tokens as OpenAI's completions give them.

    Parameters
    ----------
    wanted : Wanted
    listed : list of n int
    entries : sequence of n lists
        None where nothing is known.
    place : int
        Characters before the first token.
    """

    def name(token: int) -> str:
        return f"token_id:{token}" if wanted.as_ids else wanted.served.token_text(token)

    offsets, own = [], []
    tops: list[dict[str, float] | None] = []
    for token, known in zip(listed, entries, strict=True):
        offsets.append(place)
        place += len(wanted.served.token_text(token))
        mine = None if known is None else next(one for one in known if one.token == token)
        own.append(None if mine is None else mine.logprob)
        shown = None if known is None else _only(known, wanted.logprobs or 0, token)
        tops.append(None if shown is None else {name(one.token): one.logprob for one in shown})
    return {
        "text_offset": offsets,
        "token_logprobs": own,
        "tokens": [name(token) for token in listed],
        "top_logprobs": tops,
    }
