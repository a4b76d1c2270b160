"""What the commands about the teacher show: samples with their evidence, repeats, tables of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from corpus_teacher.display import amount, console, visible

if TYPE_CHECKING:
    from corpus_teacher.data.repeats import RepeatsAnswer
    from corpus_teacher.data.sampling import Sample, SampleAnswer

_STYLES = ("dim", "", "cyan", "green", "bold green")  # by the order of a token's context: 0, 1, 2, 3–4, 5 and more


def show_samples(answer: SampleAnswer) -> None:
    """The texts, and how fast they came."""
    screen = console()
    for number, sample in enumerate(answer.samples):
        if number:
            screen.print(Text("─" * 24, style="dim"))
        body = _evidence(sample) if sample.tokens else Text(sample.text)
        screen.print(Text(answer.prompt, style="bold") + body, overflow="fold")
    if any(sample.tokens for sample in answer.samples):
        screen.print(Text("after each token: tokens of its context that the corpus knows × how often", style="dim"))
    console(stderr=True).print(
        Text(
            f"{answer.num_tokens:,} tokens in {answer.sampling_s:.2f} s, {amount(answer.tokens_per_s)} tokens/s; "
            f"{answer.estimator}, contexts of ≤ {answer.max_order} tokens, {answer.mean_order:.2f} known on average, "
            f"seed {answer.seed}",
            style="dim",
        )
    )


def _evidence(sample: Sample) -> Text:
    """Each token in the colour of its order, and its evidence after it."""
    text = Text()
    for one in sample.tokens:
        style = _STYLES[min(one.order, 3) + (one.order >= 5)]
        text.append(visible(one.text), style=style)
        text.append(f"[{one.order}×{amount(one.count)}]", style="dim")
    return text


def show_repeats(answer: RepeatsAnswer) -> None:
    """Shares by length; documents and pairs that share most."""
    screen = console()
    screen.print(
        f"{answer.num_tokens:,} tokens in {answer.num_documents:,} documents; matches with another document of at least"
    )
    table = _table("length", "positions", "share", "tokens in passages", "share ", left=0)
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
    table = _table("document", "positions", "share of it", "tokens", "begins", left=1)
    for document in answer.documents:
        table.add_row(
            f"{document.document:,}",
            f"{document.positions:,}",
            f"{document.share:.1%}",
            f"{document.num_tokens:,}",
            Text(_beginning(document.begins, 60)),
        )
    screen.print(table)
    screen.print()
    screen.print("pairs")
    table = _table("document", "other", "positions", "share of the first", "begin", left=1)
    for pair in answer.pairs:
        table.add_row(
            f"{pair.document:,}",
            f"{pair.other:,}",
            f"{pair.positions:,}",
            f"{pair.share:.1%}",
            Text(f"{_beginning(pair.begins, 24)} | {_beginning(pair.other_begins, 24)}"),
        )
    screen.print(table)


def _beginning(text: str, length: int) -> str:
    """How a document begins, on one line."""
    return visible(" ".join(text.split()))[:length]


def _table(*heads: str, left: int) -> Table:
    """A plain table of numbers, whose last `left` columns are text."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for place, head in enumerate(heads):
        table.add_column(head.strip(), justify="left" if place >= len(heads) - left else "right", no_wrap=True)
    return table
