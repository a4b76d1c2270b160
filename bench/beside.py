"""The page that has all layouts and forms beside the peers: docs/explanation/beside-peers.md.

    python -m bench --corpus DIR --sizes 1M,10M,100M --out bench/results/beside-index.json
    python -m bench.teacher --corpus DIR --sizes 1M,10M,100M --only flat,mixed,score --layouts full,compact \\
        --peers none --out bench/results/beside-teacher-{size}.json
    python -m bench.teacher --corpus DIR --sizes 10M --only texts --rows 800 --peers kenlm \\
        --out bench/results/beside-kenlm.json
    python -m bench --corpus DIR --sizes 1B --no-ours --peers shards,infini-gram,tokengrams --peer-cores 1 \\
        --limit 7200 --out bench/results/beside-1B.json
    python -m bench.beside

DIR's billion tokens are `bench.scale.text_of` of its largest text. The last command puts the tables of these files into
the page; a test compares the page with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.index.rows import Row

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "beside-peers.md"
SIZES = ("1M", "10M", "100M")
NAMES = {
    "corpus_index": "**full layout**",
    "compact": "**compact layout**",
    "tokengrams": "tokengrams",
    "infini-gram": "infini-gram",
    "rusty-dawg": "rusty-dawg",
}
BILLION = "1B"
NAMES_OF_BILLION = {"shards": "**full layout, five shards**", "infini-gram": "infini-gram", "tokengrams": "tokengrams"}
LEAVE_OUTS = {"nothing": "in-corpus", "itself": "in-corpus, self out", "its document": "in-corpus, document out"}
ESTIMATORS = {"witten-bell 5": "Witten–Bell, order 5", "modified-kneser-ney 4": "modified Kneser–Ney, order 4"}
COUNTS = {"match": "matches", "continuations": "∞-gram counts", "order4": "4-gram counts"}
FORMS = {"flat": "flat targets", "mixed": "mixed targets", "score": "scores"}
_BEGIN, _END = "<!-- {} -->\n", "\n<!-- end -->"
_LEAST_SHARE = 0.92


def read() -> list[Row]:
    """The rows of all runs that the page is made of."""
    names = [
        "beside-index.json",
        f"beside-{BILLION}.json",
        *(f"beside-teacher-{size}.json" for size in SIZES),
        "beside-kenlm.json",
    ]
    files = [RESULTS / name for name in names]
    return [Row(**row) for path in files for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def _one(rows: Sequence[Row], size: str, who: str, section: str, part: str = "", cores: int = 1) -> Row | None:
    wanted = size, who, section, part, cores
    return next((r for r in rows if (r.size, r.who, r.section, r.slice, r.cores) == wanted), None)


def _figure(row: Row | None) -> str:
    if row is None:
        return "–"
    if row.status != "ok":
        return row.status
    value = row.value
    said = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    busy = row.section != "build" and row.details.get("cpu_share", 1.0) < _LEAST_SHARE
    return f"{said}*" if busy else said


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|".join(["---", *["---:"] * (len(head) - 1)])
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)])


def engines(rows: Sequence[Row], size: str, names: Mapping[str, str]) -> str:
    """What it takes to build, to keep and to ask for counts."""
    asked = [("build, 1 core, s", "build", "", 1), ("2 cores", "build", "", 2)]
    asked += [("memory over the start, B/token", "memory", "", 1), ("files, B/token", "disk", "", 1)]
    asked += [("opening, ms", "open", "", 1)]
    for section, name in COUNTS.items():
        asked += [(f"{name}/s, {part}", section, part, 1) for part in ("held-out", "in-corpus")]
    lines = []
    for name, section, part, cores in asked:
        figures = [_figure(_one(rows, size, who, section, part, cores)) for who in names]
        if set(figures) != {"–"}:
            lines.append([name, *figures])
    return _table(["", *names.values()], lines)


def targets(rows: Sequence[Row]) -> str:
    """Targets and scores a second at the largest size, by what is left out."""
    lines = []
    for estimator, said in ESTIMATORS.items():
        for form, name in FORMS.items():
            for layout in ("corpus_index", "compact"):
                asked = [f"{estimator}, held-out", *(f"{estimator}, {part}" for part in LEAVE_OUTS.values())]
                figures = [_figure(_one(rows, SIZES[-1], layout, form, part)) for part in asked]
                lines.append([f"{said}: {name}, {NAMES[layout].strip('*')}", *figures])
    return _table(["positions/s", "held-out", *(f"in the corpus, {name} left out" for name in LEAVE_OUTS)], lines)


def texts(rows: Sequence[Row]) -> str:
    """Every token of texts scored by modified Kneser–Ney, 5-grams of 10M tokens, beside KenLM."""
    parts = ("held-out", "in-corpus")
    lines = [
        [name, *(_figure(_one(rows, SIZES[1], who, "texts", f"modified-kneser-ney 4, {part}")) for part in parts)]
        for name, who in (("**the scorer**", "corpus_index"), ("KenLM's `query`", "kenlm"))
    ]
    return _table(["tokens/s", "held-out", "in the corpus"], lines)


def growth(rows: Sequence[Row]) -> str:
    """The same over the sizes."""
    asked = {"build on one core, s": ("build", ""), "files, B/token": ("disk", "")}
    asked |= {f"{name}/s, held-out": (section, "held-out") for section, name in COUNTS.items()}
    lines = []
    for name, (section, part) in asked.items():
        for who, said in NAMES.items():
            figures = [_figure(_one(rows, size, who, section, part)) for size in SIZES]
            if set(figures) != {"–"}:
                lines.append([f"{name}: {said}", *figures])
    for form, name in FORMS.items():
        for layout in ("corpus_index", "compact"):
            for out, part in LEAVE_OUTS.items():
                figures = [_figure(_one(rows, size, layout, form, f"witten-bell 5, {part}")) for size in SIZES]
                lines.append([f"{name}/s, Witten–Bell, {out} left out: {NAMES[layout]}", *figures])
    return _table(["", *SIZES], lines)


def page(text: str, rows: Sequence[Row]) -> str:
    """A page with its tables made anew, each between its two comments."""
    tables = {
        "engines": partial(engines, size=SIZES[-1], names=NAMES),
        "targets": targets,
        "texts": texts,
        "growth": growth,
        "billion": partial(engines, size=BILLION, names=NAMES_OF_BILLION),
    }
    for name, make in tables.items():
        begin = text.index(_BEGIN.format(name)) + len(_BEGIN.format(name))
        text = text[:begin] + make(rows) + text[text.index(_END, begin) :]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), read()), encoding="utf-8")
