"""The teacher's bench: its naive teacher equals the reference, its judge sees what is wrong, a small run works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index.reference import estimators as reference_estimators
from corpus_index.reference.engine import ReferenceIndex
from hypothesis import given
from hypothesis import strategies as st

from bench.corpora import load
from bench.index.contender import Answers
from bench.index.rows import Row
from bench.teacher import tails
from bench.teacher.__main__ import main, parse
from bench.teacher.judge import Judge, difference
from bench.teacher.oracle import NaiveTeacher
from bench.teacher.ours import Ours, askings
from bench.teacher.peers import KenLM, with_ends
from bench.teacher.questions import Questions, ended, tail_corpus, texts, windows, write_corpus
from bench.teacher.run import Settings, TeacherRun

pytestmark = pytest.mark.slow

DISCOUNTS = ((0.5, 0.9, 1.3), (0.6, 1.1, 1.4), (0.7, 1.2, 1.5))
VOCAB_SIZE = 5  # token 4 is in no document
DOCUMENTS = st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=14), min_size=2, max_size=4)
SETTINGS = Settings(
    ("score",), runs=1, least_s=0.0, budget_s=0.1, sample=1, tail_positions=1, tail_estimators=1, quick=True
)


def naive_of(documents: list[list[int]]) -> NaiveTeacher:
    tokens = np.array([token for document in documents for token in document], np.uint16)
    return NaiveTeacher(tokens, np.cumsum([0, *map(len, documents)]), VOCAB_SIZE)


@pytest.mark.parametrize("name", ["witten-bell", "modified-kneser-ney", "mle"])
@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@given(data=st.data(), documents=DOCUMENTS, max_order=st.integers(1, 3))
def test_naive_teacher_is_the_references_equal(
    name: str, leave_out: str | None, data: st.DataObject, documents: list[list[int]], max_order: int
) -> None:
    naive, reference = naive_of(documents), ReferenceIndex(documents, VOCAB_SIZE)
    number = data.draw(st.integers(0, len(documents) - 1))
    offset = data.draw(st.integers(4, len(documents[number]) - 1))
    context = documents[number][:offset]
    without, left_out = {
        None: (np.zeros(0, np.int64), None),
        "self": (naive.doc_starts[number : number + 1] + offset, ("self", documents[number][offset])),
        "document": (np.arange(*naive.doc_starts[number : number + 2]), ("document", number)),
    }[leave_out]
    options: dict[str, Any] = {"discounts": DISCOUNTS} if name == "modified-kneser-ney" else {}
    found = naive.occurrences(np.array(context), max_order)

    actual = naive.distribution(name, max_order, found, without, **options)

    twin: Callable[..., list[float]] = getattr(reference_estimators, name.replace("-", "_"))
    expected = twin(reference, context, max_order=max_order, leave_out=left_out, **options)
    assert actual == pytest.approx(np.array(expected), abs=1e-12)


def test_naive_teacher_knows_absent_contexts() -> None:
    naive = naive_of([[0, 1, 2, 3], [0, 1, 3, 2]])

    assert naive.occurrences(np.array([0, 4]), 3) == []
    assert len(naive.occurrences(np.array([4, 0, 1]), 3)) == 2


TRUTH = np.array([0.5, 0.3, 0.2])


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ([0.0, 0.0, 0.0], {}, None),
        ([0.01, -0.01, 0], {}, "token 1"),
        ([0.001, 0.0, 0.0], {}, "sums to"),
        ([0.01, -0.01, 0], {"cut": 0.02}, None),
        ([0.03, -0.03, 0], {"cut": 0.02}, "moves"),
        ([0.01, -0.01, 0], {"left_out": True}, "the next token"),
        ([0.01, 0, -0.01], {"left_out": True}, None),
    ],
)
def test_difference(change: list[float], options: dict[str, Any], sentence: str | None) -> None:
    usual: dict[str, Any] = {"cut": None, "left_out": False, "base": 0.1}
    found = difference(TRUTH + change, TRUTH, 1, **{**usual, **options})

    assert found is None if sentence is None else sentence in str(found)


def test_windows_stay_inside_documents() -> None:
    starts = np.array([0, 5, 5, 17, 20])
    tokens = np.arange(20)
    in_turn = windows(tokens, starts, num=9, length=4, seed=None)
    drawn = windows(tokens, starts, num=50, length=4, seed=0)

    assert in_turn.positions.tolist() == [0, 5, 9]
    assert {*drawn.positions.tolist()} <= {0, *range(5, 13)}
    np.testing.assert_array_equal(drawn.next_ids, drawn.input_ids + 1)
    assert windows(tokens, starts, num=3, length=40, seed=0).tokens.shape == (0, 41)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    write_corpus(tmp_path, "heldout_1M", [generator.integers(0, 20, 300)])
    write_corpus(tmp_path, "train_small", [generator.integers(0, 20, 300) for _ in range(10)])
    return tmp_path


def test_corpora_end_their_documents(small: Path) -> None:
    plain = load(small, "small", small)
    corpus = ended(plain, small)
    copies = tail_corpus("copies", corpus, small, quick=True)
    one = tail_corpus("one token", corpus, small, quick=True)

    assert (corpus.tokens[corpus.doc_starts[1:] - 1] == corpus.vocab_size - 1).all()
    np.testing.assert_array_equal(corpus.tokens[corpus.tokens < plain.vocab_size], plain.tokens)
    long = corpus.tokens[:200].tobytes()
    assert copies.tokens.tobytes().count(long) >= 100
    assert set(one.tokens.tolist()) == {0}


def test_a_judged_row_that_is_wrong_is_void(small: Path) -> None:
    """The judge is right about the engine, and sees one that adds a hundredth."""
    corpus, ours = ended(load(small, "small", small), small), Ours()
    ours.build(corpus, small, 1)
    rows = texts(corpus, small, num=2, length=64)
    chosen = [asking for asking in askings(("mixed", "score")) if asking.text == "in-corpus"]
    with ours.open_path(small / "index") as index:
        judge = Judge(ours, index, NaiveTeacher(corpus.tokens, corpus.doc_starts, corpus.vocab_size))
        right = judge.compare(chosen, rows, 3)

        class Wrong(Ours):
            @staticmethod
            def ask(*arguments: Any, **options: Any) -> Any:
                answer = Ours.ask(*arguments, **options)
                return answer + 0.01 if isinstance(answer, np.ndarray) else answer._replace(rest=answer.rest + 0.01)

        judge.ours = Wrong()
        wrong = judge.compare(chosen, rows, 3)

    assert [(found.compared, found.differing) for found in right.values()] == [(3, 0)] * len(chosen)
    assert [(found.compared, found.differing) for found in wrong.values()] == [(0, 3)] * len(chosen)


@pytest.mark.parametrize("section", ["score", "texts"])
@pytest.mark.parametrize(("apart", "status"), [(5e-5, "ok"), (2e-4, "void")])
def test_kenlm_voids_what_is_too_far_apart(small: Path, apart: float, status: str, section: str) -> None:
    corpus = ended(load(small, "small", small), small)
    run = TeacherRun(corpus, {"held-out": Questions(np.zeros((1, 2), np.int64), np.array([-1]))}, small, SETTINGS)
    label = "modified-kneser-ney 4, held-out"
    run.rows = [Row.of([1.0], size="small", section=section, who=who, slice=label) for who in (Ours.name, "kenlm")]
    run.rows.append(Row.of([1.0], size="small", section=section, who=Ours.name, slice="witten-bell 5, held-out"))
    np.savez(run._answers_path(Ours()), **{f"log10/{section}": np.array([-1.0, -2.0])})
    np.savez(run._answers_path(KenLM()), log10=np.array([-1.0, -2.0 + apart]))

    run.judge([KenLM()])

    assert [row.status for row in run.rows] == [status, status, "ok"]


def test_ends_take_the_place_of_separators() -> None:
    answers = Answers.of([(2, 5, 3, np.array([1]), np.array([2])), (1, 4, 0, np.array([0, 2]), np.array([1, 3]))])

    found = with_ends(answers, 7)

    assert found.separators.tolist() == [0, 0]
    assert found.token_ids.tolist() == [1, 7, 0, 2]
    assert found.token_counts.tolist() == [2, 3, 1, 3]


def test_tail_is_what_calls_take_beyond_the_median_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of our own: a call takes 100 µs, at 30 always 300, at 7 first 500, at 9 once 900: a busy machine.

    A call is for four copies.
    """
    now, calls = [0.0], [0] * 40

    def ask(i: int) -> None:
        calls[i] += 1
        slow = {30: 300, 7: 500 if calls[7] == 1 else 100, 9: 900 if calls[9] == 2 else 100}
        now[0] += slow.get(i, 100) / 1e6

    for clock in ("perf_counter", "thread_time"):
        monkeypatch.setattr(tails.time, clock, lambda: now[0])
    found = tails.tail(ask, 40, 2.0, copies=4, budget_s=10.0)

    assert (found.asked, found.slowest) == (40, 30)
    assert found._asdict() == pytest.approx(
        {
            "p50_us": 2.0,
            "p99_us": 2.0 + 50 * 0.61,  # numpy's percentile lies between the last two of 40
            "max_us": 52.0,
            "first_us": 402.0,
            "call_us": 100.0,
            "asked": 40,
            "slowest": 30,
        }
    )


def test_tail_keeps_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def ask(_: int) -> None:
        now[0] += 1.0

    for clock in ("perf_counter", "thread_time"):
        monkeypatch.setattr(tails.time, clock, lambda: now[0])
    assert tails.tail(ask, 40, 2.0, copies=1, budget_s=10.0).asked == tails.LEAST


def test_unknown_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--quick", "--only", "flatt"], ["--quick", "--peers", "srilm"]):
        with pytest.raises(SystemExit):
            parse(wrong)
    assert "unknown: srilm; there are: tokengrams, infini-gram, kenlm, none" in capsys.readouterr().err


def test_a_quick_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "teacher-{size}.json"
    main(["--quick", "--peers", "none", "--only", "flat,score", "--out", str(out), "--work", str(tmp_path)])

    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "teacher-quick.json").read_text())["rows"]
    assert {row["status"] for row in rows} == {"ok"}
    assert {(row["section"], row["slice"]) for row in rows} == {
        (a.section, a.label) for a in askings(("flat", "score"))
    }
    assert all(row["details"]["judged"]["oracle"].startswith("equal at 2") for row in rows)
    assert json.loads(printed.splitlines()[-1])["rows"] == rows
    assert "equals oracle" in printed
