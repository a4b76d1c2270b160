"""Which trainings of a study are those of other studies too: one measurement, however many reports show it.

Naively: two rows are one training where their fingerprints are equal. Other studies are the folders beside this one; a
row that `study run --reuse` took says itself where it is from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus_teacher.errors import InputError
from corpus_teacher.files import read_json
from corpus_teacher.study.report.numbers import plural
from corpus_teacher.study.report.results import Results
from corpus_teacher.study.row_file import has_rows, read_rows


@dataclass(frozen=True)
class Shared:
    """What this study has in common with another.

    Parameters
    ----------
    study : str
        The other one's name.
    arms : tuple of str
        As they are called here.
    runs : int
        Finished runs that are both studies'.
    """

    study: str
    arms: tuple[str, ...]
    runs: int

    def __str__(self) -> str:
        return f"{self.study}: {plural(self.runs, 'run')} of {', '.join(self.arms)}"


def shared_runs(folder: Path, results: Results) -> list[Shared]:
    """The studies beside a folder, or those that its rows name, that have some of its finished runs.

    O(rows of all studies beside it); a folder that can't be read is no study beside it.
    """
    own = {str(row["fingerprint"]): str(row["arm"]) for row in results.rows if "fingerprint" in row}
    found: dict[str, set[str]] = {}
    for row in results.rows:
        if "taken_from" in row:
            found.setdefault(str(row["taken_from"]), set()).add(str(row["fingerprint"]))
    for name, fingerprints in _beside(folder):
        found.setdefault(name, set()).update(fingerprints & own.keys())
    order = {arm: place for place, arm in enumerate(results.arms)}
    return [
        Shared(name, tuple(sorted({own[one] for one in some}, key=lambda arm: order[arm])), len(some))
        for name, some in sorted(found.items())
        if some and name != results.settings["name"]
    ]


def _beside(folder: Path) -> Iterator[tuple[str, set[str]]]:
    """Name and fingerprints of the finished runs of each other study in the folder above."""
    own = folder.resolve()
    try:
        others = sorted(one for one in own.parent.iterdir() if one != own and has_rows(one))
    except OSError:  # the folder above is not for us to list
        return
    for other in others:
        try:
            name, rows = str(read_json(other / "study.json")["name"]), read_rows(other)
        except (InputError, OSError, ValueError, KeyError, TypeError):
            continue
        yield name, {str(row.get("fingerprint")) for row in rows if row.get("role") == "run"}
