"""Studies out of TOML files: one may extend another, forms are laid over, and every training is checked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.files import read_toml
from corpus_teacher.settings import check_keys, check_known, make_from
from corpus_teacher.study.plans import DataPlan, MetricPlan
from corpus_teacher.study.settings import Study
from corpus_teacher.study.tuning import grid
from corpus_teacher.training.settings import merged, typed

_STUDY_KEYS = [one.name for one in fields(Study) if one.name != "form"]


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
        table = read_toml(path)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is no TOML: {error}") from error
    below = table.pop("extends", None)
    if below is None:
        return table
    if not isinstance(below, str) or not below.endswith(".toml"):
        raise ConfigError(f"extends is {below!r}: name one .toml file, beside {path}")
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
    _check_trainings(study)
    return study


def _check_trainings(study: Study) -> None:
    """Refuse a study one of whose trainings can't be made, at any point of its grid."""
    choices = grid(study.learning_rates, study.tune, 0, lambda choice: None).choices
    for cell in study.cells():
        for choice in choices:
            for tuning in (False, True):
                study.training(
                    cell, seed=0, learning_rate=choice.learning_rate, folder=Path("data"), students={}, tuning=tuning,
                    tuned=dict(choice.tuned),
                )  # fmt: skip
