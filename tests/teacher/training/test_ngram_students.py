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
from corpus_teacher.files import tomllib
from corpus_teacher.settings import to_toml
from corpus_teacher.students import CorpusStudent
from corpus_teacher.training import make_student
from corpus_teacher.training.command import run_training
from corpus_teacher.training.settings import make_run, merged

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


CORPUS = {"max_order": 2, "leave_out": "document"}
INSIDE = {
    "residual": {"residual": True},
    "frozen": {"residual": {"gate": 0.5, "trained": False}},
    "mixture": {"mixture": 0.5},
    "evidence": {"mixture": {"memory": 500, "first": 0.5}},
}


@pytest.mark.parametrize(("name", "alpha"), [*((name, 0.0) for name in INSIDE), ("residual", 0.5), ("evidence", 0.5)])
def test_the_corpus_inside_is_trained_and_loaded(place: Path, tmp_path: Path, name: str, alpha: float) -> None:
    said = tables(place, tmp_path / "run", corpus={**CORPUS, **INSIDE[name]}, training={"alpha": alpha})
    result = run_training(make_run(said))
    student = load_student(tmp_path / "run" / "student").eval()
    assert isinstance(student, CorpusStudent)
    assert "the index below" in (tmp_path / "run" / "student" / "README.md").read_text()
    held = torch.from_numpy(np.load(place / "held.npy").astype(np.int64))
    rows = held[: held.numel() // LENGTH * LENGTH].view(-1, LENGTH)
    with torch.no_grad():
        assert float(student(rows, labels=rows).loss) == pytest.approx(result.held_out_nats, abs=1e-4)
    if name == "residual":
        assert student.gate.item() != 1  # type: ignore[union-attr]
    if name == "frozen":
        assert student.gate.item() == 0.5  # type: ignore[union-attr]
    if name == "evidence":
        assert len(set(student.mixture.weights.tolist())) > 1  # type: ignore[union-attr]
        assert any("mixture_student_weight" in entry for entry in result.logs)
    plain = run_training(make_run(tables(place, tmp_path / "plain")))
    assert result.held_out_nats < plain.held_out_nats


def test_the_loss_inside_a_mixture_is_the_definition(place: Path) -> None:
    from corpus_teacher import CorpusTeacher, DistillationConfig, DistillationTrainer
    from corpus_teacher.data import TokenWindows
    from corpus_teacher.students import with_corpus

    teacher = CorpusTeacher(place / "index", max_order=2, leave_out="document")
    student = with_corpus(make_student(STUDENT, vocab_size=VOCAB), teacher, 0.3)
    index = teacher.index
    windows = TokenWindows(index.tokens, LENGTH, doc_starts=index.doc_starts, shuffle=False)
    config = DistillationConfig(str(place / "loss"), alpha=0.0, max_steps=1, use_cpu=True)
    trainer = DistillationTrainer(student, config, teacher=teacher, train_dataset=windows)
    rows = [windows[number] for number in range(4)]
    batch = trainer._prepare_inputs(trainer.data_collator(rows))
    loss = trainer.compute_loss(student.train(), dict(batch))
    ids = torch.stack([torch.from_numpy(row["input_ids"]) for row in rows])
    where = {name: np.array([row[key] for row in rows]) for name, key in (("positions", "position"),
             ("starts_document", "starts_document"))}  # fmt: skip
    q = teacher(ids, **where).dense().view(4, LENGTH, VOCAB)
    p = student.model(ids).logits.softmax(-1)
    labels = ids[:, 1:, None]
    expected = -(0.3 * p[:, :-1].gather(2, labels) + 0.7 * q[:, :-1].gather(2, labels)).log().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_resumed_mixture_keeps_its_weights(place: Path, tmp_path: Path) -> None:
    changes = {
        "corpus": {**CORPUS, **INSIDE["evidence"]},
        "training": {"save_strategy": "steps", "save_steps": 4, "alpha": 0.0},
    }
    run_training(make_run(tables(place, tmp_path / "whole", **changes)))
    cut = tables(place, tmp_path / "cut", **changes)

    def stop(step: int, _: float | None) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(make_run(cut), progress=stop)
    run_training(make_run(cut), resume=True)
    expected, actual = (load_student(tmp_path / name / "student") for name in ("whole", "cut"))
    assert expected.mixture.weights.tolist() == actual.mixture.weights.tolist()
    assert all(torch.equal(one, actual.state_dict()[name]) for name, one in expected.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"corpus": {"residual": True, "mixture": 0.5}}, "leave one of them out"),
        ({"corpus": {"residual": True, "form": "mixed"}}, "set form to 'flat'"),
        ({"corpus": {"residual": True, "recall": True}}, "recall looks at the row alone"),
        ({"corpus": {"mixture": 0.5}, "training": {"fused": True}}, "set fused to false"),
        ({"corpus": {"mixture": 0.5}, "self": {}}, "leave the self teacher out"),
        ({"corpus": {"mixture": 0.5}, "on_policy": {"share": 1.0, "prompt_len": 4}}, "leave on_policy out"),
        ({"corpus": {"mixture": 0.5}, "training": {"control": "permuted"}}, "leave control out"),
    ],
)
def test_what_does_not_go_with_the_corpus_inside(
    place: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        make_run(tables(place, tmp_path, **merged({"corpus": CORPUS}, changes)))


def test_settings_of_before_are_the_same(place: Path, tmp_path: Path) -> None:
    told = make_run(tables(place, tmp_path, corpus=CORPUS)).to_dict()
    assert not {"residual", "mixture", "recall"} & told["corpus"].keys()
    assert "ngram_table" not in told["student"]
