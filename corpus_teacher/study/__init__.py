"""Studies: arms × student sizes × data budgets × paired seeds, from one TOML file to rows that a report is made of.

`read_study` checks the file, `step_costs` times a step of each arm, `run_study` trains what is missing, `join_studies`
puts the shares of several machines together, `read_rows` reads what there is.
"""

from __future__ import annotations

from corpus_teacher.study.costs import StepCost, step_costs
from corpus_teacher.study.reading import make_study, read_study
from corpus_teacher.study.rows import read_rows
from corpus_teacher.study.running import run_study
from corpus_teacher.study.settings import Cell, Study
from corpus_teacher.study.shares import join_studies

__all__ = [
    "Cell",
    "StepCost",
    "Study",
    "join_studies",
    "make_study",
    "read_rows",
    "read_study",
    "run_study",
    "step_costs",
]
