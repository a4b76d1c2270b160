"""The demo, small but whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex
from rich.console import Console

from corpus_teacher.data import TokenWindows, load_tokenizer
from corpus_teacher.demo.run import _predicted_bytes, _prepare, run_demo
from corpus_teacher.errors import OutputError
from corpus_teacher.losses import label_smoothing_entropy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    out = tmp_path_factory.mktemp("demo") / "demo"
    console = Console(record=True, width=120, force_terminal=False, file=open("/dev/null", "w"))  # noqa: SIM115
    answer = run_demo(out, quick=True, console=console)
    text = console.export_text()
    console.file.close()
    return out, answer, text


def test_writes_what_it_returns(ran: tuple[Path, dict[str, Any], str]) -> None:
    out, answer, _ = ran
    assert {path.name for path in out.iterdir()} == {"index", "report.html", "results.json"}
    assert json.loads((out / "results.json").read_text()) == answer
    assert "One seed, no interval" in (out / "report.html").read_text(encoding="utf-8")


def test_arms_are_comparable(ran: tuple[Path, dict[str, Any], str]) -> None:
    _, answer, _ = ran
    assert [arm["arm"] for arm in answer["arms"]] == ["hard", "corpus", "label-smoothing"]
    assert len({(arm["steps"], arm["tokens"]) for arm in answer["arms"]}) == 1
    assert all(len(arm["history"]) >= 3 for arm in answer["arms"])
    ratio = {round(arm["bits_per_byte"] / arm["held_out_nats"], 9) for arm in answer["arms"]}
    assert ratio == {round(answer["teacher"]["bits_per_byte"] / answer["teacher"]["held_out_nats"], 9)}
    assert 0 < answer["arms"][1]["teacher_share"] < 1
    epsilon = answer["settings"]["epsilon"]
    assert label_smoothing_entropy(epsilon, 512) == pytest.approx(answer["teacher"]["blend_entropy_nats"])
    assert 0 < answer["teacher"]["blend_entropy_nats"] < answer["teacher"]["entropy_nats"] + 0.7


def test_the_number_of_steps_is_fixed_unless_time_is_given(
    ran: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    _, answer, _ = ran
    assert answer["settings"]["steps"] == answer["settings"]["max_steps"] == 30
    assert "time a step" not in answer["stage_s"]
    with open(os.devnull, "w") as nowhere:
        short = run_demo(tmp_path / "short", quick=True, seconds=0.1, console=Console(file=nowhere))
    assert short["settings"]["steps"] < 30


def test_contexts_are_chosen_by_the_rule(ran: tuple[Path, dict[str, Any], str]) -> None:
    _, answer, _ = ran
    longest = answer["teacher"]["max_order"]
    kinds = [context["match_len"] >= longest for context in answer["contexts"]]
    assert kinds == sorted(kinds)
    for context in answer["contexts"]:
        assert context["match_len"] >= 2
        assert 0.5 <= context["entropy_nats"] <= 2.0


def test_contexts_hold_three_answers(ran: tuple[Path, dict[str, Any], str]) -> None:
    _, answer, _ = ran
    assert len(answer["contexts"]) >= 4
    for context in answer["contexts"]:
        for entries in context["says"].values():
            probabilities = [entry["probability"] for entry in entries]
            assert probabilities == sorted(probabilities, reverse=True)
            assert sum(probabilities) <= 1 + 1e-5


def test_the_index_opens_with_its_tokenizer_and_holds_no_held_out_file(
    ran: tuple[Path, dict[str, Any], str],
) -> None:
    out, answer, _ = ran
    with CorpusIndex.open(out / "index") as index:
        assert index.num_documents == answer["corpus"]["train_files"]
        tokenizer = load_tokenizer(index)
        assert tokenizer.vocab_size == index.vocab_size == 512
        from corpus_teacher.standard_library import split_standard_library

        split = split_standard_library(max_bytes=answer["settings"]["max_bytes"])
        assert [document.origin for document in split.held_out] == answer["corpus"]["held_out_files"]
        for document in split.held_out:
            assert index.count(tokenizer.encode(document.text)) == 0


def test_prints_the_table(ran: tuple[Path, dict[str, Any], str]) -> None:
    _, answer, text = ran
    for arm in answer["arms"]:
        assert arm["name"] in text
        assert f"{arm['held_out_nats']:.4f}" in text
    assert "small differences may be chance" in " ".join(text.split())  # a long path wraps the lines


def test_counts_bytes_exactly(ran: tuple[Path, dict[str, Any], str]) -> None:
    out, _, _ = ran
    with CorpusIndex.open(out / "index") as index:
        tokenizer = load_tokenizer(index)
    text = "def naïve(): # 日本語 \U0001f600\n    return 1\n" * 3
    ids = tokenizer.encode(text)
    windows = TokenWindows(ids, len(ids), shuffle=False)
    first = len(tokenizer.decode(ids[:1]).encode())
    assert _predicted_bytes(windows, tokenizer) == len(text.encode()) - first
    end = np.append(ids, tokenizer.end_of_document)
    assert _predicted_bytes(TokenWindows(end, len(end)), tokenizer) == len(text.encode()) - first


def test_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds 'thesis\.tex'"):
        run_demo(tmp_path, quick=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be made"):
        run_demo(tmp_path / "file" / "demo", quick=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_what_a_killed_demo_left_is_its_own(tmp_path: Path) -> None:
    for name in (".index.building-0a1b2c3d", ".index.old-0a1b2c3d"):
        (tmp_path / name).mkdir()
    for name in (".results.json.partial", ".report.html.partial"):
        (tmp_path / name).write_text("half")
    _prepare(tmp_path)
    (tmp_path / ".index.notes").mkdir()
    with pytest.raises(OutputError, match=r"holds '\.index\.notes'"):
        _prepare(tmp_path)
