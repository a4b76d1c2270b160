"""The naive engine: every answer of the index, in plain Python, straight from the definitions.

It is the oracle of the tests and the judge of the benches, so it shares no code with the engine and values the
obvious over the fast: every answer scans every position of the corpus, O(N · context) a query.

A *context* is written as a tuple of symbols, oldest first. It holds the tokens before a position inside its document,
led by `START`, the virtual symbol of the document's start. What a query knows of its own context is such a tuple too,
with or without `START` at its head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

START = -1
"""The virtual symbol before the first token of a document; sorts before every token."""


class ReferenceIndex:
    """The corpus as a list of documents, and every question answered by a scan.

    Parameters
    ----------
    documents : sequence of sequences of int
        Token ids, one sequence a document; empty ones are welcome.
    vocab_size : int
        V: ids are 0 .. V−1.
    end_of_document : int, optional
        The token after which a query's context starts anew.

    Examples
    --------
    >>> index = ReferenceIndex([[1, 2, 1, 2, 3]], vocab_size=4)
    >>> index.count([1, 2])
    2
    >>> index.next_tokens([0, 1, 2])
    ({1: 1, 3: 1}, 2)
    """

    def __init__(self, documents: Sequence[Sequence[int]], vocab_size: int, end_of_document: int | None = None) -> None:
        self.documents = [list(document) for document in documents]
        self.vocab_size = vocab_size
        self.end_of_document = end_of_document
        self.contexts: list[tuple[int, ...]] = []  # of every position, in corpus order
        self.tokens: list[int] = []
        for document in self.documents:
            for offset, token in enumerate(document):
                self.contexts.append((START, *document[:offset]))
                self.tokens.append(token)
        backwards = [context[::-1] for context in self.contexts]
        self.order = sorted(range(len(backwards)), key=lambda position: backwards[position])
        self.sorted_contexts = [backwards[position] for position in self.order]

    @property
    def num_tokens(self) -> int:
        """N."""
        return len(self.tokens)

    def positions(self, ngram: Sequence[int]) -> list[int]:
        """Where the n-gram stands: the corpus position of its first token, ascending."""
        found, start = [], 0
        for document in self.documents:
            for offset in range(len(document) - len(ngram) + 1):
                if document[offset : offset + len(ngram)] == list(ngram) and offset < len(document):
                    found.append(start + offset)
            start += len(document)
        return found

    def count(self, ngram: Sequence[int]) -> int:
        """How often the n-gram stands in the corpus, inside documents; the empty n-gram N times."""
        return len(self.positions(ngram))

    def document_of(self, position: int) -> int:
        """Which document holds a position."""
        for number, document in enumerate(self.documents):
            if position < len(document):
                return number
            position -= len(document)
        raise ValueError(position)

    def continuations(self, symbols: Sequence[int]) -> Counter[int]:
        """The tokens that follow a context, counted over all its occurrences that a token follows."""
        wanted = tuple(symbols)
        return Counter(
            token
            for context, token in zip(self.contexts, self.tokens, strict=True)
            if not wanted or context[-len(wanted) :] == wanted
        )

    def known_symbols(self, context: Sequence[int], starts_document: bool = False) -> tuple[int, ...]:
        """What counts of a query's context: all after the last end-of-document token, which is a start."""
        symbols = (START, *context) if starts_document else tuple(context)
        for place in range(len(symbols) - 1, -1, -1):
            if symbols[place] == self.end_of_document and self.end_of_document is not None:
                return (START, *symbols[place + 1 :])
        return symbols

    def longest_match(
        self,
        context: Sequence[int],
        *,
        min_count: int = 1,
        max_order: int | None = None,
        starts_document: bool = False,
    ) -> tuple[int, ...]:
        """The longest suffix of the known context that at least min_count positions have; () at the least.

        max_order bounds the symbols of the suffix, the start symbol included.
        """
        symbols = self.known_symbols(context, starts_document)
        longest = len(symbols) if max_order is None else min(len(symbols), max_order)
        for length in range(longest, 0, -1):
            suffix = symbols[len(symbols) - length :]
            if self.continuations(suffix).total() >= min_count:
                return suffix
        return ()

    def next_tokens(self, context: Sequence[int], **options: int | None) -> tuple[dict[int, int], int]:
        """Continuation counts of the longest match, and match_len (the start symbol doesn't count in it)."""
        suffix = self.longest_match(context, **options)  # type: ignore[arg-type]
        return dict(sorted(self.continuations(suffix).items())), sum(symbol != START for symbol in suffix)

    def match(self, row: Sequence[int], **options: int | None) -> list[tuple[int, int, int]]:
        """(lo, hi, match_len) for every context row[: t + 1]: ranks in context order."""
        answers = []
        for t in range(len(row)):
            suffix = self.longest_match(row[: t + 1], **options)  # type: ignore[arg-type]
            backwards = suffix[::-1]
            ranks = [r for r, c in enumerate(self.sorted_contexts) if c[: len(backwards)] == backwards]
            answers.append((ranks[0], ranks[-1] + 1, sum(symbol != START for symbol in suffix)))
        return answers
