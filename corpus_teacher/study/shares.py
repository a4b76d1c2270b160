"""A study over several machines: each trains a share of the cells, and `join_studies` puts their rows together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corpus_teacher.errors import ConfigError, InputError, OutputError
from corpus_teacher.files import held_folder, write_json
from corpus_teacher.study.row_file import RowWriter, read_rows
from corpus_teacher.study.settings import Cell, Study

STUDY_FILE = "study.json"


def cells_of_share(study: Study, number: int, of: int) -> list[Cell]:
    """The cells of one of several shares, in the grid's order; arms that learn from each other stay together.

    Parameters
    ----------
    number, of : int
        The share, from 1, of so many; (1, 1) is everything.

    Raises
    ------
    ConfigError
        A share that there isn't.
    """
    if not 1 <= number <= of:
        raise ConfigError(f"share is {number}/{of}: give a number from 1 to {of}")
    cells = list(study.cells())
    group = {cell: place for place, cell in enumerate(cells)}
    for cell in cells:  # the smallest number of what hangs together
        for other in study.references(cell).values():
            merged, gone = sorted((group[cell], group[other]))
            group = {one: merged if found == gone else found for one, found in group.items()}
    ranks = {found: rank for rank, found in enumerate(sorted(set(group.values())))}
    return [cell for cell in cells if ranks[group[cell]] % of == number - 1]


def join_studies(out: str | Path, folders: Sequence[str | Path]) -> int:
    """Put the rows of one study's shares together in a folder; those that it has already stay as they are.

    Parameters
    ----------
    out : path
        A folder of the study, or a new one.
    folders : sequence of path
        Of `run_study` with a share.

    Returns
    -------
    int
        Rows that were added.

    Raises
    ------
    InputError
        A folder that holds no study.
    ConfigError
        Folders of different studies or forms.
    OutputError
        A folder that can't be written to.
    """
    out = Path(out)
    described = {Path(folder): _described(Path(folder)) for folder in folders}
    if (out / STUDY_FILE).is_file():
        described = {out: _described(out)} | described
    first, *others = described
    for folder in others:
        for key in ("name", "form"):
            if described[folder].get(key) != described[first].get(key):
                raise ConfigError(
                    f"{folder} has the {key} {described[folder].get(key)!r} and {first} {described[first].get(key)!r}: "
                    "join the shares of one study in one form"
                )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {out} can't be made: {error.strerror or error}") from error
    with held_folder(out, "being written by a study"):
        return _join(out, described, first)


def _join(out: Path, described: Mapping[Path, dict[str, Any]], first: Path) -> int:
    """`join_studies` in a folder that is held."""
    if not (out / STUDY_FILE).is_file():
        write_json(out / STUDY_FILE, described[first])
    have = {row["fingerprint"] for row in read_rows(out)}
    writer, added = RowWriter(out), 0
    for folder in described:
        for row in read_rows(folder):
            if row["fingerprint"] not in have:
                writer.append(row)
                have.add(row["fingerprint"])
                added += 1
    return added


def _described(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / STUDY_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder} has no readable {STUDY_FILE}: name folders that `study run` wrote") from error
