"""rows.jsonl: one finished training a line, appended and forced to the disk, so that a killed study loses none."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from corpus_teacher.errors import InputError, OutputError

ROWS_FILE = "rows.jsonl"


def read_rows(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of a study's folder, in the order in which they were finished; a line that a kill cut off is left out.

    Raises
    ------
    InputError
        A line in the middle that is no JSON.
    """
    path = Path(folder, ROWS_FILE)
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"{path}, line {number}, is no JSON: take the line out") from error
    return rows


class RowWriter:
    """Appends rows; what a kill left of a line is cut off first.

    Raises
    ------
    OutputError
        A file that can't be written to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder, ROWS_FILE)
        try:
            if self.path.exists():
                whole = self.path.read_bytes()
                kept = whole.rfind(b"\n") + 1
                if kept < len(whole):
                    os.truncate(self.path, kept)
        except OSError as error:
            raise self._failure(error) from error

    def append(self, row: dict[str, Any]) -> None:
        """Write a row, on the disk when this returns; infinity and NaN, which JSON lacks, become null."""
        line = json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with open(self.path, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path} can't be written: {error.strerror or error}")


def finite(value: Any) -> Any:
    """The same with None for infinities and NaN."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
