"""Counts beside the student: what n-grams alone reach on the same tokens, and the student mixed with them at inference.

Both are of the index that the student reads. Counts are asked once for each index and text of a study, and kept in the
folder of its data: the probability of every held-out token, and what is known of its context. Naively, for a finished
student: fit the weight λ of each bucket of evidence on tuning documents (`corpus_teacher.blend.interpolation`), and
take −log(λ · student + (1 − λ) · counts) of every held-out token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.blend.interpolation import Buckets, MixtureWeights, fit_weights, mixed_probabilities
from corpus_teacher.files import read_json, whole_file, write_json
from corpus_teacher.study.metrics import (
    CONTEXT_COUNTS,
    COPIED,
    MATCH_LENS,
    TOKEN_FREQUENCIES,
    Floats,
    Scored,
    bucketed,
)

REFERENCES: Mapping[str, tuple[str, int | None]] = {
    "unigrams": ("witten-bell", 0),
    "bigrams": ("witten-bell", 1),
    "trigrams": ("witten-bell", 2),
    "modified Kneser–Ney 5": ("modified-kneser-ney", 5),
    "auto": ("auto", 5),
}
"""What is always there beside students: an estimator and its longest context in tokens."""

_ROW, _OVERLAP = 1024, 64


@dataclass(frozen=True)
class Counted:
    """What an estimator says of every held-out token, in the order of the text; arrays of shape (N,).

    Attributes
    ----------
    probability : ndarray, float64
        Of the token that came.
    evidence : dict of str to ndarray
        "match_len" (tokens), "entropy" (nats) and "count" of its context, as `EDGES` name them.
    """

    probability: Floats
    evidence: dict[str, npt.NDArray[Any]]

    @property
    def nats(self) -> Floats:
        """−log p, infinite where p is 0."""
        return -np.log(self.probability, out=np.full(self.probability.size, -np.inf), where=self.probability > 0)


def counted(index: Any, held_out: Any, estimator: Any, max_order: int | None) -> Counted:
    """Ask an estimator of an index for every token of a held-out text."""
    fitted = index.fitted(estimator, max_order)
    probability, evidence = [], {"match_len": [], "entropy": [], "count": []}  # type: ignore[var-annotated]
    for batch in held_out.batches(length=_ROW, rows=16, overlap=_OVERLAP):
        where = batch.next_ids.reshape(-1) >= 0
        options = {"estimator": fitted, "starts_document": batch.starts_document}
        probability.append(index.next_probabilities(batch.input_ids, batch.next_ids, **options)[where])
        said = index.smoothed_targets(batch.input_ids, **options)
        for name, values in zip(evidence, (said.match_len, said.entropy(), said.context_count), strict=True):
            evidence[name].append(values[where])
    return Counted(np.concatenate(probability), {name: np.concatenate(found) for name, found in evidence.items()})


def kept_counts(folder: Path, index: Any, held_out: Any, domain: str, estimator: Any, max_order: int | None) -> Counted:
    """`counted`, from a file beside the index where it is there; else it is written.

    Parameters
    ----------
    folder : Path
        Of the index.
    index, held_out, estimator, max_order
        As in `counted`.
    domain : str
        The text's name in the study.
    """
    name = estimator if isinstance(estimator, str) else json.dumps(estimator, sort_keys=True)
    path = folder.parent / f"counts-{folder.name.removeprefix('index-')}-{domain}-{name}-{max_order}.npz"
    if path.is_file():
        with np.load(path) as kept:
            return Counted(kept["probability"], {key: kept[key] for key in kept.files if key != "probability"})
    made = counted(index, held_out, estimator, max_order)
    with whole_file(path) as file:  # another process may write the very same
        np.savez(file, probability=made.probability, **made.evidence)  # type: ignore[arg-type]
    return made


def reference_nats(
    folder: Path, index: Any, texts: Mapping[str, Any], teacher: tuple[Any, int | None] | None
) -> dict[str, dict[str, float]]:
    """The loss of n-grams of an index on held-out texts, nats per token: by text, then by name.

    Parameters
    ----------
    folder : Path
        Of the index; what is found is kept beside it.
    index : CorpusIndex
    texts : mapping of str to HeldOut
    teacher : tuple, optional
        Estimator and order of the arm's own corpus teacher over this index: "the teacher".
    """
    path = folder.parent / f"references-{folder.name.removeprefix('index-')}.json"
    kept: dict[str, dict[str, float]] = read_json(path) if path.is_file() else {}
    asked = {name: (said, "") for name, said in REFERENCES.items()}
    if teacher is not None:
        asked["the teacher"] = (teacher, json.dumps(teacher, sort_keys=True))
    found: dict[str, dict[str, float]] = {}
    for domain, held_out in texts.items():
        found[domain] = {}
        for name, ((estimator, max_order), suffix) in asked.items():
            key = f"{name} {suffix}".strip()
            if key not in kept.setdefault(domain, {}):
                kept[domain][key] = _mean_nats(index, held_out, estimator, max_order)
                write_json(path, kept)
            found[domain][name] = kept[domain][key]
    return found


def _mean_nats(index: Any, held_out: Any, estimator: Any, max_order: int | None) -> float:
    fitted, nats, tokens = index.fitted(estimator, max_order), 0.0, 0
    for batch in held_out.batches(length=_ROW, rows=16, overlap=_OVERLAP):
        options = {"estimator": fitted, "starts_document": batch.starts_document}
        p = index.next_probabilities(batch.input_ids, batch.next_ids, **options)
        p = p[batch.next_ids.reshape(-1) >= 0]
        nats -= float(np.log(p).sum()) if (p > 0).all() else -math.inf
        tokens += p.size
    return nats / tokens


def summarize_mixture(
    scored: Scored, corpus: Counted, weights: MixtureWeights, starts: npt.NDArray[np.int64], size_bytes: int
) -> dict[str, Any]:
    """The numbers of a student that is mixed with counts at inference, on one text.

    Returns
    -------
    dict
        nats (per token), bits_per_byte, tokens, documents ([nats, tokens] of each) and buckets, as
        `corpus_teacher.study.metrics.summarize` has them; and by_evidence: of each measure and bucket the tokens, the
        mean weight of the student, and the nats of student, counts and mixture.
    """
    own = weights(corpus.evidence)
    nats = -np.log(mixed_probabilities(np.exp(-scored.nats), corpus.probability, own))
    total = float(nats.sum())
    return {
        "nats": total / nats.size,
        "bits_per_byte": total / math.log(2) / size_bytes,
        "tokens": int(nats.size),
        "counts_nats": float(corpus.nats.mean()),
        "student_weight": float(own.mean()),
        "documents": [
            [float(one), int(count)]
            for one, count in zip(np.add.reduceat(nats, starts[:-1]), np.diff(starts), strict=True)
        ],
        "buckets": {
            "context_count": bucketed(nats, scored.context_count, CONTEXT_COUNTS),
            "match_len": bucketed(nats, scored.match_len, MATCH_LENS),
            "token_frequency": bucketed(nats, scored.token_frequency, TOKEN_FREQUENCIES),
            "copied": bucketed(nats, scored.copied, range(len(COPIED)), COPIED),
        },
        "by_evidence": {
            measure: list(_by_bucket(Buckets({measure: edges}), measure, corpus, own, scored.nats, nats))
            for measure, edges in weights.buckets.edges.items()
        },
    }


def _by_bucket(
    buckets: Buckets, measure: str, corpus: Counted, own: Floats, student: Floats, mixed: Floats
) -> Iterable[dict[str, Any]]:
    number = buckets.of(corpus.evidence)
    tokens = np.bincount(number, minlength=buckets.size)
    columns = {"student_weight": own, "student": student, "counts": corpus.nats, "mixture": mixed}
    sums = {name: np.bincount(number, values, buckets.size) for name, values in columns.items()}
    for place, label in enumerate(buckets.labels(measure)):
        if tokens[place]:
            means = {name: round(float(total[place] / tokens[place]), 4) for name, total in sums.items()}
            yield {"label": label, "tokens": int(tokens[place]), **means}


def fitted_weights(scored: Scored, corpus: Counted) -> MixtureWeights:
    """The weights that make the tuning documents likeliest."""
    return fit_weights(np.exp(-scored.nats), corpus.probability, corpus.evidence)
