"""What a source yields: documents, long ones in parts, and how far the reading has come.

A document goes through the pipeline as text. One that is longer than `PART_CHARS` travels in parts, so that a
corpus that is one huge file is never whole in memory. A reader cuts where it can, at the end of a line if
there is one near; `parts` moves such a cut to where it changes no token.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from corpus_teacher.errors import ConfigError

PART_CHARS = 1 << 20
"""Characters of a part, about; long enough that the cuts cost nothing."""

UNPACK_RATIO = 200.0
"""What a packed file of more than 256 MiB may unpack to, in multiples of its size: text packs to a third or a tenth."""

_EXAMPLES = 5  # of broken documents that are named
_SEARCH_CHARS = 1 << 12  # how far before the end of a part a good place for the cut is looked for
_PLACES = (
    re.compile(r"(?<=\w\n)(?=\w)"),  # between lines of words: tokenizers that split text into words cut there anyway
    re.compile(r"(?<=\n)(?=\S)"),  # after a line that ends in something else
    re.compile(r"(?<=\S)(?=\s)"),  # before a white space, which most tokenizers keep with the word after it
)


def check_unpack_ratio(ratio: object) -> None:
    """Refuse what bounds nothing.

    Raises
    ------
    ConfigError
        Unless it is a number, 1 or more.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not ratio >= 1:
        raise ConfigError(f"unpack_ratio {ratio!r} must be a number, 1 or more (inf: no limit)")


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
    name : str, optional
        What the index calls it; its origin by default.
    fields : mapping, optional
        More about it that the index keeps: values that JSON can hold.
    """

    text: str
    origin: str = ""
    ends: bool = True
    name: str | None = None
    fields: Mapping[str, Any] | None = None


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
    notices : list of str
        What the user should know besides, as sentences, each once.
    specials : Counter of str
        How often the text of a special token occurred in documents that were tokenized as plain text.
    unpack_ratio : float
        What a packed file may unpack to at most, in multiples of its size; see `ReadOptions`.
    """

    done: float = 0.0
    num_replaced: int = 0
    num_skipped: int = 0
    examples: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    specials: Counter[str] = field(default_factory=Counter)
    unpack_ratio: float = UNPACK_RATIO

    def note(self, sentence: str, *, skipped: bool) -> None:
        """Count a broken document and keep its reason, without the way out, if it is among the first five."""
        if skipped:
            self.num_skipped += 1
        else:
            self.num_replaced += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{sentence.partition('; ')[0]}; {'left out' if skipped else 'mended'}")

    def notice(self, sentence: str) -> None:
        """Keep a sentence, once."""
        if sentence not in self.notices:
            self.notices.append(sentence)

    def add(self, other: ReadLog) -> None:
        """Take over what another log has met, as if it had been met here, after the rest."""
        self.done += other.done
        self.num_replaced += other.num_replaced
        self.num_skipped += other.num_skipped
        self.examples = [*self.examples, *other.examples][:_EXAMPLES]
        for sentence in other.notices:
            self.notice(sentence)
        self.specials.update(other.specials)

    @property
    def sentences(self) -> list[str]:
        """Notices and examples, and a word about special tokens in the text."""
        found = []
        if self.specials:
            shown = ", ".join(f"{text} ({count:,} times)" for text, count in self.specials.most_common(4))
            more = f" and {len(self.specials) - 4} others" if len(self.specials) > 4 else ""
            found.append(
                f"the text contains special tokens, read as ordinary text: {shown}{more}; where a trainer reads them "
                'as single tokens, build the index with special_tokens="ids"'
            )
        return [*self.notices, *found, *self.examples]


def places_to_cut(text: str, begin: int, end: int, *, of_a_kind: int = 1) -> Iterator[int]:
    """Places in begin .. end where `text` may be cut: between lines first, then between words; the last of each kind.

    >>> list(places_to_cut("one two.\\nthree", 1, 13, of_a_kind=2))
    [9, 8, 3]
    """
    for pattern in _PLACES:
        found = [match.start() for match in pattern.finditer(text, max(0, begin - 2), min(len(text), end + 2))]
        yield from [place for place in reversed(found) if begin <= place <= end][:of_a_kind]


def best_cut(text: str, end: int) -> int:
    """The best place for a cut at or a little before `end`; `end` itself where no place is better.

    >>> best_cut("one\\ntwo\\nthree", 10)
    8
    """
    return next(places_to_cut(text, max(1, end - _SEARCH_CHARS), end), end)


def split_document(document: Document, part_chars: int = PART_CHARS) -> Iterator[Document]:
    """A document in parts of at most `part_chars` characters; a short one as it is."""
    text, begin = document.text, 0
    while len(text) - begin > part_chars:
        around = text[max(begin, begin + part_chars - _SEARCH_CHARS) : begin + part_chars + 1]
        end = begin + part_chars - (len(around) - 1 - best_cut(around, len(around) - 1))
        yield replace(document, text=text[begin:end], ends=False)
        begin = end
    yield replace(document, text=text[begin:]) if begin else document
