"""The study's report: complete, self-contained, the same for rows in any order, honest about what is missing."""

from __future__ import annotations

import html
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from corpus_teacher.errors import ConfigError, InputError, OutputError
from corpus_teacher.pages.page import PALETTE
from corpus_teacher.study.report import tables, write
from corpus_teacher.study.report.analysis import BETTER, UNDECIDED, WORSE, analyse
from corpus_teacher.study.report.contrasts import contrasts
from corpus_teacher.study.report.more_plots import rate_map
from corpus_teacher.study.report.plots import gain_by_bucket, gain_by_entropy
from corpus_teacher.study.report.results import Place, Results, read_results, sort_rows, tuning_losses
from corpus_teacher.study.report.shared import Shared, shared_runs
from corpus_teacher.study.report.write import StudySummary, write_study_report
from corpus_teacher.study.row_file import pack_rows, read_rows

from ..study_rows import GAINS, make_rows, make_settings, write_study

SMALL, ONCE = {"small": 300_000}, {"once": 1_000_000}
TWO = {"hard": 0.0, "corpus": 0.12}
ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "index")])}


class Checker(HTMLParser):
    """Sees that tags close, and what they ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def small_rows(gains: dict[str, float] = TWO, **changes: Any) -> list[dict[str, Any]]:
    return make_rows(gains, SMALL, ONCE, **changes)


def small_settings(gains: dict[str, float] = TWO) -> dict[str, Any]:
    return make_settings(arms={arm: {} for arm in gains}, sizes={"small": {}}, budgets={"once": {}})


def small_study(folder: Path, rows: list[dict[str, Any]], gains: dict[str, float] = TWO, **changes: Any) -> Path:
    return write_study(folder, rows, **{**small_settings(gains), **changes})


def bare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what figures are made of."""
    for row in rows:
        row["history"] = []
        for domain in ("in", "prose"):
            for key in ("buckets", "reliability"):
                row["metrics"].get(domain, {}).pop(key, None)
    return rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudySummary]:
    """Five arms, two sizes, three budgets, five seeds, of which two runs are missing."""
    rows = [
        row
        for row in make_rows()
        if (row["arm"], row["size"], row["budget"]) != ("permuted", "base", "4x") or row["seed"] not in (3, 4)
    ]
    folder = write_study(tmp_path_factory.mktemp("study"), rows)
    return folder, write_study_report(folder)


@pytest.fixture(autouse=True)
def sketches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of reports other than `whole` aren't drawn, most of a report's time: their parts are listed."""

    def sketched(figure: Figure, *, transparent: bool) -> str:
        assert not transparent
        parts: list[Any] = [[text.get_text() for text in figure.texts]]
        for axes in figure.axes:
            parts.append([axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), axes.get_xlim(), axes.get_ylim()])
            parts += [[line.get_label(), line.get_color(), line.get_xydata().tolist()] for line in axes.lines]
            parts += [one.get_offsets().tolist() for one in axes.collections]
            parts += [one.get_path().vertices.tolist() for one in axes.patches]
            parts += [[text.get_text(), text.get_position()] for text in axes.texts]
        return f"<svg><desc>{html.escape(str(parts))}</desc></svg>"

    monkeypatch.setattr(write, "svg", sketched)


def test_the_page_needs_nothing_but_itself(whole: tuple[Path, StudySummary]) -> None:
    page = (whole[0] / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    names = {tag for tag, _ in checker.tags}
    assert not names & {"link", "iframe", "img", "image"}
    assert {"svg", "table"} <= names
    for _, attributes in checker.tags:
        for key in ("src", "href", "xlink:href"):
            assert (attributes.get(key) or "#").startswith("#")
    assert "&lt;the corpus&gt;" in page
    assert "<the corpus>" not in page


def test_figures_share_the_page_and_follow_its_colours(whole: tuple[Path, StudySummary]) -> None:
    page = (whole[0] / "report.html").read_text(encoding="utf-8")
    identities = re.findall(r'\bid="([^"]*)"', page)
    assert len(identities) == len(set(identities))
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', page)) <= set(identities)
    assert "prefers-color-scheme: dark" in page
    body = page[page.index("<body>") :]
    for colour in PALETTE:
        assert not re.search(rf"(?<!, ){colour}", body)  # only as the fallback of a variable


def test_gains_by_bucket_compare_the_same_tokens(tmp_path: Path) -> None:
    """An arm whose training text has another index has other tokens in its buckets: no difference to draw."""
    rows = make_rows({"hard": 0.0, "corpus": 0.12, "elsewhere": 0.12}, SMALL, ONCE)
    for row in rows:
        if row["arm"] == "elsewhere" and row["role"] == "run":
            for bucket in row["metrics"]["in"]["buckets"]["context_count"]:
                bucket["tokens"] += 1
    declared = {"arms": {"hard": {}, "corpus": {}, "elsewhere": {}}, "sizes": {"small": {}}, "budgets": {"once": {}}}
    figure = gain_by_bucket(read_results(write_study(tmp_path, rows, **declared)), "small", "once")
    assert figure is not None
    drawn = {axes.get_xlabel(): axes.get_legend_handles_labels()[1] for axes in figure.axes}
    for label, arms in drawn.items():
        assert arms == (["corpus"] if "of the context in the index" in label else ["corpus", "elsewhere"])
    assert any("of the context in the index" in label for label in drawn)


def test_gains_by_entropy_are_of_the_primary_text(tmp_path: Path) -> None:
    """Students alone on the left, with the counts mixed in on the right; a report without counts has no such figure."""
    rows = small_rows()
    assert gain_by_entropy(read_results(small_study(tmp_path / "plain", rows)), "small", "once") is None
    for row in rows:
        taught = row["arm"] == "corpus"
        row["metrics"]["in+counts"] = {
            "by_evidence": {
                "entropy": [
                    {"label": "below 1", "tokens": 100, "student": 2.0 - 0.5 * taught, "mixture": 1.0 + 0.1 * taught},
                    {"label": "1 and more", "tokens": 300, "student": 3.0 + 0.2 * taught, "mixture": 3.0},
                    {"label": "beyond", "tokens": 3, "student": 9.0, "mixture": 9.0},
                ]
            }
        }
    figure = gain_by_entropy(read_results(small_study(tmp_path / "counts", rows)), "small", "once")
    assert figure is not None
    gains = [axes.containers[0].lines[0].get_ydata().tolist() for axes in figure.axes]
    assert gains == [pytest.approx([0.5, -0.2]), pytest.approx([-0.1, 0.0])]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["< 1\n25%", "1+\n75%"]


def test_every_figure_is_a_file_of_its_own(whole: tuple[Path, StudySummary]) -> None:
    folder, _ = whole
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert names == {
        "differences", "by-document", "learning-curves", "speed-up", "gain-by-bucket", "gain-by-size", "gain-by-passes",
        "reliability", "rates",
    }  # fmt: skip
    findings = (folder / "findings.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(figures/(.*?)\.svg\)", findings)) == names
    assert all(path.suffix in (".html", ".md", ".json", ".jsonl", "") for path in folder.iterdir())


def test_the_answer_is_one_sentence_with_number_and_interval(whole: tuple[Path, StudySummary]) -> None:
    folder, summary = whole
    found = re.fullmatch(
        r"corpus lowers in\.nats by (\S+) nats per token \[(\S+), (\S+)\] against hard at size small, budget 4x "
        r"\(5 paired seeds, 24 documents; Holm-corrected p < 0\.001; of 4 arms 2 better, 1 undecided, 1 worse\); "
        r"hard needs (\S+) \[\S+, \S+\] times its tokens for the same loss\.",
        summary.answer,
    )
    assert found is not None
    gain, low, high, ratio = map(float, found.groups())
    assert low < GAINS["corpus"] < high
    assert low < gain < high
    assert ratio == pytest.approx(2 ** (0.12 / 0.25), rel=0.1)
    assert summary.answer in (folder / "findings.md").read_text(encoding="utf-8")
    assert summary.answer.replace("<", "&lt;") in (folder / "report.html").read_text(encoding="utf-8")


def test_gains_losses_and_nulls_are_told_alike(whole: tuple[Path, StudySummary]) -> None:
    _, summary = whole
    verdicts = {(one.place[0], one.verdict) for one in summary.comparisons}
    expected = {("corpus", BETTER), ("corpus self in", BETTER), ("label smoothing", WORSE), ("permuted", UNDECIDED)}
    assert verdicts == expected
    assert len(summary.comparisons) == 4 * 2 * 3


def test_what_is_missing_is_said(whole: tuple[Path, StudySummary]) -> None:
    folder, summary = whole
    assert not summary.complete
    assert summary.missing == ("permuted · base · 4x: 2 of 5 seeds",)
    for name in ("report.html", "findings.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "isn’t finished: 1 of 30 places" in text
        assert "permuted · base · 4x: 2 of 5 seeds" in text


def test_contrasts_are_gains_against_gains(tmp_path: Path) -> None:
    at = {"size": "base", "budget": "once", "against_size": "base", "against_budget": "once"}
    named = [
        {"arm": "corpus", "against": "permuted", **at},
        {"arm": "corpus", "against": "corpus", **at, "against_size": "small"},
        {"arm": "none", "against": "corpus", **at},
    ]
    results = sort_rows(make_settings(contrasts=named), make_rows())
    one, two, three = contrasts(results)
    places = [("corpus", "base", "once"), ("permuted", "base", "once")]
    assert one.difference is not None
    assert two.difference is not None
    assert one.difference.value == pytest.approx(_gap(results, *places))
    assert one.difference.high < 0
    assert one.verdict == "better"
    assert one.p_holm == pytest.approx(2 * one.difference.p)
    size_gap = [_gap(results, ("corpus", size, "once"), ("hard", size, "once")) for size in ("base", "small")]
    assert two.difference.value == pytest.approx(size_gap[0] - size_gap[1])
    assert one.names == ("corpus · base", "permuted · base")
    assert two.names == ("corpus · base", "corpus · small")
    assert contrasts(sort_rows(make_settings(contrasts=named[:1]), make_rows()))[0].names == ("corpus", "permuted")
    assert (three.difference, three.verdict) == (None, "no interval")
    folder = write_study(tmp_path, make_rows(tuning=False), contrasts=named[:2])
    summary = write_study_report(folder)
    said = f"corpus · base against permuted · base: −{-one.difference.value:.3f} nats per token [−"
    assert summary.contrasts[0].startswith(said)
    for name in ("report.html", "findings.md"):
        assert summary.contrasts[1] in (folder / name).read_text(encoding="utf-8")


def test_a_contrast_with_the_baseline_compares_losses() -> None:
    """The baseline gains nothing anywhere: what is asked is whether the arm here is better than it is there."""
    named = {"arm": "corpus", "size": "base", "budget": "once", "against": "hard", "against_size": "base"}
    (one,) = contrasts(sort_rows(make_settings(contrasts=[{**named, "against_budget": "4x"}]), make_rows()))
    results = sort_rows(make_settings(), make_rows())
    assert one.difference is not None
    assert one.difference.value == pytest.approx(_gap(results, ("corpus", "base", "once"), ("hard", "base", "4x")))
    assert one.names == ("corpus · once", "hard · 4x")


def _gap(results: Results, first: Place, second: Place) -> float:
    """The naive difference of two places' mean losses."""
    means = [sum(values) / len(values) for values in (results.values(place, "in.nats") for place in (first, second))]
    return means[0] - means[1]


def test_a_budget_of_some_arms_lacks_no_others() -> None:
    settings = make_settings(arms=TWO, budgets={"once": {}, "4x": {"arms": ["hard"]}}, sizes={"base": {}})
    results = sort_rows(settings, [])
    (other,) = (arm for arm in TWO if arm != "hard")
    assert results.grid == (("hard", "base", "once"), ("hard", "base", "4x"), (other, "base", "once"))
    assert len(results.missing) == 3


def test_tables_of_the_findings_are_whole(whole: tuple[Path, StudySummary]) -> None:
    text = (whole[0] / "findings.md").read_text(encoding="utf-8")
    found = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(found) >= 8
    for one in found:
        assert len({line.count("|") for line in one.splitlines()}) == 1
    for expected in (
        "Primary metric: in.nats",
        "Leak checks",
        "at the end of the grid",
        "at equal CPU time",
        "torch 2.9",
    ):
        assert expected in text
    assert "25.0% of the held-out documents share a 13-gram" in text
    assert "passed in 148 of 148 runs" in text


def test_learning_rates_at_the_end_of_the_grid_are_marked(whole: tuple[Path, StudySummary]) -> None:
    text = (whole[0] / "findings.md").read_text(encoding="utf-8")
    assert "6 of 30 lie at the end of the grid" in text
    rows = [line for line in text.splitlines() if "of the grid |" in line]
    assert {line.split(" | ")[0].strip("| ") for line in rows if "at the end of" in line} == {"corpus"}
    assert len(rows) == 30


def test_rows_in_any_order_make_the_same_report(tmp_path: Path) -> None:
    rows = small_rows()
    shuffled = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    one, other = small_study(tmp_path / "one", rows), small_study(tmp_path / "other", shuffled)
    write_study_report(one)
    write_study_report(other)
    for name in ("findings.md", "report.html"):
        assert (one / name).read_text(encoding="utf-8") == (other / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("written", [True, False])
def test_a_study_without_rows_has_no_answer(tmp_path: Path, written: bool) -> None:
    folder = small_study(tmp_path, [])
    if not written:
        (folder / "rows.jsonl").unlink()
    summary = write_study_report(folder)
    assert summary.answer.startswith("No answer yet")
    assert not summary.complete
    assert summary.comparisons == ()
    assert "2 of 2 places" in (folder / "findings.md").read_text(encoding="utf-8")


def test_the_baseline_alone_has_no_answer(tmp_path: Path) -> None:
    rows = [row for row in bare(small_rows()) if row["arm"] == "hard"]
    summary = write_study_report(small_study(tmp_path, rows))
    assert summary.answer.startswith("No answer yet")
    assert "| corpus | not run |" in summary.findings.read_text(encoding="utf-8")


def test_a_null_study_claims_nothing(tmp_path: Path) -> None:
    gains = {"hard": 0.0, "a": 0.0, "b": 0.0}
    summary = write_study_report(small_study(tmp_path, bare(small_rows(gains)), gains))
    assert summary.answer.startswith("No arm is shown to be better than hard")
    assert re.search(r"\[−\S+, \+\S+\]", summary.answer)
    assert {one.verdict for one in summary.comparisons} == {UNDECIDED}
    assert summary.complete


def test_arms_that_are_all_worse_are_said_to_be(tmp_path: Path) -> None:
    gains = {"hard": 0.0, "a": -0.2, "b": -0.1}
    summary = write_study_report(small_study(tmp_path, bare(small_rows(gains)), gains))
    assert summary.answer.startswith("Every arm is worse than hard: the least so, b, has in.nats +0.")


def test_one_seed_makes_no_claim_beyond_its_documents(tmp_path: Path) -> None:
    rows = bare(small_rows(seeds=[0], tuning=False))
    summary = write_study_report(small_study(tmp_path / "documents", rows, seeds=1))
    assert "1 paired seed, 24 documents" in summary.answer
    for row in rows:
        del row["metrics"]["in"]["documents"]
    summary = write_study_report(small_study(tmp_path / "alone", rows, seeds=1))
    assert summary.answer.startswith("No claim yet: corpus has in.nats −0.")
    assert "[no interval]" in summary.answer
    assert "not tuned" in summary.findings.read_text(encoding="utf-8")


def test_a_metric_that_is_better_when_higher(tmp_path: Path) -> None:
    rows = bare(small_rows())
    for row in rows:
        if row["role"] == "run":
            row["metrics"]["in"]["top1"] += 0.001 * row["seed"] * (row["arm"] == "corpus")
    summary = write_study_report(small_study(tmp_path, rows, primary="in.top1"))
    assert summary.answer.startswith("corpus raises in.top1 by 0.026 [0.0")
    assert "5 paired seeds;" in summary.answer


def test_diverged_repeated_and_foreign_rows_are_left_out_and_said(tmp_path: Path) -> None:
    rows = bare(small_rows())
    runs = [row for row in rows if row["role"] == "run"]
    runs[0]["metrics"]["in"]["nats"] = None
    later = {**runs[1], "started": "2031-01-01", "seconds": 1e6}
    foreign = {**runs[2], "form": "quick", "seed": 9}
    changed = {**runs[-1], "config": {**runs[-1]["config"], "data": {"train_tokens": 5}}}
    summary = write_study_report(small_study(tmp_path, [later, *rows[:-1], foreign, changed]))
    assert sorted(summary.remarks) == sorted(
        [
            "Rows of other forms (quick) are not in this report, which is of the form standard.",
            "1 repeated row left out: of a run’s rows the one that was started last counts.",
            "hard · small · once: 1 run without a finite in.nats (diverged), not compared.",
            "corpus · small · once: its runs have different settings (the study was changed between them).",
        ]
    )
    assert summary.comparisons[0].difference.seeds == 4
    assert summary.complete  # a diverged run is a finished one


def test_students_of_other_seeds_are_no_other_settings(tmp_path: Path) -> None:
    rows = bare(small_rows())
    for row in rows:
        student = f"students/{row['seed']}"
        row["config"] = {**row.get("config", {}), "neural": {"model": student}, "data": {"train": [student]}}
    assert not write_study_report(small_study(tmp_path, rows)).remarks


def test_a_failed_check_stands_at_the_answer(tmp_path: Path) -> None:
    rows = bare(small_rows())
    for row in rows:
        if row["role"] == "run":
            row["checks"] = {"leave_out_label_invariance": False}
    summary = write_study_report(small_study(tmp_path, rows))
    assert summary.checks_failed == ("Leave-out label invariance failed (10 runs): a target read its own label.",)
    page = summary.page.read_text(encoding="utf-8")
    assert page.index(summary.checks_failed[0]) < page.index("<h2>")
    assert "passed in 0 of 10 runs" in page


def test_checks_that_were_not_run_are_said_to_be(tmp_path: Path) -> None:
    rows = bare(small_rows())
    for row in rows:
        row.pop("checks", None)
    text = write_study_report(small_study(tmp_path, rows)).findings.read_text(encoding="utf-8")
    assert "- leave-out label invariance: not checked" in text
    assert "- overlap: not checked" in text


def test_time_on_another_device_is_matched_by_seconds(tmp_path: Path) -> None:
    rows = small_rows()
    for row in rows:
        row["machine"] = {"device": "some accelerator"}
    text = write_study_report(small_study(tmp_path, rows)).findings.read_text(encoding="utf-8")
    assert "at equal seconds" in text
    assert "CPU time" not in text


def test_the_headline_is_the_declared_place() -> None:
    rows = make_rows(TWO, tuning=False)
    first = analyse(sort_rows(make_settings(arms=TWO), rows)).headline
    assert first == ("small", "4x")
    other = analyse(sort_rows(make_settings(arms=TWO, headline={"size": "base", "budget": "once"}), rows)).headline
    assert other == ("base", "once")
    missing = [row for row in rows if row["budget"] != "4x" and row["size"] != "small"]
    assert analyse(sort_rows(make_settings(arms=TWO), missing)).headline == ("base", "once")


def test_bars_in_names_do_not_break_markdown() -> None:
    one = tables.Table(("arm", "x"), (("a|b", "1"),), (True,))
    assert tables.markdown(one) == "| arm | x |\n| --- | ---: |\n| **a\\|b** | **1** |\n"


def test_other_documents_cannot_be_paired(tmp_path: Path) -> None:
    rows = small_rows()
    rows[-1]["metrics"]["in"]["documents"] = rows[-1]["metrics"]["in"]["documents"][1:]
    with pytest.raises(InputError, match="different documents of 'in'"):
        write_study_report(small_study(tmp_path, rows))


def test_packed_rows_make_the_same_report(tmp_path: Path) -> None:
    rows = small_rows()
    plain, packed = small_study(tmp_path / "plain", rows), small_study(tmp_path / "packed", rows[:5])
    pack_rows(packed)
    with open(packed / "rows.jsonl", "w", encoding="utf-8") as file:  # one that is packed already counts once
        file.writelines(json.dumps(row) + "\n" for row in rows[4:])
    assert read_rows(packed) == rows
    pack_rows(packed)
    assert not (packed / "rows.jsonl").exists()
    assert read_rows(packed) == rows
    for folder in (plain, packed):
        write_study_report(folder)
    assert (plain / "report.html").read_bytes() == (packed / "report.html").read_bytes()


def test_packed_rows_that_are_cut_or_absent_are_refused(tmp_path: Path) -> None:
    folder = small_study(tmp_path, small_rows())
    packed = pack_rows(folder)
    with pytest.raises(InputError, match=r"has no rows\.jsonl"):
        pack_rows(folder)
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"rows\.jsonl\.xz can't be read"):
        read_rows(folder)


def test_notes_stand_before_the_tables(tmp_path: Path) -> None:
    folder = small_study(tmp_path, bare(small_rows()))
    (folder / "notes.md").write_text("# Notes\n\n- One <point>,\n  over two lines.\n- Another.\n", encoding="utf-8")
    summary = write_study_report(folder)
    text, page = (path.read_text(encoding="utf-8") for path in (summary.findings, summary.page))
    assert (
        text.index("- One <point>, over two lines.\n\n- Another.") < text.index("## The arms") < text.index("<details>")
    )
    assert text.rstrip().endswith("</details>")
    assert "<li>One &lt;point&gt;, over two lines.</li>" in page


def test_a_report_is_made_without_torch(tmp_path: Path) -> None:
    folder = small_study(tmp_path, bare(small_rows(seeds=[0, 1])))
    code = (
        "import sys; from corpus_teacher.study.report.write import write_study_report; "
        f"write_study_report({str(folder)!r}); heavy = ('torch', 'transformers', 'corpus_teacher.training'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a folder of `study run`"):
        write_study_report(tmp_path)
    (tmp_path / "study.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="is no JSON"):
        write_study_report(tmp_path)
    (tmp_path / "study.json").write_text('{"name": "x"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="lacks 'question'"):
        write_study_report(tmp_path)
    small_study(tmp_path, [{"arm": "hard"}])
    with pytest.raises(InputError, match="lacks 'size'"):
        write_study_report(tmp_path)


def test_a_line_that_was_cut_is_no_row_yet(tmp_path: Path) -> None:
    folder = small_study(tmp_path, bare(small_rows()))
    with open(folder / "rows.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"arm": "corpus"})[:-3])
    assert write_study_report(folder).complete


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    folder = small_study(tmp_path, bare(small_rows()))
    (folder / "figures").write_text("a file in the way", encoding="utf-8")
    with pytest.raises(OutputError, match="can't be written"):
        write_study_report(folder)


def test_the_lowest_evaluation_stands_beside_the_end() -> None:
    """What stopping early would have given: here an arm that is best at half of its run."""
    rows = small_rows(tuning=False)
    for row in rows:
        if row["arm"] == "corpus":
            row["history"] = [{"tokens": at * 100, "nats": 4.0 + abs(at - 5) / 10} for at in range(1, 11)]
    settings = make_settings(arms={arm: {} for arm in TWO}, sizes=SMALL, budgets=ONCE)
    found = {row[0]: row[1:] for row in tables.stopped_early(sort_rows(settings, rows), "small", "once").rows}
    assert found["corpus"] == ("4.500", "4.000", "50%")
    assert found["hard"][0] == found["hard"][1]
    assert found["hard"][2] == "100%"
    bare = small_rows(tuning=False)
    for row in bare:
        row["history"] = []
    assert tables.stopped_early(sort_rows(settings, bare), "small", "once").rows == ()


def test_rates_are_judged_over_tuning_seeds_and_by_the_best_of_what_else_is_tuned() -> None:
    rows = small_rows()
    first = next(row for row in rows if row["role"] == "tune" and row["arm"] == "hard")
    rows = [row for row in rows if row["role"] == "run" or row["arm"] != "hard"]
    tries = [(1e-3, 0, 2, 5.0), (1e-3, 1, 2, 5.2), (1e-3, 0, 4, 4.0), (1e-3, 1, 4, 4.4), (2e-3, 0, 2, 4.1)]
    for rate, seed, batch, loss in [*tries, (2e-3, 1, 2, None)]:
        tried = {"learning_rate": rate, "seed": seed, "tuned": {"batch": batch}, "metrics": {"tune": {"nats": loss}}}
        rows.append(first | tried)
    results = sort_rows(small_settings(), rows)
    assert tuning_losses(results, ("hard", "small", "once")) == {1e-3: pytest.approx(4.2), 2e-3: math.inf}
    figure = rate_map(results, "small", "once")
    assert figure is not None
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"4.200", "diverged"} <= texts
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["corpus", "hard"]
    assert rate_map(sort_rows(small_settings(), small_rows(tuning=False)), "small", "once") is None


def test_a_report_names_the_trainings_that_other_studies_have_too(tmp_path: Path) -> None:
    """The studies in the folders beside it, and those that its rows were taken from; each training counts once."""
    rows, other = small_rows(), small_rows()
    for row in rows:
        if row["role"] == "run" and row["arm"] == "corpus" and row["seed"] < 2:
            row["taken_from"] = "elsewhere"
    for row in other:
        if row["role"] == "run":
            row["fingerprint"] = row["fingerprint"] if row["arm"] == "hard" and row["seed"] else "own"
    folder = small_study(tmp_path / "mine", rows)
    small_study(tmp_path / "other", other, name="other")
    small_study(tmp_path / "nothing", [one | {"fingerprint": "x"} for one in other], name="nothing")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "rows.jsonl").write_text("{}", encoding="utf-8")
    found = shared_runs(folder, read_results(folder))
    assert found == [Shared("elsewhere", ("corpus",), 2), Shared("other", ("hard",), 4)]
    text = write_study_report(folder).findings.read_text(encoding="utf-8")
    assert "other: 4 runs of hard." in text
    assert "elsewhere: 2 runs of corpus." in text
    alone = small_study(tmp_path / "deeper" / "alone", small_rows())
    assert "Shared with" not in write_study_report(alone).findings.read_text(encoding="utf-8")


def test_a_report_has_the_losses_of_counts_and_of_each_teacher(tmp_path: Path) -> None:
    rows = small_rows()
    for row in rows:
        if row["role"] == "run":
            teacher = {"the teacher": 4.25} if row["arm"] == "corpus" else {}
            row["references"] = {"in": {"unigrams": 6.5, "auto": 4.0} | teacher, "prose": {"unigrams": 7.5}}
    text = write_study_report(small_study(tmp_path / "with", rows)).findings.read_text(encoding="utf-8")
    for line in ("| unigrams | 6.500 |", "| auto | 4.000 |", "| the teacher of corpus | 4.250 |"):
        assert line in text
    assert "7.500" not in text
    bare_text = write_study_report(small_study(tmp_path / "without", small_rows())).findings.read_text(encoding="utf-8")
    assert "Counts alone" not in bare_text
