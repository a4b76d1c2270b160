"""Studies: arms × student sizes × data budgets × paired seeds, from one TOML file to rows that a report is made of.

`read_study` checks the file, `step_costs` times a step of each arm, `run_study` trains what is missing, `join_studies`
puts the shares of several machines together, `read_rows` reads what there is, `pack_rows` packs it. The names are
loaded when they are first asked for: a report is made without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corpus_teacher.study.costs import StepCost, step_costs
    from corpus_teacher.study.reading import make_study, read_study
    from corpus_teacher.study.row_file import pack_rows, read_rows
    from corpus_teacher.study.running import run_study
    from corpus_teacher.study.settings import Cell, Study
    from corpus_teacher.study.shares import join_studies

_HOMES = {
    "Cell": "corpus_teacher.study.settings",
    "StepCost": "corpus_teacher.study.costs",
    "Study": "corpus_teacher.study.settings",
    "join_studies": "corpus_teacher.study.shares",
    "make_study": "corpus_teacher.study.reading",
    "pack_rows": "corpus_teacher.study.row_file",
    "read_rows": "corpus_teacher.study.row_file",
    "read_study": "corpus_teacher.study.reading",
    "run_study": "corpus_teacher.study.running",
    "step_costs": "corpus_teacher.study.costs",
}

__all__ = [
    "Cell",
    "StepCost",
    "Study",
    "join_studies",
    "make_study",
    "pack_rows",
    "read_rows",
    "read_study",
    "run_study",
    "step_costs",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
