"""What `corpus-teacher trace` and `corpus-teacher index contamination` show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from corpus_teacher.cli.console import amount, console, many, plain_table, short, visible

if TYPE_CHECKING:
    from corpus_teacher.analysis.contamination import Contamination
    from corpus_teacher.analysis.trace import Trace

_LENGTHS = ((64, "bold white on red"), (32, "bold black on yellow"), (16, "bold yellow"), (8, "cyan"), (0, "green"))
_MOST_SPANS = 12
_MOST_ITEMS = 10


def show_trace(answer: Trace) -> None:
    """The text in the colours of its spans, the longest spans with where they stand, and the novelty curve."""
    screen = console()
    text = Text()
    for token, number in zip(answer.tokens, answer.span_of_each(), strict=True):
        text.append(token, style=_style(answer.spans[number].num_tokens) if number >= 0 else "dim")
    screen.print(text, overflow="fold")
    screen.print()
    bound = f" that occur at most {answer.max_count:,} times" if answer.max_count else ""
    screen.print(
        f"{answer.copied_share:.1%} of {many(answer.num_tokens, 'token')} lie in {many(len(answer.spans), 'span')} of "
        f"{answer.min_length} tokens or more{bound}; the longest match has {many(answer.longest, 'token')}"
    )
    for span in sorted(answer.spans, key=lambda one: (-one.num_tokens, one.count))[:_MOST_SPANS]:
        head = f"{span.num_tokens} tokens × {span.count:,}  "
        screen.print(Text("\n" + head, style="bold") + Text(visible(span.text), style=_style(span.num_tokens)))
        for one in span.occurrences:
            where = Text(f"  {one.name or f'document {one.document:,}'}: ", style="dim")
            match = Text(visible(one.match if len(one.match) < 60 else f"{one.match[:28]} … {one.match[-28:]}"))
            before, after = visible(one.before[-40:]), visible(one.after[:40])
            screen.print(where + Text(before, style="dim") + match + Text(after, style="dim"), overflow="fold")
    if len(answer.spans) > _MOST_SPANS:
        screen.print(f"\nand {many(len(answer.spans) - _MOST_SPANS, 'shorter span')}")
    _novelty(answer)


def _novelty(answer: Trace) -> None:
    """The share of n-grams that the corpus lacks, beside the baseline."""
    screen, other = console(), {one.n: one.novel for one in answer.baseline}
    screen.print(f"\nn-grams that the corpus lacks{f', beside {answer.baseline_of}' if answer.baseline_of else ''}")
    table = plain_table("n", "n-grams", "novel", *(["baseline"] if other else []), left=0)
    for one in answer.novelty:
        beside = [f"{other[one.n]:.1%}" if one.n in other else "–"] if other else []
        table.add_row(f"{one.n}", f"{one.ngrams:,}", f"{one.novel:.1%}", *beside)
    screen.print(table)


def _style(length: int) -> str:
    return next(style for least, style in _LENGTHS if length >= least)


def show_contamination(answer: Contamination) -> None:
    """Items by threshold, the verdicts as others define them, and the items with the longest matches."""
    screen = console()
    screen.print(f"{many(answer.num_items, 'item')}, {many(answer.num_tokens, 'token')}\n")
    table = plain_table("n-grams found", *(f"n = {n}" for n in answer.ngrams), left=0)
    for threshold in dict.fromkeys(one.threshold for one in answer.by_threshold):
        row = [one for one in answer.by_threshold if one.threshold == threshold]
        label = f"≥ {threshold:.0%}" if threshold else "any"
        table.add_row(label, *(f"{one.items:,} ({one.share:.1%})" for one in row))
    screen.print(table)
    screen.print(
        f"\nGPT-3: {answer.gpt3_dirty:,} items ({answer.gpt3_dirty / answer.num_items:.1%}) have {answer.gpt3_words} "
        "words in a row that the corpus contains"
    )
    found = ", ".join(f"{name} {count:,} ({count / answer.num_items:.1%})" for name, count in answer.windows.items())
    screen.print(f"infini-gram mini, windows of 50 characters: {found}\n")
    table = plain_table("longest", *(f"{n}-grams" for n in answer.ngrams), "windows", "item", "in", left=2, pad=1)
    for item in sorted(answer.items, key=lambda one: (-one.longest, -one.window_share))[:_MOST_ITEMS]:
        where = item.documents[0] if item.documents else None
        named = "" if where is None else where.name or f"document {where.document:,}"
        shares = (f"{share:.0%}" for share in item.ngram_shares)
        table.add_row(f"{item.longest}", *shares, f"{item.window_share:.0%}", short(item.name), short(named))
    screen.print(table)
    rate = amount(answer.num_tokens / max(answer.matching_s, 1e-9))
    screen.print(
        Text(
            f"the index answered at {rate} tokens/s; {answer.seconds:.1f} s in all, most of it tokenising", style="dim"
        )
    )
