"""A policy put to a batch: the weight of every component at every position, and the reason why.

The naive definition is a loop over positions that follows `corpus_teacher.blend.policy` word for word
(tests/teacher/naive_blend.py). Here each rule is a few operations on (Q,) tensors, and nothing waits for an
accelerator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from corpus_teacher.blend.adaptive import AdaptiveWeights
from corpus_teacher.blend.components import COMPONENTS, Components, Reason
from corpus_teacher.blend.evidence import entropy, label_probability
from corpus_teacher.blend.policy import Policy, Routing
from corpus_teacher.errors import ConfigError

_COLUMN = {name: column for column, name in enumerate(COMPONENTS)}
_FALLBACK = {
    "hard": Reason.HARD_FALLBACK,
    "corpus": Reason.CORPUS_FALLBACK,
    "shorter": Reason.CORPUS_SHORTER,
    "neural": Reason.NEURAL_FALLBACK,
    "self": Reason.SELF_FALLBACK,
    "base": Reason.BASE_FALLBACK,
}
_SCALE_SUM = len(Reason) + len(COMPONENTS)


@dataclass(frozen=True, eq=False)
class Blend:
    """Who teaches each of Q positions.

    Attributes
    ----------
    weights : Tensor of shape (Q, 5), float32
        Of the components in the order of `COMPONENTS`; at least 0, and the sum is 1 at every position that has a label,
        0 at the others.
    reasons : Tensor of shape (Q,), int64
        A `Reason` each.
    scale : Tensor of shape (Q,), float32
        The weight of the position itself: 1, less under complementary weighting, 0 without a label.
    used : frozenset of str
        Components that may have weight in some position.
    """

    weights: Tensor
    reasons: Tensor
    scale: Tensor
    used: frozenset[str]

    @property
    def num_positions(self) -> int:
        """Q."""
        return self.weights.shape[0]

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], reasons: Tensor, scale: Tensor) -> Blend:
        """A blend of the weights of some components by name, (Q,) each; the others have none."""
        nothing = torch.zeros_like(scale)
        columns = [weights.get(name, nothing) for name in COMPONENTS]
        return cls(torch.stack(columns, 1).to(scale), reasons, scale, frozenset(weights))

    def weight_of(self, name: str) -> Tensor:
        """The weight of a component at every position, (Q,)."""
        return self.weights[:, _COLUMN[name]]

    def without_labels(self) -> Blend:
        """The blend for text that has no labels, such as the student's own: the weight of the label goes to the others,
        in their proportions; where they have none, the position counts no more.

        Raises
        ------
        ConfigError
            Nobody but the label teaches.
        """
        if self.used == {"hard"}:
            raise ConfigError(
                "the student's own text has no label and no soft teacher: give it a corpus or neural teacher"
            )
        weights = self.weights.clone()
        weights[:, _COLUMN["hard"]] = 0
        total = weights.sum(1)
        taught = total > 0
        weights = torch.where(taught[:, None], weights / torch.where(taught, total, 1)[:, None], 0)
        reasons = torch.where(taught, self.reasons, int(Reason.NONE))
        return Blend(weights, reasons, torch.where(taught, self.scale, 0), self.used)


class BlendReport:
    """Shares of the reasons and mean weights, over as many batches as are added.

    Attributes
    ----------
    totals : Tensor of shape (19,), float64
        Positions of each reason, the sum of each component's weights, and that of the scales: on the device of the
        batches, so that adding waits for nothing. Sum it over processes to report all of them.

    Examples
    --------
    >>> report = BlendReport()
    >>> report.add(blend(Policy({"neural": 0.25}), 0, Components(torch.tensor([3, -100]), neural=torch.zeros(2, 4))))
    >>> report.logs()
    {'share_neural': 1.0, 'weight_hard': 0.75, 'weight_neural': 0.25, 'position_weight': 1.0}
    """

    def __init__(self) -> None:
        self.totals = torch.zeros(_SCALE_SUM + 1, dtype=torch.float64)

    def add(self, made: Blend) -> None:
        """Count a batch."""
        reasons = torch.zeros(len(Reason), dtype=torch.float64, device=made.reasons.device)
        reasons = reasons.index_add(0, made.reasons, torch.ones_like(made.scale, dtype=torch.float64))
        sums = torch.cat([made.weights, made.scale[:, None]], 1).double().sum(0)
        self.totals = self.totals.to(reasons.device) + torch.cat([reasons, sums])

    def clear(self) -> None:
        """Forget all batches."""
        self.totals = torch.zeros_like(self.totals)

    @property
    def positions(self) -> int:
        """Positions with a label."""
        counts = self.totals[: len(Reason)]
        return int(counts.sum() - counts[Reason.NONE])

    def shares(self) -> dict[str, float]:
        """The share of each reason among the positions with a label, by its label; they sum to 1, or all are 0."""
        most = max(self.positions, 1)
        values = self.totals.tolist()
        return {reason.label: values[reason] / most for reason in Reason if reason is not Reason.NONE}

    def mean_weights(self) -> dict[str, float]:
        """The mean weight of each component over the positions with a label; they sum to 1, or all are 0."""
        most = max(self.positions, 1)
        values = self.totals[len(Reason) : _SCALE_SUM].tolist()
        return {name: value / most for name, value in zip(COMPONENTS, values, strict=True)}

    @property
    def mean_scale(self) -> float:
        """The mean weight of a position with a label: 1 without complementary weighting."""
        return float(self.totals[_SCALE_SUM]) / max(self.positions, 1)

    def logs(self) -> dict[str, float]:
        """What there was of all of it, for a logger: share_… of reasons, weight_… of components, position_weight."""
        logs = {f"share_{name}": share for name, share in self.shares().items() if share}
        logs |= {f"weight_{name}": weight for name, weight in self.mean_weights().items() if weight}
        return logs | {"position_weight": self.mean_scale}


def blend(policy: Policy, step: int, components: Components, adaptive: AdaptiveWeights | None = None) -> Blend:
    """Give the positions of a batch to their teachers.

    Parameters
    ----------
    policy : Policy
    step : int
        Optimizer step, from 0.
    components : Components
        Of Q positions.
    adaptive : AdaptiveWeights, optional
        Of an adaptive policy: as they are when the batch is read.

    Returns
    -------
    Blend
        On the device of the labels; no gradient flows through it.

    Raises
    ------
    ConfigError
        A component that the policy gives weight to, or asks about, isn't given. (As a fallback it may be absent.)

    Notes
    -----
    A few operations on (Q,) tensors a component and fallback; what evidence costs beside, `evidence` says.

    Examples
    --------
    >>> from corpus_teacher.blend import DenseTargets
    >>> cached = DenseTargets(torch.zeros(2, 4), valid=torch.tensor([True, False]))
    >>> made = blend(Policy({"neural": 0.25}, fallbacks=("hard",)), 0, Components(torch.tensor([3, 1]), neural=cached))
    >>> made.weights.tolist(), [Reason(reason).label for reason in made.reasons.tolist()]
    ([[0.75, 0.0, 0.25, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]], ['neural', 'hard-fallback'])
    """
    _check_given(policy, components)
    if policy.adaptive is not None and adaptive is None:
        raise ConfigError("the policy is adaptive: give its weights, AdaptiveWeights(policy.adaptive)")
    with torch.no_grad():
        counted = components.counted
        speaks = _who_speaks(policy, components)
        asked = policy.asked(step)
        weights = torch.zeros(counted.shape[0], len(COMPONENTS), dtype=torch.float64, device=counted.device)
        left = torch.full_like(weights[:, 0], asked.get(policy.remainder, 0.0))
        silent = torch.zeros_like(left)  # what is asked of components that don't speak
        for name in (name for name in asked if name != policy.remainder):
            own = torch.full_like(left, asked[name])
            for evidence in policy.shares[name].evidence:
                own = own * evidence(components, name)
            if name == "corpus" and policy.adaptive is not None and adaptive is not None:
                own = own * adaptive.factor(components)
            weights[:, _COLUMN[name]] = torch.where(speaks[name], own, 0)
            left = torch.where(speaks[name], left + asked[name] - own, left)
            silent = torch.where(speaks[name], silent, silent + asked[name])
        weights[:, _COLUMN[policy.remainder]] = torch.where(speaks[policy.remainder], left, 0)
        silent = torch.where(speaks[policy.remainder], silent, silent + left)
        reasons = _hand_over(policy, speaks, weights, silent)
        most, column = weights[:, 1:].max(1)
        # the reasons from CORPUS on stand in the order of the columns
        as_asked = torch.where(most > 0, Reason.CORPUS + column, int(Reason.HARD))
        reasons = torch.where(counted & (reasons == Reason.NONE), as_asked, reasons)
        if policy.routing is not None:
            routed = _routed(policy.routing, components)
            label_alone = (torch.arange(len(COMPONENTS), device=weights.device) == _COLUMN["hard"]).to(weights)
            weights = torch.where(routed[:, None], label_alone, weights)
            reasons = torch.where(routed, Reason.ROUTED, reasons)
        scale = counted.float()
        if policy.complementary:
            probability, known = label_probability(components, "corpus")
            scale = scale * (1 - policy.complementary * torch.where(known, probability, 0).clamp(0, 1))
        return Blend(weights.float(), reasons, scale, _used(policy, asked, components))


def _hand_over(policy: Policy, speaks: dict[str, Tensor], weights: Tensor, silent: Tensor) -> Tensor:
    """Give the weight of the silent to the first fallback that speaks; the reasons where there was any, else NONE."""
    reasons = torch.full_like(silent, Reason.NONE, dtype=torch.int64)
    waiting = speaks["hard"] & (silent > 0)
    for fallback in (*policy.fallbacks, "hard"):
        takes = waiting & speaks[fallback]
        weights[:, _COLUMN["corpus" if fallback == "shorter" else fallback]] += torch.where(takes, silent, 0)
        reasons.masked_fill_(takes, _FALLBACK[fallback])
        waiting = waiting & ~takes
    return reasons


def _used(policy: Policy, asked: dict[str, float], components: Components) -> frozenset[str]:
    """The components that may have weight somewhere, told without a look at the weights."""
    used = {"hard", *asked}
    if policy.adaptive is not None or any(policy.shares[name].evidence for name in asked.keys() & policy.shares.keys()):
        used.add(policy.remainder)
    if used != {"hard"}:  # which is never silent
        used.update("corpus" if name == "shorter" else name for name in policy.fallbacks)
    return frozenset(used.intersection(components.given))


def _check_given(policy: Policy, components: Components) -> None:
    there = {*components.given, *components.evidence, *(["student"] if components.student is not None else [])}
    missing = sorted(policy.needs - there)
    if missing:
        name = missing[0]
        raise ConfigError(
            f"the policy needs {name!r}, which isn't given: give {'self_teacher' if name == 'self' else name}, "
            "or a policy without it"
        )


def _who_speaks(policy: Policy, components: Components) -> dict[str, Tensor]:
    """Where each component and fallback has something to say, (Q,) bool; only at positions with a label."""
    counted = components.counted
    nobody = torch.zeros_like(counted)
    speaks = {"hard": counted, "corpus": nobody, "shorter": nobody, "base": nobody}
    for name in ("neural", "self"):
        targets = components.targets_of(name)
        speaks[name] = nobody if targets is None else counted & targets.valid
    corpus = components.corpus
    if corpus is not None:
        often = counted & corpus.valid & (corpus.context_count >= policy.min_count)
        long = corpus.match_len >= policy.min_match_len
        speaks["corpus"] = often & long
        speaks["shorter"] = often & ~long & (corpus.match_len >= policy.shorter_match_len)
        speaks["base"] = counted
    return speaks


def _routed(routing: Routing, components: Components) -> Tensor:
    """The most certain positions, (Q,) bool."""
    nats, known = entropy(components, routing.by)
    eligible = known & components.counted
    order = torch.where(eligible, nats, torch.inf).argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(order.shape[0], device=order.device)
    most = (eligible.sum().double() * routing.share + 1e-9).floor()  # 0.29 · 100 is a little less than 29
    return eligible & (place < most)
