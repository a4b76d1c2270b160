"""Laws of loss by tokens read, against a naive twin and against rows of a known law; the figures beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus_teacher.errors import ConfigError
from corpus_teacher.study.report import fits
from corpus_teacher.study.report.fits import fit_law, laws
from corpus_teacher.study.report.more_plots import differences_by_document
from corpus_teacher.study.report.results import Results, sort_rows
from corpus_teacher.study.report.write import write_study_report

from ..study_rows import DOCUMENTS, make_rows, make_settings, write_study

BUDGETS = {"1": 1_000_000, "2": 2_000_000, "4": 4_000_000, "8": 8_000_000}
SIZE = {"small": 300_000}


def naive_fit(tokens: Sequence[float], losses: Sequence[float]) -> tuple[float, float, float]:
    """The exponents of the grid one at a time, and least squares by numpy's solver; where E is negative, without E."""
    found = []
    for exponent in fits._EXPONENTS:
        powers = (np.array(tokens) / 1e6) ** -exponent
        terms = np.stack([np.ones(len(tokens)), powers], axis=1)
        floor, scale = np.linalg.lstsq(terms, np.array(losses), rcond=None)[0]
        if floor < 0:
            floor, scale = 0.0, np.linalg.lstsq(powers[:, None], np.array(losses), rcond=None)[0][0]
        found.append((float(((floor + scale * powers - losses) ** 2).sum()), floor, scale, exponent))
    return min(found)[1:]


def rows_of_laws(saved: float = 1.25, *, bend: float = 0.0) -> list[dict[str, Any]]:
    """Hard labels follow 3 + 2·(tokens/10⁶)^−0.3, the arm the same with `saved` times the tokens; each adds its chance.

    bend : nats by which the arm's third budget lies off its law.
    """
    rows = make_rows({"hard": 0.0, "corpus": 0.0}, SIZE, BUDGETS, range(3), noise=0.0, tuning=False)
    for row in rows:
        tokens = row["tokens"] * (1.0 if row["arm"] == "hard" else saved) / 1e6
        level = 3 + 2 * tokens**-0.3 + 0.01 * row["seed"] + bend * (row["arm"] == "corpus" and row["budget"] == "4")
        documents = row["metrics"]["in"]["documents"]
        row["metrics"]["in"]["documents"] = [[level * n + 0.1 * math.sin(at), n] for at, (_, n) in enumerate(documents)]
        total = sum(nats for nats, _ in row["metrics"]["in"]["documents"])
        row["metrics"]["in"]["nats"] = total / sum(n for _, n in documents)
    return rows


def study(rows: list[dict[str, Any]]) -> Results:
    return sort_rows(make_settings(seeds=3, arms={"hard": {}, "corpus": {}}, sizes=SIZE, budgets=BUDGETS), rows)


@pytest.mark.parametrize("losses", [[5.9, 5.5, 5.1, 4.7], [5.0, 4.5, 4.25, 4.125], [2.0, 1.0, 0.5, 0.25]])
def test_a_fit_is_that_of_its_naive_twin(losses: list[float]) -> None:
    tokens = [393_216.0, 786_432.0, 1_572_864.0, 3_145_728.0]
    actual, expected = fit_law(tokens, np.array(losses)), naive_fit(tokens, losses)
    assert [float(one) for one in actual] == pytest.approx(expected, abs=1e-6)


def test_a_loss_that_rises_has_a_flat_law() -> None:
    floor, scale, _ = fit_law([1e6, 2e6, 4e6, 8e6], np.array([3.0, 3.1, 3.2, 3.3]))
    assert (float(floor), float(scale)) == pytest.approx((3.15, 0.0))


def test_many_curves_are_fitted_as_each_by_itself() -> None:
    tokens, curves = list(BUDGETS.values()), np.random.default_rng(3).normal(4, 0.2, (5, 2, 4))
    together = np.stack(fit_law(tokens, curves))
    for place in np.ndindex(5, 2):
        assert together[(slice(None), *place)] == pytest.approx(np.stack(fit_law(tokens, curves[place])))


def test_savings_of_a_known_law() -> None:
    hard, corpus = laws(study(rows_of_laws()), "small")
    assert (hard.arm, corpus.arm, hard.savings) == ("hard", "corpus", ())
    assert (hard.floor, hard.scale, hard.exponent) == pytest.approx((3.0, 2.0, 0.3), abs=0.06)
    assert corpus.tokens == tuple(BUDGETS.values())
    for one in corpus.savings:
        assert one.value == pytest.approx(1.25, abs=0.005)
        assert one.low <= one.value <= one.high
    assert corpus.far_tokens == 80_000_000
    assert corpus.far_saving is not None
    assert corpus.far_saving.value == pytest.approx(1.25, abs=0.05)
    assert corpus.far_gain is not None
    assert corpus.far_gain.value < 0


def test_lack_of_fit_by_hand() -> None:
    """Four points on no law of three terms: one degree of freedom, of which t at 90 % is 6.3138."""
    tokens, law = [1e6, 2e6, 4e6, 8e6], (3.0, 2.0, 0.3)
    losses = [3 + 2 * (at / 1e6) ** -0.3 + off for at, off in zip(tokens, (0.01, -0.02, 0.02, -0.01), strict=True)]
    assert fits.lack_of_fit(law, tokens, losses) == pytest.approx(6.3138 * math.sqrt(0.001), rel=1e-4)
    with pytest.raises(ConfigError, match="3 points"):
        fits.lack_of_fit(law, tokens[:3], losses[:3])


def test_a_law_of_the_baseline_that_misses_its_points_widens_the_range() -> None:
    ranges = []
    for bend in (0.0, 0.02):
        rows = rows_of_laws()
        for row in rows:
            if (row["arm"], row["budget"]) == ("hard", "4"):
                documents = row["metrics"]["in"]["documents"]
                row["metrics"]["in"]["documents"] = [[nats + bend * n, n] for nats, n in documents]
        _, corpus = laws(study(rows), "small")
        assert all(
            low <= one.value <= high for one, (low, high) in zip(corpus.savings, corpus.lack_of_fit, strict=True)
        )
        ranges.append(math.log(corpus.lack_of_fit[1][1] / corpus.lack_of_fit[1][0]))
    assert ranges[0] < 0.05 < ranges[1]


def test_a_law_that_misses_its_points_is_not_read_beyond_them() -> None:
    _, bent = laws(study(rows_of_laws(bend=0.2)), "small")
    assert bent.misfit > fits.MISSES
    assert (bent.far_saving, bent.far_gain) == (None, None)
    assert len(bent.savings) == 4  # those at the budgets are of the baseline's law and the arm's own losses
    assert bent.savings[2].value < 1 < bent.savings[1].value


def test_a_loss_that_is_never_reached_has_a_bound_and_no_infinity() -> None:
    _, corpus = laws(study(rows_of_laws(saved=1e9)), "small")
    assert all(math.isfinite(one.value) and math.isfinite(one.high) for one in corpus.savings)
    assert corpus.savings[0].value > 50


def test_few_budgets_have_no_law() -> None:
    some = [row for row in rows_of_laws() if row["budget"] != "8"]
    assert laws(study(some), "small") == []
    assert laws(study([row for row in rows_of_laws() if row["arm"] == "corpus"]), "small") == []


@pytest.mark.parametrize(("passes", "count"), [(1, 2), (4, 0)])
def test_indexes_that_are_read_once_are_one_text(passes: int, count: int) -> None:
    """Each budget has an index of its own; read once each they are more of one text, read four times they are not."""
    rows = rows_of_laws()
    for row in rows:
        row["config"] = {"data": {"index": f"data/index-{row['budget']}"}}
    indexes = {name: tokens // passes for name, tokens in BUDGETS.items()}
    settings = make_settings(arms={"hard": {}, "corpus": {}}, sizes=SIZE, budgets=BUDGETS, data={"indexes": indexes})
    assert len(laws(sort_rows(settings, rows), "small")) == count


def test_documents_add_up_to_the_whole() -> None:
    results = study(rows_of_laws())
    found = differences_by_document(results, ("corpus", "small", "8"))
    assert len(found) == DOCUMENTS
    tokens = np.array([one.tokens for one in found])
    whole = [
        np.mean([results.runs[arm, "small", "8"][seed]["metrics"]["in"]["nats"] for seed in range(3)])
        for arm in ("corpus", "hard")
    ]
    mean = tokens @ [one.difference.value for one in found] / tokens.sum()
    assert mean == pytest.approx(whole[0] - whole[1])
    assert differences_by_document(results, ("corpus", "small", "absent")) == []


def test_the_report_has_the_laws_and_the_documents(tmp_path: Path) -> None:
    declared = {"arms": {"hard": {}, "corpus": {}}, "sizes": SIZE, "budgets": BUDGETS, "seeds": 3}
    summary = write_study_report(write_study(tmp_path, rows_of_laws(), **declared))
    text = summary.findings.read_text(encoding="utf-8")
    assert "## Laws of loss by tokens read" in text
    assert "| corpus | 3.0" in text
    assert {"laws.svg", "by-document.svg"} <= {path.name for path in (tmp_path / "figures").iterdir()}
    write_study_report(write_study(tmp_path / "bent", rows_of_laws(bend=0.2), **declared))
    assert "not read: the law misses its points" in (tmp_path / "bent" / "findings.md").read_text(encoding="utf-8")
