"""The report of a study: report.html, a page that needs nothing but itself, and findings.md with the same tables.

`statistics` knows chance, `analysis` what is compared. Here is what a referee reads: the answer, what is missing of it,
the arms, equal tokens beside equal compute, where a gain lies, and how all of it was made.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from corpus_teacher.errors import InputError, OutputError
from corpus_teacher.files import write_text
from corpus_teacher.pages.page import card, facts, inline, page, svg, table
from corpus_teacher.study.report import plots, tables
from corpus_teacher.study.report.analysis import (
    BETTER,
    UNDECIDED,
    WORSE,
    Analysis,
    Comparison,
    analyse,
    check_values,
    passed,
)
from corpus_teacher.study.report.contrasts import contrasts, sentence
from corpus_teacher.study.report.fits import LACK_LEVEL, MISSES, laws
from corpus_teacher.study.report.more_plots import forest, laws_figure, rate_map
from corpus_teacher.study.report.numbers import plural
from corpus_teacher.study.report.results import Results, domains_of, read_results
from corpus_teacher.study.report.shared import Shared, shared_runs

FIGURES, NOTES = "figures", "notes.md"

_STYLE = """
main { max-width: 1180px; } p.note { max-width: 104ch; }
table { font-size: 14px; } th, td { padding: 6px 8px; } th { font-size: 13px; }
th, td:first-child, td:last-child { white-space: normal; } td:first-child { min-width: 140px; }
td:last-child { min-width: 160px; }
"""

_WHAT_INTERVALS_ARE = (
    "Intervals are 95 %, of paired differences: a bootstrap over documents and seeds gives the standard error, "
    "Student’s t the width. They are not corrected for the number of arms; p-values are (Holm, over the arms of one "
    "size and budget)."
)


@dataclass(frozen=True)
class StudySummary:
    """What a report says, for programs.

    Attributes
    ----------
    name, question, answer : str
    contrasts : tuple of str
        A sentence for each comparison that the study names.
    complete : bool
        Every arm has all its seeds at every size and budget.
    missing, remarks : tuple of str
        What isn't there; what was left out.
    checks_failed : tuple of str
    comparisons : tuple of Comparison
    page, findings : Path
    """

    name: str
    question: str
    answer: str
    contrasts: tuple[str, ...]
    complete: bool
    missing: tuple[str, ...]
    remarks: tuple[str, ...]
    checks_failed: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    page: Path
    findings: Path


@dataclass(frozen=True)
class Part:
    """A section: a title, paragraphs, then a table or a figure."""

    title: str
    paragraphs: tuple[str, ...] = ()
    table: tables.Table | None = None
    figure: Figure | None = None
    file: str = ""
    entries: tuple[tuple[str, str], ...] = ()


def write_study_report(folder: str | Path) -> StudySummary:
    """Write report.html, findings.md and figures/*.svg of a study's folder, finished or not.

    Parameters
    ----------
    folder : path
        With study.json and rows.jsonl, as `corpus-teacher study run` leaves them.

    Returns
    -------
    StudySummary

    Raises
    ------
    InputError, ConfigError
        A folder that isn't a study's, or rows that can't be paired.
    OutputError
        A file that can't be written.
    """
    folder = Path(folder)
    results = read_results(folder)
    analysis = analyse(results)
    parts = list(study_parts(results, analysis, shared_runs(folder, results)))
    figures = {part.file: svg(part.figure, transparent=False) for part in parts if part.figure is not None}
    texts = {f"{FIGURES}/{name}.svg": text for name, text in figures.items()}
    notes = _notes(folder)
    texts["report.html"] = _page(results, analysis, parts, figures, notes)
    texts["findings.md"] = _markdown(results, analysis, parts, notes)
    for name, text in texts.items():
        _write(folder / name, text)
    return StudySummary(
        str(results.settings["name"]),
        str(results.settings["question"]),
        analysis.answer,
        tuple(sentence(one, results.primary) for one in contrasts(results)),
        not results.missing,
        results.missing,
        results.remarks,
        analysis.checks_failed,
        analysis.comparisons,
        folder / "report.html",
        folder / "findings.md",
    )


def study_parts(results: Results, analysis: Analysis, shared: Sequence[Shared] = ()) -> Iterator[Part]:
    """The sections of a report, in their order; those for which there are no rows are left out."""
    if results.missing or results.remarks:
        yield Part("What is missing", (*_unfinished(results), *results.remarks))
    if analysis.headline is not None:
        yield from _of_arms(results, analysis)
        yield from _of_cost(results, analysis)
        yield from _of_gains(results, analysis)
    if results.rows:
        yield _checks(results, analysis)
        yield _rates(results, analysis)
        note = "Means over the seeds. A training’s time includes its evaluations, and not the measures that follow it."
        yield Part("What the runs took", (note,), tables.costs(results))
    if shared:
        text = "These runs are of other studies too: one measurement, not one more confirmation."
        yield Part("Shared with other studies", (text, *(f"{one}." for one in shared)))
    yield Part("How it was made", entries=tuple(tables.environment(results)))


def _of_arms(results: Results, analysis: Analysis) -> Iterator[Part]:
    """The primary metric at the headline, then learning curves, then everywhere else."""
    size, budget = analysis.headline or ("", "")
    found, where = analysis.at(size, budget), _where(results, size, budget)
    lead = f"Primary metric: {results.primary}, {_direction(results)}, named before the run. {_WHAT_INTERVALS_ARE}"
    arms = tables.arms(results, analysis, [(size, budget)])
    yield Part(f"The arms{where}", (lead, _many(analysis, found)), arms)
    if found:
        yield Part("", figure=plots.differences(results, analysis, size, budget), file="differences")
        best = max(found, key=lambda one: one.gain)
        figure = forest(results, best.place)
        if figure is not None:
            text = (
                f"{best.place[0]}, which has the largest gain{where}, on each held-out document: intervals over the "
                "seeds alone, the band over seeds and documents."
            )
            yield Part("By document", (text,), figure=figure, file="by-document")
    references = tables.counts_alone(results, size, budget)
    if references.rows:
        text = "On the same tokens, of the index that is read: what students should be better than."
        yield Part(f"Counts alone{where}", (text,), references)
    named = contrasts(results)
    if named:
        text = (
            "These were named before the run: arm minus against. Where size or budget differ, it is the first one’s "
            f"difference from {results.baseline} minus the second one’s. P-values are Holm’s, over these contrasts."
        )
        yield Part("Contrasts", (text,), tables.contrasts(named))
    curves = plots.learning_curves(results, size, budget)
    if curves is not None:
        text = (
            f"Along the runs{where}. Left: mean of the seeds, and the range from the lowest to the highest one. Right: "
            f"paired differences from {results.baseline} with 95 % intervals over the seeds. Compare finished runs "
            "only: before the end of a run its learning rate has not come down yet. “Lowest” is what stopping early "
            "would have given, a little too low: it is chosen on the very tokens that it is of."
        )
        yield Part("Learning curves", (text,), tables.stopped_early(results, size, budget), curves, "learning-curves")
    others = [place for size_ in results.sizes for other in results.budgets if analysis.at(*(place := (size_, other)))]
    others = [place for place in others if place != (size, budget)]
    if others:
        yield Part("The other sizes and budgets", table=tables.arms(results, analysis, others))


def _of_cost(results: Results, analysis: Analysis) -> Iterator[Part]:
    """Equal loss and equal compute."""
    if not analysis.comparisons:
        return
    base, size = results.baseline, (analysis.headline or ("",))[0]
    text = (
        f"Speed-up: the tokens that {base} needs for the loss that the arm ends with, over the arm’s tokens. It is "
        f"read between finished runs of {base} at several budgets, the loss taken as linear in the logarithm of the "
        "tokens; where none lie around that loss, between the arm’s own, at the loss that the baseline ends with. "
        "“Interpolation” is the largest change that another curve through the same runs, or leaving one out, would "
        "make. With one budget nothing is read: inside of one run, before its learning rate has come down, every "
        "saving looks larger than it is."
    )
    yield Part("Tokens to the same loss", (text,), tables.speed_ups(results, analysis))
    found = laws(results, size)
    figure = laws_figure(results, found)
    if figure is not None:
        text = (
            "The law E + A · (tokens / 1 M)^−b, by least squares through the finished runs of each arm; “misfit” is "
            f"its largest distance from them, nats per token. Savings: the tokens that {base} needs by its law for the "
            "loss that the arm ends with, over the arm’s; every draw of seeds and documents is fitted anew. In round "
            f"brackets the saving where the law of {base} lies too high or too low by its lack of fit "
            f"({LACK_LEVEL:.0%}, Student’s t with as many degrees of freedom as points less three). A law that misses "
            f"its points by more than {MISSES:g} is not read beyond the last budget."
        )
        yield Part("Laws of loss by tokens read", (text,), tables.laws(found), figure, "laws")
    bars = plots.speed_up_bars(results, analysis, size)
    if bars is not None:
        yield Part("", figure=bars, file="speed-up")
    unit = "CPU time" if results.cost == "cpu_s" else "time on the device"
    text = (
        f"Each arm against {base} at equal tokens, and at the {unit} that the arm’s training took, its teacher’s "
        f"look-ups included. The loss of {base} at that time is read between its finished runs, and only where the "
        "machine did nothing else. The building of the index is not counted."
    )
    yield Part("Equal tokens and equal compute", (text,), tables.compute(results, analysis))


def _of_gains(results: Results, analysis: Analysis) -> Iterator[Part]:
    """Where a gain lies: buckets, sizes, budgets or passes; then the other measures."""
    size, budget = analysis.headline or ("", "")
    where, above = _where(results, size, budget), "Above 0 is a gain."
    figure = plots.gain_by_bucket(results, size, budget)
    if figure is not None:
        text = f"Loss of {results.baseline} minus that of the arm{where}. {above} Intervals are over the seeds alone."
        text += f" An arm whose training text has another index than {results.baseline}’s has other buckets: not drawn."
        yield Part("Gain by what is known of a token", (text,), figure=figure, file="gain-by-bucket")
    figure = plots.gain_by_entropy(results, size, budget)
    if figure is not None:
        text = f"Loss of {results.baseline} minus that of the arm on {results.primary_domain}{where}, by the entropy "
        text += f"of the counts that are mixed in. {above} Intervals are over the seeds alone."
        yield Part("Gain by how sure the counts are", (text,), figure=figure, file="gain-by-entropy")
    figure = plots.gain_by(results, analysis, "parameters")
    if figure is not None:
        text = f"{f'At budget {budget}. ' if len(results.budgets) > 1 else ''}{above}"
        yield Part("Gain by size of the student", (text,), figure=figure, file="gain-by-size")
    text = f"{f'At size {size}. ' if len(results.sizes) > 1 else ''}{above}"
    for axis, title in (("passes", "Gain by passes over the training text"), ("tokens", "Gain by tokens read")):
        figure = plots.gain_by(results, analysis, axis)
        if figure is not None:  # passes say the same as tokens, and more
            yield Part(title, (text,), figure=figure, file=f"gain-by-{axis}")
            break
    figure = plots.reliability(results, size, budget)
    if figure is not None:
        text = "On the diagonal probabilities equal frequencies; bins of fewer than 30 tokens are left out."
        yield Part(f"Reliability{where}", (text,), figure=figure, file="reliability")
    yield from _of_measures(results, size, budget)


def _of_measures(results: Results, size: str, budget: str) -> Iterator[Part]:
    """The secondary measures at the headline."""
    found = [row for arm in results.arms for row in results.runs.get((arm, size, budget), {}).values()]
    note = (
        f"Means over the seeds; in brackets the difference from {results.baseline} ± half of its 95 % interval. "
        "Secondary measures are not corrected for their number: one interval in twenty misses by chance."
    )
    where = _where(results, size, budget)
    for name in domains_of(found[0]) if found else ():
        title = "held-out documents" if name == "in" else name
        yield Part(f"All measures of {title}{where}", (note,), tables.domain(results, size, budget, name))
        note = ""
    for title, one in (
        ("Fidelity to the corpus teacher, and induction", tables.student(results, size, budget)),
        ("Memory, and novelty of samples", tables.memory(results, size, budget)),
    ):
        if len(one.head) > 1:
            yield Part(f"{title}{where}", (note,), one)


def _checks(results: Results, analysis: Analysis) -> Part:
    """Leak checks, whatever they say."""
    entries = []
    values = check_values(results, "leave_out_label_invariance")
    said = "not checked"
    if values:
        good = sum(map(passed, values))
        said = f"passed in {good} of {plural(len(values), 'run')}: changing a token leaves its own target as it was"
    entries.append(("leave-out label invariance", said))
    overlap = [float(str(value)) for value in check_values(results, "overlap_13gram")]
    text = "not checked"
    if overlap:
        text = f"{max(overlap):.1%} of the held-out documents share a 13-gram of tokens with the index"
        shares = [float(str(value)) for value in check_values(results, "overlap_13gram_mean_share")]
        if shares:
            text += f"; on average {max(shares):.2%} of a document’s 13-grams"
        if max(overlap) > 0:
            text += "; in such documents an arm that reads the index may look better than it is"
    entries.append(("overlap", text))
    for name, meaning in (
        ("max_overlap", "documents with a larger share of these 13-grams are not held out"),
        ("dropped_for_overlap", "documents that were not held out because of it"),
        ("leave_out_largest_difference", "the largest change of a probability in the check of the label invariance"),
        ("leave_out_largest_difference_as_taught", "the same for targets in flat form, where the label is never cut"),
        ("leave_out_document_largest_difference", "the same where documents are left out, from the base distribution"),
    ):
        found = sorted({f"{float(str(value)):g}" for value in check_values(results, name)})
        if found:
            entries.append((name.replace("_", " "), f"{', '.join(found)}: {meaning}"))
    return Part("Leak checks", analysis.checks_failed, entries=tuple(entries))


def _rates(results: Results, analysis: Analysis) -> Part:
    table_ = tables.learning_rates(results)
    at_end = sum("at the end of the grid" in row for row in table_.rows)
    text = (
        "Chosen for each arm, size and budget on seeds of their own, by the primary metric on tuning documents that "
        "are not among the reported ones."
    )
    if at_end:
        text += (
            f" {at_end} of {len(table_.rows)} lie at the end of the grid: a wider grid may change those arms’ numbers."
        )
    figure = rate_map(results, *(analysis.headline or ("", "")))
    if figure is not None:
        text += (
            f" The map is of the arms{_where(results, *(analysis.headline or ('', '')))}: dark is near an arm’s best."
        )
    return Part("Learning rates", (text,), table_, figure, "rates")


def _with_code(text: str) -> str:
    """Escaped text with what stands between backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", text)


def _unfinished(results: Results) -> tuple[str, ...]:
    if not results.missing:
        return ()
    wanted = plural(len(results.grid), "place")
    lead = f"The study isn’t finished: {len(results.missing)} of {wanted} of its grid lack runs."
    shown = [f"{text}." for text in results.missing[:24]]
    more = len(results.missing) - len(shown)
    return (lead, *shown, *([f"And {more} more."] if more else []))


def _many(analysis: Analysis, family: list[Comparison]) -> str:
    """What looking at many arms does to the claims."""
    if len(analysis.comparisons) < 2:
        return ""
    stand = sum(one.verdict in (BETTER, WORSE) for one in family)
    strict = sum(one.p_study < 0.05 for one in family)
    text = f"{stand} of {plural(len(family), 'difference')} here stand at 5 %"
    if len(analysis.comparisons) > len(family):
        text += f"; corrected over all {len(analysis.comparisons)} comparisons of the study, {strict}"
    text += ". An arm that is picked as the best after the runs looks a little better than it is."
    if any(one.verdict == UNDECIDED for one in family):
        text += " “No difference shown” does not mean “no difference”: the interval says how large it may be."
    return text


def _direction(results: Results) -> str:
    return "higher is better" if results.primary.endswith("top1") else "lower is better"


def _where(results: Results, size: str, budget: str) -> str:
    said = [f"size {size}"] * (len(results.sizes) > 1) + [f"budget {budget}"] * (len(results.budgets) > 1)
    return f" at {', '.join(said)}" if said else ""


def _notes(folder: Path) -> list[str]:
    """The points of notes.md, written by hand: what the numbers don't show, one per line that begins "- "."""
    try:
        text = (folder / NOTES).read_text(encoding="utf-8") if (folder / NOTES).is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / NOTES} can't be read: {error}") from error
    return [" ".join(point.split()) for point in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


def _page(
    results: Results, analysis: Analysis, parts: list[Part], figures: Mapping[str, str], notes: Sequence[str]
) -> str:
    failed = "".join(f"<p><strong>{html.escape(text)}</strong></p>" for text in analysis.checks_failed)
    named = "".join(f"<p>{html.escape(sentence(one, results.primary))}</p>" for one in contrasts(results))
    status = "" if not results.missing else f"<p><strong>{html.escape(_unfinished(results)[0])}</strong></p>"
    sections = [
        f"<h1>{html.escape(str(results.settings['name']))}</h1>",
        f'<p class="lead">{html.escape(str(results.settings["question"]))}</p>',
        card(f"<p><strong>{html.escape(analysis.answer)}</strong></p>{named}{failed}{status}"),
    ]
    if notes:
        points = "".join(f"<li>{_with_code(html.escape(point))}</li>" for point in notes)
        sections += ["<h2>Read with this in mind</h2>", f"<ul>{points}</ul>"]
    for part in parts:
        sections.append(f"<h2>{html.escape(part.title)}</h2>" if part.title else "")
        sections += [f'<p class="note">{html.escape(text)}</p>' for text in part.paragraphs if text]
        if part.entries:
            sections.append(facts(part.entries))
        if part.table is not None:
            sections.append(table(part.table.head, part.table.rows, part.table.best))
        if part.figure is not None:
            sections.append(card(inline(figures[part.file], part.title or part.file)))
    return page(f"corpus-teacher: {results.settings['name']}", sections, dark=True, style=_STYLE)


def _markdown(results: Results, analysis: Analysis, parts: list[Part], notes: Sequence[str]) -> str:
    """The answer, the notes, one table and one figure; all else is folded away."""
    lines = [f"# {results.settings['name']}", str(results.settings["question"]), f"**{analysis.answer}**"]
    lines += [f"- {sentence(one, results.primary)}" for one in contrasts(results)]
    lines += [f"**{text}**" for text in analysis.checks_failed]
    lines += ["## Read with this in mind", *(f"- {point}" for point in notes)] if notes else []
    shown, opened = 0, False
    for part in parts:
        shown += part.title != "What is missing"
        if shown > 2 and not opened:  # after the arms and their figure
            lines.append("<details><summary>All tables and figures, checks, costs, and how it was made</summary>")
            opened = True
        lines += [f"## {part.title}"] if part.title else []
        lines += [text for text in part.paragraphs if text]
        if part.entries:
            lines.append("\n".join(f"- {name}: {text}" for name, text in part.entries))
        if part.table is not None:
            lines.append(tables.markdown(part.table).rstrip())
        if part.figure is not None:
            lines.append(f"![{part.title or part.file}]({FIGURES}/{part.file}.svg)")
    lines += ["</details>"] if opened else []
    return "\n\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    """A whole file or none: a report may be read while it is written anew."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror or error}") from error
    write_text(path, text)
