"""The page: complete, self-contained, and safe against what a corpus may hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from corpus_teacher.demo.run_page import _visible, learning_curves, render_report, write_report


def make_answer() -> dict[str, Any]:
    """As the demo makes one."""
    arms = [
        {
            "arm": arm,
            "name": name,
            "held_out_nats": nats,
            "bits_per_byte": nats / 3,
            "history": [{"tokens": 1000 * (i + 1), "held_out_nats": nats + 1 / (i + 1)} for i in range(3)],
            "seconds": 12.3,
            "tokens": 3000,
            "tokens_per_s": 25000.4,
            "teacher_share": 0.031 if arm == "corpus" else 0.0,
        }
        for arm, name, nats in [
            ("hard", "hard labels", 4.5),
            ("corpus", "corpus teacher", 4.25),
            ("label-smoothing", "label smoothing", 4.501),
        ]
    ]
    says = [
        {"token": "<script>", "probability": 0.5, "is_truth": True},
        {"token": "\n     ", "probability": 0.25, "is_truth": False},
    ]
    context = {
        "context": "if a < b:\n    print('<script>alert(1)</script>')",
        "truth": "<script>",
        "match_len": 1,
        "context_count": 1,
        "entropy_nats": 1.5,
        "says": {"corpus": says, "student": says, "hard student": says},
        "probability_of_truth": {"corpus": 0.5, "student": 0.5, "hard student": 0.5},
    }
    return {
        "created": "2030-01-01T00:00:00+00:00",
        "seed": 7,
        "settings": {
            "corpus_weight": 0.5,
            "epsilon": 0.25,
            "steps": 3,
            "batch_size": 10,
            "length": 100,
            "vocab_size": 4096,
            "learning_rate": 1e-3,
        },
        "student": {
            "model_type": "llama",
            "num_hidden_layers": 2,
            "hidden_size": 128,
            "parameters": 1_000_000,
        },
        "corpus": {
            "train_files": 10,
            "train_bytes": 10**6,
            "train_tokens": 300_000,
            "held_out_files": ["a.py"],
            "held_out_bytes": 10**5,
            "held_out_tokens": 30_000,
            "too_similar": [],
        },
        "index": {"size_bytes": 10**6, "fingerprint": "f" * 64},
        "teacher": {
            "estimator": "witten-bell",
            "max_order": 5,
            "top_k": 64,
            "held_out_nats": 4.3,
            "bits_per_byte": 1.4,
            "tokens": 1000,
            "copied_share": 0.01,
            "entropy_nats": 2.0,
            "blend_entropy_nats": 1.2,
            "cut_mass": 0.01,
        },
        "arms": arms,
        "contexts": [context, {**context, "match_len": 0}],
        "machine": {"cores": 2, "system": "somewhere"},
        "versions": {"torch": "2"},
        "stage_s": {"train": 1.0},
        "total_s": 60.0,
    }


class Checker(HTMLParser):
    """Counts tags, and sees that they close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_is_one_self_contained_page(tmp_path: Path) -> None:
    write_report(make_answer(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    tags = [tag for tag, _ in checker.seen]
    assert tags.count("svg") == 1
    assert not {"script", "link", "iframe"} & set(tags)
    sources = [attributes["src"] for _, attributes in checker.seen if "src" in attributes]
    assert all(source is not None and source.startswith("data:image/svg+xml;base64,") for source in sources)
    own = page.replace("http://127.0.0.1:8000/", "")  # the server that a reader may start; a link loads nothing
    assert not re.search(r"url\((?!#)|@import", own)
    assert set(re.findall(r"https?://[\w.]+", own)) <= {"http://www.w3.org"}  # names of namespaces


def test_says_what_matters() -> None:
    page = render_report(make_answer())
    for text in (
        "4.5000",
        "4.2500",
        "4.5010",
        "25,000",
        "3.1%",
        "One seed, no interval",
        "seed 7",
        "4.3000",
        "ε = 0.2500",
        "100.0 times",
        "&lt;script&gt;alert(1)",
        "↵␣×5",
        "doesn’t know the last token",
        "knows the last token: 1 occurrence.",
        "2030-01-01",
    ):
        assert text in page, text
    assert page.count("class=best") == 1
    assert page.count('class="bar truth"') == 6


def test_the_plot_names_its_lines_apart() -> None:
    figure = learning_curves(make_answer()["arms"])
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["hard labels", "corpus teacher", "label smoothing"]
    heights = sorted(text.xyann[1] for text in axes.texts)
    low, high = axes.get_ylim()
    assert min(b - a for a, b in pairwise(heights)) > 0.05 * (high - low)


def test_the_plot_is_an_svg() -> None:
    page = render_report(make_answer())
    assert '<svg class="plot" role="img" aria-label="Held-out loss against tokens read"' in page
    assert "var(--ink" in page  # in the colours of the reader's scheme


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (" a", "␣a"),
        ("\t", "⇥"),
        ("        ", "␣×8"),
        ("\n    ", "↵␣×4"),
        ("\n     ", "↵␣×5"),
        ("\x00", "\\x00"),
    ],
)
def test_white_space_is_visible(token: str, expected: str) -> None:
    assert _visible(token) == expected
