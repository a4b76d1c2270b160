"""What all HTML pages of ours share: the look, the frame, plots inside the page, tables.

A page loads nothing from anywhere: curves are drawn by matplotlib as SVG and put into it. Where a page has tables or
charts, a few lines of script sort the tables by their heads, switch lines on and off, and tell a point's numbers;
without it all is there to read.
"""

from __future__ import annotations

import html
import io
import json
import re
import zlib
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#1f2933"
PALETTE = ("#0f766e", "#c2710c", "#2f5d9b", "#9d174d", "#6b7280", "#4d7c0f", "#7c3aed", "#b91c1c")
"""Colours of lines, in the order of their use."""

_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #5f6b7a; --line: #e3e7ec; --paper: #ffffff;
  --wash: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 44px 0 10px; }
p { max-width: 76ch; margin: 8px 0; }
.lead { color: var(--soft); font-size: 17px; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 20px 22px;
  margin: 14px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: 14px; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit; }
th[aria-sort] button::after { content: " ↑"; } th[aria-sort="descending"] button::after { content: " ↓"; }
.chart { overflow-x: auto; } .chart svg.plot { min-width: 540px; }
@media (max-width: 600px) { .card { overflow-x: auto; } svg.plot { min-width: 540px; }
  th, td { padding: 7px 8px; } th:first-child, td:first-child { white-space: normal; min-width: 84px; } }
.keys { display: flex; flex-wrap: wrap; gap: 2px 10px; margin-top: 8px; }
.keys button { font: inherit; font-size: 13px; color: inherit; background: none; border: 1px solid var(--line);
  cursor: pointer; border-radius: 7px; padding: 3px 9px; }
.keys button[aria-pressed="false"] { opacity: .45; text-decoration: line-through; }
:focus-visible { outline: 2px solid var(--series-0, #0f766e); outline-offset: 2px; }
tr:last-child td { border-bottom: 0; }
td .dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 9px; }
tr.best td { font-weight: 600; }
tr.aside td { color: var(--soft); }
img.plot, svg.plot { display: block; width: 100%; height: auto; }
pre { margin: 0 0 14px; padding: 12px 14px; background: var(--wash); border-radius: 8px;
  white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas,
  "DejaVu Sans Mono", monospace; }
pre mark { background: #fde68a; padding: 1px 3px; border-radius: 3px; }
.note { color: var(--soft); font-size: 14px; margin: 0 0 10px; }
.says { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 22px; }
.says h3 { font-size: 14px; margin: 0 0 6px; }
.bar { display: grid; grid-template-columns: 92px 1fr 46px; gap: 8px; align-items: center; margin: 3px 0;
  font-size: 13px; }
.bar code { font: 12.5px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  text-align: right; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar .track { background: var(--wash); border-radius: 3px; height: 14px; }
.bar .fill { height: 14px; border-radius: 3px; min-width: 1px; }
.bar .number { color: var(--soft); font-variant-numeric: tabular-nums; text-align: right; }
.bar.truth code span { background: #fde68a; border-radius: 3px; padding: 0 3px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 760px) { .says { grid-template-columns: 1fr; } main { padding: 24px 14px 48px; } }
"""

_DARK_STYLE = """
@media (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --ink: #e4e8ed; --soft: #a5afbb; --line: #2f3843; --paper: #181d24; --wash: #0f1318;
    --axis: #566271; --series-0: #2dd4bf; --series-1: #f59e0b; --series-2: #7aa7ee; --series-3: #f472b6;
    --series-4: #9ca3af; --series-5: #a3d94c; --series-6: #b79bfb; --series-7: #f87171; }
  pre mark, .bar.truth code span { color: #1f2933; }
}
"""
_SCRIPT = """
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const value = (row, at) => {
    const text = row.cells[at].textContent.trim();
    const number = Number(text.replace(/[,%\u2212\u00a0 ]/g, (sign) => (sign === "\u2212" ? "-" : "")));
    return text !== "" && !Number.isNaN(number) ? number : text === "\u221e" ? Infinity : text;
  };
  heads.forEach((head, at) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (a, b) => {
        const [x, y] = [value(a, at), value(b, at)];
        return typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      };
      body.append(...[...body.rows].sort((a, b) => (down ? -order(a, b) : order(a, b))));
    });
  });
}
for (const chart of document.querySelectorAll(".chart[data-series]")) {
  const keys = document.createElement("div");
  keys.className = "keys";
  for (const [id, name, points] of JSON.parse(chart.dataset.series)) {
    const group = chart.querySelector(`[id$="${id}"]`);
    if (!group) continue;
    [...group.querySelectorAll("use")].forEach((mark, at) => {
      if (!points[at]) return;
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      title.textContent = `${name}: ${points[at].join(", ")}`;
      mark.append(title);
    });
    const key = document.createElement("button");
    key.type = "button";
    key.textContent = name;
    key.setAttribute("aria-pressed", "true");
    const drawn = group.querySelector("path");
    if (drawn) key.style.borderLeft = `4px solid ${getComputedStyle(drawn).stroke}`;
    key.addEventListener("click", () => {
      const on = key.getAttribute("aria-pressed") !== "true";
      key.setAttribute("aria-pressed", String(on));
      for (const one of chart.querySelectorAll(`[id$="${id}"]`)) one.style.display = on ? "" : "none";
    });
    keys.append(key);
  }
  if (keys.childElementCount > 1) chart.after(keys);
}
"""
_THEMED = {INK: "--ink", "#5f6b7a": "--soft", "#e3e7ec": "--line", "#b8c0ca": "--axis", "#ffffff": "--paper"} | {
    colour: f"--series-{number}" for number, colour in enumerate(PALETTE)
}
"""Colours of figures that follow the reader's colour scheme, where the figure is put in by `inline`."""


def themed(colour: str) -> str:
    """A colour of figures as CSS that follows the reader's colour scheme."""
    name = _THEMED.get(colour)
    return colour if name is None else f"var({name}, {colour})"


def page(title: str, sections: Iterable[str], *, dark: bool = False, style: str = "") -> str:
    """A whole HTML page from its sections, with more style; `dark` where its figures are all put in by `inline`."""
    body = "\n".join(sections)
    script = f"<script>{_SCRIPT}</script>\n" if 'class="sorts"' in body or "data-series=" in body else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}{_DARK_STYLE if dark else ''}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n{script}</body>\n</html>\n"
    )


def svg(figure: Figure, *, transparent: bool = True) -> str:
    """A figure as SVG, the same text each time that the same figure is drawn; white where not transparent."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "corpus-teacher", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=transparent)
    return buffer.getvalue().decode()


def inline(text: str, description: str) -> str:
    """A figure, as `svg` gives it, as part of the page in the colours of the reader's scheme."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    prefix = f"f{zlib.crc32(description.encode()):08x}-"  # ids are the page's, not the figure's
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda found: _themed(found[0]), text)
    return text.replace("<svg", f'<svg class="plot" role="img" aria-label="{html.escape(description)}"', 1)


def _themed(colour: str) -> str:
    return f"var({_THEMED[colour]}, {colour})" if colour in _THEMED else colour


def chart(figure: Figure, description: str) -> str:
    """A figure in the page's colours: its labelled lines can be switched off, and their points say their numbers.

    On a phone it keeps a width at which it can be read, and scrolls.
    """
    series = []
    lines = [line for axes in figure.axes for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    names = list(dict.fromkeys(str(line.get_label()) for line in lines))
    for line in lines:
        name = str(line.get_label())
        line.set_gid(f"series-{names.index(name)}.")
        points = np.asarray(line.get_xydata(), np.float64).tolist()
        series.append([f"series-{names.index(name)}.", name, [[f"{x:.4g}", f"{y:.4g}"] for x, y in points]])
    for axes in figure.axes:
        legend = axes.get_legend()
        for text in legend.get_texts() if legend is not None else ():
            text.set_color(INK)
    first = {entry[0]: entry for entry in reversed(series)}  # one key for a name in several panels
    told = html.escape(json.dumps([first[f"series-{number}."] for number in range(len(names))]))
    return f'<div class="chart" data-series="{told}">{inline(svg(figure), description)}</div>'


def plain_axes(axes: Axes) -> None:
    """Take from axes what isn't needed to read them."""
    axes.grid(axis="y", color="#e3e7ec")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#b8c0ca")
    axes.tick_params(colors="#5f6b7a")


def plot(width: float = 7.6, height: float = 4.4) -> tuple[Figure, Axes]:
    """A figure with one pair of plain axes, drawn without matplotlib's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    plain_axes(axes)
    return figure, axes


def card(content: str, *, wide: bool = False) -> str:
    """A white box; a wide one scrolls."""
    return f'<div class="card{" scroll" if wide else ""}">{content}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], best: Sequence[bool] = ()) -> str:
    """A table in a card, which sorts by its heads; texts are escaped, rows marked best are bold."""
    lines = []
    for number, row in enumerate(rows):
        mark = " class=best" if number < len(best) and best[number] else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>")
    heads = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in head)
    return card(
        f'<table class="sorts"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>', wide=True
    )


def facts(entries: Iterable[tuple[str, str]]) -> str:
    """Names and what they are, in a card."""
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in entries)
    return card(f"<dl>{rows}</dl>")
