"""Weights that follow who is better: the corpus teaches a position as much as the student still needs it there.

Two figures are known at no cost while a student reads a text for the first time: what it gave to the token that came,
and what the corpus gave, the position's document left out. So, in each bucket of evidence
(`corpus_teacher.blend.interpolation.EDGES`), the weight λ of the student that maximises
``log(λ · student + (1 − λ) · corpus)`` is followed by online expectation maximisation (Cappé and Moulines 2009), and
the corpus' share of the target is multiplied by ``(1 − λ) ** power``: it goes to 0 where the student has passed it.

Naively, after each step, for each bucket b with its n tokens of the step, all tokens of the step being N:

    share = Σ λ p / (λ p + (1 − λ) q)                       over the n tokens, p the student's and q the corpus'
    credited[b] = credited[b] · exp(−N / memory) + share    tokens[b] = tokens[b] · exp(−N / memory) + n
    λ[b] = (credited[b] + prior · λ_all) / (tokens[b] + prior)

with λ_all the same over all buckets, drawn to `first` by as many tokens. On a text that is read again the student's
figure is no longer honest, and λ too high.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from corpus_teacher.blend.components import Components, CorpusTargets
from corpus_teacher.blend.evidence import label_probability
from corpus_teacher.blend.interpolation import EDGES, Buckets, MixtureWeights
from corpus_teacher.errors import ConfigError
from corpus_teacher.settings import check_share, is_number, make_switched

_LEAST = 0.01  # a weight of 0 would never rise again


@dataclass(frozen=True)
class Adaptive:
    """Settings of an adaptive weight of the corpus.

    Parameters
    ----------
    memory : float
        Tokens of text after which what was seen counts 1/e of what is new.
    prior : float
        Tokens by which a bucket is drawn to the weight of all.
    first : float
        The student's weight before anything is known, 0 to 1.
    power : float
        The corpus' share of the target is multiplied by ``(1 − λ) ** power``.
    edges : mapping of str to list of float
        Where buckets begin, as in `Buckets`.

    Raises
    ------
    ConfigError
        A setting out of range.
    """

    memory: float = 50_000
    prior: float = 50
    first: float = 0.25
    power: float = 1.0
    edges: Mapping[str, Any] = field(default_factory=lambda: {name: list(edges) for name, edges in EDGES.items()})

    def __post_init__(self) -> None:
        check_share(self.first, "first")
        for name in ("memory", "prior", "power"):
            value = getattr(self, name)
            if not is_number(value) or value <= 0:
                raise ConfigError(f"{name} is {value!r}: give a positive number")
        edges = Buckets(self.edges).edges
        object.__setattr__(self, "edges", {name: list(values) for name, values in edges.items()})

    def to_dict(self) -> dict[str, Any]:
        """The table that `make_adaptive` makes these settings of."""
        return asdict(self)


def make_adaptive(said: Any, where: str = "policy.adaptive") -> Adaptive | None:
    """Settings of a table, or of true for all defaults; of false none.

    Raises
    ------
    ConfigError
        Anything else, an unknown key or a value out of range.
    """
    return make_switched(Adaptive, said, where)


class AdaptiveWeights:
    """The state of an adaptive weight: what is remembered of each bucket.

    Parameters
    ----------
    settings : Adaptive

    Attributes
    ----------
    sums : Tensor of shape (2, buckets), float64
        What was credited to the student, and the tokens that there were, faded.
    pending : Tensor of shape (2, buckets), float64
        The same of the batches since the last `step`; sum it over processes before that, so that all go on alike.

    Examples
    --------
    >>> weights = AdaptiveWeights(Adaptive(first=0.25))
    >>> weights.student_weights().unique().tolist()
    [0.25]
    """

    def __init__(self, settings: Adaptive) -> None:
        self.settings = settings
        self.buckets = Buckets(settings.edges)
        self.sums = torch.zeros(2, self.buckets.size, dtype=torch.float64)
        self.pending = torch.zeros_like(self.sums)

    def student_weights(self) -> Tensor:
        """λ of each bucket, (buckets,) float64."""
        prior = self.settings.prior
        credited, tokens = self.sums
        of_all = (credited.sum() + prior * self.settings.first) / (tokens.sum() + prior)
        return ((credited + prior * of_all) / (tokens + prior)).clamp(_LEAST, 1 - _LEAST)

    def bucket_of(self, components: Components) -> Tensor:
        """The bucket of each position, (Q,) int64."""
        corpus = components.corpus
        if corpus is None:
            raise ConfigError("the policy is adaptive and needs 'corpus', which isn't given: give corpus")
        return bucket_numbers(self.buckets, corpus)

    def factor(self, components: Components) -> Tensor:
        """What the corpus' weight is multiplied by at each position, (Q,) float64."""
        self._move(components.labels.device)
        left = (1 - self.student_weights()) ** self.settings.power
        return left[self.bucket_of(components)]

    def note(self, components: Components, label_nats: Tensor) -> None:
        """Add a batch to what is pending: whom each of its tokens is credited to.

        Parameters
        ----------
        components : Components
        label_nats : Tensor of shape (Q,)
            −log p of the student for each label, detached.
        """
        self._move(components.labels.device)
        with torch.no_grad():
            q, known = label_probability(components, "corpus")
            number = self.bucket_of(components)
            own = self.student_weights()[number]
            ours, theirs = own * (-label_nats.double()).exp(), (1 - own) * q.double()
            whole = ours + theirs
            known = known & (whole > 0)
            share = torch.where(known, ours / torch.where(known, whole, 1), 0)
            added = torch.zeros_like(self.sums)
            added[0].index_add_(0, number, share)
            added[1].index_add_(0, number, known.double())
            self.pending += added

    def step(self, pending: Tensor | None = None) -> None:
        """End an optimizer step: fade what is remembered, and add what is pending (or its sum over all processes)."""
        added = self.pending if pending is None else pending.to(self.sums)
        self.sums = self.sums * math.exp(-float(added[1].sum()) / self.settings.memory) + added
        self.pending = torch.zeros_like(self.sums)

    def mixture(self) -> MixtureWeights:
        """The weights as they are, for counts at inference."""
        return MixtureWeights(
            self.buckets, self.student_weights().cpu().numpy(), self.sums[1].round().long().cpu().numpy()
        )

    def logs(self) -> dict[str, float]:
        """For a logger: student_weight, and by each measure student_weight_MEASURE_FROM, tokens that are remembered."""
        tokens = self.sums[1].cpu()
        weights = self.student_weights().cpu()
        total = tokens.sum()
        if not total:
            return {"student_weight": float(weights.mean())}
        told = {"student_weight": float((weights * tokens).sum() / total)}
        shape = self.buckets.shape
        for axis, (name, edges) in enumerate(self.buckets.edges.items()):
            others = [other for other in range(len(shape)) if other != axis]
            of_bucket = tokens.reshape(shape).sum(others) if others else tokens
            credited = (weights * tokens).reshape(shape).sum(others) if others else weights * tokens
            for begin, some, own in zip((0, *edges), of_bucket.tolist(), credited.tolist(), strict=True):
                if some:
                    told[f"student_weight_{name}_{begin:g}"] = own / some
        return told

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"settings": self.settings.to_dict(), "sums": self.sums.cpu()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises
        ------
        ConfigError
            A state of other settings.
        """
        if state.get("settings") != self.settings.to_dict():
            raise ConfigError(
                "the checkpoint's adaptive weights have other settings: resume with those it was begun with"
            )
        self.sums = state["sums"].to(self.sums)
        self.pending = torch.zeros_like(self.sums)

    def _move(self, device: torch.device) -> None:
        self.sums, self.pending = self.sums.to(device), self.pending.to(device)


def bucket_numbers(buckets: Buckets, corpus: CorpusTargets) -> Tensor:
    """The bucket of each of the corpus' targets, (Q,) int64, where they are."""
    measures = {
        "match_len": lambda: corpus.match_len,
        "entropy": corpus.entropy,
        "count": lambda: corpus.context_count,
    }
    number = torch.zeros_like(corpus.match_len, dtype=torch.int64)
    for name, edges in buckets.edges.items():
        values = measures[name]().double()
        begins = torch.tensor(edges, dtype=torch.float64, device=values.device)
        number = number * (len(edges) + 1) + torch.bucketize(values, begins, right=True)
    return number
