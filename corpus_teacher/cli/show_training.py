"""How a training is shown on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from corpus_teacher.cli.console import console
from corpus_teacher.settings import to_toml
from corpus_teacher.training import TrainingResult
from corpus_teacher.training.assemble import Plan
from corpus_teacher.training.settings import RunSettings


def checked(resolved: Mapping[str, Any], plan: Plan) -> str:
    """A checked training as a TOML file that runs, headed by what it will be."""
    lines = [f"# student: {plan.parameters:,} parameters"]
    if plan.windows is not None:
        lines.append(f"# text: {plan.windows:,} windows of {resolved['data']['length']:,} tokens")
    if plan.steps is not None and plan.tokens is not None:
        lines.append(f"# training: {plan.steps:,} steps, {plan.tokens:,} tokens")
    if plan.seconds is not None:
        lines.append(f"# time: about {_duration(plan.seconds)} on this machine, without teachers and evaluations")
    return "\n".join([*lines, "", to_toml(resolved)])


def _duration(seconds: float) -> str:
    """A rough span of time: "40 s", "12 min", "3.5 h", "2 days"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def show_result(result: TrainingResult, settings: RunSettings) -> None:
    """The learning curve, and where all lies."""
    screen = console()
    table = Table(title=f"{result.steps:,} steps, {result.tokens:,} tokens, {result.tokens_per_s:,.0f} tokens/s")
    known = result.bits_per_byte is not None
    for column in ("step", "tokens", "held-out nats/token", *(["bits/byte"] if known else [])):
        table.add_column(column, justify="right")
    for point in result.history:
        bits = [f"{point['bits_per_byte']:.4f}"] if known else []
        table.add_row(f"{point['step']:,}", f"{point['tokens']:,}", f"{point['held_out_nats']:.4f}", *bits)
    screen.print(table)
    if result.logs:
        last = result.logs[-1]
        shares = {name.removeprefix("share_"): value for name, value in last.items() if name.startswith("share_")}
        if shares:
            told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
            screen.print(f"taught by, of all positions since the log before: {told}")
    if result.teacher_share:
        screen.print(f"the teachers took {result.teacher_share:.1%} of the time of the steps")
    screen.print(f"wrote {settings.out}")
