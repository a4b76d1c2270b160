"""Figures of an earlier run, so that ours can be measured anew without hours of peers: `--reuse`.

What is taken was measured on the very same tokens and queries (a fingerprint of both says so), whole, and not void; its
answers come along, so ours is still judged by them. Anything else is measured again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from bench.index.contender import Contender
from bench.index.rows import Row


def answers_folder(result_path: Path) -> Path:
    """Where the answers lie that belong to a result file."""
    return result_path.with_suffix(".answers")


class EarlierRun:
    """The rows and answers that a run left with --out; read at once, so the file may be written over."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.rows = path, list[Row]()
        if path is not None:
            if not path.exists():
                raise SystemExit(f"{path} is not there: --reuse names a file that an earlier run wrote with --out.")
            self.rows = [Row(**fields) for fields in json.loads(path.read_text())["rows"]]

    def take(self, contender: Contender, fingerprint: str, sections: Iterable[str], answers_path: Path) -> list[Row]:
        """A peer's rows of the sections, its answers copied to answers_path; none unless all can be taken."""
        if self.path is None or contender.is_ours:
            return []
        wanted = set(sections)
        known = [row for row in self.rows if row.who == contender.name and row.fingerprint == fingerprint]
        found = [row for row in known if row.section in wanted]
        asked = wanted & set(contender.sections)
        needed = asked | (wanted & {"build", "memory"})
        whole = needed <= {row.section for row in found} and all(row.status == "ok" for row in found)
        kept = answers_folder(self.path) / answers_path.name
        if not found or not whole or (asked and not kept.exists()):
            return []
        if asked and kept.resolve() != answers_path.resolve():
            shutil.copyfile(kept, answers_path)
        for row in found:
            row.reused = True
        return found
