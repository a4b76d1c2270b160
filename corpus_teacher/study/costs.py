"""What a step of each arm costs: timed apart from the trainings, in turns with the baseline, nothing else running.

Seconds that a training took depend on what ran beside it. So each arm's first steps are timed on their own, right
before and after those of hard labels, several times; the ratio of the two is what "equal compute" should use.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from corpus_teacher.data import Progress
from corpus_teacher.data.documents import silent
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.files import held_folder, read_json, write_json
from corpus_teacher.study.data import StudyData, study_data
from corpus_teacher.study.measuring import train_parts
from corpus_teacher.study.settings import Cell, Study
from corpus_teacher.training.assemble import assembled

COSTS_FILE = "costs.json"


@dataclass(frozen=True)
class StepCost:
    """Seconds per optimizer step of an arm and of the baseline beside it.

    Attributes
    ----------
    arm, size, budget : str
    steps : int
        Timed at a time.
    cost_s_per_step : tuple of float
        Of each round, in turns with `baseline_s_per_step`.
    baseline_s_per_step : tuple of float
    ratio : float
        The median over the rounds of the one over the other.
    """

    arm: str
    size: str
    budget: str
    steps: int
    cost_s_per_step: tuple[float, ...]
    baseline_s_per_step: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """See the class."""
        pairs = zip(self.cost_s_per_step, self.baseline_s_per_step, strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


def step_costs(
    study: Study,
    out: str | Path,
    *,
    steps: int = 100,
    rounds: int = 3,
    reading: Progress = silent,
    report: Callable[[StepCost], None] | None = None,
) -> list[StepCost]:
    """Time a step of each arm at the headline's size and budget, in turns with the baseline.

    Parameters
    ----------
    study : Study
    out : path
        The study's folder; its data are made where they are missing.
    steps, rounds : int
        Steps at a time, and how often both are timed.
    reading, report : callable, optional
        Told about the making of the data, and of each arm that is done.

    Returns
    -------
    list of StepCost
        Of every arm that needs no other arm's student; costs.json in the folder has them too, and rows that are
        written from then on.

    Raises
    ------
    ConfigError
        steps or rounds below 1.
    OutputError
        A folder that can't be written to.
    """
    if steps < 1 or rounds < 1:
        raise ConfigError(f"steps is {steps} and rounds is {rounds}: give at least 1")
    with held_folder(out, "being written by a study"):
        return _step_costs(study, Path(out), steps, rounds, reading, report)


def _step_costs(
    study: Study, out: Path, steps: int, rounds: int, reading: Progress, report: Callable[[StepCost], None] | None
) -> list[StepCost]:
    """`step_costs` in a folder that is held."""
    data = study_data(study, out, reading)
    place = (study.headline["size"], study.headline["budget"])
    cells = [Cell(arm, *place) for arm in study.arm_order()]
    cells = [cell for cell in cells if study.has(cell) and not study.references(cell)]
    base, found = Cell(study.baseline, *place), []
    _seconds(study, data, base, steps)  # the first one pays for what is loaded once
    for cell in cells:
        _seconds(study, data, cell, min(steps, 5))  # kernels are compiled, rows made
        pairs = [(_seconds(study, data, base, steps), _seconds(study, data, cell, steps)) for _ in range(rounds)]
        found.append(StepCost(*cell, steps, tuple(ours for _, ours in pairs), tuple(theirs for theirs, _ in pairs)))
        if report is not None:
            report(found[-1])
    write_json(out / COSTS_FILE, [asdict(one) | {"ratio": one.ratio} for one in found])
    return found


def read_costs(out: str | Path) -> dict[str, dict[str, Any]]:
    """What `step_costs` wrote into a folder, by arm; nothing where it hasn't been run."""
    path = Path(out, COSTS_FILE)
    if not path.is_file():
        return {}
    try:
        return {one["arm"]: one for one in read_json(path)}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} can't be read as costs: time the steps again, or take the file away") from error


def _seconds(study: Study, data: StudyData, cell: Cell, steps: int) -> float:
    """Per step, of the first steps of a training without evaluations."""
    settings = study.training(
        cell, seed=0, learning_rate=study.learning_rates[0], folder=data.folder, students={}, tuning=True
    )
    with tempfile.TemporaryDirectory() as scratch:
        short: dict[str, Any] = {"max_steps": steps, "eval_strategy": "no", "logging_strategy": "no"}
        settings = replace(settings, out=scratch, training={**settings.training, **short})
        with assembled(settings) as parts:
            result = train_parts(settings, parts)
    return result.seconds / result.steps
