"""Looks for leaks: held-out text in the index, and targets that know the token they are to predict."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.analysis.contamination import found_shares
from corpus_teacher.data import TokenFile, build_token_index
from corpus_teacher.data.opening import open_index
from corpus_teacher.teacher import CorpusTeacher

OVERLAP_TOKENS = 13
"""Tokens of an n-gram that counts as copied (Brown et al. 2020 take 13 words)."""

_ROUND_OFF = 1e-6  # of probabilities in float32
_CHANGED_LABELS = 2  # each costs a build of the index
_CONTEXT = 32  # tokens that are shown before a label


def overlap_shares(index: Any, tokens: npt.NDArray[Any], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Share of each document's 13-grams that stand in an index; (D,), 0 where it is shorter."""
    pairs = zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    return found_shares(index, [tokens[begin:end].astype(np.int64) for begin, end in pairs], OVERLAP_TOKENS)[0]


def label_invariance(index: Any, folder: Path, *, leave_out: str | None = "self", seed: int = 0) -> dict[str, Any]:
    """Change a token of the corpus, build the index again, and see that the target before it is the same.

    With leave-one-out a target mustn't know the token that truly follows: nor may it change where another one does.

    Parameters
    ----------
    index : CorpusIndex
    folder : Path
        Where the changed indexes lie meanwhile.
    leave_out : {"self", "document", None}
        None shows that the check can fail.

    Returns
    -------
    dict
        ok, whether the exact targets (Witten–Bell up to order 5, nothing cut) are the same;
        largest_difference, of one of their probabilities;
        largest_difference_as_taught, the same for the flat targets that students are shown: those keep the likeliest
        tokens of a heavy context and always the one that follows, so that what is cut depends on the label a little;
        changed, how many tokens, one at a time.

    Notes
    -----
    With "document" the document is taken out of the base distribution at the token that follows, and stays in it at all
    others: the difference is of the order of that token's occurrences in the document over N, and not quite 0.
    """
    tokens, starts = np.array(index.tokens), np.array(index.doc_starts)
    generator = np.random.default_rng(seed)
    exact, taught, changed_labels = 0.0, 0.0, 0
    for place, begin, starts_document, others in _labels(index, tokens, starts, generator):
        changed = tokens.copy()
        changed[place] = generator.choice(others)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path, end = Path(scratch, "index"), index.end_of_document
            build_token_index(
                TokenFile(changed, starts), None, path, vocab_size=index.vocab_size, end_of_document=end
            ).close()
            with open_index(path) as other:
                pairs = [
                    _said(one, text[begin : place + 1].astype(np.int64), leave_out, starts_document, begin)
                    for one, text in ((index, tokens), (other, changed))
                ]
        exact = max(exact, float(np.abs(pairs[0][0] - pairs[1][0]).max()))
        taught = max(taught, float(np.abs(pairs[0][1] - pairs[1][1]).max()))
        changed_labels += 1
    return {
        "ok": changed_labels > 0 and exact < _ROUND_OFF,
        "largest_difference": exact,
        "largest_difference_as_taught": taught,
        "changed": changed_labels,
    }


def _labels(
    index: Any, tokens: npt.NDArray[Any], starts: npt.NDArray[np.int64], generator: np.random.Generator
) -> Iterator[tuple[int, int, bool, npt.NDArray[Any]]]:
    """A few labels: where each stands, where its context begins, whether a document does there, what else might stand.

    A token that stands in the context as well is more than a label, it makes occurrences of it: none of these.
    """
    ends = [] if index.end_of_document is None else [index.end_of_document]
    alphabet, found = np.unique(tokens), 0
    for place in generator.permutation(np.arange(1, len(tokens))).tolist():
        first = int(starts[int(np.searchsorted(starts, place, side="right")) - 1])
        begin = max(first, place - _CONTEXT)
        taken = [*tokens[begin:place], *ends]
        others = np.setdiff1d(alphabet, [*taken, tokens[place]])
        if place > begin and tokens[place] not in taken and len(others):
            yield place, begin, begin == first, others
            found += 1
        if found == _CHANGED_LABELS:
            return


def _said(
    index: Any, text: npt.NDArray[np.int64], leave_out: str | None, starts_document: bool, position: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The target of the last token of a text, exact and as students are shown it; (V,) each."""
    options = {"starts_document": np.array([starts_document]), "positions": np.array([position])}
    rows, following = text[None, :-1], text[None, 1:]
    answer = index.smoothed_targets(
        rows, following, max_order=5, leave_out=leave_out, top_k=index.vocab_size, shortlist=None, **options
    )
    first, last = answer.offsets[-2:]
    exact = answer.rest[-1] * answer.base.astype(np.float64)
    np.add.at(exact, answer.token_ids[first:last], answer.probs[first:last])
    teacher = CorpusTeacher(index, max_order=5, leave_out=leave_out)
    return exact, teacher(rows, following, **options).dense()[-1].double().numpy()
