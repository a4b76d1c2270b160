"""Runs a study: what of its grid has no row yet is trained, measured and written down.

The rule of the learning rates, the same for every arm: at each size and budget the whole training is run with each rate
of the grid (and each value of what else is tuned) on the tuning seeds, and judged by the primary metric on the tuning
documents, which are not those of the report. A grid whose best lies at an end grows (`corpus_teacher.study.tuning`).
The best is taken for all seeds; every row says whether it still lies at an end. One rate: nothing is tuned.

Pairing: a seed decides the first weights and the order of the data, and nothing else does.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from corpus_teacher.data import Progress, available_cores
from corpus_teacher.data.documents import silent
from corpus_teacher.errors import ConfigError, OutputError, StudyError
from corpus_teacher.files import clear_leftovers, held_folder, write_json
from corpus_teacher.study.costs import read_costs
from corpus_teacher.study.data import MAKING, StudyData, study_data
from corpus_teacher.study.measuring import SAVING, Job, measure
from corpus_teacher.study.plans import TextPlan
from corpus_teacher.study.reuse import STUDENTS, Done
from corpus_teacher.study.row_file import RowWriter, finite, read_rows
from corpus_teacher.study.settings import TUNE, Cell, Study
from corpus_teacher.study.shares import STUDY_FILE, cells_of_share
from corpus_teacher.study.tuning import Choice, Grid, grid


class _Asked(NamedTuple):
    """A training that the study wants."""

    cell: Cell
    role: str
    seed: int
    choice: Choice


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is.

    Attributes
    ----------
    done, total : int
        Trainings, those of earlier starts among them.
    row : dict
        The one that was just finished.
    left_s : float
        Seconds that the rest will take, by those of the finished ones.
    """

    done: int
    total: int
    row: dict[str, Any]
    left_s: float


def run_study(
    study: Study,
    out: str | Path,
    *,
    jobs: int = 1,
    share: tuple[int, int] = (1, 1),
    reuse: Sequence[str | Path] = (),
    reading: Progress = silent,
    progress: Callable[[StudyProgress], None] | None = None,
) -> list[dict[str, Any]]:
    """Train what is missing of a study.

    Parameters
    ----------
    study : Study
    out : path
        A folder: study.json, rows.jsonl, data/, and students/ where arms learn from others.
    jobs : int
        Trainings at a time, in processes that share out the cores. 1: in this process.
    share : tuple of int
        (k, n): only the k-th of n shares of the cells, for one of n machines; `join_studies` puts them together.
    reuse : sequence of path
        Folders of other studies: a training that one of them has done, by its fingerprint, is taken from there.
    reading : callable, optional
        Told about the making of the data.
    progress : callable, optional
        Called after every training.

    Returns
    -------
    list of dict
        All rows of this study in this form, as rows.jsonl has them.

    Raises
    ------
    ConfigError
        A folder that holds another study, or jobs below 1.
    StudyError
        A process of a training that was killed.
    InputError, TokenizerError, OutputError
        Sources and folders that can't be used; a folder in which another study is running.
    """
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}: run at least 1 training at a time")
    out = Path(out)
    with held_folder(out, "being written by a study"):
        return _run(study, out, jobs, share, reuse, reading, progress)


def _run(
    study: Study,
    out: Path,
    jobs: int,
    share: tuple[int, int],
    reuse: Sequence[str | Path],
    reading: Progress,
    progress: Callable[[StudyProgress], None] | None,
) -> list[dict[str, Any]]:
    """`run_study` in a folder that is held."""
    _begin(study, out)
    data = study_data(study, out, reading)
    writer, rows = RowWriter(out), {row["fingerprint"]: row for row in read_rows(out)}
    plan, done = _Plan(study, data, out, rows, share), Done(reuse)
    costs = read_costs(out)
    with _workers(jobs) as submit:
        for stage in plan.stages():
            missing = [job for job in stage if plan.row_of(job) is None]
            taken = [row for job in missing if (row := done.take(job)) is not None]
            found = {row["fingerprint"] for row in taken}
            for row in chain(taken, submit([job for job in missing if job.fingerprint not in found])):
                if (cost := costs.get(row["arm"])) is not None:
                    row["cost_s_per_step"] = cost["cost_s_per_step"]
                    row["baseline_s_per_step"] = cost["baseline_s_per_step"]
                writer.append(row)
                rows[row["fingerprint"]] = finite(row)
                if progress is not None:
                    progress(plan.progress(row, jobs))
    wanted = {plan.job(asked).fingerprint for asked in plan.asked()}
    return [row for row in read_rows(out) if row["fingerprint"] in wanted]


class _Plan:
    """The trainings of a study, in the order in which they can be done."""

    def __init__(
        self,
        study: Study,
        data: StudyData,
        out: Path,
        rows: dict[str, dict[str, Any]],
        share: tuple[int, int] = (1, 1),
    ) -> None:
        self.study, self.data, self.out, self.rows = study, data, out, rows
        self.needed = {other for cell in study.cells() for other in study.references(cell).values()}
        self.cells = cells_of_share(study, *share)
        self._jobs: dict[_Asked, Job] = {}

    def stages(self) -> Iterator[list[Job]]:
        """Lists of jobs that don't wait for one another; a list is made when the one before is done."""
        study = self.study
        for level in sorted({study.level(cell.arm) for cell in self.cells}):
            cells = [cell for cell in self.cells if study.level(cell.arm) == level]
            tunings = [asked for cell in cells for asked in self._tunings(cell)]
            while tunings:  # a grid may grow by what came of it
                yield [self.job(asked) for asked in tunings]
                before, tunings = tunings, [asked for cell in cells for asked in self._tunings(cell)]
                tunings = [] if tunings == before else tunings
            runs = [_Asked(cell, "run", seed, self.chosen(cell)) for seed in range(study.seeds) for cell in cells]
            yield [self.job(asked) for asked in runs]

    def asked(self) -> list[_Asked]:
        """All trainings, when the settings are known."""
        runs = [_Asked(c, "run", seed, self.chosen(c)) for c in self.cells for seed in range(self.study.seeds)]
        return [asked for cell in self.cells for asked in self._tunings(cell)] + runs

    def _tunings(self, cell: Cell) -> list[_Asked]:
        choices = self._grid(cell).choices
        seeds = range(self.study.tuning_seed, self.study.tuning_seed + self.study.tuning_seeds)
        return [_Asked(cell, "tune", seed, choice) for choice in choices for seed in seeds] if len(choices) > 1 else []

    def _grid(self, cell: Cell) -> Grid:
        study = self.study
        return grid(study.learning_rates, study.tune, study.grow_rates, lambda choice: self._judged(cell, choice))

    def chosen(self, cell: Cell) -> Choice:
        """The settings of a cell: the best primary metric on the tuning documents; of equals the lower rate."""
        found = self._grid(cell)
        assert found.best is not None
        return found.best

    def _judged(self, cell: Cell, choice: Choice) -> float | None:
        """The mean tuning loss of a choice; None where one of its trainings is still to be done."""
        if any(self._grid(other).best is None for other in self.study.references(cell).values()):
            return None
        values = []
        for seed in range(self.study.tuning_seed, self.study.tuning_seed + self.study.tuning_seeds):
            row = self.rows.get(self.job(_Asked(cell, "tune", seed, choice)).fingerprint)
            if row is None:
                return None
            value = row["metrics"][TUNE][self.study.primary_metric]
            value = math.inf if value is None else value  # it diverged
            values.append(-value if self.study.primary_metric == "top1" else value)
        return sum(values) / len(values)

    def job(self, asked: _Asked) -> Job:
        """Everything that a process needs to know of a training; what it learns from has been chosen."""
        if asked not in self._jobs:
            self._jobs[asked] = self._made(asked)
        return self._jobs[asked]

    def _made(self, asked: _Asked) -> Job:
        study, tuning = self.study, asked.role == "tune"
        students, taught_by = {}, {}
        for place, other in study.references(asked.cell).items():
            needed = self.job(_Asked(other, asked.role, asked.seed, self.chosen(other)))
            students[place] = self.out / STUDENTS / needed.fingerprint
            taught_by[".".join(place)] = needed.fingerprint
        settings = study.training(
            asked.cell, seed=asked.seed, learning_rate=asked.choice.learning_rate, folder=self.data.folder,
            students=students, tuning=tuning, tuned=dict(asked.choice.tuned),
        )  # fmt: skip
        config, text = _portable(settings.to_dict(), self.out), study.text(asked.cell.arm)
        if text != TextPlan():  # as before there were others: rows of older studies stay theirs
            config["text"] = asdict(text)
        identity = [
            config,
            asdict(study.metrics),
            list(study.domains),
            self.data.manifest["fingerprint"],
            asked.role,
            taught_by,
        ]
        fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:32]
        return Job(
            fingerprint=fingerprint,
            study=study.name,
            form=study.form,
            cell=asked.cell,
            role=asked.role,
            seed=asked.seed,
            learning_rate=asked.choice.learning_rate,
            tuned=dict(asked.choice.tuned),
            at_end_of_grid=not tuning and self._grid(asked.cell).at_end,
            settings=settings,
            config=config,
            data=self.data,
            metrics=study.metrics,
            domains=(TUNE,) if tuning else ("in", *study.domains),
            keep=self.out / STUDENTS / fingerprint if asked.cell in self.needed else None,
            writer=students.get(("data", "train")),
            text=text,
        )  # fmt: skip

    def row_of(self, job: Job) -> dict[str, Any] | None:
        """The row of a job that was done, if what it left is still there."""
        row = self.rows.get(job.fingerprint)
        return row if row is not None and (job.keep is None or job.keep.is_dir()) else None

    def progress(self, row: dict[str, Any], jobs: int) -> StudyProgress:
        """How far all is, and how long the rest will take: trainings of an arm not seen yet take the mean of all."""
        study = self.study
        counts = {cell: (len(self._tunings(cell)), study.seeds) for cell in self.cells}
        total = sum(sum(pair) for pair in counts.values())
        seconds: dict[Cell, list[float]] = {}
        for one in self.rows.values():
            seconds.setdefault(Cell(one["arm"], one["size"], one["budget"]), []).append(
                one.get("total_s", one["seconds"])
            )
        known = [second for cell in counts for second in seconds.get(cell, [])]
        mean = sum(known) / max(1, len(known))
        done = sum(min(len(seconds.get(cell, [])), sum(pair)) for cell, pair in counts.items())
        left = sum(
            max(0, sum(pair) - len(seconds.get(cell, [])))
            * (sum(seconds[cell]) / len(seconds[cell]) if cell in seconds else mean)
            for cell, pair in counts.items()
        )
        return StudyProgress(done, total, row, left / jobs)


class _workers:
    """Jobs in, rows out as they are finished: in this process, or in several."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.threads = max(1, available_cores() // jobs)
        self.pool: ProcessPoolExecutor | None = None
        self.before = os.environ.get("OMP_NUM_THREADS")
        self.others = set(multiprocessing.active_children())

    def __enter__(self) -> Callable[[Sequence[Job]], Iterator[dict[str, Any]]]:
        if self.jobs == 1:
            return lambda jobs: map(measure, jobs)
        os.environ["OMP_NUM_THREADS"] = str(self.threads)  # read where a process of the pool starts
        context = _context()
        self.pool = ProcessPoolExecutor(self.jobs, mp_context=context, initializer=_share, initargs=(self.threads,))
        return self._rows

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self.pool is not None:
            if kind is not None:  # nobody would write down what they do
                for child in set(multiprocessing.active_children()) - self.others:
                    child.terminate()
            self.pool.shutdown(cancel_futures=True)
            if self.before is None:
                os.environ.pop("OMP_NUM_THREADS", None)
            else:
                os.environ["OMP_NUM_THREADS"] = self.before

    def _rows(self, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
        assert self.pool is not None
        left = {self.pool.submit(measure, job) for job in jobs}
        while left:
            finished, left = wait(left, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    yield future.result()
                except BrokenProcessPool as error:
                    raise StudyError(
                        "a process of a training was killed, perhaps for want of memory: start the study again, with "
                        "fewer `jobs`; what is finished is kept"
                    ) from error


def _context() -> multiprocessing.context.BaseContext:
    """Of processes that don't begin with this one's threads, which wouldn't survive a fork.

    On Linux they are forked from one that has imported torch and transformers, which each would take seconds for, and
    done nothing else. Elsewhere each starts anew: other systems' libraries may start threads when they are imported.
    """
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["corpus_teacher.forked_from"])
    return context


def _share(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _begin(study: Study, out: Path) -> None:
    """Write down the resolved study, and remove what killed runs left; refuse a folder of another one."""
    path = out / STUDY_FILE
    try:
        begun = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: choose another folder (`out`)") from error
    except OSError as error:
        raise OutputError(f"{path} can't be read: {error.strerror or error}") from error
    if begun is not None and begun.get("name") != study.name:
        raise ConfigError(
            f"{out} holds the study {begun.get('name')!r}, not {study.name!r}: choose another folder (`out`)"
        )
    clear_leftovers(out / "data", MAKING)
    clear_leftovers(out / STUDENTS, SAVING)
    # replaced, not appended to: the rows tell what was run, this file what is asked for now
    write_json(path, {**study.describe(), "written": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def _portable(value: Any, out: Path) -> Any:
    """Settings without the folder of the study, so that it may be moved and gone on with."""
    if isinstance(value, dict):
        return {key: _portable(one, out) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(one, out) for one in value]
    prefix = str(out) + os.sep
    return value.removeprefix(prefix) if isinstance(value, str) else value
