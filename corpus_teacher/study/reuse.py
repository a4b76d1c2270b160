"""Trainings that another study has done already: one fingerprint, one training, whatever its arm is called."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpus_teacher.errors import InputError
from corpus_teacher.files import new_folder
from corpus_teacher.study.measuring import SAVING, Job
from corpus_teacher.study.row_file import ROWS_FILE, has_rows, read_rows

STUDENTS = "students"


class Done:
    """The finished trainings of other studies' folders.

    Raises
    ------
    InputError
        A folder without rows.
    """

    def __init__(self, folders: Sequence[str | Path]) -> None:
        self.found: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
        for folder in map(Path, folders):
            if not has_rows(folder):
                raise InputError(f"{folder} has no {ROWS_FILE}: give folders of `study run` to reuse")
            for row in read_rows(folder):
                self.found.setdefault(row["fingerprint"], []).append((folder, row))

    def take(self, job: Job) -> dict[str, Any] | None:
        """A job's row, under the names that it has in this study; its student is copied where others learn from it.

        None where nobody has done it, or where the student that is needed wasn't kept.
        """
        for folder, row in self.found.get(job.fingerprint, []):
            if job.keep is not None:
                student = folder / STUDENTS / job.fingerprint
                if not student.is_dir():
                    continue
                _copy(student, job.keep)
            here = {"study": job.study, "form": job.form, **job.cell._asdict(), "at_end_of_grid": job.at_end_of_grid}
            return {**row, **here, "taken_from": row.get("taken_from", row["study"])}
        return None


def _copy(source: Path, target: Path) -> None:
    """A folder that appears when it is whole."""
    with new_folder(target, SAVING, replace=True) as scratch:
        shutil.copytree(source, scratch, dirs_exist_ok=True)
