"""How much of its weight a teacher has at a step: a factor from 0 to 1.

A corpus teacher is a weak teacher late in training: low-order statistics are learnt early and overridden later
(Belrose et al. 2024, arXiv 2402.04362), and a student of fixed weight tends to its teacher's loss (Busbridge et al.
2025, arXiv 2502.08606). So its weight may decline. Steps are optimizer steps, from 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from corpus_teacher.errors import ConfigError
from corpus_teacher.settings import check_known, check_share, check_whole, make_from


@dataclass(frozen=True)
class LinearSchedule:
    """From `first` to `last` along a straight line: ``first + (last − first) · progress``.

    Parameters
    ----------
    end_step : int
        From here on the factor is `last`.
    first, last : float
        Factors, 0 to 1.
    begin_step : int
        Up to here the factor is `first`; progress is ``(step − begin_step) / (end_step − begin_step)``, clipped to 0
        … 1.

    Raises
    ------
    ConfigError
        A factor outside [0, 1], or steps that don't ascend.

    Examples
    --------
    >>> [LinearSchedule(end_step=100)(step) for step in (0, 25, 100, 1000)]
    [1.0, 0.75, 0.0, 0.0]
    """

    end_step: int
    first: float = 1.0
    last: float = 0.0
    begin_step: int = 0

    def __post_init__(self) -> None:
        check_share(self.first, "first")
        check_share(self.last, "last")
        check_whole(self.begin_step, "begin_step", 0)
        check_whole(self.end_step, "end_step", self.begin_step + 1)

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return self.first + (self.last - self.first) * self._progress(step)

    @property
    def turns(self) -> tuple[int, ...]:
        """The steps between which the factor is smooth."""
        return self.begin_step, self.end_step

    def _progress(self, step: int) -> float:
        return min(1.0, max(0.0, (step - self.begin_step) / (self.end_step - self.begin_step)))


@dataclass(frozen=True)
class CosineSchedule(LinearSchedule):
    """From `first` to `last` along half a cosine: ``last + (first − last) · (1 + cos(π · progress)) / 2``.

    Parameters
    ----------
    end_step, first, last, begin_step
        As in `LinearSchedule`.

    Examples
    --------
    >>> [round(CosineSchedule(end_step=100)(step), 3) for step in (0, 25, 50, 100)]
    [1.0, 0.854, 0.5, 0.0]
    """

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return self.last + (self.first - self.last) * (1 + math.cos(math.pi * self._progress(step))) / 2


@dataclass(frozen=True)
class EarlyOnlySchedule:
    """1 before a step; then 0, at once or along a straight line.

    Parameters
    ----------
    until_step : int
        The first step with less than 1 (with 0, if nothing decays).
    decay_steps : int
        Steps from 1 down to 0, beginning at `until_step`; 0: at once.

    Raises
    ------
    ConfigError
        A negative number of steps.

    Examples
    --------
    >>> [EarlyOnlySchedule(until_step=10)(step) for step in (0, 9, 10)]
    [1.0, 1.0, 0.0]
    >>> [EarlyOnlySchedule(until_step=10, decay_steps=4)(step) for step in (9, 10, 11, 14)]
    [1.0, 1.0, 0.75, 0.0]
    """

    until_step: int
    decay_steps: int = 0

    def __post_init__(self) -> None:
        check_whole(self.until_step, "until_step", 0)
        check_whole(self.decay_steps, "decay_steps", 0)

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        if step < self.until_step:
            return 1.0
        return max(0.0, 1 - (step - self.until_step) / self.decay_steps) if self.decay_steps else 0.0

    @property
    def turns(self) -> tuple[int, ...]:
        """The steps between which the factor is smooth."""
        return max(0, self.until_step - 1), self.until_step, self.until_step + self.decay_steps


Schedule = LinearSchedule | CosineSchedule | EarlyOnlySchedule

SCHEDULES: dict[str, type[Schedule]] = {
    "linear": LinearSchedule,
    "cosine": CosineSchedule,
    "early-only": EarlyOnlySchedule,
}
"""The kinds of schedules by the names that a TOML file gives them."""


def make_schedule(table: Mapping[str, Any], where: str = "schedule") -> Schedule:
    """A schedule of a table: its `kind`, and the settings of that kind.

    Raises
    ------
    ConfigError
        An unknown kind or key, or a value out of range.

    Examples
    --------
    >>> make_schedule({"kind": "early-only", "until_step": 10})
    EarlyOnlySchedule(until_step=10, decay_steps=0)
    """
    if not isinstance(table, Mapping) or "kind" not in table:
        raise ConfigError(f"{where} is {table!r}: give a table whose kind is one of {', '.join(SCHEDULES)}")
    check_known(table["kind"], SCHEDULES, f"{where}.kind")
    return make_from(SCHEDULES[table["kind"]], {key: table[key] for key in table if key != "kind"}, where)


def in_steps(policy: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """A policy's table whose schedules give steps as shares of the training, in steps.

    Parameters
    ----------
    policy : mapping
        As `corpus_teacher.blend.make_policy` takes it; a step of a schedule may be a text such as "60%".
    steps : int
        Of the whole training.

    Returns
    -------
    dict
        The same with whole numbers, at least 1 where a schedule ends.

    Raises
    ------
    ConfigError
        A text that is no share from 0% to 100%.

    Examples
    --------
    >>> in_steps({"corpus": {"weight": 0.75, "schedule": {"kind": "linear", "end_step": "60%"}}}, 1000)
    {'corpus': {'weight': 0.75, 'schedule': {'kind': 'linear', 'end_step': 600}}}
    """
    if not isinstance(policy, Mapping):
        return policy  # refused by who makes it
    made = dict(policy)
    for name, share in policy.items():
        schedule = share.get("schedule") if isinstance(share, Mapping) else None
        if isinstance(schedule, Mapping):
            known = {key: _step(value, key, steps) for key, value in schedule.items() if key != "kind"}
            made[name] = {**share, "schedule": {**schedule, **known}}
    return made


def _step(value: Any, key: str, steps: int) -> Any:
    """A share of the steps as a number of them; all else as it is."""
    if not isinstance(value, str):
        return value
    digits = value.removesuffix("%")
    share = float(digits) if digits.replace(".", "", 1).isdecimal() and digits != value else -1.0
    if not 0 <= share <= 100:
        raise ConfigError(f"{key} is {value!r}: give a whole number of steps, or a share of them such as '60%'")
    return max(int(key == "end_step"), round(share / 100 * steps))


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    """The table that `make_schedule` makes this schedule of."""
    kind = next(name for name, made in SCHEDULES.items() if type(schedule) is made)
    return {"kind": kind, **asdict(schedule)}
