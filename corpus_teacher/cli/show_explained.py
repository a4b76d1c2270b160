"""What `index query --estimator` shows: an estimator's distribution, and what each order adds to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from corpus_teacher.cli.console import console, visible

if TYPE_CHECKING:
    from corpus_teacher.analysis.query import Explained

_MOST_COLUMNS = 8  # of orders; what is more is added up in the lowest


def show_explained(explained: Explained) -> None:
    """The likeliest tokens with a column an order, and what each order keeps and passes on."""
    groups = _groups(explained)
    tokens = Table(box=None, padding=(0, 2), header_style="bold")
    tokens.add_column("continuation")
    tokens.add_column("id", justify="right", style="dim")
    tokens.add_column("probability", justify="right")
    for group in groups:
        tokens.add_column(_name(explained, group), justify="right")
    for one in explained.tokens:
        parts = [sum(one.contributions[order] for order in group) for group in groups]
        tokens.add_row(
            Text(f"‹{visible(one.text)}›"),
            str(one.token),
            _share(one.probability),
            *(Text(_share(part), style="" if part else "dim") for part in parts),
        )
    orders = Table(box=None, padding=(0, 2), header_style="bold")
    orders.add_column("order")
    for name in ("count", "distinct", "keeps", "passes on"):
        orders.add_column(name, justify="right")
    for group in reversed(groups):
        passed = float(np.prod([explained.orders[order].passed for order in group]))
        deepest = explained.orders[group[-1]]
        counts = (f"{deepest.count:,}", f"{deepest.distinct:,}")
        orders.add_row(_name(explained, group), *counts, _share(1 - passed), _share(passed))
    title = Text(f"{explained.estimator}, and what each order adds", style="bold")
    console().print(Group("", title, tokens, "", orders))


def _groups(explained: Explained) -> list[list[int]]:
    """Neighbouring orders with the same counts, from the base, which stands alone, up; places in `orders`."""
    groups: list[list[int]] = []
    facts = [(order.count, order.distinct) for order in explained.orders]
    for place, fact in enumerate(facts):
        if place > 1 and fact == facts[place - 1]:
            groups[-1].append(place)
        else:
            groups.append([place])
    while len(groups) > _MOST_COLUMNS:
        groups[1:3] = [groups[1] + groups[2]]
    return groups


def _name(explained: Explained, group: list[int]) -> str:
    """The orders of a group."""
    first, last = explained.orders[group[0]].order, explained.orders[group[-1]].order
    if last == 0:
        return "base"
    return f"order {first}" if first == last else f"order {first}–{last}"


def _share(part: float) -> str:
    """A probability in per cent; small ones in two digits.

    >>> _share(0.1234), _share(0.00012), _share(0.0)
    ('12.34%', '0.012%', '·')
    """
    if part == 0:
        return "·"
    return f"{part:.2%}" if abs(part) >= 0.001 else f"{100 * part:.2g}%"
