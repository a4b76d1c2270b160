"""A study as tables: every arm at every size and budget is checked before anything starts.

An arm, a size and a budget are tables of changes to the tables of a training (`corpus_teacher.training.settings`), laid
over those of ``[base]`` in the order size, budget, arm. A size or a budget whose table says ``arms`` has those arms
only. What makes runs comparable is the study's own and can't be changed by an arm: the seed, the held-out text, the
learning rate (tuned for each arm by one rule), the output folder.

Names stand for what the study makes: ``data.index`` and ``corpus.index`` take a name of ``[data.indexes]``, and
``neural.model``, ``self.checkpoint`` and ``student.checkpoint`` take ``"arm:NAME"``, the finished student of another
arm of the same budget and seed (of the same size, or ``"arm:NAME@SIZE"``). As ``data.train`` it is a text that this
student writes, as long as what is read in all; the arm's table ``text`` says how (`TextPlan`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from corpus_teacher.errors import ConfigError
from corpus_teacher.settings import check_keys, check_known, check_whole, is_number, make_from, within
from corpus_teacher.study.plans import DataPlan, MetricPlan, TextPlan, texts_of
from corpus_teacher.study.report.contrasts import CONTRAST_KEYS
from corpus_teacher.study.row_file import WITH_COUNTS
from corpus_teacher.training.settings import RunSettings, make_run, merged

IN_DOMAIN, TUNE = "in", "tune"
"""The domains that every study has: held-out documents, and those that learning rates are chosen on."""

DOMAIN_METRICS = ("nats", "bits_per_byte", "ece", "brier", "top1")
"""What may be a primary metric, as DOMAIN.METRIC; all but top1 are better when lower."""

_REFERENCES = (("neural", "model"), ("self", "checkpoint"), ("student", "checkpoint"), ("data", "train"))
_ARMS, _TEXT = "arms", "text"
_OF_THE_STUDY = {
    ("out",): "the study has a folder",
    ("seed",): "say at the top how many seeds",
    ("data", "held_out"): "the study holds out documents; other texts go into [domains]",
    ("training", "learning_rate"): "the study tunes it: give learning_rates at the top",
}
_OF_AN_ARM = {(_TEXT,): "an arm says it"}


class Cell(NamedTuple):
    """A place in the grid; its learning rate is tuned once, for all seeds."""

    arm: str
    size: str
    budget: str

    def __str__(self) -> str:
        return " · ".join(self)


@dataclass(frozen=True)
class Study:
    """A whole study.

    Parameters
    ----------
    name, question : str
    base : dict
        Tables of a training.
    arms, sizes, budgets : dict of str to dict
        Tables of changes.
    primary : str
        "DOMAIN.METRIC", named before the run; "DOMAIN+counts.nats" is that of the student mixed with the counts.
    baseline : str
        The arm that the others are compared with.
    seeds : int
        Paired seeds 0, 1, …: the same first weights and order of the data for every arm.
    tuning_seed : int
        Of the trainings that choose learning rates; none of the seeds.
    tuning_seeds : int
        Tune on that many seeds: tuning_seed, tuning_seed + 1, …; the mean decides.
    learning_rates : tuple of float
        The grid. One: no rate is tuned.
    grow_rates : int
        Rates that are added, at most, while the best one is the lowest or the highest.
    tune : dict of str to list
        What else is tuned in the same way, by "table.key" of a training, with the values to try.
    data : DataPlan
    domains : dict of str to tuple of str
        Other texts to evaluate on, by name.
    metrics : MetricPlan
    headline : dict
        The size and the budget that the answer is given for; the first size and the last budget by default.
    contrasts : tuple of dict
        What else is compared, said before the run: arm, size and budget with against, against_size and against_budget.
        Sizes and budgets are the headline's by default, those of the second the first one's.
    core_hours : float, optional
        What all of it is expected to take on idle cores; said before it starts.
    form : str
        Which of the file's forms this is.
    """

    name: str
    question: str
    base: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    baseline: str
    sizes: dict[str, dict[str, Any]] = field(default_factory=lambda: {"base": {}})
    budgets: dict[str, dict[str, Any]] = field(default_factory=lambda: {"base": {}})
    primary: str = "in.nats"
    seeds: int = 5
    tuning_seed: int = 1000
    tuning_seeds: int = 1
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    grow_rates: int = 3
    tune: dict[str, Any] = field(default_factory=dict)
    data: DataPlan = field(default_factory=DataPlan)
    domains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    metrics: MetricPlan = field(default_factory=MetricPlan)
    headline: dict[str, str] = field(default_factory=dict)
    contrasts: tuple[dict[str, str], ...] = ()
    core_hours: float | None = None
    form: str = "standard"

    def __post_init__(self) -> None:
        check_whole(self.seeds, "seeds", 1)
        check_whole(self.tuning_seed, "tuning_seed", 0)
        if self.tuning_seed < self.seeds:
            raise ConfigError(
                f"tuning_seed is {self.tuning_seed}, one of the {self.seeds} seeds that are reported: give another one"
            )
        check_whole(self.tuning_seeds, "tuning_seeds", 1)
        check_whole(self.grow_rates, "grow_rates", 0)
        if self.core_hours is not None and not (is_number(self.core_hours) and self.core_hours > 0):
            raise ConfigError(f"core_hours is {self.core_hours!r}: give a positive number of core-hours")
        self._check_tune()
        rates = self.learning_rates
        if not isinstance(rates, (list, tuple)) or not rates or not all(is_number(rate) and rate > 0 for rate in rates):
            raise ConfigError(f"learning_rates is {rates!r}: give a list of positive numbers")
        object.__setattr__(self, "learning_rates", tuple(sorted({float(rate) for rate in rates})))
        for name in ("arms", "sizes", "budgets"):
            table = getattr(self, name)
            if not isinstance(table, Mapping) or not table:
                raise ConfigError(f"{name} is {table!r}: give at least one table of changes")
            for one, changes in table.items():
                if not isinstance(changes, Mapping):
                    raise ConfigError(f"{name}.{one} is {changes!r}: give a table of changes")
                _check_ours(changes, f"{name}.{one}", arm=name == "arms")
        for name in ("base", "domains"):
            if not isinstance(getattr(self, name), Mapping):
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give a table")
        if not isinstance(self.contrasts, (list, tuple)):
            raise ConfigError(f"contrasts is {self.contrasts!r}: give a list of tables of arm and against")
        _check_ours(self.base, "base", arm=False)
        check_known(self.baseline, self.arms, "baseline")
        for name in ("sizes", "budgets"):
            for one, changes in getattr(self, name).items():
                self._check_arms(changes.get(_ARMS, ()), f"{name}.{one}.{_ARMS}")
        domains = {name: texts_of(specs, f"domains.{name}") for name, specs in self.domains.items()}
        for name in domains:
            if name in (IN_DOMAIN, TUNE):
                raise ConfigError(f"domains has {name!r}, which is the study's own: choose another name")
        object.__setattr__(self, "domains", domains)
        check_keys(self.headline, ("size", "budget"), "headline")
        first = {"size": next(iter(self.sizes)), "budget": list(self.budgets)[-1]}
        object.__setattr__(self, "headline", first | dict(self.headline))
        check_known(self.headline["size"], self.sizes, "headline.size")
        check_known(self.headline["budget"], self.budgets, "headline.budget")
        object.__setattr__(self, "contrasts", tuple(self._contrast(said) for said in self.contrasts))
        domain, _, metric = str(self.primary).partition(".")
        check_known(domain.removesuffix(WITH_COUNTS), (IN_DOMAIN, *domains), "the domain of primary")
        mixed = domain.endswith(WITH_COUNTS)
        check_known(metric, DOMAIN_METRICS[:2] if mixed else DOMAIN_METRICS, "the metric of primary")
        if mixed and not self.metrics.counts:
            raise ConfigError(f"primary is {self.primary!r} and metrics.counts is empty: name the counts' estimator")

    @property
    def primary_metric(self) -> str:
        """The primary metric without its domain."""
        return self.primary.partition(".")[2]

    def cells(self) -> Iterator[Cell]:
        """The grid; arms that others learn from come first."""
        for arm in self.arm_order():
            for size in self.sizes:
                for budget in self.budgets:
                    if self.has(cell := Cell(arm, size, budget)):
                        yield cell

    def has(self, cell: Cell) -> bool:
        """Whether a cell is in the grid: its size and its budget have all arms, or those that they name."""
        return all(
            cell.arm in table.get(_ARMS, self.arms) for table in (self.sizes[cell.size], self.budgets[cell.budget])
        )

    def tables(self, cell: Cell) -> dict[str, Any]:
        """The merged tables of a cell, its names as they stand in the file."""
        made = self.base
        for changes in (self.sizes[cell.size], self.budgets[cell.budget], self.arms[cell.arm]):
            made = merged(made, {key: value for key, value in changes.items() if key not in (_ARMS, _TEXT)})
        return made

    def text(self, arm: str) -> TextPlan:
        """How the text is written that an arm reads, if another one writes it."""
        return make_from(TextPlan, self.arms[arm].get(_TEXT, {}), f"arms.{arm}.{_TEXT}")

    def references(self, cell: Cell) -> dict[tuple[str, str], Cell]:
        """Which finished students a cell needs, by the setting that names them."""
        tables, found = self.tables(cell), {}
        for table, key in _REFERENCES:
            said = tables.get(table, {}).get(key) if isinstance(tables.get(table), Mapping) else None
            if isinstance(said, str) and said.startswith("arm:"):
                arm, _, size = said.removeprefix("arm:").partition("@")
                check_known(arm, self.arms, f"the arm of {table}.{key}")
                if size:
                    check_known(size, self.sizes, f"the size of {table}.{key}")
                other = Cell(arm, size or cell.size, cell.budget)
                if not self.has(other):
                    raise ConfigError(f"arm {cell.arm} learns from {other}, which its size or budget leaves out")
                found[table, key] = other
        return found

    def arm_order(self) -> list[str]:
        """Arms as the file has them, but each behind those whose students it needs."""
        needs = {arm: {other.arm for other in self._needs(arm)} for arm in self.arms}
        ordered: list[str] = []
        while len(ordered) < len(self.arms):
            ready = [arm for arm in self.arms if arm not in ordered and needs[arm] <= set(ordered)]
            if not ready:
                stuck = next(arm for arm in self.arms if arm not in ordered)
                raise ConfigError(f"arms.{stuck} learns, through others, from itself: leave one 'arm:' out")
            ordered.append(ready[0])
        return ordered

    def level(self, arm: str) -> int:
        """0 for an arm that needs no student of another one, else one more than theirs."""
        return 1 + max((self.level(other.arm) for other in self._needs(arm)), default=-1)

    def _needs(self, arm: str) -> list[Cell]:
        """The cells that an arm learns from, at any size and budget."""
        cells = (Cell(arm, size, budget) for size in self.sizes for budget in self.budgets)
        return [other for cell in cells if self.has(cell) for other in self.references(cell).values()]

    def _contrast(self, said: Any) -> dict[str, str]:
        """A contrast with all that it leaves to be understood; its places are in the grid."""
        if not isinstance(said, Mapping):
            raise ConfigError(f"contrasts has {said!r}: give tables of arm and against")
        check_keys(said, CONTRAST_KEYS, "contrasts")
        for key in ("arm", "against"):
            if key not in said:
                raise ConfigError(f"a table of contrasts has no {key}: name two arms, as arm and against")
        one = dict(self.headline) | dict(said)
        one = {f"against_{key}": one[key] for key in ("size", "budget")} | one
        for name in ("", "against_"):
            cell = Cell(*(one[key] for key in (name.rstrip("_") or "arm", f"{name}size", f"{name}budget")))
            for value, known, key in zip(cell, (self.arms, self.sizes, self.budgets), Cell._fields, strict=True):
                check_known(value, known, f"the {key} of a contrast")
            if not self.has(cell):
                raise ConfigError(f"a contrast names {cell}, which its size or budget leaves out")
        return one

    def _check_tune(self) -> None:
        """What is tuned beside the rate: settings of a training that no arm, size or budget sets, with their values."""
        if not isinstance(self.tune, Mapping):
            raise ConfigError(f'tune is {self.tune!r}: give a table, as {{ "training.weight_decay" = [0.0, 0.1] }}')
        for name, values in self.tune.items():
            place = tuple(name.split("."))
            if len(place) != 2 or place in _OF_THE_STUDY:
                raise ConfigError(
                    f"tune has {name!r}: name one setting of a training's table, as training.weight_decay"
                )
            if not isinstance(values, (list, tuple)) or not values:
                raise ConfigError(f"tune.{name} is {values!r}: give a list of values")

    def _check_arms(self, names: Any, where: str) -> None:
        """Arms that a size or a budget has: known ones, the baseline among them."""
        if not isinstance(names, (list, tuple)):
            raise ConfigError(f"{where} is {names!r}: give a list of arms")
        for arm in names:
            check_known(arm, self.arms, where)
        if names and self.baseline not in names:
            raise ConfigError(f"{where} lacks {self.baseline!r}, the baseline, which its arms are compared with")

    def training(
        self,
        cell: Cell,
        *,
        seed: int,
        learning_rate: float,
        folder: Path,
        students: Mapping[tuple[str, str], Path],
        tuning: bool,
        tuned: Mapping[str, Any] | None = None,
    ) -> RunSettings:
        """The settings of one training.

        Parameters
        ----------
        cell : Cell
        seed, learning_rate
        folder : Path
            Of the data, as `corpus_teacher.study.data.StudyData` names what lies in it.
        students : mapping
            The folder of the student behind each of `references`.
        tuning : bool
            Evaluate on the tuning documents: the held-out ones are not looked at.
        tuned : mapping of str to value, optional
            Values of what `tune` names.

        Raises
        ------
        ConfigError
            Tables that don't make a training; the message begins with the cell.
        """
        tables = self.tables(cell)
        with within(f"arm {cell.arm}, size {cell.size}, budget {cell.budget}"):
            names = list(self.data.indexes)
            data = tables.get("data", {})
            if not isinstance(data, Mapping):
                raise ConfigError(f"data is {data!r}: give a table")
            data = dict(data)
            name = data.get("index", names[0])
            check_known(name, names, "data.index")
            data |= {
                "index": str(folder / f"index-{name}"),
                "held_out": [str(folder / f"{TUNE if tuning else IN_DOMAIN}.npy")],
            }
            made: dict[str, Any] = {"data": data, "training": {"learning_rate": learning_rate, "save_strategy": "no"}}
            corpus = tables.get("corpus")
            if isinstance(corpus, Mapping) and "index" in corpus:
                check_known(corpus["index"], names, "corpus.index")
                made["corpus"] = {"index": str(folder / f"index-{corpus['index']}")}
                if "leave_out" not in corpus:
                    raise ConfigError("corpus.leave_out isn't given beside corpus.index: say 'self' or 'document'")
            for name, value in (tuned or {}).items():
                table, _, key = name.partition(".")
                made.setdefault(table, {})[key] = value
            for (table, key), _ in self.references(cell).items():
                made.setdefault(table, {})[key] = str(students.get((table, key), folder / "student"))
            text = self.text(cell.arm)
            if _TEXT in self.arms[cell.arm] and ("data", "train") not in self.references(cell):
                raise ConfigError("text says how another arm writes, and data.train names none: give 'arm:NAME' there")
            whole = merged(tables, {"out": str(folder / "run"), "seed": seed, **made})
            if ("student", "checkpoint") in self.references(cell):
                whole["student"] = made["student"]  # a checkpoint has its own size
            run = make_run(whole)
            if text.prompt_tokens >= run.data.length:
                raise ConfigError(
                    f"text.prompt_tokens is {text.prompt_tokens}: give fewer than data.length, {run.data.length}"
                )
            return run

    def describe(self) -> dict[str, Any]:
        """The study as tables, all defaults resolved."""
        return asdict(self)


def _check_ours(tables: Mapping[str, Any], where: str, *, arm: bool) -> None:
    """Refuse what an arm must not choose, and elsewhere what only an arm may."""
    for place, reason in (_OF_THE_STUDY if arm else _OF_THE_STUDY | _OF_AN_ARM).items():
        found: Any = tables
        for key in place:
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is not None:
            raise ConfigError(f"{where} has {'.'.join(place)}: {reason}")
