"""A policy: which component teaches a position, how much, and who takes over where it is silent.

It is made of parts that combine freely, in code or from a TOML table (`make_policy`)::

    asked[i] = weight[i] · schedule[i](step)                      the same at every position
    w[i, q]  = asked[i] · Π evidence[i](q)                        where component i speaks
    w[remainder, q] = 1 − Σ of the others                         what none of them takes

Under an adaptive policy (`corpus_teacher.blend.adaptive`) the corpus has one factor more, which follows who of student
and corpus is better. Where i is silent, asked[i] goes to the first of `fallbacks` that speaks there, and to the hard
label if none does. At the most certain positions (`Routing`) the hard label has all of the weight. Last,
`complementary` lowers the weight of whole positions. So the weights of the components always sum to 1, and a mixture
of targets stays a target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from corpus_teacher.blend.adaptive import Adaptive, make_adaptive
from corpus_teacher.blend.components import COMPONENTS
from corpus_teacher.blend.evidence import SPEAKERS, Evidence, make_evidence
from corpus_teacher.blend.schedules import Schedule, make_schedule, schedule_to_dict
from corpus_teacher.errors import ConfigError
from corpus_teacher.settings import (
    check_keys,
    check_known,
    check_share,
    check_whole,
    is_number,
    make_from,
    within,
)

FALLBACKS = ("corpus", "shorter", "neural", "self", "base", "hard")
"""Who may take over; "shorter" is the corpus teacher with a shorter context than the policy asks for."""

_ROUND_OFF = 1e-9


@dataclass(frozen=True)
class Share:
    """The weight of one component.

    Parameters
    ----------
    weight : float
        Share of the target, 0 to 1.
    schedule : LinearSchedule, CosineSchedule or EarlyOnlySchedule, optional
        Factor by the step; 1 by default.
    evidence : tuple of Evidence
        Factors by position, multiplied; what they take away goes to the policy's remainder.

    Raises
    ------
    ConfigError
        A weight outside [0, 1].
    """

    weight: float
    schedule: Schedule | None = None
    evidence: tuple[Evidence, ...] = ()

    def __post_init__(self) -> None:
        check_share(self.weight, "weight")
        object.__setattr__(self, "evidence", tuple(self.evidence))

    def at(self, step: int) -> float:
        """The weight that is asked for at a step."""
        return self.weight * (1.0 if self.schedule is None else self.schedule(step))

    def to_dict(self) -> dict[str, Any]:
        """The table that this share is made of."""
        table: dict[str, Any] = {"weight": self.weight}
        if self.schedule is not None:
            table["schedule"] = schedule_to_dict(self.schedule)
        if self.evidence:
            table["evidence"] = [evidence.to_dict() for evidence in self.evidence]
        return table


def _greatest(shares: tuple[Share, ...]) -> tuple[float, int]:
    """What some shares sum to where they ask for most, and the step: one may rise while another falls.

    Looked at are the turns of their schedules and a thousand steps between any two of them.
    """
    turns = sorted({0, *(turn for share in shares if share.schedule is not None for turn in share.schedule.turns)})
    steps = {step for a, b in pairwise(turns) for step in range(a, b, max(1, (b - a) // 1000))} | set(turns)
    found = ((sum(share.at(step) for share in shares), -step) for step in steps)
    total, before = max(found)
    return total, -before


@dataclass(frozen=True)
class Routing:
    """Leave the most certain positions to the hard label.

    Soft targets help where the teacher is unsure, and can blur what should be copied where it is sure: Goyal, Lopez-Paz
    and Ahuja (2025, arXiv 2509.01649) leave the 15 % with the lowest teacher entropy undistilled. `by` the student is
    the choice of positions of Tavor et al. (2026, arXiv 2602.01395).

    Parameters
    ----------
    share : float
        Share of the positions that have a label and a valid target of `by`, 0 to 1: ``⌊share · n⌋`` of the n in the
        batch with the least entropy; of equal ones the earlier.
    by : {"corpus", "neural", "self", "student"}
        Whose entropy says what is certain.

    Raises
    ------
    ConfigError
        A share outside [0, 1], or an unknown teacher.

    Notes
    -----
    The quantile is that of the batch at hand (of one pass of one process): large batches make it stable.
    """

    share: float = 0.15
    by: str = "corpus"

    def __post_init__(self) -> None:
        check_share(self.share, "share")
        check_known(self.by, SPEAKERS, "by")


@dataclass(frozen=True)
class Policy:
    """Who teaches what; see the module for the formulas.

    Parameters
    ----------
    shares : mapping of component to Share or float
        Of "hard", "corpus", "neural", "self", "base"; not of the remainder. They sum to at most 1 at every step.
    remainder : str
        The component that takes what the others leave.
    fallbacks : tuple of str
        In this order, who takes the weight of a component that is silent; of `FALLBACKS`, the hard label always last.
    min_match_len, min_count : int
        The corpus speaks where its context matched so many tokens, and occurs so often.
    shorter_match_len : int
        "shorter" speaks where the match is shorter than `min_match_len`, but at least so many tokens.
    routing : Routing, optional
        Leaves certain positions to the hard label.
    complementary : float
        Strength a, 0 to 1, of a weight ``1 − a · p(label)`` of the whole position, p the corpus teacher's: less where
        the n-gram knows already. From the "complementary training" of parameter-golf's contributors (2026, with bigrams
        and a = 0.5); the aim is that of Li et al. (2022, arXiv 2210.14431), who fit what an n-gram leaves by adding its
        logarithms to the logits. It is not rescaled: the more the corpus knows, the smaller the gradients.
    adaptive : Adaptive, optional
        The corpus' weight follows who is better; its share is 1 unless given. `blend` then takes `AdaptiveWeights`.

    Raises
    ------
    ConfigError
        A setting that is unknown or out of range, or shares of more than 1.

    Examples
    --------
    >>> policy = Policy({"corpus": 0.5}, fallbacks=("shorter", "hard"))
    >>> policy.asked(step=0)
    {'hard': 0.5, 'corpus': 0.5}
    """

    shares: Mapping[str, Share] = field(default_factory=dict)
    remainder: str = "hard"
    fallbacks: tuple[str, ...] = ("corpus", "shorter", "neural", "base", "hard")
    min_match_len: int = 1
    min_count: int = 1
    shorter_match_len: int = 1
    routing: Routing | None = None
    complementary: float = 0.0
    adaptive: Adaptive | None = None

    def __post_init__(self) -> None:
        check_known(self.remainder, COMPONENTS, "remainder")
        shares = {}
        if self.adaptive is not None and self.remainder == "corpus":
            raise ConfigError(
                "the policy is adaptive and its remainder is 'corpus': leave the remainder to another one"
            )
        given = {"corpus": Share(1.0)} if self.adaptive is not None and "corpus" not in self.shares else {}
        for name, share in {**self.shares, **given}.items():
            check_known(name, COMPONENTS, "a component")
            if name == self.remainder:
                raise ConfigError(f"{name!r} is the remainder and has a weight: give one or the other")
            with within(name):
                shares[name] = share if isinstance(share, Share) else Share(share)
        total, step = _greatest(tuple(shares.values()))
        if total > 1 + _ROUND_OFF:
            when = f" at step {step}" if any(share.schedule for share in shares.values()) else ""
            raise ConfigError(
                f"the weights sum to {total:g}{when}: give at most 1, what is left goes to {self.remainder!r}"
            )
        object.__setattr__(self, "shares", {name: shares[name] for name in COMPONENTS if name in shares})
        self._check_fallbacks()
        for name in ("min_match_len", "min_count", "shorter_match_len"):
            check_whole(getattr(self, name), name, 0)
        check_share(self.complementary, "complementary")

    def _check_fallbacks(self) -> None:
        if isinstance(self.fallbacks, str) or not isinstance(self.fallbacks, (list, tuple)):
            raise ConfigError(f"fallbacks is {self.fallbacks!r}: give a list of {', '.join(FALLBACKS)}")
        for number, name in enumerate(self.fallbacks):
            check_known(name, FALLBACKS, f"fallbacks[{number}]")
            if name in self.fallbacks[:number]:
                raise ConfigError(f"fallbacks names {name!r} twice: name each once")
            if number and self.fallbacks[number - 1] == "hard":
                raise ConfigError(f"fallbacks has {name!r} after 'hard', which always speaks: put 'hard' last")
        object.__setattr__(self, "fallbacks", tuple(self.fallbacks))

    def asked(self, step: int) -> dict[str, float]:
        """The weights at a step before anything is known of a position: at least 0, sum 1; without zeros."""
        asked = {name: share.at(step) for name, share in self.shares.items()}
        left = 1 - sum(asked.values())
        asked[self.remainder] = left if left > _ROUND_OFF else 0.0
        return {name: asked[name] for name in COMPONENTS if asked.get(name, 0) > 0}

    @property
    def needs(self) -> frozenset[str]:
        """What a batch has to have, as in `Components` ("self" for self_teacher); fallbacks may be absent."""
        needed = {name for name, share in self.shares.items() if share.weight > 0} | {self.remainder}
        for name, share in self.shares.items():
            needed.update(*(evidence.needs(name) for evidence in share.evidence))
        if self.routing is not None:
            needed.add(self.routing.by)
        if self.complementary or self.adaptive is not None:
            needed.add("corpus")
        return frozenset("corpus" if name == "base" else name for name in needed)

    @property
    def soft(self) -> frozenset[str]:
        """The soft teachers among its `needs`: of "corpus", "neural" and "self"."""
        return self.needs & frozenset(COMPONENTS) - {"hard"}

    @property
    def evidence(self) -> frozenset[str]:
        """What a batch has to carry beside the targets: names of `CorpusTeacher.evidence`."""
        return self.needs - frozenset(COMPONENTS) - {"student"}

    def to_dict(self) -> dict[str, Any]:
        """The whole table that `make_policy` makes this policy of: the resolved configuration.

        Examples
        --------
        >>> policy = make_policy({"corpus": 0.5, "routing": {"share": 0.1}})
        >>> make_policy(policy.to_dict()) == policy
        True
        """
        table: dict[str, Any] = {
            "remainder": self.remainder,
            "fallbacks": list(self.fallbacks),
            "min_match_len": self.min_match_len,
            "min_count": self.min_count,
            "shorter_match_len": self.shorter_match_len,
            "complementary": self.complementary,
        }
        if self.routing is not None:
            table["routing"] = asdict(self.routing)
        if self.adaptive is not None:
            table["adaptive"] = self.adaptive.to_dict()
        return table | {name: share.to_dict() for name, share in self.shares.items()}


def make_policy(table: Mapping[str, Any]) -> Policy:
    """A policy of a table, as TOML gives it.

    Parameters
    ----------
    table : mapping
        The settings of `Policy` by their names, and for each component a number (its weight) or a table with weight,
        schedule (`make_schedule`) and evidence (a list, `make_evidence`).

    Returns
    -------
    Policy

    Raises
    ------
    ConfigError
        An unknown key (with the nearest known one) or a value out of range.

    Examples
    --------
    >>> policy = make_policy({
    ...     "corpus": {"weight": 0.5, "schedule": {"kind": "linear", "end_step": 1000}},
    ...     "fallbacks": ["shorter", "hard"],
    ... })
    >>> policy.asked(step=500)
    {'hard': 0.75, 'corpus': 0.25}
    """
    settings = ("remainder", "fallbacks", "min_match_len", "min_count", "shorter_match_len", "routing", "complementary",
                "adaptive")  # fmt: skip
    check_keys(table, (*settings, *COMPONENTS), "policy")
    made: dict[str, Any] = {name: table[name] for name in settings if name in table}
    if "routing" in made:
        made["routing"] = make_from(Routing, made["routing"], "policy.routing")
    if "adaptive" in made:
        made["adaptive"] = make_adaptive(made["adaptive"])
    shares = {name: _make_share(table[name], f"policy.{name}") for name in COMPONENTS if name in table}
    with within("policy"):
        return Policy(shares, **made)


def _make_share(said: Any, where: str) -> Share:
    """A share of a number or of a table."""
    if is_number(said):
        said = {"weight": said}
    made = dict(check_keys(said, ("weight", "schedule", "evidence"), where))
    if "schedule" in made:
        made["schedule"] = make_schedule(made["schedule"], f"{where}.schedule")
    if "evidence" in made:
        if not isinstance(made["evidence"], (list, tuple)):
            raise ConfigError(f"{where}.evidence is {made['evidence']!r}: give a list of tables")
        made["evidence"] = tuple(
            make_evidence(one, f"{where}.evidence[{number}]") for number, one in enumerate(made["evidence"])
        )
    return make_from(Share, made, where)
