"""What a source yields: documents, long ones in parts, and how far the reading has come.

A document goes through the pipeline as text. One that is longer than `PART_CHARS` travels in parts, so that a
corpus that is one huge file is never whole in memory. Parts end after the newline of a `x\\nY` (no other
white space around it), where tokenizers that split text into words cut anyway; the pipeline checks each cut
with the tokenizer itself and joins the parts again where it would change a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

PART_CHARS = 1 << 20
"""Characters of a part, about; long enough that the cuts cost nothing."""

_CUT = re.compile(r"(?<=\w\n)(?=\w)")


@dataclass(frozen=True)
class Document:
    """A document, or a part of one.

    Parameters
    ----------
    text : str
        The text, free of lone surrogates.
    origin : str
        Where it stands, for messages: "book.txt", or "news.jsonl, line 7".
    ends : bool
        False for a part that another part of the same document follows.
    """

    text: str
    origin: str = ""
    ends: bool = True


class Progress(Protocol):
    """How a long stage reports: called now and then with what is done so far."""

    def __call__(self, stage: str, done: float, total: float | None, count: int = 0) -> None:
        """`stage` at `done` of `total` (any unit; None: unknown), `count` tokens so far (0: not a matter)."""


def silent(stage: str, done: float, total: float | None, count: int = 0) -> None:
    """The progress of those who don't want to know."""


@dataclass
class ReadLog:
    """What reading has met so far: for the progress bar and the summary.

    Attributes
    ----------
    done : float
        Bytes on disk read so far; of a stream of unknown length, documents.
    num_replaced, num_skipped : int
        Documents whose broken bytes were replaced, and documents left out, under `errors`.
    examples : list of str
        The first few reasons, as sentences.
    """

    done: float = 0.0
    num_replaced: int = 0
    num_skipped: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, sentence: str, *, skipped: bool) -> None:
        """Count a broken document and keep its reason, without the way out, if it is among the first five."""
        if skipped:
            self.num_skipped += 1
        else:
            self.num_replaced += 1
        if len(self.examples) < 5:
            self.examples.append(f"{sentence.partition('; ')[0]}; {'left out' if skipped else 'mended'}")


def last_cut(text: str, after: int = 0) -> int:
    """The last place at or after `after` where a text may be cut, or 0 where there is none.

    >>> last_cut("one\\ntwo\\nthree")
    8
    """
    end = len(text)
    while end > after:  # from the back, block by block: the last cut is near
        begin = max(after, end - 4096)
        places = [match.start() for match in _CUT.finditer(text, max(0, begin - 2), min(len(text), end + 1))]
        if places and places[-1] >= after:
            return places[-1]
        end = begin
    return 0


def split_document(document: Document, part_chars: int = PART_CHARS) -> Iterator[Document]:
    """A document in parts of at most about `part_chars` characters; a short one as it is."""
    text = document.text
    while len(text) > part_chars:
        cut = last_cut(text[: part_chars + 1], after=part_chars // 2)
        if cut == 0:
            found = _CUT.search(text, part_chars)
            if found is None:
                break
            cut = found.start()
        yield Document(text[:cut], document.origin, ends=False)
        text = text[cut:]
    yield Document(text, document.origin, document.ends)
