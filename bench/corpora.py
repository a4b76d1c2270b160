"""The tokens that a bench runs on: a folder made beforehand, or a small corpus out of the standard library.

A folder holds `train_<SIZE>.u16` for each size (raw uint16 ids, no separators), `heldout_1M.u16` (other
documents), and beside each a `<name>.doc_starts.npy` (int64, D+1 offsets). The peers know no documents: for
them the same tokens are written once more with a separator, 65535, after each document.
"""

from __future__ import annotations

import hashlib
import random
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SEPARATOR = 65535
"""The token that parts documents in the peers' files; rusty-dawg and infini-gram know it as such."""


@dataclass(frozen=True)
class Corpus:
    """One training corpus of D documents, N tokens, and where the peers' copy of it lies."""

    name: str
    tokens_path: Path
    doc_starts_path: Path
    vocab_size: int
    num_tokens: int
    num_documents: int
    separated_path: Path
    fingerprint: str

    @property
    def tokens(self) -> np.ndarray:
        """The ids, shape (N,), uint16, a read-only map of the file."""
        return np.memmap(self.tokens_path, dtype=np.uint16, mode="r")

    @property
    def doc_starts(self) -> np.ndarray:
        """The offsets of the documents, shape (D+1,), int64."""
        return np.load(self.doc_starts_path)

    @property
    def separated(self) -> np.ndarray:
        """`doc SEP doc SEP …`, shape (N+D,), uint16: what the peers index."""
        return np.memmap(self.separated_path, dtype=np.uint16, mode="r")


def sizes_in(folder: Path) -> list[str]:
    """The sizes that a folder offers, smallest first: 10M, 100M."""
    found = {path.stem.removeprefix("train_"): path.stat().st_size for path in folder.glob("train_*.u16")}
    return sorted(found, key=found.__getitem__)


def load(folder: Path, size: str, work: Path) -> Corpus:
    """The corpus of one size, its separated copy written into `work` where it is not there yet.

    V is one more than the highest id of the corpus and of the held-out text, so that every query is one.
    """
    tokens_path, doc_starts_path = folder / f"train_{size}.u16", folder / f"train_{size}.doc_starts.npy"
    for path in (tokens_path, doc_starts_path, folder / "heldout_1M.u16"):
        if not path.exists():
            raise SystemExit(f"{path} is missing: --corpus names a folder as bench/README.md describes it.")
    tokens, doc_starts = np.memmap(tokens_path, dtype=np.uint16, mode="r"), np.load(doc_starts_path)
    highest = max(int(tokens.max()), int(np.fromfile(folder / "heldout_1M.u16", dtype=np.uint16).max()))
    if highest >= SEPARATOR:
        raise SystemExit(f"{folder} holds the id {highest}, which the peers need as a separator: use ids below 65535.")
    digest = hashlib.sha256(tokens.data).hexdigest()[:16]
    separated_path = work / f"separated_{size}_{digest}.u16"
    if not separated_path.exists():
        partial = separated_path.with_suffix(".partial")
        np.insert(tokens, doc_starts[1:], SEPARATOR).tofile(partial)
        partial.rename(separated_path)
    return Corpus(
        name=size,
        tokens_path=tokens_path,
        doc_starts_path=doc_starts_path,
        vocab_size=highest + 1,
        num_tokens=len(tokens),
        num_documents=len(doc_starts) - 1,
        separated_path=separated_path,
        fingerprint=digest,
    )


def query_rows(corpus: Corpus, folder: Path, *, num_rows: int, row_length: int, seed: int) -> dict[str, np.ndarray]:
    """The queries, (rows, T) ids each: windows of the held-out text in turn, random ones of the corpus."""
    held_out = np.fromfile(folder / "heldout_1M.u16", dtype=np.uint16)
    num_rows = min(num_rows, len(held_out) // row_length, corpus.num_tokens // row_length)
    starts = np.random.default_rng(seed).integers(0, corpus.num_tokens - row_length, size=num_rows, endpoint=True)
    tokens = corpus.tokens
    return {
        "held-out": held_out[: num_rows * row_length].reshape(num_rows, row_length).astype(np.int64),
        "in-corpus": np.stack([tokens[start : start + row_length] for start in starts]).astype(np.int64),
    }


def make_small(folder: Path, *, num_tokens: int = 2_000_000, vocab_size: int = 8_192, seed: int = 0) -> None:
    """A corpus that every machine can make: the standard library's .py files, a BPE trained on them."""
    from tokenizers import ByteLevelBPETokenizer

    root = Path(sysconfig.get_path("stdlib"))
    paths = [p for p in sorted(root.rglob("*.py")) if not {"site-packages", "test", "tests"} & set(p.parts)]
    random.Random(seed).shuffle(paths)
    texts = [re.sub(r"\r\n?", "\n", path.read_text(encoding="utf-8", errors="replace")) for path in paths]
    texts = [text for text in texts if text.strip()]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts[: len(texts) // 4], vocab_size=vocab_size, show_progress=False)
    documents: list[np.ndarray] = []
    total, held_out_tokens = 0, num_tokens // 10
    for text in texts:
        documents.append(np.array(tokenizer.encode(text).ids, dtype=np.uint16))
        total += len(documents[-1])
        if total >= num_tokens + held_out_tokens:
            break
    sizes = np.cumsum([len(document) for document in documents])
    split = int(np.searchsorted(sizes, held_out_tokens)) + 1
    folder.mkdir(parents=True, exist_ok=True)
    label = f"{round((sizes[-1] - sizes[split - 1]) / 1e6, 1):g}M"
    for name, part in (("heldout_1M", documents[:split]), (f"train_{label}", documents[split:])):
        np.concatenate(part).tofile(folder / f"{name}.u16")
        np.save(folder / f"{name}.doc_starts.npy", np.cumsum([0, *map(len, part)]).astype(np.int64))
