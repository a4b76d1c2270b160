"""How a training is shown on a terminal."""

from __future__ import annotations

from rich.table import Table

from corpus_teacher.cli.console import console
from corpus_teacher.training import TrainingResult
from corpus_teacher.training.settings import RunSettings


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
