"""The naive twin of the blend: a loop over positions, on dense rows in float64, that follows the policy's words."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from corpus_teacher.blend import COMPONENTS, Components, DenseTargets, Evidence, Policy, Reason
from corpus_teacher.targets.soft import SoftTargets

from .dense_losses import dense_rows

Row = list[float]


def dense_of(components: Components, name: str) -> list[Row]:
    """Probabilities of a teacher, a list of V a position."""
    targets = components.targets_of(name)
    if isinstance(targets, DenseTargets):
        return targets.logits.double().softmax(-1).tolist()
    assert isinstance(targets, SoftTargets)
    return dense_rows(targets, targets.vocab_size).tolist()


def entropy_of(row: Row) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


def naive_measure(components: Components, evidence: Evidence, component: str, q: int) -> float | None:
    """One measure at one position; None where it isn't known."""
    corpus = components.corpus
    if evidence.by in ("match_len", "count", "distinct"):
        values = {
            "match_len": lambda: corpus.match_len,
            "count": lambda: corpus.context_count,
            "distinct": lambda: components.distinct,
        }[evidence.by]()
        return float(values[q]) if corpus.valid[q] else None
    if evidence.by in ("entropy", "label_probability"):
        of = evidence.of or component
        if not components.targets_of(of).valid[q]:
            return None
        row = dense_of(components, of)[q]
        if evidence.by == "entropy":
            return entropy_of(row)
        label = int(components.labels[q])
        return None if label < 0 else (row[label] if label < len(row) else 0.0)
    of = evidence.of or "neural"
    if not (corpus.valid[q] and components.targets_of(of).valid[q]):
        return None
    p, other = dense_of(components, "corpus")[q], dense_of(components, of)[q]
    if evidence.by == "top1_agreement":
        return float(p.index(max(p)) == other.index(max(other)))
    explicit = corpus.token_ids[corpus.offsets[q] : corpus.offsets[q + 1]].tolist()
    merged = [[row[w] for w in explicit if w < len(row)] for row in (p, other)]
    both = [[*part, max(0.0, 1 - sum(part))] for part in merged]
    if evidence.by == "overlap":
        return sum(map(min, *both))
    middle = [(a + b) / 2 for a, b in zip(*both, strict=True)]
    return (entropy_of(middle) - (entropy_of(both[0]) + entropy_of(both[1])) / 2) / math.log(2)


def naive_factor(evidence: Evidence, x: float | None) -> float:
    if x is None:
        return 0.0
    if evidence.half is not None:
        return x / (x + evidence.half)
    return min(1.0, max(0.0, (x - evidence.low) / (evidence.high - evidence.low)))


def naive_speaks(policy: Policy, components: Components, name: str, q: int) -> bool:
    """Whether a component or fallback has something to say at a position that has a label."""
    corpus = components.corpus
    if name == "hard":
        return True
    if name == "base":
        return corpus is not None
    if name in ("neural", "self"):
        targets = components.targets_of(name)
        return targets is not None and bool(targets.valid[q])
    if corpus is None or not corpus.valid[q] or corpus.context_count[q] < policy.min_count:
        return False
    match_len = int(corpus.match_len[q])
    if name == "corpus":
        return match_len >= policy.min_match_len
    return policy.shorter_match_len <= match_len < policy.min_match_len


def naive_blend(policy: Policy, step: int, components: Components) -> tuple[Tensor, list[Reason]]:
    """Weights (Q, 5) in float64, and the reasons."""
    routed = naive_routed(policy, components)
    all_weights, reasons = [], []
    for q, label in enumerate(components.labels.tolist()):
        weights, reason = dict.fromkeys(COMPONENTS, 0.0), None
        if label == -100:
            all_weights.append(list(weights.values()))
            reasons.append(Reason.NONE)
            continue
        asked = policy.asked(step)
        others = [name for name in asked if name != policy.remainder]
        left = asked.get(policy.remainder, 0.0)
        for name in [*others, policy.remainder]:
            amount = left if name == policy.remainder else asked[name]
            if naive_speaks(policy, components, name, q):
                factor = 1.0
                for evidence in policy.shares[name].evidence if name in others else ():
                    factor *= naive_factor(evidence, naive_measure(components, evidence, name, q))
                weights[name] += amount * factor
                left += amount * (1 - factor)
            else:
                taker = next(f for f in (*policy.fallbacks, "hard") if naive_speaks(policy, components, f, q))
                weights["corpus" if taker == "shorter" else taker] += amount
                if reason is None and amount > 0:
                    told = "CORPUS_SHORTER" if taker == "shorter" else f"{taker.upper()}_FALLBACK"
                    reason = Reason[told]
        if q in routed:
            weights, reason = dict.fromkeys(COMPONENTS, 0.0) | {"hard": 1.0}, Reason.ROUTED
        if reason is None:
            soft = [name for name in COMPONENTS[1:] if weights[name] > 0]
            reason = Reason[max(soft, key=weights.__getitem__).upper()] if soft else Reason.HARD
        all_weights.append(list(weights.values()))
        reasons.append(reason)
    return torch.tensor(all_weights, dtype=torch.float64), reasons


def naive_routed(policy: Policy, components: Components) -> set[int]:
    if policy.routing is None:
        return set()
    valid, labels = components.targets_of(policy.routing.by).valid, components.labels
    eligible = [q for q in range(len(labels)) if valid[q] and labels[q] != -100]
    rows = dense_of(components, policy.routing.by)
    order = sorted(eligible, key=lambda q: entropy_of(rows[q]))
    return set(order[: math.floor(policy.routing.share * len(eligible) + 1e-9)])
