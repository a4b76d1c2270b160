"""One page that shows what came of a run: report.html, which needs nothing but itself.

Curves are drawn by matplotlib as SVG and put into the page; bars of probabilities are plain HTML. Every text
that comes from a corpus is escaped, and white space is made visible.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corpus_teacher.files import write_text
from corpus_teacher.pages.page import INK, inline, page, plain_axes, svg, themed

COLOURS = {"hard": "#6b7280", "corpus": "#0f766e", "label-smoothing": "#c2710c"}
"""Of the arms, in every plot."""

_SPEAKERS = {
    "corpus": ("the corpus", "#2f5d9b"),
    "student": ("its student", COLOURS["corpus"]),
    "hard student": ("the hard-label student", COLOURS["hard"]),
}
_VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"})


def write_report(answer: Mapping[str, Any], path: str | Path) -> None:
    """Write the page of a demo.

    Parameters
    ----------
    answer : mapping
        What `corpus_teacher.demo.run.run_demo` returns.
    path : path
        Of the HTML file.

    Raises
    ------
    OutputError
        If it can't be written.
    """
    write_text(path, render_report(answer))


def render_report(answer: Mapping[str, Any]) -> str:
    """The page of a demo, as HTML that loads nothing from anywhere.

    Parameters
    ----------
    answer : mapping
        What `corpus_teacher.demo.run.run_demo` returns.

    Returns
    -------
    str
    """
    corpus, settings = answer["corpus"], answer["settings"]
    read = answer["arms"][0]["tokens"]
    sections = [
        "<h1>What the corpus itself can teach</h1>",
        f'<p class="lead">Three students of {answer["student"]["parameters"] / 1e6:.2f} million parameters '
        f"read the same {read:,} tokens of Python’s standard library in the same order, from the same first "
        f"weights. One learns from the hard labels; one from a blend of label and corpus teacher (share of the "
        f"teacher {settings['corpus_weight']:g}); one, the control, from labels smoothed evenly until they are "
        "as soft as that blend. All are measured alike: by their cross-entropy to the text of files that "
        "nobody has read.</p>",
        _table(answer),
        f"<p>{_caveat(answer)}</p>",
        "<h2>Learning curves</h2>",
        f'<div class="card">{_curves(answer)}</div>',
        "<h2>What each of them says</h2>",
        "<p>Places in the held-out files, drawn by chance among those where the corpus knows at least two tokens of "
        "the context and its teacher is undecided (0.5 to 2 nats): three where it knows less of the context than the "
        "teacher looks at, three where it knows all of that. Whether anybody is right plays no part in the choice. "
        "The token that truly follows is marked. ␣ is a space, ↵ a new line.</p>",
        *(_context(context) for context in answer["contexts"]),
        "<h2>Ask it yourself</h2>",
        "<p>The index beside this page answers in the browser: what follows a text and where it stands, which parts of "
        "a text are copied, who would teach what. Start <code>corpus-teacher serve corpus-teacher-demo/index</code> "
        '(the folder of this page), then open <a href="http://127.0.0.1:8000/#/continue?text=import%20">its '
        "page</a>.</p>",
        "<h2>How it was made</h2>",
        _facts(answer, corpus, settings),
    ]
    return page("corpus-teacher: demo", sections, dark=True)


def _curves(answer: Mapping[str, Any]) -> str:
    return inline(svg(learning_curves(answer["arms"])), "Held-out loss against tokens read")


def learning_curves(arms: Sequence[Mapping[str, Any]]) -> Figure:
    """Held-out loss against tokens read, a line an arm, each named at its end.

    Parameters
    ----------
    arms : sequence of mappings
        With "arm", "name" and "history" (tokens, held_out_nats).

    Returns
    -------
    Figure
        Of matplotlib, drawn without its global state.
    """
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    ends = []
    for arm in arms:
        tokens = [point["tokens"] / 1e6 for point in arm["history"]]
        nats = [point["held_out_nats"] for point in arm["history"]]
        colour = COLOURS.get(arm["arm"], INK)
        axes.plot(tokens, nats, color=colour, linewidth=2, marker="o", markersize=4, label=arm["name"])
        ends.append((nats[-1], tokens[-1], f"{arm['name']}  {nats[-1]:.3f}", colour))
    _name_ends(axes, ends)
    axes.set_xlabel("million tokens read", color=INK)
    axes.set_ylabel("held-out loss, nats per token", color=INK)
    plain_axes(axes)
    return figure


def _name_ends(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Write each line's name right of its last point, moved apart where they would touch."""
    low, high = axes.get_ylim()
    least = (high - low) * 0.065
    places: list[float] = []
    for value, at, text, colour in sorted(ends):
        place = max(value, places[-1] + least) if places else value
        places.append(place)
        axes.annotate(
            text, (at, value), xytext=(at, place), textcoords="data", color=colour, fontsize=10.5,
            va="center", annotation_clip=False,
        ).set_text("   " + text)  # fmt: skip
    axes.set_ylim(low, max(high, places[-1] + least) if places else high)


def _table(answer: Mapping[str, Any]) -> str:
    """The numbers, the best arm in bold, and the teacher by itself for comparison."""
    best = min(arm["held_out_nats"] for arm in answer["arms"])
    rows = []
    for arm in answer["arms"]:
        share = f"{arm['teacher_share']:.1%}" if arm["arm"] == "corpus" else "–"
        rows.append(
            f'<tr{" class=best" if arm["held_out_nats"] == best else ""}><td><span class="dot" '
            f'style="background:{themed(COLOURS.get(arm["arm"], INK))}"></span>{html.escape(arm["name"])}</td>'
            f"<td>{arm['held_out_nats']:.4f}</td><td>{arm['bits_per_byte']:.4f}</td>"
            f"<td>{arm['seconds']:.1f}</td><td>{arm['tokens_per_s']:,.0f}</td><td>{share}</td></tr>"
        )
    teacher = answer["teacher"]
    rows.append(
        '<tr class="aside"><td>the corpus teacher by itself</td>'
        f"<td>{teacher['held_out_nats']:.4f}</td><td>{teacher['bits_per_byte']:.4f}</td>"
        "<td>–</td><td>–</td><td>–</td></tr>"
    )
    return (
        '<div class="card scroll"><table><tr><th>student</th><th>held-out loss<br>nats/token</th>'
        "<th>held-out loss<br>bits/byte</th><th>seconds<br>of training</th><th>tokens/s</th>"
        f"<th>teacher’s share<br>of the step</th></tr>{''.join(rows)}</table></div>"
    )


def _caveat(answer: Mapping[str, Any]) -> str:
    """What these numbers do not show."""
    teacher, corpus = answer["teacher"], answer["corpus"]
    read = answer["arms"][0]["tokens"]
    return (
        f"<strong>One seed, no interval.</strong> Each student was trained once (seed {answer['seed']}), so a "
        "difference of a few hundredths may be chance. The learning rate (on hard labels) and the length of "
        "the teacher’s contexts were chosen in trial runs on these same held-out files. The index holds "
        f"{corpus['train_tokens']:,} tokens, {corpus['train_tokens'] / read:.1f} times what a student reads: some "
        "of what the teacher gives is text that the hard-label student has not seen. None of the held-out "
        f"files is in the index; {teacher['copied_share']:.1%} of their tokens still follow a context of 30 or "
        "more tokens that is. Bits per byte count the end of a document as a token without bytes."
    )


def _context(context: Mapping[str, Any]) -> str:
    """One place: its text, and the three distributions side by side."""
    truth = html.escape(_visible(context["truth"]))
    text = html.escape(context["context"][-320:])
    columns = []
    for name, (title, colour) in _SPEAKERS.items():
        bars = "".join(_bar(entry, themed(colour)) for entry in context["says"][name])
        share = context["probability_of_truth"][name]
        columns.append(
            f'<div><h3 style="color:{themed(colour)}">{title}</h3>{bars}'
            f'<p class="note">gives the truth {_percent(share)}</p></div>'
        )
    return (
        f'<div class="card"><pre>{text}<mark>{truth}</mark></pre><p class="note">{_evidence(context)}</p>'
        f'<div class="says">{"".join(columns)}</div></div>'
    )


def _evidence(context: Mapping[str, Any]) -> str:
    """What the corpus knows of the place."""
    known, times = context["match_len"], context["context_count"]
    if known == 0:
        known_text = "The corpus doesn’t know the last token"
    else:
        what = "the last token" if known == 1 else f"the last {known} tokens"
        known_text = f"The corpus knows {what}: {times:,} occurrence{'' if times == 1 else 's'}"
    return f"{known_text}. Entropy of its target: {context['entropy_nats']:.2f} nats."


def _bar(entry: Mapping[str, Any], colour: str) -> str:
    """One token and its probability."""
    return (
        f'<div class="bar{" truth" if entry["is_truth"] else ""}">'
        f"<code><span>{html.escape(_visible(entry['token']))}</span></code>"
        f'<span class="track"><span class="fill" style="display:block;width:{entry["probability"]:.2%};'
        f'background:{colour}"></span></span><span class="number">{_percent(entry["probability"])}</span></div>'
    )


def _percent(share: float) -> str:
    """A share; one that is nearly nothing is said to be that, as HTML."""
    return f"{share:.1%}" if share >= 0.001 or share == 0 else "&lt;0.1%"


def _visible(token: str) -> str:
    """A token with its white space shown; a long run of one kind as its length."""
    if len(token) > 4 and token.strip(" ") == "":
        return f"␣×{len(token)}"
    if len(token) > 4 and token[0] == "\n" and token[1:].strip(" ") == "":
        return f"↵␣×{len(token) - 1}"
    shown = token.translate(_VISIBLE)
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in shown)


def _facts(answer: Mapping[str, Any], corpus: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Settings, versions, sizes."""
    teacher, student = answer["teacher"], answer["student"]
    facts = {
        "corpus": f"{corpus['train_files']:,} files and help texts, {corpus['train_bytes'] / 1e6:.1f} MB, "
        f"{corpus['train_tokens']:,} tokens",
        "held out": f"{len(corpus['held_out_files'])} files by a hash of their path, "
        f"{corpus['held_out_bytes'] / 1e6:.2f} MB, of which {teacher['tokens']:,} predicted tokens are measured; "
        f"{len(corpus['too_similar'])} more share too many lines with the corpus and are in neither",
        "index": f"{answer['index']['size_bytes'] / 1e6:.1f} MB on disk, "
        f"fingerprint {answer['index']['fingerprint'][:16]}",
        "teacher": f"{teacher['estimator']}, contexts of up to {teacher['max_order']} tokens, own document "
        f"left out, {teacher['top_k']} explicit tokens a position (mean mass beyond them, moved to the base: "
        f"{teacher['cut_mass']:.2%}); mean entropy of its targets {teacher['entropy_nats']:.3f} nats, of the "
        f"blend {teacher['blend_entropy_nats']:.3f} nats",
        "control": f"uniform label smoothing with ε = {settings['epsilon']:.4f}, the blend’s mean entropy",
        "student": f"{student['model_type']}, {student['num_hidden_layers']} layers of width "
        f"{student['hidden_size']}, {student['parameters']:,} parameters, "
        f"vocabulary {settings['vocab_size']:,}",
        "training": f"{settings['steps']:,} steps of {settings['batch_size']} windows of "
        f"{settings['length']} tokens, AdamW, learning rate {settings['learning_rate']:g} with a cosine to 0, "
        f"seed {answer['seed']}",
        "machine": f"{answer['machine']['cores']} cores, {answer['machine']['system']}",
        "versions": ", ".join(f"{name} {number}" for name, number in answer["versions"].items()),
        "time": ", ".join(f"{name} {seconds:.0f} s" for name, seconds in answer["stage_s"].items())
        + f"; {answer['total_s']:.0f} s in all",
        "made": answer["created"],
    }
    rows = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items())
    return f'<div class="card"><dl>{rows}</dl></div>'
