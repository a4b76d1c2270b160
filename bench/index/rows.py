"""The rows of the result, the table for people, and the line of JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TITLES = {
    "build": "build, everything on disk (suffix array alone where it says so), s",
    "memory": "peak memory of a build, B/token (over the process before it)",
    "disk": "size on disk, text included, B/token",
    "open": "opening, ms",
    "match": "longest match and its count, positions/s, one thread",
    "continuations": "all continuations of the longest match, positions/s, one thread",
    "order4": "continuations of a 4-token context, as arrays, positions/s, one thread",
    "threads": "two Python threads on two cores, positions/s",
}
SECTIONS = tuple(TITLES)
SMALLER_IS_BETTER = {"build", "memory", "disk", "open"}


@dataclass
class Row:
    """One figure: the median of its runs, the least and the greatest of them, and whether it counts."""

    size: str
    section: str
    who: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    runs: int = 0
    slice: str = ""
    cores: int = 1
    status: str = "ok"  # ok, void (its answers differ), skipped (not there), failed
    note: str = ""
    fingerprint: str = ""  # of the corpus and the queries
    reused: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Sequence[float], **fields: Any) -> Row:
        """The row of several runs."""
        return cls(value=statistics.median(values), low=min(values), high=max(values), runs=len(values), **fields)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    if value >= 1e4:
        return f"{value / 1e3:.0f} k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(row: Row, mine: Row | None) -> str:
    """How many times better ours is than a peer, at the figure of the row."""
    if mine is None or row.who == mine.who or not row.value or not mine.value:
        return ""
    ratio = row.value / mine.value if row.section in SMALLER_IS_BETTER else mine.value / row.value
    return f"{ratio:,.0f} ×" if ratio >= 10 else f"{ratio:.2g} ×"


def render(rows: Sequence[Row], ours: str, titles: Mapping[str, str] = TITLES) -> str:
    """The tables, one a size and section; "×" says how many times better the first row of ours is."""
    lines: list[str] = []
    width = max([25, *(len(row.slice) for row in rows)])
    for size in dict.fromkeys(row.size for row in rows):
        lines += ["", f"== {size} tokens"]
        for section in titles:
            chosen = [row for row in rows if row.size == size and row.section == section]
            lines += ["", titles[section]] if chosen else []
            for part in dict.fromkeys(row.slice for row in chosen):
                group = [row for row in chosen if row.slice == part]
                mine = next((row for row in group if row.who == ours), None)
                lines += [_line(row, mine, width) for row in group]
        absent = [row for row in rows if row.size == size and row.section not in titles]
        lines += ["", *(f"  {row.who}: {row.status}, {row.note}" for row in absent)] if absent else []
    return "\n".join(lines)


def _line(row: Row, mine: Row | None, width: int) -> str:
    spread = f"{_number(row.low)} … {_number(row.high)}" if row.runs > 1 else ""
    cores = f"{row.cores} cores" if row.cores > 1 else "1 core"
    state = "" if row.status == "ok" else row.status.upper()
    judged = row.details.get("judged", {})
    equal = f"equals {', '.join(judged)}" if judged and row.status == "ok" else ""
    notes = "; ".join(filter(None, [state, row.note, equal, "from an earlier run" if row.reused else ""]))
    start = f"  {row.slice:<{width}} " if row.slice else "  "
    figures = f"{_number(row.value):>8}  {spread:<17} {_ratio(row, mine):>8}"
    return f"{start}{row.who:<13}{cores:<8}{figures}  {notes}".rstrip()
