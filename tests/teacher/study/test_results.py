"""The studies that were run: their rows are of the studies as they stand, and what is said of them is what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from corpus_teacher.study import read_study
from corpus_teacher.study.report.analysis import analyse
from corpus_teacher.study.report.contrasts import contrasts, sentence
from corpus_teacher.study.report.results import read_results

ROOT = Path(__file__).parents[3]
FOLDERS = sorted(path.parent for path in (ROOT / "studies" / "results").glob("*/rows.jsonl"))
every_study = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def test_there_are_some() -> None:
    assert FOLDERS


@every_study
def test_rows_are_of_the_study_as_it_stands(folder: Path) -> None:
    asked = json.loads(json.dumps(read_study(ROOT / "studies" / f"{folder.name}.toml").describe()))
    ran = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert {key: ran[key] for key in asked} == asked


@every_study
def test_the_findings_are_those_of_the_rows(folder: Path) -> None:
    results, text = read_results(folder), (folder / "findings.md").read_text(encoding="utf-8")
    analysis = analyse(results)
    said = [analysis.answer, *(sentence(one, results.primary) for one in contrasts(results)), *results.missing]
    for one in said:
        assert one in text
    assert analysis.checks_failed == ()
    for figure in re.findall(r"\]\((figures/[^)]*)\)", text):
        assert (folder / figure).is_file()


def test_the_readme_says_what_was_found() -> None:
    """Each interval in a line that links to findings stands in them; a study that isn't finished answers nothing."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    linked = {}
    for line in lines:
        for name in re.findall(r"studies/results/([^/)]*)/findings\.md", line):
            linked[name] = line
    complete = {folder.name for folder in FOLDERS if not read_results(folder).missing}
    assert set(linked) == complete
    for name, line in linked.items():
        text = (ROOT / "studies" / "results" / name / "findings.md").read_text(encoding="utf-8")
        intervals = re.findall(r"\[[^\]]*\d, [^\]]*\d\]", line)
        assert intervals, f"the line of {name} has no interval"
        for one in intervals:
            assert one in text, f"{one} is not in the findings of {name}"
