"""What the commands about the teacher show: samples with their evidence, tables of an evaluation, a fit, a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from corpus_teacher.cli.console import (
    amount,
    console,
    fitted_table,
    many,
    nearby,
    pieces,
    plain_table,
    remark,
    size,
    visible,
)

if TYPE_CHECKING:
    from corpus_teacher.analysis.evaluation import Bucket, Evaluation
    from corpus_teacher.analysis.export import ArpaAnswer
    from corpus_teacher.analysis.fit import FitAnswer
    from corpus_teacher.analysis.sample import Sample, SampleAnswer
    from corpus_teacher.analysis.score_files import ScoreSummary
    from corpus_teacher.neural.caching import CacheSummary
    from corpus_teacher.synthesis import SynthesisSummary

_STYLES = ("dim", "", "cyan", "green", "bold green")  # by the order of a token's context: 0, 1, 2, 3–4, 5 and more

_MEASURES = {
    "num_tokens": "tokens",
    "repeated_share": "repeated n-grams",
    "longest_run": "longest run",
    "confidence": "confidence, nats/token",
    "copied_share": "copied tokens",
    "longest_match": "longest match",
}


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
    if answer.nearby:
        remark(f"the prompt was cut as {pieces(answer.prompt_tokens)}")
        for form in answer.nearby:
            remark(nearby(form.text, form.what, form.count))
    if answer.fit_file:
        remark(f"the fit of {answer.estimator} is kept in {answer.fit_file}")
    remark(
        f"{answer.num_tokens:,} tokens in {answer.sampling_s:.2f} s, {amount(answer.tokens_per_s)} tokens/s; "
        f"{answer.estimator}, contexts of ≤ {bound(answer.max_order)} tokens, {answer.mean_order:.2f} known on "
        f"average, seed {answer.seed}"
    )


def _evidence(sample: Sample) -> Text:
    """Each token in the colour of its order, and its evidence after it."""
    text = Text()
    for one in sample.tokens:
        style = _STYLES[min(one.order, 3) + (one.order >= 5)]
        text.append(visible(one.text), style=style)
        text.append(f"[{one.order}×{amount(one.count)}]", style="dim")
    return text


def show_arpa(answer: ArpaAnswer) -> None:
    """How many n-grams of each order, and what the file takes."""
    screen = console()
    table = plain_table("n", "n-grams", "D1", "D2", "D3+", left=0)
    for n, (count, discounts) in enumerate(zip(answer.ngrams, answer.discounts, strict=True), 1):
        table.add_row(f"{n}", f"{count:,}", *(f"{discount:.4f}" for discount in discounts))
    screen.print(table)
    if answer.fallback:
        orders = ", ".join(map(str, answer.fallback))
        screen.print(f"the counts are too few to fit the discounts of n = {orders}: the usual ones stand in for them")
    total = sum(answer.ngrams)
    screen.print(
        Text(f"\nwrote {answer.path}: {total:,} n-grams, {size(answer.size_bytes)}, in {answer.seconds:.1f} s")
    )


def show_evaluation(answer: Evaluation) -> None:
    """A line an estimator and order; coverage; and the best one's loss by evidence."""
    screen = console()
    text = f", {answer.num_bytes:,} bytes" if answer.num_bytes else ""
    screen.print(
        f"{answer.num_tokens:,} held-out tokens in {many(answer.num_documents, 'document')}{text}; "
        f"the index holds {answer.index_tokens:,}"
    )
    screen.print()
    heads = ("order", "nats/token", "bits/byte", "p = 0", "top-1", "ECE", "entropy", "cut mass", "tokens/s")
    named = plain_table("estimator", *heads, left=0, pad=1)
    named.columns[0].justify = "left"
    best = min(answer.scores, key=lambda score: score.cross_entropy_nats)
    for score in answer.scores:
        named.add_row(
            score.estimator,
            bound(score.max_order),
            f"{score.cross_entropy_nats:.4f}",
            "–" if score.bits_per_byte is None else f"{score.bits_per_byte:.4f}",
            f"{score.zero_share:.2%}" if score.zero_share else "–",
            f"{score.top1:.2%}",
            f"{score.calibration_error:.4f}",
            f"{score.entropy_nats:.3f}",
            f"{score.cut_mass:.2%}",
            amount(answer.num_tokens / max(score.seconds, 1e-9)),
            style="bold green" if score is best else "",
        )
    screen.print(fitted_table(named, screen, ("tokens/s", "cut mass", "entropy", "p = 0", "bits/byte")))
    screen.print(
        Text(
            f"{_measured_on(answer.top_k)}; ECE is the expected calibration error ({len(best.reliability)} bins)",
            style="dim",
        )
    )
    screen.print()
    lengths = [length for length in (1, 2, 3, 4, 5, 8, 16, 32, 64) if length < len(answer.coverage)]
    covered = plain_table("a match of at least", *(f"{length}" for length in lengths), left=0)
    covered.add_row("share of positions", *(f"{answer.coverage[length]:.1%}" for length in lengths))
    screen.print(fitted_table(covered, screen, ("3", "32", "5", "64")))
    if answer.recited:
        screen.print()
        screen.print("documents of the index that the held-out text repeats, by positions after 32 tokens or more")
        for one in answer.recited:
            screen.print(Text(f"{one.positions:>9,}  {one.name or f'document {one.document:,}'}"), overflow="fold")
    for title, buckets in (
        ("longest match", best.by_match_len),
        ("count of the context", best.by_context_count),
    ):
        screen.print()
        screen.print(f"{best.estimator}, order {bound(best.max_order)}, by {title}")
        screen.print(_by_bucket(title, buckets))


def bound(max_order: int | None) -> str:
    """An order as people read it."""
    return "any" if max_order is None else f"{max_order}"


def _measured_on(top_k: int | None) -> str:
    if top_k is None:
        return "all figures are of the exact distributions"
    return (
        f"cross-entropy is exact; top-1, ECE and entropy are of targets with {top_k} explicit tokens, cut mass on the "
        "base"
    )


def show_fit(answer: FitAnswer) -> None:
    """What was fitted, by order, and what the evidence says of it."""
    screen = console()
    if answer.parameters:
        table = plain_table("order", *answer.heads, left=0)
        for order, *values in answer.parameters:
            table.add_row(f"{order:.0f}", *(f"{value:.4g}" for value in values))
        screen.print(table)
        weights = "; λ(c): the weight of an order whose context counts c" if answer.heads[0].startswith("λ") else ""
        screen.print(Text(f"the last line goes on for longer contexts{weights}", style="dim"))
    else:
        screen.print(f"{answer.estimator} has nothing to fit")
    apart = "each without its block of the corpus" if answer.by_blocks else "each without its document"
    copies = f"; {answer.copies:,} documents that mostly copy others gave none" if answer.copies else ""
    screen.print(
        f"cross-entropy of the evidence: {answer.nats:.4f} nats, {answer.bits:.4f} bits a token "
        f"({answer.positions:,} positions, {apart}{copies})"
    )
    screen.print(f"wrote {answer.path} in {answer.seconds:.1f} s", soft_wrap=True)


def _by_bucket(title: str, buckets: list[Bucket]) -> Table:
    table = plain_table(title, "share", "nats/token", "top-1", left=0)
    for bucket in buckets:
        table.add_row(bucket.label, f"{bucket.share:.1%}", f"{bucket.cross_entropy_nats:.4f}", f"{bucket.top1:.1%}")
    return table


def show_cache(summary: CacheSummary) -> None:
    """What a cache holds, and what it costs."""
    screen = console()
    kept = ", ".join(f"{name} {value}" for name, value in summary.kept.items() if name != "kind")
    table = Table(box=None, show_header=False, padding=(0, 2))
    rows = [
        ("teacher", summary.model),
        ("kept", f"{summary.kept['kind']}, {kept}"),
        ("windows", f"{summary.windows:,} of {summary.length:,} tokens; {summary.new_windows:,} new"),
        ("size", f"{size(summary.size_bytes)}, {summary.bytes_per_token:.1f} bytes a token"),
    ]
    if summary.head_bytes:
        rows.append(("", f"and {size(summary.head_bytes)} for the output embedding"))
    rows += [("mass cut off", f"{summary.mean_cut_mass:.3%}"), ("seconds", f"{summary.seconds:.1f}")]
    for row in rows:
        table.add_row(*row)
    screen.print(table)
    screen.print(f"wrote {summary.path}", soft_wrap=True)


def show_synthesis(summary: SynthesisSummary) -> None:
    """What a synthetic corpus holds, what the filters dropped, and how the samples were."""
    screen, report = console(), summary.report
    dropped = ", ".join(f"{count:,} for {reason}" for reason, count in report["dropped"].items() if count)
    screen.print(
        f"kept {summary.documents:,} of {report['sampled']:,} documents, {summary.tokens:,} tokens; dropped "
        f"{dropped or 'none'}"
    )
    table = plain_table("", "sampled: p10", "p50", "p90", "kept: p10", "p50", "p90", left=0)
    for name, parts in report["measures"].items():
        cells = [parts[which][level] for which in ("sampled", "kept") for level in ("p10", "p50", "p90")]
        table.add_row(_MEASURES[name], *(f"{value:,.3g}" for value in cells))
    screen.print(table)
    if summary.new_samples:
        screen.print(
            Text(f"drew {summary.drawn_tokens:,} tokens, {amount(summary.tokens_per_s)} tokens/s", style="dim")
        )
    screen.print(f"wrote {summary.path}", soft_wrap=True)


def show_scores(summary: ScoreSummary) -> None:
    """The mean, the buckets with their bounds, and how fast it went."""
    screen = console()
    bits = "" if summary.bits_per_byte is None else f", {summary.bits_per_byte:.4f} bits per byte"
    screen.print(
        f"{many(summary.documents, 'document')}, {summary.tokens:,} tokens: {summary.nats_per_token:.4f} nats per token"
        f"{bits} ({summary.estimator})"
    )
    table = plain_table("bucket", "nats per token", "documents", left=0)
    middle, tail = summary.thresholds.middle, summary.thresholds.tail
    bounds = (f"below {middle:.4f}", f"{middle:.4f} to {tail:.4f}", f"{tail:.4f} and more")
    for (name, count), bound_of in zip(summary.buckets.items(), bounds, strict=True):
        table.add_row(name, bound_of, f"{count:,}")
    screen.print(table)
    earlier = summary.documents - summary.new_documents
    done = "; from a table of all n-grams" if summary.tables else ""
    done += f"; {many(earlier, 'document')} scored before" if earlier else ""
    screen.print(Text(f"{amount(summary.tokens_per_s)} tokens/s, {summary.seconds:.1f} s{done}", style="dim"))
    screen.print(f"wrote {summary.path}", soft_wrap=True)
