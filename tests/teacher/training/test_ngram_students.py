"""Trainings of students that have n-grams inside of them, from the file to the folder that is loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_index import build_index
from typer.testing import CliRunner

from corpus_teacher import load_student
from corpus_teacher.cli.main import app
from corpus_teacher.errors import ConfigError
from corpus_teacher.settings import to_toml
from corpus_teacher.students import CorpusStudent
from corpus_teacher.training import make_student
from corpus_teacher.training.command import run_training
from corpus_teacher.training.settings import make_run, merged, tomllib

pytestmark = pytest.mark.slow

VOCAB, LENGTH, END = 24, 16, 0
STUDENT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of documents in which two tokens mostly decide the next one."""
    folder = tmp_path_factory.mktemp("ngrams")
    generator = np.random.default_rng(0)
    documents = []
    for _ in range(40):
        chain = [1, 2]
        while len(chain) < 99:
            sure = generator.random() < 0.8
            chain.append(
                (chain[-1] * 5 + chain[-2] * 3) % (VOCAB - 1) + 1 if sure else int(generator.integers(1, VOCAB))
            )
        documents.append([*chain, END])
    tokens = np.array(documents, np.uint16)
    build_index(
        tokens[:32].reshape(-1),
        folder / "index",
        vocab_size=VOCAB,
        doc_starts=np.arange(0, 3201, 100),
        end_of_document=END,
    ).close()
    np.save(folder / "held.npy", tokens[32:].reshape(-1))
    return folder


def tables(place: Path, out: Path, **changes: Any) -> dict[str, Any]:
    made = {
        "out": str(out),
        "data": {"index": str(place / "index"), "held_out": str(place / "held.npy"), "length": LENGTH},
        "student": STUDENT,
        "training": {"max_steps": 6, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "use_cpu": True},
    }
    return merged(made, changes)


def ids_of(place: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(place / "held.npy")[:64].astype(np.int64)).view(4, 16)


def test_a_table_is_checked_trained_and_loaded(place: Path, tmp_path: Path) -> None:
    said = tables(place, tmp_path / "run", student={"ngram_table": {"rows": 50}})
    (tmp_path / "run.toml").write_text(to_toml(said))
    shown = CliRunner().invoke(app, ["train", str(tmp_path / "run.toml"), "--check"])
    assert shown.exit_code == 0, shown.output
    of_table = 2 * 50 * 16 + 2
    assert f"parameters, {of_table:,} of them the table of n-grams" in shown.output
    resolved = tomllib.loads(shown.output)
    assert resolved["student"]["ngram_table"] == {"orders": [2, 3], "heads": 2, "rows": 50}
    settings = make_run(said)
    assert make_run(resolved).student["ngram_table"] == settings.student["ngram_table"]

    result = run_training(settings)
    loaded = load_student(tmp_path / "run" / "student").eval()
    assert isinstance(loaded, CorpusStudent)
    assert loaded.table.weight.abs().sum() > 0  # it has learnt
    assert loaded.config.end_token == END
    assert loaded.config.text_config.use_cache
    card = (tmp_path / "run" / "student" / "README.md").read_text()
    assert "corpus_teacher.load_student" in card
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["student_parameters"] == loaded.num_parameters()

    prompt = ids_of(place)[:, :5]
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    assert torch.equal(loaded.generate(prompt, **options), loaded.generate(prompt, use_cache=False, **options))
    plain = run_training(make_run(tables(place, tmp_path / "plain")))
    assert result.held_out_nats < plain.held_out_nats  # the text is one of trigrams


def test_a_checkpoint_goes_on_and_gets_a_table(place: Path, tmp_path: Path) -> None:
    run_training(make_run(tables(place, tmp_path / "plain", training={"max_steps": 1})))
    folder = str(tmp_path / "plain" / "student")
    said = tables(place, tmp_path / "run", student="remove", training={"max_steps": 1})
    said["student"] = {"checkpoint": folder, "ngram_table": True}
    run_training(make_run(said))
    grown = load_student(tmp_path / "run" / "student")
    assert grown.num_parameters() - load_student(folder).num_parameters() == 2 * VOCAB * 16 + 2
    again = merged(said, {"out": str(tmp_path / "again"), "student": {"checkpoint": str(tmp_path / "run" / "student")}})
    with pytest.raises(ConfigError, match="has a table already"):
        run_training(make_run(again))
    again["student"].pop("ngram_table")
    run_training(make_run(again))


def test_a_resumed_training_is_an_uninterrupted_one(place: Path, tmp_path: Path) -> None:
    changes = {"student": {"ngram_table": {"rows": 50}}, "training": {"save_strategy": "steps", "save_steps": 4}}
    run_training(make_run(tables(place, tmp_path / "whole", **changes)))
    cut = tables(place, tmp_path / "cut", **changes)

    def stop(step: int, _: float | None) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(make_run(cut), progress=stop)
    (tmp_path / "cut" / "result.json").unlink(missing_ok=True)
    run_training(make_run(cut), resume=True)
    expected, actual = (load_student(tmp_path / name / "student").state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.parametrize("changes", [{"training": {"fused": True}}, {"on_policy": {"share": 1.0, "prompt_len": 4},
                                     "corpus": {"max_order": 2}}])  # fmt: skip
def test_other_ways_of_training(place: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    said = tables(place, tmp_path / "run", student={"ngram_table": {"rows": 50}}, **changes)
    plain = tables(place, tmp_path / "plain", student={"ngram_table": {"rows": 50}})
    result = run_training(make_run(said))
    if "training" in changes:
        assert result.held_out_nats == pytest.approx(run_training(make_run(plain)).held_out_nats, abs=1e-3)


def test_tables_that_make_no_student(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"student\.ngram_table has no key 'row': did you mean 'rows'"):
        make_run(tables(place, tmp_path, student={"ngram_table": {"row": 5}}))
    with pytest.raises(ConfigError, match="heads is 3 and hidden_size 16"):
        make_student({**STUDENT, "ngram_table": {"heads": 3}}, vocab_size=VOCAB)
