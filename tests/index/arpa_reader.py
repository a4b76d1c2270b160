"""A plain reader of ARPA files, straight from the format: what the tests of the writer judge by."""

from __future__ import annotations

import re


class Arpa:
    """A model: `listed[n]` maps each n-gram to its log10 probability and backoff weight."""

    def __init__(self, text: str) -> None:
        head, *sections = re.split(r"\n\\(?:\d+-grams:|end\\)\n", "\n" + text)
        assert head.startswith("\n\\data\\\n")
        assert sections.pop() == ""
        self.listed: dict[int, dict[tuple[str, ...], tuple[float, float]]] = {}
        for n, section in enumerate(sections, 1):
            self.listed[n] = {}
            for line in section.splitlines():
                if line:
                    fields = line.split("\t")
                    assert len(fields) == (2 if n == len(sections) else 3)
                    ngram = tuple(fields[1].split(" "))
                    assert len(ngram) == n
                    assert ngram not in self.listed[n]
                    self.listed[n][ngram] = (float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0)
        counts = re.findall(r"^ngram (\d+)=(\d+)$", head, re.MULTILINE)
        assert [(int(n), int(count)) for n, count in counts] == [(n, len(part)) for n, part in self.listed.items()]

    def log10(self, context: tuple[str, ...], word: str) -> float:
        """log10 p(word | context): the longest n-gram that is listed, and the backoff weights on the way to it."""
        known = [name if (name,) in self.listed[1] else "<unk>" for name in (*context, word)]
        ngram = tuple(known[max(0, len(known) - len(self.listed)) :])
        weight = 0.0
        while ngram not in self.listed[len(ngram)]:
            weight += self.listed[len(ngram) - 1].get(ngram[:-1], (0.0, 0.0))[1]
            ngram = ngram[1:]
        return weight + self.listed[len(ngram)][ngram][0]
