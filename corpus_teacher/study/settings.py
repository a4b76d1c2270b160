"""A study as a TOML file: every arm at every size and budget is checked before anything starts.

An arm, a size and a budget are tables of changes to the tables of a training (`corpus_teacher.training.settings`), laid
over those of ``[base]`` in the order size, budget, arm. A size or a budget whose table says ``arms`` has those arms
only. What makes runs comparable is the study's own and can't be changed by an arm: the seed, the held-out text, the
learning rate (tuned for each arm by one rule), the output folder.

Names stand for what the study makes: ``data.index`` and ``corpus.index`` take a name of ``[data.indexes]``, and
``neural.model``, ``self.checkpoint`` and ``student.checkpoint`` take ``"arm:NAME"``, the finished student of another
arm of the same budget and seed (of the same size, or ``"arm:NAME@SIZE"``). As ``data.train`` it is a text that this
student writes, as long as what is read in all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from corpus_teacher.blend.settings import (
    check_keys,
    check_known,
    check_share,
    check_whole,
    is_number,
    make_from,
    within,
)
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.training.settings import CorpusSettings, RunSettings, make_run, merged, typed

IN_DOMAIN, TUNE = "in", "tune"
"""The domains that every study has: held-out documents, and those that learning rates are chosen on."""

DOMAIN_METRICS = ("nats", "bits_per_byte", "ece", "brier", "top1")
"""What may be a primary metric, as DOMAIN.METRIC; all but top1 are better when lower."""

_REFERENCES = (("neural", "model"), ("self", "checkpoint"), ("student", "checkpoint"), ("data", "train"))
_ARMS = "arms"
_OF_THE_STUDY = {
    ("out",): "the study has a folder",
    ("seed",): "say at the top how many seeds",
    ("data", "held_out"): "the study holds out documents; other texts go into [domains]",
    ("training", "learning_rate"): "the study tunes it: give learning_rates at the top",
}


@dataclass(frozen=True)
class DataPlan:
    """The text of a study.

    Parameters
    ----------
    sources : tuple of str
        "stdlib" (also "stdlib:code", "stdlib:help"), the standard library of the running Python; or sources as
        `corpus-teacher index build` takes them.
    tokenizer : str
        "train:VOCAB", trained on the training documents, or one that names its end of a document.
    indexes : dict of str to int or "all"
        Indexes by name, each of the first documents (in an order that only their texts decide) until so many tokens
        are reached. So a smaller one is always the beginning of a larger one.
    held_out_share, tune_share : float
        Shares of the documents that are evaluated on, and that the learning rates are chosen on.
    held_out_tokens, tune_tokens : int
        At most about so many tokens of them, and of each other domain; whole documents.
    max_overlap : float
        A document is not held out where more than this share of its 13-grams of tokens stands in the largest index.
    max_bytes : int, optional
        Read no more than about so many bytes.
    text_field : str
        Of .jsonl and .parquet files.
    """

    sources: tuple[str, ...] = ("stdlib",)
    tokenizer: str = "train:2048"
    indexes: dict[str, Any] = field(default_factory=lambda: {"train": "all"})
    held_out_share: float = 0.08
    tune_share: float = 0.04
    held_out_tokens: int = 100_000
    tune_tokens: int = 50_000
    max_overlap: float = 0.3
    max_bytes: int | None = None
    text_field: str = "text"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", _texts(self.sources, "sources"))
        for name in ("held_out_share", "tune_share", "max_overlap"):
            check_share(getattr(self, name), name)
        for name in ("held_out_tokens", "tune_tokens"):
            check_whole(getattr(self, name), name, 1)
        if not 0 < self.held_out_share + self.tune_share < 1:
            raise ConfigError(
                f"held_out_share and tune_share are {self.held_out_share} and {self.tune_share}: leave documents for "
                "both training and evaluation"
            )
        if not isinstance(self.indexes, Mapping) or not self.indexes:
            raise ConfigError(f"indexes is {self.indexes!r}: give a table of names and numbers of tokens")
        for name, size in self.indexes.items():
            if size != "all":
                check_whole(size, f"indexes.{name}", 1)


@dataclass(frozen=True)
class MetricPlan:
    """What is measured of a finished student beside its held-out loss, and how much of it.

    Parameters
    ----------
    teacher : dict
        Table of the corpus teacher that fidelity is measured to, the same for every arm; over the run's own index.
    context_order : int
        Tokens of the contexts whose counts make the buckets of context_count.
    fidelity_tokens, induction_rows, extraction_prompts, samples : int
        How many; 0 leaves the measure out.
    extraction_length : int
        Tokens of the prompt, and of the continuation that has to be verbatim.
    """

    teacher: dict[str, Any] = field(default_factory=dict)
    context_order: int = 3
    fidelity_tokens: int = 16_384
    induction_rows: int = 64
    extraction_prompts: int = 128
    extraction_length: int = 16
    samples: int = 32

    def __post_init__(self) -> None:
        check_whole(self.context_order, "context_order", 1)
        check_whole(self.extraction_length, "extraction_length", 1)
        for name in ("fidelity_tokens", "induction_rows", "extraction_prompts", "samples"):
            check_whole(getattr(self, name), name, 0)
        known = [one.name for one in fields(CorpusSettings) if one.name not in ("index", "leave_out", "form")]
        check_keys(self.teacher, known, "teacher")


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
        "DOMAIN.METRIC", named before the run.
    baseline : str
        The arm that the others are compared with.
    seeds : int
        Paired seeds 0, 1, …: the same first weights and order of the data for every arm.
    tuning_seed : int
        Of the trainings that choose learning rates; none of the seeds.
    learning_rates : tuple of float
        The grid. One: nothing is tuned.
    data : DataPlan
    domains : dict of str to tuple of str
        Other texts to evaluate on, by name.
    metrics : MetricPlan
    headline : dict
        The size and the budget that the answer is given for; the first size and the last budget by default.
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
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    data: DataPlan = field(default_factory=DataPlan)
    domains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    metrics: MetricPlan = field(default_factory=MetricPlan)
    headline: dict[str, str] = field(default_factory=dict)
    form: str = "standard"

    def __post_init__(self) -> None:
        check_whole(self.seeds, "seeds", 1)
        check_whole(self.tuning_seed, "tuning_seed", 0)
        if self.tuning_seed < self.seeds:
            raise ConfigError(
                f"tuning_seed is {self.tuning_seed}, one of the {self.seeds} seeds that are reported: give another one"
            )
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
                _check_ours(changes, f"{name}.{one}")
        _check_ours(self.base, "base")
        check_known(self.baseline, self.arms, "baseline")
        for name in ("sizes", "budgets"):
            for one, changes in getattr(self, name).items():
                self._check_arms(changes.get(_ARMS, ()), f"{name}.{one}.{_ARMS}")
        domains = {name: _texts(specs, f"domains.{name}") for name, specs in self.domains.items()}
        for name in domains:
            if name in (IN_DOMAIN, TUNE):
                raise ConfigError(f"domains has {name!r}, which is the study's own: choose another name")
        object.__setattr__(self, "domains", domains)
        check_keys(self.headline, ("size", "budget"), "headline")
        first = {"size": next(iter(self.sizes)), "budget": list(self.budgets)[-1]}
        object.__setattr__(self, "headline", first | dict(self.headline))
        check_known(self.headline["size"], self.sizes, "headline.size")
        check_known(self.headline["budget"], self.budgets, "headline.budget")
        domain, _, metric = str(self.primary).partition(".")
        check_known(domain, (IN_DOMAIN, *domains), "the domain of primary")
        check_known(metric, DOMAIN_METRICS, "the metric of primary")

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
            made = merged(made, {key: value for key, value in changes.items() if key != _ARMS})
        return made

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

        Raises
        ------
        ConfigError
            Tables that don't make a training; the message begins with the cell.
        """
        tables = self.tables(cell)
        with within(f"arm {cell.arm}, size {cell.size}, budget {cell.budget}"):
            names = list(self.data.indexes)
            data = dict(tables.get("data", {}))
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
            for (table, key), _ in self.references(cell).items():
                made.setdefault(table, {})[key] = str(students.get((table, key), folder / "student"))
            whole = merged(tables, {"out": str(folder / "run"), "seed": seed, **made})
            if ("student", "checkpoint") in self.references(cell):
                whole["student"] = made["student"]  # a checkpoint has its own size
            return make_run(whole)

    def describe(self) -> dict[str, Any]:
        """The study as tables, all defaults resolved."""
        return asdict(self)


def read_study(path: str | Path, form: str | None = None) -> Study:
    """Read a study's TOML file in one of its forms.

    ``extends = "FILE"`` names another file, beside it, which it is laid over.

    Parameters
    ----------
    path : str or Path
    form : str, optional
        A name of ``[forms]``, whose changes are laid over the file; by default "standard" where the file has that.

    Raises
    ------
    InputError
        No such file, or no TOML.
    ConfigError
        As `make_study`; files that extend each other.
    """
    return make_study(_read_tables(Path(path)), form)


def _read_tables(path: Path, over: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a file, laid over those of the file that it extends."""
    if path.resolve() in over:
        raise ConfigError(f"{path} extends, through others, itself: leave one 'extends' out")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML: {error}") from error
    below = table.pop("extends", None)
    if below is None:
        return table
    if not isinstance(below, str):
        raise ConfigError(f"extends is {below!r}: name one file, beside {path}")
    return merged(_read_tables(path.parent / below, (*over, path.resolve())), table)


def make_study(table: Mapping[str, Any], form: str | None = None) -> Study:
    """A study of tables, as TOML gives them; every training of it is checked.

    Raises
    ------
    ConfigError
        A key that isn't known, with the nearest one; a form that the file lacks; a value out of range; an arm that is
        no training.
    """
    check_keys(table, [*_STUDY_KEYS, "forms"], "the study")
    forms = table.get("forms", {})
    if not isinstance(forms, Mapping):
        raise ConfigError(f"forms is {forms!r}: give a table of changes for each form")
    for name, changes in forms.items():
        check_keys(changes, _STUDY_KEYS, f"forms.{name}")
    if form is not None and form != "standard":
        check_known(form, forms or ("standard",), "form")
    form = form or "standard"
    table = merged(table, forms.get(form, {}))
    made = {key: value for key, value in table.items() if key != "forms"}
    kinds = {one.name: one.type for one in fields(Study)}
    typed(made, kinds, Study, "the study")
    for name, kind in (("data", DataPlan), ("metrics", MetricPlan)):
        if name in made:
            typed(made[name], {one.name: one.type for one in fields(kind)}, kind, name)
            made[name] = make_from(kind, check_keys(made[name], [one.name for one in fields(kind)], name), name)
    study = make_from(Study, {**made, "form": form}, "the study")
    for cell in study.cells():
        for learning_rate in study.learning_rates:
            for tuning in (False, True):
                study.training(
                    cell, seed=0, learning_rate=learning_rate, folder=Path("data"), students={}, tuning=tuning
                )
    return study


_STUDY_KEYS = [one.name for one in fields(Study) if one.name != "form"]


def _texts(said: Any, name: str) -> tuple[str, ...]:
    texts = (said,) if isinstance(said, str) else said
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{name} is {said!r}: give a list of files, folders or globs, or 'stdlib'")
    return tuple(texts)


def _check_ours(tables: Mapping[str, Any], where: str) -> None:
    """Refuse what an arm must not choose."""
    for place, reason in _OF_THE_STUDY.items():
        found: Any = tables
        for key in place:
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is not None:
            raise ConfigError(f"{where} has {'.'.join(place)}: {reason}")
