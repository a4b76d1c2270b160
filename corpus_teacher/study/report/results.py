"""The rows of a study, sorted into its grid: which runs there are, which are missing, and their numbers as arrays.

Nothing is judged here. A run that diverged, a run of which there are two rows, a row of another form: each is left
out of the comparison and said, never dropped in silence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.files import read_json
from corpus_teacher.study.report.numbers import plural
from corpus_teacher.study.report.statistics import Draws, draw_losses, draw_values
from corpus_teacher.study.row_file import ROWS_FILE, WITH_COUNTS, read_rows

Row = Mapping[str, Any]
Place = tuple[str, str, str]
"""Arm, size, budget."""

_TUNE = "tune"
_BY_DOCUMENT = ("nats", "bits_per_byte")
_LOWER_IS_WORSE = ("top1", "accuracy")


CONTRAST_KEYS = ("arm", "size", "budget", "against", "against_size", "against_budget")
"""The keys of a contrast in study.json."""


@dataclass(frozen=True)
class Results:
    """What came of a study.

    Parameters
    ----------
    settings : mapping
        study.json.
    arms, sizes, budgets : tuple of str
        The baseline first and the other arms as declared; sizes by parameters, budgets by tokens.
    grid : tuple of (arm, size, budget)
        The places that were asked for, or have rows.
    runs : dict
        Finished runs by (arm, size, budget), then by seed.
    tuning : dict
        The trainings that chose learning rates, by (arm, size, budget).
    missing : tuple of str
        What isn't there, a sentence each.
    remarks : tuple of str
        What was left out, a sentence each.
    """

    settings: Mapping[str, Any]
    arms: tuple[str, ...]
    sizes: tuple[str, ...]
    budgets: tuple[str, ...]
    grid: tuple[Place, ...]
    runs: Mapping[Place, Mapping[int, Row]]
    tuning: Mapping[Place, Sequence[Row]]
    missing: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def primary(self) -> str:
        """The metric named before the run, as DOMAIN.METRIC."""
        return str(self.settings["primary"])

    @property
    def primary_domain(self) -> str:
        """The text that the primary metric is of, whether counts are mixed in or not."""
        return self.primary.partition(".")[0].removesuffix(WITH_COUNTS)

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with."""
        return str(self.settings["baseline"])

    @property
    def rows(self) -> list[Row]:
        """All finished runs, in the order of the grid."""
        return [row for place in sorted(self.runs) for _, row in sorted(self.runs[place].items())]

    @property
    def cost(self) -> str:
        """The field of the rows that compute is matched by: CPU time, or seconds where a run was on another device."""
        devices = {_device(row) for row in self.rows}
        return "cpu_s" if devices <= {"cpu"} else "seconds"

    def common_seeds(self, places: Iterable[Place]) -> list[int]:
        """Seeds that every one of these places has."""
        found = [set(self.runs.get(place, {})) for place in places]
        return sorted(set.intersection(*found)) if found else []

    def mean(self, place: Place, field: str) -> float | None:
        """A number of the rows (not of their metrics), over the seeds; None where a row lacks it."""
        values = [row.get(field) for row in self.runs.get(place, {}).values()]
        numbers = [float(value) for value in values if isinstance(value, (int, float))]
        return float(np.mean(numbers)) if numbers and len(numbers) == len(values) else None

    def values(self, place: Place, metric: str) -> list[float]:
        """A metric by seed, of the rows that have it."""
        found = [metric_of(row, metric) for _, row in sorted(self.runs.get(place, {}).items())]
        return [value for value in found if value is not None]

    def passes(self, row: Row) -> float | None:
        """Passes over the training text: tokens read over those that there are; None where nothing says how many."""
        config: Any = row.get("config")
        data = config.get("data", {}) if isinstance(config, Mapping) else {}
        plan: Any = self.settings.get("data")
        indexes = plan.get("indexes", {}) if isinstance(plan, Mapping) and not data.get("train") else {}
        name = str(data.get("index", "")).rpartition("index-")[2]
        known = [size for size in (data.get("train_tokens"), indexes.get(name)) if isinstance(size, int)]
        return float(row["tokens"]) / min(known) if known and "tokens" in row else None

    def draws(self, places: Sequence[Place], metric: str) -> Draws | None:
        """Bootstrap draws of a metric's mean at several places, paired over the seeds that all of them have.

        Losses are drawn by seed and document, other metrics by seed. None where no seed is common to all.

        Raises
        ------
        InputError
            Rows that were scored on different documents.
        """
        seeds = self.common_seeds(places)
        rows = [[self.runs[place][seed] for seed in seeds] for place in places]
        values = [[metric_of(row, metric) for row in some] for some in rows]
        if not seeds or any(value is None for some in values for value in some):
            return None
        domain, _, name = metric.rpartition(".")
        if name not in _BY_DOCUMENT or not _entry(rows[0][0], domain).get("documents"):
            return draw_values(np.array(values, dtype=np.float64))
        scored = [
            [np.array(_entry(row, domain).get("documents", []), dtype=np.float64) for row in some] for some in rows
        ]
        tokens = scored[0][0][:, 1]
        for some in scored:
            for one in some:
                if one.ndim != 2 or not np.array_equal(one[:, 1], tokens):
                    raise InputError(
                        f"the runs of {places[0][0]} and others were scored on different documents of {domain!r}: "
                        "they can't be paired; delete rows.jsonl's rows of the older data and run them again"
                    )
        sums = np.array([[one[:, 0] for one in some] for some in scored])
        if name == "bits_per_byte":  # bytes of a document aren't in the rows: those of a token are taken as constant
            nats = sums[0, 0].sum() / tokens.sum()
            sums = sums * (float(values[0][0] or math.nan) / nats)
        return draw_losses(sums, tokens)


def read_results(folder: Path) -> Results:
    """Read study.json and rows.jsonl.

    Raises
    ------
    InputError
        A file that is missing or broken. A last line that was cut while it was written is no row yet.
    ConfigError
        study.json without what a report needs.
    """
    settings = _settings(folder / "study.json")
    rows = read_rows(folder)
    for row in rows:
        absent = [key for key in ("arm", "size", "budget", "seed") if key not in row]
        if absent:
            raise InputError(f"a row of {folder / ROWS_FILE} lacks {absent[0]!r}: take out what is no row of a study")
        wrong = next((key for key, fits in _ROW.items() if key in row and not fits(row[key])), None)
        if wrong is not None:
            raise InputError(
                f"a row of {folder / ROWS_FILE} has {wrong} = {row[wrong]!r}: take out what is no row of a study"
            )
    return sort_rows(settings, rows)


def sort_rows(settings: Mapping[str, Any], rows: Sequence[Row]) -> Results:
    """The grid of a study from its rows, whose order doesn't matter."""
    said, form = [], settings.get("form")
    others = sorted({str(row.get("form")) for row in rows if form is not None and row.get("form", form) != form})
    if others:
        said.append(f"Rows of other forms ({', '.join(others)}) are not in this report, which is of the form {form}.")
    rows = [row for row in rows if form is None or row.get("form", form) == form]
    runs: dict[Place, dict[int, Row]] = {}
    tuning: dict[Place, list[Row]] = {}
    diverged: dict[Place, int] = {}
    repeated = 0
    for row in sorted(rows, key=lambda row: (str(row.get("started", "")), json.dumps(row, sort_keys=True))):
        place = (str(row["arm"]), str(row["size"]), str(row["budget"]))
        value = metric_of(row, settings["primary"])
        if row.get("role", "run") != "run":
            tuning.setdefault(place, []).append(row)
        elif value is None or not math.isfinite(value):
            diverged[place] = diverged.get(place, 0) + 1
        else:
            repeated += int(row["seed"]) in runs.setdefault(place, {})
            runs[place][int(row["seed"])] = row
    if repeated:
        said.append(
            f"{plural(repeated, 'repeated row')} left out: of a run’s rows the one that was started last counts."
        )
    said += [
        f"{_name(place)}: {plural(count, 'run')} without a finite {settings['primary']} (diverged), not compared."
        for place, count in sorted(diverged.items())
    ]
    said += [
        f"{_name(place)}: its runs have different settings (the study was changed between them)."
        for place, some in sorted(runs.items())
        if len({_config_of(row) for row in some.values()}) > 1
    ]
    seen = sorted({*runs, *tuning, *diverged})
    arms = _names(settings, "arms", (place[0] for place in seen))
    arms = [settings["baseline"], *(arm for arm in arms if arm != settings["baseline"])]
    sizes = _names(settings, "sizes", (place[1] for place in seen))
    budgets = _names(settings, "budgets", (place[2] for place in seen))
    every = ((arm, size, budget) for arm in arms for size in sizes for budget in budgets)
    grid = tuple(place for place in every if place in seen or _asked_for(settings, place))
    return Results(
        settings,
        tuple(arms),
        tuple(sorted(sizes, key=lambda size: _mean_of(runs, 1, size, "parameters"))),
        tuple(sorted(budgets, key=lambda budget: _mean_of(runs, 2, budget, "tokens"))),
        grid,
        runs,
        tuning,
        tuple(_missing(settings, grid, runs, diverged)),
        tuple(said),
    )


def metric_of(row: Row, metric: str) -> float | None:
    """A number of a row's metrics by its dotted name; None where the row lacks it."""
    domain, _, name = metric.rpartition(".")
    value = _entry(row, domain).get(name)
    return float(value) if isinstance(value, (int, float)) else None


def tuning_losses(results: Results, place: Place) -> dict[float, float]:
    """The primary metric on the tuning documents by learning rate: the mean over the tuning seeds, of the best values
    of what else is tuned; infinite where every training of a rate diverged."""
    metric = f"{_TUNE}.{results.primary.rpartition('.')[2]}"
    tried: dict[float, dict[str, list[float]]] = {}
    for row in results.tuning.get(place, ()):
        value, others = metric_of(row, metric), json.dumps(row.get("tuned") or {}, sort_keys=True)
        if "learning_rate" in row:
            losses = tried.setdefault(float(row["learning_rate"]), {}).setdefault(others, [])
            losses.append(math.inf if value is None else value)
    best = min if lower_is_better(metric) else max
    return {rate: best(sum(losses) / len(losses) for losses in some.values()) for rate, some in sorted(tried.items())}


def domains_of(row: Row) -> list[str]:
    """The texts that a run was scored on, "in" first; not those of the tuning."""
    found = [name for name, entry in row.get("metrics", {}).items() if isinstance(entry, Mapping) and "nats" in entry]
    return sorted((name for name in found if name != "tune"), key=lambda name: (name != "in", name))


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of a metric is the better one."""
    return metric.rpartition(".")[2] not in _LOWER_IS_WORSE


def _entry(row: Row, domain: str) -> Mapping[str, Any]:
    found: Any = row.get("metrics", {})
    for key in domain.split(".") if domain else ():
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _config_of(row: Row) -> str:
    """What the seeds of an arm have in common; the students that it learns from are named by their seed."""
    config = row.get("config")
    if not isinstance(config, Mapping):
        return ""
    kept = {
        name: {key: value for key, value in table.items() if not _is_student(value)}
        if isinstance(table, Mapping)
        else table
        for name, table in config.items()
        if name != "seed"
    }
    return json.dumps(kept, sort_keys=True, default=str)


def _device(row: Row) -> str:
    machine = row.get("machine")
    return str(machine.get("device", "cpu")) if isinstance(machine, Mapping) else "cpu"


def _is_student(value: Any) -> bool:
    """Whether a setting names another training's student, as its teacher or as the writer of its text."""
    return any(str(one).startswith("students/") for one in (value if isinstance(value, list) else [value]))


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        settings = read_json(path)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): give a folder of `study run`") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}): run the study again into another folder") from error
    for key in ("name", "question", "primary", "baseline", "seeds"):
        if not isinstance(settings, Mapping) or key not in settings:
            raise ConfigError(f"{path} lacks {key!r}: a report needs the study's resolved settings")
    wrong = next((key for key, fits in _SETTINGS.items() if key in settings and not fits(settings[key])), None)
    if wrong is not None:
        raise ConfigError(
            f"{path} has {wrong} = {settings[wrong]!r}, which no study writes: a report needs its settings"
        )
    return settings


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_table(value: Any) -> bool:
    return value is None or isinstance(value, Mapping)


def _is_list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or (isinstance(value, list) and all(map(fits, value)))


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_grid(value: Any) -> bool:
    """Names, or tables by name; a table may list the arms that it has."""
    if not isinstance(value, Mapping):
        return _is_list_of(_is_text)(value)
    tables = [one for one in value.values() if isinstance(one, Mapping)]
    return all("arms" not in one or _is_list_of(_is_text)(one["arms"]) for one in tables)


def _is_measured(value: Any) -> bool:
    """A point of a learning curve; a loss that isn't finite is null."""
    if not isinstance(value, Mapping) or not _is_number(value.get("tokens")) or "nats" not in value:
        return False
    return value["nats"] is None or _is_number(value["nats"])


_SETTINGS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("name", "question", "primary", "baseline"), _is_text),
    "seeds": lambda value: _is_whole(value) or (isinstance(value, list) and all(map(_is_whole, value))),
    **dict.fromkeys(("arms", "sizes", "budgets"), _is_grid),
    **dict.fromkeys(("data", "headline"), _is_table),
    "learning_rates": _is_list_of(_is_number),
    "contrasts": _is_list_of(lambda value: isinstance(value, Mapping) and set(CONTRAST_KEYS) <= value.keys()),
}
_ROW: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("arm", "size", "budget"), _is_text),
    "seed": _is_whole,
    **dict.fromkeys(("metrics", "config", "machine", "versions", "checks"), _is_table),
    **dict.fromkeys(("learning_rate", "tokens", "parameters", "seconds", "cpu_s"), _is_number),
    "history": _is_list_of(_is_measured),
}


def _names(settings: Mapping[str, Any], key: str, seen: Iterable[str]) -> list[str]:
    """As declared; names that only rows have come last, sorted."""
    declared = [str(name) for name in settings.get(key) or ()]
    return declared + sorted(set(seen) - set(declared))


def _mean_of(runs: Mapping[Place, Mapping[int, Row]], axis: int, name: str, field: str) -> float:
    """By what sizes and budgets are sorted; those without runs come last."""
    found = [
        float(row[field])
        for place, some in runs.items()
        if place[axis] == name
        for row in some.values()
        if field in row
    ]
    return sum(found) / len(found) if found else math.inf


def _asked_for(settings: Mapping[str, Any], place: Place) -> bool:
    """Whether a place is in the grid: a size or a budget may name the arms that it has."""
    for key, name in (("sizes", place[1]), ("budgets", place[2])):
        tables = settings.get(key)
        table = tables.get(name) if isinstance(tables, Mapping) else None
        if isinstance(table, Mapping) and place[0] not in table.get("arms", (place[0],)):
            return False
    return True


def _missing(
    settings: Mapping[str, Any],
    grid: Iterable[Place],
    runs: Mapping[Place, Mapping[int, Row]],
    diverged: Mapping[Place, int],
) -> Iterable[str]:
    """Places with fewer finished runs than the study has seeds."""
    expected = settings["seeds"] if isinstance(settings["seeds"], int) else len(settings["seeds"])
    for place in grid:
        lacking = expected - len(runs.get(place, {})) - diverged.get(place, 0)
        if lacking > 0:
            yield f"{_name(place)}: {lacking} of {expected} seeds"


def _name(place: Place) -> str:
    return " · ".join(place)
