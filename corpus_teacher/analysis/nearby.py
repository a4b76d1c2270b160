"""How a text was cut into tokens, and which nearby form of it stands in the corpus more often.

`"once upon a "` with a blank at its end, `"Once"` for `"once"`, a word without the blank that stands before it in
running text, or half of a word: each is a different row of tokens, and may be found seldom or never where its
neighbour is found a thousand times. The nearby forms are few, so each is simply looked up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex

from corpus_teacher.data.tokenizers import Tokenizer

_TIMES_AS_OFTEN = 4  # as the text itself: what is worth a word
_LOOKED_AT = 200  # continuations that are looked at for the rest of half a word


@dataclass(frozen=True)
class NearbyForm:
    """Another form of a text that stands in the corpus.

    Parameters
    ----------
    text : str
    what : str
        How it differs: "without the blank at its end", "with a blank before it", "in lower case", "the whole word".
    count : int
        How often it occurs, as a whole.
    num_tokens : int
    """

    text: str
    what: str
    count: int
    num_tokens: int


def nearby_forms(index: CorpusIndex, tokenizer: Tokenizer, text: str, *, most: int = 3) -> list[NearbyForm]:
    """Forms of a text that occur at least four times as often as the text itself, the most frequent first.

    Parameters
    ----------
    index : CorpusIndex
    tokenizer : Tokenizer
        Its own.
    text : str
    most : int
        Give at most that many.

    Notes
    -----
    At most ten look-ups. All of a text is counted, not only the part of it that matches.
    """
    if not text.strip():
        return []
    own = tokenizer.encode(text).astype(np.int64)
    threshold = max(1, _TIMES_AS_OFTEN * _count(index, own))
    found: dict[tuple[int, ...], NearbyForm] = {}
    for form, what in _forms(text):
        ids = tokenizer.encode(form).astype(np.int64)
        key = tuple(ids.tolist())
        if not key or key in found or np.array_equal(ids, own):
            continue
        count = _count(index, ids)
        if count >= threshold:
            found[key] = NearbyForm(form, what, count, ids.size)
    whole = _whole_word(index, tokenizer, text)
    if whole is not None and whole.count >= threshold:
        found[(-1,)] = whole
    return sorted(found.values(), key=lambda form: -form.count)[:most]


def _whole_word(index: CorpusIndex, tokenizer: Tokenizer, text: str) -> NearbyForm | None:
    """The most frequent token that begins like the last word of a text and is longer, after what stands before it."""
    head, blank, part = text.rpartition(" ")
    if not head or not part:
        return None
    ids = tokenizer.encode(head).astype(np.int64)
    if not ids.size or int(ids.max()) >= index.vocab_size:
        return None
    following = index.next_tokens(ids)
    if int(following.match_len) < ids.size:
        return None
    for place in np.argsort(-following.counts.astype(np.int64), kind="stable")[:_LOOKED_AT].tolist():
        word = tokenizer.token_text(int(following.token_ids[place]))
        if word.startswith(blank + part) and len(word) > len(part) + 1:
            return NearbyForm(head + word, "the whole word", int(following.counts[place]), ids.size + 1)
    return None


def _forms(text: str) -> list[tuple[str, str]]:
    """The same text with other blanks at its ends and other letters, and how each differs."""
    bare = text.strip()
    forms = []
    if text != text.rstrip():
        forms.append((text.rstrip(), "without the blank at its end"))
    if text == text.lstrip():
        forms.append((f" {text.rstrip()}", "with a blank before it"))
    else:
        forms.append((text.strip(), "without the blank before it"))
    cases = (
        (bare.lower(), "in lower case"),
        (bare[:1].upper() + bare[1:], "with a capital"),
        (bare.upper(), "in capitals"),
    )
    for cased, what in cases:
        if cased != bare:
            forms += [(cased, what), (f" {cased}", f"{what}, with a blank before it")]
    return forms


def _count(index: CorpusIndex, ids: npt.NDArray[np.int64]) -> int:
    return int(index.count(ids)) if ids.size and int(ids.max()) < index.vocab_size else 0
