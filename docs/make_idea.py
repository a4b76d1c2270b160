"""Draws docs/idea.svg: a context, its places in the corpus, the histogram of what followed, and the student beside it.

    python docs/make_idea.py

The numbers are made up for the drawing. Colours follow the reader's light or dark theme.
"""

from __future__ import annotations

from pathlib import Path

PLACES = (
    ("…fairies, ", "once upon a", " time", ", in a village of…"),
    ("…began: ", "once upon a", " time", " there lived a king…"),
    ("…stood ", "once upon a", " hill", " by the river, and…"),
    ("…and so, ", "once upon a", " time", ", nobody asked why…"),
    ("…was known ", "once upon a", " day", " as the quietest…"),
)
BARS = ((" time", 11, 0.58), (" hill", 2, 0.09), (" day", 1, 0.14), (" midnight", 1, 0.05), ("others", 0, 0.14))
TOTAL = 15
TITLE = "A context, its places in the corpus, what followed there, and the student's prediction"
STYLE = """
svg { color-scheme: light dark; }
text { font: 15px ui-sans-serif, system-ui, sans-serif; fill: #1f2933; }
.code { font-family: ui-monospace, monospace; font-size: 13.5px; }
.small { font-size: 13px; fill: #52606d; } .head { font-weight: 600; } .next { fill: #b3261e; font-weight: 700; }
.context { font-weight: 700; } .card { fill: #f5f7fa; stroke: #cbd2d9; } .corpus { fill: #d1495b; }
.student { fill: #2e86ab; }
.line { stroke: #7b8794; fill: none; stroke-width: 1.6; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e7eb; } .small { fill: #9aa5b1; } .next { fill: #ff8a80; } .card { fill: #1f2933; stroke: #52606d; }
  .corpus { fill: #f07167; } .student { fill: #64b5f6; } .line { stroke: #9aa5b1; }
}
"""


def drawing() -> str:
    """The whole SVG."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 330" role="img" aria-labelledby="title">',
        f'<title id="title">{TITLE}</title>',
        f"<style>{STYLE}</style>",
        '<rect class="card" x="8" y="120" width="150" height="78" rx="8"/>',
        '<text class="head" x="24" y="110">1. a context</text>',
        '<text class="code context" x="24" y="165">once upon a</text>',
        '<path class="line" d="M158 159 H196 m-8 -5 l8 5 l-8 5"/>',
        '<rect class="card" x="200" y="52" width="388" height="214" rx="8"/>',
        '<text class="head" x="216" y="42">2. every place where the corpus has it (15)</text>',
    ]
    for number, (before, context, token, after) in enumerate(PLACES):
        spans = f'{before}<tspan class="context">{context}</tspan><tspan class="next">{token}</tspan>{after}'
        parts.append(f'<text class="code" x="212" y="{86 + 34 * number}" xml:space="preserve">{spans}</text>')
    parts += [
        '<text class="small" x="212" y="256">… and ten more</text>',
        '<path class="line" d="M588 159 H626 m-8 -5 l8 5 l-8 5"/>',
        '<text class="head" x="640" y="42">3. what followed: the teacher’s target</text>',
        '<text class="small" x="640" y="64">',
        '<tspan class="corpus" style="fill:inherit">upper bar: the corpus, lower bar: the student</tspan></text>',
    ]
    for number, (token, count, student) in enumerate(BARS):
        y = 84 + 42 * number
        corpus = count / TOTAL * 0.92 if count else 0.08
        said = f"{count} of {TOTAL}" if count else "the rest"
        parts += [
            f'<text class="code" x="640" y="{y + 18}">{token.strip()}</text>',
            f'<rect class="corpus" x="726" y="{y}" width="{200 * corpus:.0f}" height="12" rx="2"/>',
            f'<rect class="student" x="726" y="{y + 14}" width="{200 * student:.0f}" height="12" rx="2"/>',
            f'<text class="small" x="{734 + 200 * max(corpus, student):.0f}" y="{y + 18}">{said}</text>',
        ]
    parts += [
        '<text class="small" x="640" y="312">4. the loss pulls the student’s bars towards the corpus’s</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "idea.svg").write_text(drawing(), encoding="utf-8")
