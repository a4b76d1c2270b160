"""Figures of the studies, derived again from their rows: numpy and the standard library, nothing of the report's code.

Intervals come from a bootstrap of its own (another seed, ten times the draws), so their ends agree to about 0.003.
"""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[3] / "studies" / "results"
DRAWS = 20_000
Run = tuple[str, ...]  # study, arm, and where there are several: size, budget


@cache
def rows(study: str) -> tuple[dict[str, Any], ...]:
    """All rows of a study."""
    return tuple(json.loads(line) for line in lzma.open(RESULTS / study / "rows.jsonl.xz", "rt", encoding="utf-8"))


@cache
def runs(study: str, arm: str, size: str = "", budget: str = "") -> tuple[dict[str, Any], ...]:
    """The finished runs of an arm by seed; the first size, and budget "base", where none is named."""
    found = [row for row in rows(study) if row["role"] == "run" and row["arm"] == arm]
    sizes, budgets = {row["size"] for row in found}, {row["budget"] for row in found}
    size, budget = size or min(sizes), budget or ("base" if "base" in budgets else "once")
    return tuple(
        sorted((row for row in found if (row["size"], row["budget"]) == (size, budget)), key=lambda row: row["seed"])
    )


def sums(run: Run, domain: str = "in", seeds: frozenset[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Nats of each document under each seed (S, D), of some seeds or all, and the documents' tokens (D,)."""
    some = [row for row in runs(*run) if seeds is None or row["seed"] in seeds]
    documents = np.array([row["metrics"][domain]["documents"] for row in some], dtype=float)
    return documents[:, :, 0], documents[0, :, 1]


def mean(run: Run, metric: str = "nats", domain: str = "in") -> float:
    """The mean of a metric over the seeds."""
    return float(np.mean([row["metrics"][domain][metric] for row in runs(*run)]))


def gap(first: Run, second: Run, metric: str = "nats", domain: str = "in") -> float:
    """First minus second."""
    return mean(first, metric, domain) - mean(second, metric, domain)


def interval(
    function: Callable[..., Any], *some: Run, domain: str | Sequence[str] = "in"
) -> tuple[float, float, float, float]:
    """Value, low, high and p of a number made of the mean losses of some runs, paired over seeds and documents.

    The losses are of one domain, or each run's of its own: the same documents without the counts and with them.
    """
    domains = [domain] * len(some) if isinstance(domain, str) else domain
    common = frozenset.intersection(*(frozenset(row["seed"] for row in runs(*run)) for run in some))
    loaded = [sums(run, one, common) for run, one in zip(some, domains, strict=True)]
    tokens = loaded[0][1]
    assert all(np.array_equal(tokens, other) for _, other in loaded)
    nats = np.stack([one for one, _ in loaded])  # (K, S, D)
    num_seeds, num_documents = nats.shape[1:]
    rng = np.random.default_rng(11)
    of_seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=DRAWS) / num_seeds
    of_seeds = 1 / num_seeds + (of_seeds - 1 / num_seeds) * math.sqrt(num_seeds / max(1, num_seeds - 1))
    of_documents = rng.multinomial(num_documents, np.full(num_documents, 1 / num_documents), size=DRAWS).astype(float)
    by_document = np.einsum("bd,ksd->bks", of_documents, nats) / (of_documents @ tokens)[:, None, None]
    per_seed = nats.sum(axis=2) / tokens.sum()  # (K, S)
    value = float(function(*per_seed.mean(axis=1)))
    joint, seeds, documents = (
        np.var(function(*drawn.T), ddof=1)
        for drawn in (
            np.einsum("bks,bs->bk", by_document, of_seeds),
            np.einsum("ks,bs->bk", per_seed, of_seeds),
            by_document.mean(axis=2),
        )
    )
    as_many = tokens.sum() ** 2 / (tokens**2).sum()  # documents of equal length
    if num_documents > 1:
        joint, documents = joint + documents / (as_many - 1), documents * as_many / (as_many - 1)
    parts = [(seeds, num_seeds - 1), (documents, as_many - 1 if num_documents > 1 else 0)]
    freedom = sum(v for v, f in parts if f) ** 2 / sum(v**2 / f for v, f in parts if f)
    error = math.sqrt(joint)
    width = _quantile(freedom) * error
    return value, value - width, value + width, 2 * _tail(abs(value) / error, freedom)


def difference(first: Run, second: Run, domain: str | Sequence[str] = "in") -> tuple[float, float, float]:
    """First minus second, with its interval."""
    return interval(lambda a, b: a - b, first, second, domain=domain)[:3]


def apart(arm: Run, baseline: Run, other: Run, its_baseline: Run, domain: str = "in") -> tuple[float, float, float]:
    """How far an arm's difference from its baseline lies from another arm's, with its interval."""
    return interval(lambda a, b, c, d: (a - b) - (c - d), arm, baseline, other, its_baseline, domain=domain)[:3]


def exponentials(found: tuple[float, ...]) -> tuple[float, float, float]:
    """Value, low and high of a number whose logarithm's are given."""
    value, low, high = (math.exp(one) for one in found[:3])
    return value, low, high


def speed_up(study: str, arm: str) -> tuple[float, float, float]:
    """Tokens that hard labels need for the arm's loss, over the arm's: between hard labels' two finished budgets."""
    short, long_, own = (study, "hard", "", "base"), (study, "hard", "", "longer"), (study, arm)
    more = runs(*long_)[0]["tokens"] / runs(*short)[0]["tokens"]
    found = interval(lambda a, b, c: (a - c) / (a - b) * math.log(more), short, long_, own)
    return exponentials(found)


@cache
def between(run: Run, budgets: tuple[str, ...], domain: str) -> tuple[float, float, float]:
    """Tokens that hard labels need for the loss of a run, over the run's own, read between their finished runs.

    Losses are linear in the logarithm of tokens. Where hard labels reach that loss at no budget, the arm's own runs are
    read, at the loss that hard labels end with.
    """
    study, arm, size, budget = run
    hard, own = ([(study, one, size, each) for each in budgets] for one in ("hard", arm))
    place = budgets.index(budget)
    longer = math.log(runs(*hard[1])[0]["tokens"] / runs(*hard[0])[0]["tokens"])
    if mean(hard[-1], domain=domain) <= mean(run, domain=domain):
        k = next(k for k in range(len(hard) - 1) if mean(hard[k + 1], domain=domain) <= mean(run, domain=domain))
        found = interval(lambda a, b, c: (k - place + (a - c) / (a - b)) * longer, *hard[k : k + 2], run, domain=domain)
    else:
        k = next(k for k in range(place) if mean(own[k + 1], domain=domain) <= mean(hard[place], domain=domain))
        found = interval(
            lambda a, b, c: (place - k - (a - c) / (a - b)) * longer, *own[k : k + 2], hard[place], domain=domain
        )
    return exponentials(found)


def share(run: Run, budgets: tuple[str, ...], domain: str) -> tuple[float, float, float]:
    """The tokens of a run with the loss that hard labels end with, over theirs: the inverse of `between`."""
    times, low, high = between(run, budgets, domain)
    return 1 / times, 1 / high, 1 / low


@cache
def saving(run: Run, budgets: tuple[str, ...], domain: str) -> tuple[float, float, float]:
    """Tokens that hard labels need, by a law through their finished runs, for the loss of a run; over the run's own."""
    study, _, size, _ = run
    base = [(study, "hard", size, budget) for budget in budgets]
    tokens = np.array([runs(*one)[0]["tokens"] for one in base], dtype=float)
    own = float(runs(*run)[0]["tokens"])

    def log_saving(*losses: Any) -> Any:
        floor, scale, exponent = law(tokens, np.array([np.atleast_1d(one) for one in losses[:-1]]))
        needed = -np.log(np.maximum(losses[-1] - floor, 1e-9) / scale) / exponent
        return (needed + math.log(tokens[0] / own)).reshape(np.shape(losses[-1]))

    return exponentials(interval(log_saving, *base, run, domain=domain))


def law(tokens: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E, A and b of E + A · (tokens / the fewest)^−b for each column of losses (K, draws), by a search over b."""
    best = [np.full(losses.shape[1], value) for value in (math.inf, 0.0, 1.0, 1.0)]
    for exponent in np.geomspace(0.02, 1.5, 120):
        powers = (tokens / tokens[0]) ** -exponent
        slope = (powers - powers.mean()) @ losses / (len(tokens) * np.var(powers))
        level = losses.mean(axis=0) - slope * powers.mean()
        slope = np.where(level < 0, powers @ losses / (powers @ powers), slope)
        level = np.maximum(level, 0.0)
        missed = ((losses - level - slope * powers[:, None]) ** 2).sum(axis=0)
        better = missed < best[0]
        for at, value in enumerate((missed, level, slope, np.full_like(missed, exponent))):
            best[at] = np.where(better, value, best[at])
    return best[1], best[2], best[3]


def lead(run: Run, baseline: Run) -> dict[int, float]:
    """How far a run is ahead of another along the curve, by step."""
    curves = [
        np.mean([[one["nats"] for one in row["history"]] for row in runs(*each)], axis=0) for each in (baseline, run)
    ]
    steps = [one["step"] for one in runs(*run)[0]["history"]]
    return dict(zip(steps, (curves[0] - curves[1]).tolist(), strict=True))


def inside(run: Run, baseline: Run) -> float:
    """Steps of the baseline over those after which a run has the loss that the baseline ends with, on the learning
    curve's tokens: the saving as it is read inside of one run; a mean over the seeds, linear between evaluations."""
    found = []
    for own, other in zip(runs(*run), runs(*baseline), strict=True):
        end = other["history"][-1]
        steps, nats = (np.array([one[name] for one in own["history"]], dtype=float) for name in ("step", "nats"))
        found.append(end["step"] / np.interp(-end["nats"], -nats, steps))
    return float(np.mean(found))


def lowest(run: Run) -> float:
    """The lowest loss along the curves, each seed at its own best evaluation."""
    return float(np.mean([min(one["nats"] for one in row["history"]) for row in runs(*run)]))


def bucket(
    run: Run, baseline: Run, kind: str, labels: Sequence[str], domains: tuple[str, str] = ("in", "in")
) -> tuple[float, float]:
    """Gain on some buckets taken together, and their share of all tokens; domains: of the run and the baseline."""
    kept, total = [0.0, 0.0, 0.0], 0
    for place, each in enumerate((run, baseline)):
        for row in runs(*each):
            for one in row["metrics"][domains[place]]["buckets"][kind]:
                kept[place] += one["tokens"] * one["nats"] if one["label"] in labels else 0.0
                if not place:
                    kept[2] += one["tokens"] * (one["label"] in labels)
                    total += one["tokens"]
    return (kept[1] - kept[0]) / kept[2], kept[2] / total


def of_evidence(run: Run, place: int, column: str, measure: str = "entropy", domain: str = "authors+counts") -> float:
    """The mean over the seeds of a column (student, counts, mixture, student_weight) of one bucket of evidence."""
    return float(np.mean([row["metrics"][domain]["by_evidence"][measure][place][column] for row in runs(*run)]))


def at_end_of_grid() -> tuple[int, int]:
    """Of the different cells of the first studies that were tuned on three rates: how many took the first or the last,
    and all of them."""
    cells: dict[tuple[str, ...], bool] = {}
    for folder in sorted(RESULTS.glob("[0-9]*/rows.jsonl.xz")):
        places: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for row in rows(folder.parent.name):
            places.setdefault((row["arm"], row["size"], row["budget"]), []).append(row)
        for some in places.values():
            tried = sorted(row["learning_rate"] for row in some if row["role"] == "tune")
            ran = [row for row in some if row["role"] == "run"]
            if len(tried) == 3:
                key = tuple(sorted(row["fingerprint"] for row in ran))
                cells[key] = ran[0]["learning_rate"] in (tried[0], tried[-1])
    return sum(cells.values()), len(cells)


def shared_runs() -> int:
    """Trainings that the pilot and questions 2, 6 and 7 have in common."""
    studies = ("0-pilot", "2-label-smoothing", "6-blend", "7-self-distillation")
    each = [
        {row["fingerprint"] for row in rows(study) if row["role"] == "run" and row["budget"] == "base"}
        for study in studies
    ]
    return len(set.intersection(*each))


def yardstick(name: str) -> float:
    """The loss of counts alone, as studies/yardsticks.py measured it."""
    return float(json.loads((RESULTS / "yardsticks.json").read_text(encoding="utf-8"))["nats"][name])


def _tail(t: float, freedom: float) -> float:
    """P(T > t), by Simpson's rule on the tangent's angle."""
    angles = np.linspace(math.atan(t / math.sqrt(freedom)), math.pi / 2, 4001)
    heights = np.cos(angles) ** (freedom - 1)
    weights = np.where(np.arange(4001) % 2, 4.0, 2.0)
    weights[[0, -1]] = 1.0
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return float(scale * (weights @ heights) * (angles[1] - angles[0]) / 3)


def _quantile(freedom: float) -> float:
    """97.5 % of Student's t."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(middle, freedom) > 0.025 else (low, middle)
    return low
