"""How a running study is shown on a terminal, or in the file that its output goes to."""

from __future__ import annotations

import statistics
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from corpus_teacher.study.running import StudyProgress
from corpus_teacher.study.settings import Study


def show_finished(told: StudyProgress) -> None:
    """A line on stderr for a training that is finished, with the time that is left."""
    row = told.row
    domain, metrics = next(iter(row["metrics"].items()))
    place = " · ".join((row["arm"], row["size"], row["budget"]))
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"{told.done}/{told.total} {row['role']} {place}, seed {row['seed']}, rate {row['learning_rate']:g}: "
        f"{metrics['nats']:.4f} nats ({domain}), {row['seconds']:.0f} s; "
        f"about {timedelta(seconds=round(told.left_s))} left"
    )


def show_rows(study: Study, rows: list[dict[str, Any]], out: Path) -> None:
    """The primary metric of every arm, without judging it: that is the report's."""
    domain, metric = study.primary.split(".")
    table = Table(title=f"{study.name} ({study.form}): {study.primary}, mean of the seeds")
    for column in ("arm", "size", "budget", "seeds", "rate", study.primary):
        table.add_column(column, justify="left" if column in ("arm", "size", "budget") else "right")
    for cell in study.cells():
        found = [row for row in rows if (row["arm"], row["size"], row["budget"]) == cell and row["role"] == "run"]
        values = [row["metrics"][domain][metric] for row in found if row["metrics"][domain][metric] is not None]
        mean = f"{statistics.fmean(values):.4f}" if values else "diverged"
        edge = "*" if found and found[0]["at_end_of_grid"] else ""
        table.add_row(*cell, str(len(found)), f"{found[0]['learning_rate']:g}{edge}" if found else "–", mean)
    console = Console(soft_wrap=True)
    console.print(table)
    if any(row["at_end_of_grid"] for row in rows if row["role"] == "run"):
        console.print("* the best rate lies at an end of the grid: a wider one may change the answer")
    console.print(f"rows: {out / 'rows.jsonl'}; corpus-teacher study report {out} makes the page of them")
