"""rows.jsonl: one line per finished training, appended and forced to the disk, so that a killed study loses none.

The rows of a finished study can be packed into rows.jsonl.xz (`pack_rows`), a sixth of the size. `read_rows` reads
both.
"""

from __future__ import annotations

import json
import lzma
import math
import os
from pathlib import Path
from typing import Any

from corpus_teacher.errors import InputError, OutputError
from corpus_teacher.files import parse_json, sync_folder, write_bytes

ROWS_FILE, PACKED_FILE = "rows.jsonl", "rows.jsonl.xz"
WITH_COUNTS = "+counts"
"""Behind the name of a domain: the same tokens, the student mixed with the counts at inference."""


def has_rows(folder: str | Path) -> bool:
    """Whether a folder has rows, packed or not."""
    return any(Path(folder, name).is_file() for name in (ROWS_FILE, PACKED_FILE))


def read_rows(folder: str | Path) -> list[dict[str, Any]]:
    """Read the rows of a study's folder: those of rows.jsonl.xz first, then those of rows.jsonl.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    list of dict
        In the order in which the trainings were finished. A last line of rows.jsonl that a kill cut off is left out,
        and so is a line of rows.jsonl that rows.jsonl.xz has already. Empty where the folder has neither file.

    Raises
    ------
    InputError
        A file that can't be read; a line in the middle that is not valid JSON.
    """
    rows, seen = [], set()
    for path in (Path(folder, PACKED_FILE), Path(folder, ROWS_FILE)):
        for number, line in enumerate(_content(path).split(b"\n")[:-1], start=1):
            if path.name == ROWS_FILE and line in seen:
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number}, is not valid JSON: take the line out") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}, is a JSON {type(row).__name__}, not a row: take the line out")
            rows.append(row)
            if path.name == PACKED_FILE:
                seen.add(line)
    return rows


def pack_rows(folder: str | Path) -> Path:
    """Pack rows.jsonl into rows.jsonl.xz, beside the rows that are packed already, and remove it.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    Path
        Of rows.jsonl.xz: the same bytes for the same rows. A kill loses no row, and running it again finishes the job.

    Raises
    ------
    InputError
        A folder without rows.jsonl.
    OutputError
        A file that can't be written.
    """
    plain, packed = Path(folder, ROWS_FILE), Path(folder, PACKED_FILE)
    if not plain.is_file():
        raise InputError(f"{folder} has no {ROWS_FILE}: give a folder of `study run`")
    before = _content(packed)
    seen = set(before.split(b"\n"))
    new = [line for line in _content(plain).split(b"\n")[:-1] if line not in seen]
    content = before + b"".join(line + b"\n" for line in new)
    write_bytes(packed, lzma.compress(content, preset=9))
    try:
        plain.unlink()
    except OSError as error:
        raise OutputError(f"{plain} can't be removed: {error.strerror or error}") from error
    return packed


def _content(path: Path) -> bytes:
    """The bytes of a file of rows, unpacked; none where there is no file."""
    try:
        content = path.read_bytes() if path.exists() else b""
        return lzma.decompress(content) if path.name == PACKED_FILE and content else content
    except (OSError, lzma.LZMAError) as error:
        raise InputError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error


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
            is_new = not self.path.exists()
            with open(self.path, "ab", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    left = memoryview(line.encode())
                    while left:
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except BaseException:
                    file.truncate(size)  # a disk that is full takes a part of a line
                    raise
            if is_new:
                sync_folder(self.path.parent)
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
