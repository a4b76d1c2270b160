"""Studies: arms × student sizes × data budgets × paired seeds, from one TOML file to rows that a report is made of.

`read_study` checks the file, `run_study` trains what is missing of it, `read_rows` reads what there is.
"""

from __future__ import annotations

from corpus_teacher.study.reading import make_study, read_study
from corpus_teacher.study.rows import read_rows
from corpus_teacher.study.running import run_study
from corpus_teacher.study.settings import Cell, Study

__all__ = ["Cell", "Study", "make_study", "read_rows", "read_study", "run_study"]
