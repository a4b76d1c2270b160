"""Long documents in parts whose tokens are those of the whole text.

Naively: tokenize the document as a whole. A tokenizer looks at a bounded surrounding only, so a document can be cut
where the tokens around the cut don't change. `sound_parts` looks for such a place near the end of each part and asks
the tokenizer itself: windows of text around the cut, of several lengths (so that none agrees by luck in a run of
one letter), must give the tokens of their left side followed by those of the right side. A tokenizer that marks the
beginning of a text (a space in front) gets some text *before* the part to read as well, whose tokens are dropped.

Where no place is found, as inside a run of a million zeros that is one word to the tokenizer, the part is tokenized
here and now, and cut at the end of one of its own tokens: in byte-pair encoding two neighbours of one valid
encoding stay neighbours in every text that has both (Berglund and van der Merwe 2023, "Formalizing BPE
tokenization"). Time is linear in the text; memory holds a part or two. Only where that fails too are parts joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from corpus_teacher.data.documents import PART_CHARS, Document, places_to_cut, split_document
from corpus_teacher.data.tokenizers import TokenIds, Tokenizer

_WINDOW_CHARS = 256  # that the check of a cut reads on either side, at least; more where tokens are long
_TOKENS_OF_A_WINDOW = 4
_SHORTER = (0, 1, 3, 7, 15, 31, 63, 127)  # windows shorter by that many characters tell runs of a period apart
_SEARCH_CHARS = 1 << 12
_PLACES_OF_A_KIND = 6  # that are tried, of those in the searched text
_BEFORE_CHARS = 64  # of the text before a part, where the tokenizer needs some


class Part(NamedTuple):
    """A piece of a document on its way through the tokenizer.

    Attributes
    ----------
    text : str
    document : Document
        Whose name and fields it carries.
    ends : bool
        Whether the document ends with it.
    before : str
        Text that stands before it, tokenized with it; these tokens are dropped.
    ids : ndarray of shape (n,), uint16 or uint32, optional
        Its tokens, where they are known already.
    """

    text: str
    document: Document
    ends: bool = True
    before: str = ""
    ids: TokenIds | None = None


def sound_parts(documents: Iterable[Document | str], tokenizer: Tokenizer) -> Iterator[Part]:
    """Documents in parts of about `PART_CHARS` characters, cut where no token changes."""
    cutter: _Cutter | None = None
    for given in documents:
        document = given if isinstance(given, Document) else Document(given)
        for piece in split_document(document):
            if cutter is None and piece.ends:
                yield Part(piece.text, piece)
                continue
            if cutter is None:
                cutter = _Cutter(tokenizer, replace(piece, text=""))
            yield from cutter.add(piece.text)
            if piece.ends:
                yield cutter.rest(ends=True)
                cutter = None
    if cutter is not None:
        yield cutter.rest(ends=False)


class _Cutter:
    """The text of one document that waits for a cut, and what stands before it."""

    def __init__(self, tokenizer: Tokenizer, document: Document) -> None:
        self.tokenizer = tokenizer
        self.document = document
        self.held: list[str] = []
        self.num_held = 0
        self.before = ""
        self.window = max(_WINDOW_CHARS, min(_TOKENS_OF_A_WINDOW * tokenizer.longest_token, _SEARCH_CHARS))
        self.can_cut = 2 * tokenizer.longest_token <= _SEARCH_CHARS  # else no window would show what a cut does
        self.tail = ""  # the last characters before the end of `held`, of parts that have left as well
        self.before_chars = [0, _BEFORE_CHARS]  # the one that served last comes first

    def add(self, text: str) -> Iterator[Part]:
        """Take more text; yield what can be cut off before it."""
        if self.can_cut and self.num_held and text:
            found = self._place(text[: self.window])
            if found is not None:
                size, chars = found
                whole = "".join(self.held)
                keep = self.num_held - size
                before = self.tail[len(self.tail) - size - chars : len(self.tail) - size]
                yield self._cut(whole, keep, before)
            elif self.num_held <= 4 * PART_CHARS:
                yield from self._at_a_token(text[: 2 * self.window])
        self.held.append(text)
        self.num_held += len(text)
        self.tail = (self.tail + text)[-_SEARCH_CHARS - self.window :]

    def rest(self, *, ends: bool) -> Part:
        """What is left, as the last part."""
        return Part("".join(self.held), self.document, ends, self.before)

    def _cut(self, whole: str, keep: int, before: str, ids: TokenIds | None = None) -> Part:
        part = Part(whole[:keep], self.document, False, self.before, ids)
        self.held, self.num_held, self.before = [whole[keep:]], len(whole) - keep, before
        return part

    def _place(self, ahead: str) -> tuple[int, int] | None:
        """How many characters before the end of `held` it can be cut, and how much text the rest needs before it."""
        around = self.tail + ahead
        seam, first = len(self.tail), max(1, len(self.tail) - min(_SEARCH_CHARS, self.num_held - 1))
        places = [seam, *places_to_cut(around, first, seam - 1, of_a_kind=_PLACES_OF_A_KIND)]
        places += range(seam - 1, max(first, seam - _PLACES_OF_A_KIND) - 1, -1)
        for chars in self.before_chars:
            for place in places:
                if place >= first and chars <= place and self._is_sound(around, place, chars):
                    self.before_chars.sort(key=lambda size: size != chars)
                    return seam - place, chars
        return None

    def _is_sound(self, around: str, place: int, chars: int) -> bool:
        """Whether the tokens around a cut are those of the uncut text."""
        right = around[place : place + self.window]
        tail = self._after(around[place - chars : place], right)
        if tail is None:
            return False
        sizes = [self.window - fewer for fewer in _SHORTER]
        for left in dict.fromkeys(around[max(0, place - size) : place] for size in sizes):
            whole, first = self.tokenizer.encode_batch([left + right, left])
            if not np.array_equal(whole, np.concatenate([first, tail])):
                return False
        return True

    def _after(self, before: str, text: str) -> TokenIds | None:
        """Tokens of a text that stands after another; None if it changes those of the other."""
        whole, first = self.tokenizer.encode_batch([before + text, before])
        return whole[len(first) :] if np.array_equal(whole[: len(first)], first) else None

    def _at_a_token(self, ahead: str) -> Iterator[Part]:
        """Tokenize what is held, and cut it after one of its tokens."""
        whole = "".join(self.held)
        text, skipped = self.before + whole + ahead, len(self.before)
        ids, begins, ends = self.tokenizer.encode_with_offsets(text)
        clean = np.append(False, (begins[1:] == ends[:-1]) & (begins[1:] > begins[:-1]))
        inside = (begins > skipped + len(whole) // 2) & (begins <= len(text) - 2 * self.window)
        num_before = len(self.tokenizer.encode(self.before))
        for number in np.flatnonzero(clean & inside)[: -_PLACES_OF_A_KIND - 1 : -1].tolist():
            place = int(begins[number])
            following = ids[number : int(np.searchsorted(ends, place + self.window, side="right"))]
            for begin in [place, *range(place - _BEFORE_CHARS, max(0, place - 2 * _BEFORE_CHARS), -1)]:
                if begin < 0:
                    break
                after = self._after(text[begin:place], text[place : place + 2 * self.window])
                if after is not None and np.array_equal(after[: len(following)], following):
                    yield self._cut(whole, place - skipped, text[begin:place], ids[num_before:number])
                    return
