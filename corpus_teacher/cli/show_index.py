"""What the commands about an index show: a build, its facts, an answer with its places, what the corpus repeats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.bar import Bar
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from corpus_teacher.cli.console import (
    BAR_WIDTH,
    amount,
    console,
    facts,
    many,
    nearby,
    pieces,
    plain_table,
    short,
    size,
    visible,
)
from corpus_teacher.cli.options import State, with_options

if TYPE_CHECKING:
    from corpus_teacher.analysis.duplicates import RepeatsAnswer
    from corpus_teacher.analysis.query import BackoffStep, Explained, IndexInfo, Occurrence, QueryAnswer
    from corpus_teacher.data.build import BuildSummary
    from corpus_teacher.data.growing import IndexChange

_CONTEXT_CHARS = 60
_NAMED = 3  # documents of a removal
_MOST_COLUMNS = 8  # of orders; what is more is added up in the lowest


def show_summary(summary: BuildSummary) -> None:
    """What a build did and took."""
    screen = console()
    listed = facts()
    listed.add_row("index", summary.path)
    listed.add_row(
        "corpus",
        f"{summary.num_tokens:,} tokens in {many(summary.num_documents, 'document')}, from "
        f"{many(summary.num_files, 'file')}",
    )
    ends = "" if summary.end_of_document is None else f", documents end with {summary.end_of_document}"
    listed.add_row("vocabulary", f"{summary.vocab_size:,} ({summary.tokenizer or 'no tokenizer'}){ends}")
    if summary.text_bytes_per_token:
        listed.add_row("text", f"{size(summary.num_bytes)}, {summary.text_bytes_per_token:.2f} bytes/token")
    listed.add_row("on disk", f"{size(summary.index_bytes)}, {summary.index_bytes_per_token:.2f} bytes/token")
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in summary.stage_s.items())
    listed.add_row("time", f"{summary.total_s:.1f} s, {amount(summary.tokens_per_s)} tokens/s ({stages})")
    if summary.compiling_s >= 0.1:
        listed.add_row("compiler", f"{summary.compiling_s:.1f} s more, once on this machine")
    if summary.peak_memory_bytes:
        listed.add_row("peak memory", size(summary.peak_memory_bytes))
    if summary.skipped_files:
        suffixes = list(summary.skipped_files.items())
        shown = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes[:6])
        more = f", {sum(count for _, count in suffixes[6:]):,} others" if len(suffixes) > 6 else ""
        listed.add_row("left out", f"files: {shown}{more}")
    if summary.num_skipped_documents or summary.num_replaced_documents:
        listed.add_row(
            "broken",
            f"{many(summary.num_skipped_documents, 'document')} left out, {summary.num_replaced_documents:,} mended",
        )
    for note in summary.notes:
        listed.add_row("note", Text(visible(with_options(note, State.options))))
    screen.print(listed)


def show_info(info: IndexInfo) -> None:
    """What an index is."""
    listed = facts()
    listed.add_row("index", info.path)
    listed.add_row("fingerprint", info.fingerprint)
    listed.add_row("corpus", f"{info.num_tokens:,} tokens in {many(info.num_documents, 'document')}")
    ends = "" if info.end_of_document is None else f", documents end with {info.end_of_document}"
    listed.add_row("vocabulary", f"{info.vocab_size:,} ({info.tokenizer or 'no tokenizer'}){ends}")
    if info.num_bytes:
        listed.add_row("text", f"{size(info.num_bytes)}, {info.num_bytes / info.num_tokens:.2f} bytes/token")
    layout = "" if info.layout == "full" else f", {info.layout}"
    listed.add_row("on disk", f"{size(info.total_bytes)}, {info.total_bytes / info.num_tokens:.2f} bytes/token{layout}")
    hot = f"{size(info.hot_bytes)}, {info.hot_bytes / info.num_tokens:.2f} bytes/token"
    listed.add_row("read by targets", f"{hot}: what should fit in memory")
    for key in ("sources", "created"):
        value = info.metadata.get(key)
        if value:
            listed.add_row(key, Text(visible(", ".join(value) if isinstance(value, list) else str(value))))
    files = Table(box=None, padding=(0, 2), header_style="bold")
    files.add_column("file")
    files.add_column("size", justify="right")
    files.add_column("bytes/token", justify="right")
    for name, num_bytes in sorted(info.size_bytes.items(), key=lambda item: -item[1]):
        files.add_row(name, size(num_bytes), f"{num_bytes / info.num_tokens:.2f}")
    parts: list[Any] = [listed, "", files]
    if info.shards:
        parts += ["", _shards_table(info)]
    if info.history:
        parts += ["", _history_table(info)]
    console().print(Group(*parts))


def _shards_table(info: IndexInfo) -> Table:
    """The shards, one line each."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("shard")
    removed = ["removed documents", "tokens of these"] if any(shard.removed_documents for shard in info.shards) else []
    for head in ("first document", "documents", "first position", "tokens", "size", *removed):
        table.add_column(head, justify="right")
    for shard in info.shards:
        numbers = (shard.first_document, shard.num_documents, shard.first_position, shard.num_tokens)
        masked = (shard.removed_documents, shard.removed_tokens) if removed else ()
        counts = [f"{number:,}" for number in (*numbers, *masked)]
        table.add_row(shard.name, *counts[:4], size(shard.size_bytes), *counts[4:])
    return table


def _history_table(info: IndexInfo) -> Table:
    """What was done to the folder, and when."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for head in ("when", "what", ""):
        table.add_column(head)
    for entry in info.history:
        facts = [
            many(entry[key], key.rstrip("s"))
            for key in ("documents", "tokens", "shards")
            if isinstance(entry.get(key), int)
        ]
        removed = [str(one.get("name") or one.get("number")) for one in entry.get("removed", [])[:_NAMED]]
        said = "; ".join([", ".join(facts), *removed])
        table.add_row(str(entry.get("when") or ""), str(entry.get("what")), Text(visible(said)))
    return table


def show_change(change: IndexChange) -> None:
    """What became of an index."""
    listed = facts()
    listed.add_row("index", change.path)
    listed.add_row("documents", f"{change.documents_before:,} → {change.num_documents:,}")
    listed.add_row("tokens", f"{change.tokens_before:,} → {change.num_tokens:,}")
    listed.add_row("shards", f"{change.shards_before:,} → {change.num_shards:,}")
    listed.add_row("took", f"{change.total_s:.1f} s")
    console().print(listed)
    for note in change.notes:
        console().print(Text(visible(note)))


def show_checks(path: Path, passed: list[str], *, full: bool) -> None:
    """The checks that an index passed."""
    screen = console()
    for name in passed:
        screen.print(Text.assemble(("✓ ", "green"), name))
    how = "all invariants" if full else "the checksums and a sample of the invariants; --full checks all"
    screen.print(Text(f"{path} is sound ({how})"))


def show_answer(answer: QueryAnswer) -> None:
    """What the corpus says after a text."""
    screen = console()
    known = len(answer.tokens) - answer.match_len
    head = Text()
    for number, (_, text) in enumerate(answer.tokens):
        style = "dim" if number < known else "bold green" if number % 2 else "bold cyan"
        head.append(visible(text), style=style)
    screen.print(Text("context  ") + head, overflow="fold")
    if not answer.match_len:
        screen.print("match    nothing of it: these are the most frequent tokens of all")
    else:
        screen.print(
            f"match    the last {many(answer.match_len, 'token')} of {len(answer.tokens)}, followed "
            f"{answer.context_count:,} times, by {many(answer.distinct, 'different token')}"
        )
    if answer.nearby:
        screen.print(Text(f"tokens   {pieces([text for _, text in answer.tokens])}", style="dim"), overflow="fold")
        for form in answer.nearby:
            screen.print(Text(f"         {nearby(form.text, form.what, form.count)}", style="yellow"), overflow="fold")
    screen.print()
    screen.print(_continuations(answer))
    screen.print()
    screen.print(_backoff(answer.backoff))
    if answer.occurrences:
        screen.print()
        shown = len(answer.occurrences)
        screen.print(Text(f"where it stands ({shown} of {answer.num_occurrences:,})", style="bold"))
        for occurrence in answer.occurrences:
            screen.print(_heading(occurrence))
            screen.print(Padding(_snippet(occurrence), (0, 2)))
    if answer.sources and answer.sources[0].name is not None:
        screen.print()
        screen.print(Text("documents that it occurs in most, with how often a token follows there", style="bold"))
        for source in answer.sources:
            screen.print(Text(f"{source.count:>9,}  {_document(source.document, source.name)}"), overflow="fold")


def _continuations(answer: QueryAnswer) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("continuation")
    table.add_column("id", justify="right", style="dim")
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    table.add_column("")
    for one in answer.continuations:
        table.add_row(
            Text(_token(one.text)),
            str(one.token),
            f"{one.count:,}",
            f"{one.share:.1%}",
            Bar(1.0, 0, one.share, width=BAR_WIDTH),
        )
    if answer.distinct > len(answer.continuations):
        rest = answer.context_count - sum(one.count for one in answer.continuations)
        others = answer.distinct - len(answer.continuations)
        share = rest / answer.context_count
        table.add_row(
            Text(many(others, "other"), style="dim"),
            "",
            f"{rest:,}",
            f"{share:.1%}",
            Bar(1.0, 0, share, width=BAR_WIDTH),
        )
    return table


def _backoff(steps: list[BackoffStep]) -> Table:
    """The chain; neighbouring orders that say the same stand in one row."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("order", justify="right")
    table.add_column("count", justify="right")
    table.add_column("distinct", justify="right")
    table.add_column("best continuation")
    table.add_column("share", justify="right")
    table.add_column("context")
    for first, last in _runs(steps):
        orders = str(first.order) if first is last else f"{last.order}–{first.order}"
        context = visible(first.context)
        if len(context) > _CONTEXT_CHARS:
            context = "…" + context[1 - _CONTEXT_CHARS :]
        table.add_row(
            orders,
            f"{first.count:,}",
            f"{first.distinct:,}",
            Text(_token(first.best.text)),
            f"{first.best.share:.1%}",
            Text(context if first.order else "(none)", style="dim", no_wrap=True, overflow="ellipsis"),
        )
    return table


def _runs(steps: list[BackoffStep]) -> Iterator[tuple[BackoffStep, BackoffStep]]:
    """First and last of neighbours with the same counts."""
    begin = 0
    for number in range(1, len(steps) + 1):
        if number == len(steps) or (steps[number].count, steps[number].distinct) != (
            steps[begin].count,
            steps[begin].distinct,
        ):
            yield steps[begin], steps[number - 1]
            begin = number


def _heading(occurrence: Occurrence) -> Text:
    document = _document(occurrence.document, occurrence.name)
    return Text(f"{document}, token {occurrence.offset:,} (position {occurrence.position:,})", style="dim")


def _document(number: int, name: str | None) -> str:
    """A document by its name, where it has one, and its number."""
    return f"document {number:,}" if name is None else f"{visible(name)} (document {number:,})"


def _snippet(occurrence: Occurrence) -> Text:
    return Text.assemble(
        "…" if occurrence.cut_before else "",
        visible(occurrence.before),
        (f"⟦{visible(occurrence.match)}⟧", "bold green"),
        visible(occurrence.after),
        "…" if occurrence.cut_after else "",
        overflow="fold",
    )


def _token(text: str) -> str:
    """A token between marks, so that its spaces show."""
    return f"‹{visible(text)}›"


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
    kept = [Text(f"the fit is kept in {explained.fit_file}", style="dim")] if explained.fit_file else []
    console().print(Group("", title, tokens, "", orders, *kept))


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


def show_repeats(answer: RepeatsAnswer) -> None:
    """Shares by length; documents and pairs that share most."""
    screen = console()
    screen.print(
        f"{answer.num_tokens:,} tokens in {many(answer.num_documents, 'document')}; "
        "matches with another document of at least"
    )
    table = plain_table("length", "positions", "share", "tokens in passages", "share ", left=0)
    for one in answer.lengths:
        table.add_row(
            f"{one.length}",
            f"{one.positions:,}",
            f"{one.position_share:.3%}",
            f"{one.tokens:,}",
            f"{one.token_share:.3%}",
        )
    screen.print(table)
    screen.print()
    if not answer.documents:
        screen.print(f"no document shares {answer.top_length} tokens with another one")
        return
    screen.print(f"documents with most positions after {answer.top_length} shared tokens")
    table = plain_table("document", "positions", "share of it", "tokens", "name or beginning", left=1)
    for document in answer.documents:
        table.add_row(
            f"{document.document:,}",
            f"{document.positions:,}",
            f"{document.share:.1%}",
            f"{document.num_tokens:,}",
            short(_called(document.name, document.begins, 60)),
        )
    screen.print(table)
    screen.print()
    screen.print("pairs")
    table = plain_table("document", "other", "positions", "share of the first", "names or beginnings", left=1)
    for pair in answer.pairs:
        table.add_row(
            f"{pair.document:,}",
            f"{pair.other:,}",
            f"{pair.positions:,}",
            f"{pair.share:.1%}",
            short(f"{_called(pair.name, pair.begins, 24)} | {_called(pair.other_name, pair.other_begins, 24)}"),
        )
    screen.print(table)


def _called(name: str | None, begins: str, length: int) -> str:
    """A document's name, or how it begins where it has none."""
    return _beginning(begins, length) if name is None else visible(name)


def _beginning(text: str, length: int) -> str:
    """How a document begins, on one line."""
    return visible(" ".join(text.split()))[:length]
