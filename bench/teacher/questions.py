"""What is asked, and of which corpora.

Documents end in a token of their own here, one more than the highest id: KenLM predicts the end of a line and the
peers' separator stands in the same places, so all know the same continuations and answers can be compared to the last
count. Rows never cross the end of a document.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.corpora import Corpus, load

TAILS = ("held-out", "copies", "one token", "one token and an end")
"""The corpora of `tails`: the bench's own, a document 1,000 times among others, one token 5 million times."""


class Questions(NamedTuple):
    """Windows of a text: their tokens (R, T + 1), and where in the corpus each begins (R,), −1 for other text."""

    tokens: np.ndarray
    positions: np.ndarray

    @property
    def input_ids(self) -> np.ndarray:
        """The contexts, (R, T)."""
        return self.tokens[:, :-1]

    @property
    def next_ids(self) -> np.ndarray:
        """What follows each, (R, T)."""
        return self.tokens[:, 1:]

    def part(self, first: int, end: int) -> Questions:
        """The rows first … end − 1."""
        return Questions(self.tokens[first:end], self.positions[first:end])


class Asking(NamedTuple):
    """One figure's question: what of, by which estimator, about which text, without what."""

    section: str
    estimator: str
    max_order: int | None
    text: str
    leave_out: str | None = None

    @property
    def label(self) -> str:
        """For tables."""
        order = "unbounded" if self.max_order is None else str(self.max_order)
        out = f", {self.leave_out} out" if self.leave_out else ""
        return f"{self.estimator} {order}, {self.text}{out}"


def windows(tokens: np.ndarray, doc_starts: np.ndarray, *, num: int, length: int, seed: int | None) -> Questions:
    """Windows of length + 1 tokens inside documents: in turn, or (seed) at random; fewer where there aren't so many."""
    sizes = np.diff(doc_starts)
    long = np.flatnonzero(sizes > length)
    if seed is None:
        starts = np.concatenate([np.arange(doc_starts[d], doc_starts[d + 1] - length, length) for d in long] or [[]])
        starts = starts[:num].astype(np.int64)
    elif long.size == 0:
        starts = np.zeros(0, np.int64)
    else:
        generator = np.random.default_rng(seed)
        room = sizes[long] - length
        chosen = long[generator.choice(long.size, size=num, p=room / room.sum())]
        starts = doc_starts[chosen] + generator.integers(0, sizes[chosen] - length)
    rows = np.asarray(tokens)[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    return Questions(rows, starts)


def texts(corpus: Corpus, folder: Path, *, num: int, length: int) -> dict[str, Questions]:
    """The rows of each text: of the held-out documents in turn, and of random places in the corpus."""
    starts = np.load(folder / "heldout_1M.doc_starts.npy")
    held_out = windows(np.fromfile(folder / "heldout_1M.u16", np.uint16), starts, num=num, length=length, seed=None)
    inside = windows(corpus.tokens, corpus.doc_starts, num=num, length=length, seed=0)
    return {"held-out": held_out._replace(positions=np.full(len(held_out.tokens), -1)), "in-corpus": inside}


def write_corpus(folder: Path, name: str, documents: list[np.ndarray]) -> None:
    """Documents as bench.corpora loads them."""
    folder.mkdir(parents=True, exist_ok=True)
    np.concatenate(documents).astype(np.uint16).tofile(folder / f"{name}.u16")
    np.save(folder / f"{name}.doc_starts.npy", np.cumsum([0, *map(len, documents)]).astype(np.int64))


def ended(corpus: Corpus, work: Path) -> Corpus:
    """The corpus with an end token, V, after each document; written into `work` where it is not there yet."""
    tokens_path = work / f"ended_{corpus.name}_{corpus.fingerprint}.u16"
    doc_starts_path = tokens_path.with_suffix(".doc_starts.npy")
    if not doc_starts_path.exists():
        np.insert(corpus.tokens, corpus.doc_starts[1:], corpus.vocab_size).tofile(tokens_path)
        np.save(doc_starts_path, corpus.doc_starts + np.arange(corpus.num_documents + 1))
    return replace(
        corpus,
        tokens_path=tokens_path,
        doc_starts_path=doc_starts_path,
        vocab_size=corpus.vocab_size + 1,
        num_tokens=corpus.num_tokens + corpus.num_documents,
    )


def tail_corpus(name: str, main: Corpus, work: Path, *, quick: bool) -> Corpus:
    """The corpus of a part of `tails`, made in `work` where it has to be made; see `TAILS`."""
    if name == "held-out":
        return main
    folder, label = work / f"tails_{main.name}_{main.fingerprint}", name.replace(" ", "_")
    if not (folder / f"train_{label}.doc_starts.npy").exists():
        if name.startswith("one token"):
            documents = [np.zeros(3_000 if quick else 5_000_000, np.uint16)]
        else:
            size, times = (200, 100) if quick else (2_000, 1_000)
            generator = np.random.default_rng(0)
            starts, tokens = main.doc_starts, main.tokens
            others = [tokens[a : e - 1] for a, e in pairwise(starts.tolist()) if e - a > 1][:1500]
            long = next(d for d in range(main.num_documents) if starts[d + 1] - starts[d] > size)
            documents = [*others, *[tokens[starts[long] : starts[long] + size]] * times]
            documents = [documents[i] for i in generator.permutation(len(documents))]
        write_corpus(folder, "heldout_1M", [np.array([0, 0])])
        write_corpus(folder, f"train_{label}", documents)
    corpus = load(folder, label, work)
    return replace(corpus, vocab_size=corpus.vocab_size + 1) if name == "one token" else ended(corpus, work)


def make_quick(folder: Path) -> None:
    """A corpus in a second: 50,000 tokens of a random grammar of 300, and as many of 5,000 more from it."""
    generator = np.random.default_rng(0)
    likely = generator.integers(0, 300, size=(300, 4))

    def document(size: int) -> np.ndarray:
        tokens = np.empty(size, np.uint16)
        token = 0
        for i, (which, wild) in enumerate(zip(generator.integers(0, 4, size), generator.random(size), strict=True)):
            token = int(wild * 1500) if wild < 0.2 else int(likely[token, which])
            tokens[i] = token
        return tokens

    write_corpus(folder, "heldout_1M", [document(500) for _ in range(10)])
    write_corpus(folder, "train_quick", [document(500) for _ in range(100)])
