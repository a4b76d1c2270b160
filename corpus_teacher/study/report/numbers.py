"""How numbers are written in reports: a true minus, an interval in brackets, a unit."""

from __future__ import annotations

import math

from corpus_teacher.study.report.statistics import Estimate

NOTHING = "–"
UNITS = {"nats": "nats per token", "bits_per_byte": "bits per byte"}


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign.

    >>> signed(-0.25, 2), signed(0.25, 2), signed(-0.001, 2)
    ('−0.25', '+0.25', '0.00')
    """
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def interval(one: Estimate, digits: int = 3, *, turned: bool = False) -> str:
    """[low, high] of a difference; turned, of its negative, which is a gain."""
    low, high = (-one.high, -one.low) if turned else (one.low, one.high)
    if math.isnan(low):
        return "[no interval]"
    write = signed if low < 0 else number
    return f"[{write(low, digits)}, {write(high, digits)}]"


def ratio(one: Estimate) -> str:
    """A ratio with its interval."""
    if math.isnan(one.low):
        return f"{one.value:.2f} [no interval]"
    return f"{one.value:.2f} [{one.low:.2f}, {'> 100' if one.high > 100 else f'{one.high:.2f}'}]"


def p_text(p: float, *, alone: bool = False) -> str:
    """A p-value with its relation, or, alone in a cell, without an equals sign."""
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{'' if alone else '= '}{p:.3f}"


def unit_of(metric: str) -> str:
    """The unit of a metric, with a space before it; nothing for a share."""
    unit = UNITS.get(metric.rpartition(".")[2])
    return f" {unit}" if unit else ""


def plural(count: int, word: str) -> str:
    """1 run, 2 runs."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
