"""The bench of the losses: every answer is the reference's, and a wrong one is void and not timed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import losses as bench_losses
from bench.loss_methods import BY_NAME, METHODS, Shape
from bench.losses import Row, check, judged, measure, render

pytestmark = pytest.mark.slow

SHAPE = Shape(positions=6, vocab_size=40, entries=4, width=8)


@pytest.mark.parametrize("method", [method for method in METHODS if not method.package], ids=lambda method: method.name)
def test_every_method_equals_its_reference(method) -> None:
    right, error = check(method, SHAPE, "cpu")
    assert right, error


def test_a_wrong_answer_is_void_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(BY_NAME["soft_cross_entropy"], run=BY_NAME["blended_cross_entropy"].run)
    monkeypatch.setitem(BY_NAME, "soft_cross_entropy", wrong)
    memory = {"peak_bytes": 10, "teacher_bytes": 0}
    monkeypatch.setattr(bench_losses, "peak_in_a_process", lambda *arguments: memory)
    names = ["torch cross_entropy", "soft_cross_entropy", "blended_cross_entropy"]
    baseline, void, good = measure(SHAPE, "cpu", runs=1, threads=1, names=names)
    assert void.status.startswith("void")
    assert void.error is not None
    assert void.error > 0.01
    assert (void.seconds, void.peak_bytes, void.runs) == (None, None, 0)
    assert (baseline.status, good.status, good.runs, good.peak_ratio) == ("ok", "ok", 1, 1.0)
    assert "void" in render([baseline, void, good])
    assert judged([baseline, void, good]) == []


def test_goals_are_judged() -> None:
    rows = [
        Row("torch cross_entropy", "logits", seconds=1.0, time_ratio=1.0, peak_bytes=100),
        Row("soft_cross_entropy", "logits", seconds=1.2, time_ratio=1.2, peak_bytes=100),
        Row("plain soft", "hidden", seconds=1.0, time_ratio=1.0, peak_bytes=100),
        Row("fused soft", "hidden", seconds=1.0, time_ratio=1.0, peak_bytes=25),
    ]
    assert [goal["met"] for goal in judged(rows)] == [False, True, True]
