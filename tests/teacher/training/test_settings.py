"""A training as a TOML file: checked as a whole, run, interrupted, resumed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from corpus_index import build_index
from typer.testing import CliRunner

from corpus_teacher.cli.main import app
from corpus_teacher.errors import ConfigError, CorpusIndexError, InputError, OutputError, TrainingInterrupted
from corpus_teacher.files import tomllib
from corpus_teacher.settings import to_toml
from corpus_teacher.training import assemble, load_student, make_student
from corpus_teacher.training.assemble import assembled, open_training
from corpus_teacher.training.command import run_opened, run_training
from corpus_teacher.training.settings import make_run, merged, read_run

pytestmark = pytest.mark.slow

VOCAB, LENGTH = 24, 16
STUDENT = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
TRAINING = {
    "max_steps": 6, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 4, "use_cpu": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of a chain in which a token is mostly followed by one of two others, and more of it."""
    folder = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(0)
    chain = [1]
    for _ in range(3000):
        chain.append(int((chain[-1] * 5 + generator.choice([1, 7], p=[0.8, 0.2])) % VOCAB))
    tokens = np.array(chain, dtype=np.uint16)
    build_index(tokens[:2500], folder / "index", vocab_size=VOCAB, doc_starts=np.arange(0, 2501, 500)).close()
    build_index(tokens, folder / "larger", vocab_size=VOCAB).close()
    np.save(folder / "held.npy", tokens[2500:])
    np.save(folder / "other.npy", tokens[:1000])
    return folder


def table(place: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    made = {
        "out": str(folder),
        "data": {"index": str(place / "index"), "held_out": str(place / "held.npy"), "length": LENGTH},
        "student": STUDENT,
        "corpus": {"max_order": 2, "leave_out": "self"},
        "training": TRAINING,
    }
    return merged(made, changes)


def test_a_run_leaves_all_that_is_needed(place: Path, tmp_path: Path) -> None:
    settings = make_run(table(place, tmp_path / "run", seed=3))
    result = run_training(settings)
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["seed"] == 3
    assert told["settings"]["data"]["length"] == LENGTH
    assert told["settings"]["corpus"]["top_k"] == 64  # defaults are resolved
    assert told["teachers"]["corpus"]["leave_out"] == "self"
    assert {"torch", "corpus-teacher", "python"} <= told["versions"].keys()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["history"] == result.history
    assert make_run(told["settings"]) == settings
    student = load_student(tmp_path / "run" / "student", vocab_size=VOCAB)
    with assembled(settings) as parts:
        rows = torch.from_numpy(np.stack([parts.held_out[i]["input_ids"] for i in range(len(parts.held_out))]))
    with torch.no_grad():
        logits = student(input_ids=rows).logits[:, :-1]
    nats = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), rows[:, 1:].reshape(-1))
    assert float(nats) == pytest.approx(result.held_out_nats, abs=1e-5)
    with pytest.raises(ConfigError, match="holds a training already: resume it"):
        run_training(settings)
    with pytest.raises(ConfigError, match=r"data isn't what the training in .* was begun with"):
        run_training(make_run(table(place, tmp_path / "run", seed=3, data={"train_tokens": 640})), resume=True)


WAYS: dict[str, dict[str, Any]] = {
    "corpus": {},
    "moving average": {"self": {"decay": 0.5}, "corpus": "remove"},
    "on-policy": {"on_policy": {"share": 0.5, "prompt_len": 4}, "training": {"alpha": 1.0}},
    "policy": {"policy": {"corpus": {"weight": 0.9, "schedule": {"kind": "linear", "end_step": 6}}}},
    "two teachers": {"neural": {"model": "TEACHER", "rows": 2}, "training": {"temperature": 2.0, "alpha": 0.6}},
    "recall": {"corpus": {"recall": True}},
    "another text": {"data": {"train": "OTHER"}, "corpus": {"index": "LARGER"}},
}


def named(way: str, place: Path, tmp_path: Path) -> dict[str, Any]:
    """The changes of a way, with the names of what lies in the folders."""
    teacher = tmp_path / "teacher"
    if way == "two teachers" and not teacher.exists():
        config = transformers.LlamaConfig(**{k: v for k, v in STUDENT.items() if k != "model_type"}, vocab_size=VOCAB)
        transformers.LlamaForCausalLM(config).save_pretrained(teacher)
    text = json.dumps(WAYS[way])
    for word, path in (("TEACHER", teacher), ("OTHER", place / "other.npy"), ("LARGER", place / "larger")):
        text = text.replace(word, str(path))
    return json.loads(text)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_interrupted_and_resumed_is_uninterrupted(place: Path, tmp_path: Path, way: str) -> None:
    changes = named(way, place, tmp_path)

    def ctrl_c(step: int, _: float | None) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    whole = run_training(make_run(table(place, tmp_path / "whole", **changes)))
    settings = make_run(table(place, tmp_path / "run", **changes))
    with pytest.raises(TrainingInterrupted, match=r"interrupted after step 2: .*checkpoint-2 is saved"):
        run_training(settings, progress=ctrl_c)
    resumed = run_training(settings, resume=True)
    assert resumed.held_out_nats == whole.held_out_nats
    assert resumed.history == whole.history
    assert resumed.steps == 6


def test_the_command(place: Path, tmp_path: Path) -> None:
    runner, file = CliRunner(), tmp_path / "run.toml"
    file.write_text(f"""
        out = "{tmp_path}/run"
        [data]
        index = "{place}/index"
        held_out = ["{place}/held.npy"]
        length = {LENGTH}
        [student]
        hidden_size = 16
        intermediate_size = 32
        num_hidden_layers = 1
        num_attention_heads = 2
        num_key_value_heads = 2
        [corpus]
        max_order = 2
        [training]
        max_steps = 4
        use_cpu = true
    """)
    checked = runner.invoke(app, ["train", str(file), "--check", "--seed", "5"])
    assert checked.exit_code == 0
    assert "\n# training: 4 steps, 1,024 tokens\n# time: about" in checked.stdout
    made = tomllib.loads(checked.stdout)
    assert made["seed"] == 5
    assert made["student"]["model_type"] == "llama"
    assert made["training"] | {"max_steps": 4, "learning_rate": 1e-3, "eval_steps": 1, "alpha": 0.5} == made["training"]
    again = make_run(made)
    assert tomllib.loads(to_toml(again.resolved())) == made  # the file that is printed is the file that was read
    assert not (tmp_path / "run").exists()
    told = runner.invoke(app, ["train", str(file), "--check", "--json", "--set", "training.max_steps=7"])
    assert json.loads(told.stdout)["plan"]["steps"] == 7
    told = runner.invoke(app, ["train", str(file), "--check", "--set", "training"])
    assert "write TABLE.KEY=VALUE" in " ".join(told.stderr.split())
    ran = runner.invoke(app, ["train", str(file)])
    assert ran.exit_code == 0, ran.output
    assert "held-out nats/token" in ran.stdout
    assert "taught by" in ran.stdout
    again = runner.invoke(app, ["train", str(file), "--out", str(tmp_path / "again"), "--json"])
    assert (
        json.loads(again.stdout)["held_out_nats"]
        == json.loads((tmp_path / "run/result.json").read_text())["held_out_nats"]
    )
    refused = runner.invoke(app, ["train", str(file)])
    assert refused.exit_code == 2
    assert "holds a training already" in refused.stderr
    file.write_text(file.read_text().replace("max_steps", "max_stepz"))
    refused = runner.invoke(app, ["train", str(file)])
    assert "training has no key 'max_stepz': did you mean 'max_steps'?" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dta": {}}, "the file has no key 'dta': did you mean 'data'"),
        ({"data": {"lenght": 3}}, "data has no key 'lenght': did you mean 'length'"),
        ({"data": {"length": "long"}}, "data.length is 'long': give a whole number"),
        ({"data": {"length": 1}}, "length is 1"),
        ({"data": {"held_out": []}}, "held_out names no text"),
        ({"data": "remove"}, "the file has no data"),
        ({"out": 3}, "out is 3"),
        ({"seed": -1}, "seed is -1"),
        ({"student": {"hiden_size": 3}}, "student has no key 'hiden_size' for a llama: did you mean 'hidden_size'"),
        ({"student": {"model_type": "lama"}}, "did you mean 'llama'"),
        ({"student": 3}, "student is 3"),
        ({"corpus": {"estimater": "mle"}}, "corpus has no key 'estimater': did you mean 'estimator'"),
        ({"corpus": {"form": "mixd"}}, "did you mean 'mixed'"),
        ({"corpus": {"form": "mixed", "recall": True}}, "recall has no mixed form"),
        ({"corpus": {"recall": 1}}, "corpus.recall is 1: give true or false"),
        ({"corpus": {"leave_out": "selfe"}}, "did you mean 'self'"),
        ({"neural": {}}, "neural: give either model or cache"),
        ({"neural": {"model": "x", "keep": "top"}}, "keep is 'top'"),
        ({"on_policy": {"prompt_len": 99}}, "prompt_len is 99 and data.length 16"),
        ({"on_policy": {"prompt_len": 4}, "corpus": "remove", "self": {}}, "on_policy has no teacher"),
        ({"policy": {"corpus": 2}}, "weight is 2"),
        ({"policy": {"neural": 0.5}}, "needs the teacher 'neural'"),
        ({"training": {"max_steps": "many"}}, "training.max_steps is 'many': give a whole number"),
        ({"training": {"max_steps": "remove"}}, "say how many steps"),
        ({"training": {"policy": {}}}, "it is the table"),
        ({"training": {"output_dir": "x"}}, "it is out, at the top"),
        ({"training": {"alpha": 3}}, "training: alpha is 3"),
        ({"training": {"lr": 1e-3}}, "training has no key 'lr': did you mean 'learning_rate'"),
        ({"training": {"zzz": 1}}, "training has no key 'zzz': the nearest are"),
        ({"training": {"max_steps": "remove", "num_train_epochs": 0}}, "num_train_epochs is 0: give a number above 0"),
        ({"training": {"bf16": True, "use_cpu": False}}, "bf16 is set and this machine has no accelerator"),
        ({"training": {"report_to": "wandb"}}, "report_to is 'wandb', which isn't installed: pip install wandb"),
        ({"training": {"fsdp": "full_shard"}}, "fsdp is set and the training runs on CPUs"),
        ({"training": {"remove_unused_columns": True}}, "remove_unused_columns is True"),
        ({"training": {"optim": "adamwise"}}, "training.optim is 'adamwise', which is unknown: did you mean 'adam"),
        ({"training": {"save_strategy": "step"}}, "training.save_strategy is 'step', .* did you mean 'steps'"),
        ({"training": {"report_to": ["tensorbord"]}}, "report_to is 'tensorbord', .* did you mean 'tensorboard'"),
        ({"corpus": {"max_order": -1}}, "corpus: max_order is -1"),
        ({"corpus": {"top_k": 0}}, "corpus: top_k is 0"),
        ({"corpus": {"top_p": 0}}, "corpus: top_p is 0"),
        ({"neural": {"model": "x", "draws": 0}}, "neural: draws is 0"),
        ({"neural": {"model": "x", "p": 1.5}}, "neural: p is 1.5"),
        ({"self": {"decay": 1}}, "self: decay is 1"),
        ({"quantization": {"weights": "int5"}}, "weights is 'int5', .* did you mean"),
        ({"quantization": {"group_size": 1}}, "quantization: group_size is 1"),
        (
            {"training": {"fused": True}, "policy": {"corpus": 0.5, "routing": {"by": "student"}}},
            "set fused to false",
        ),
        ({"data": {"train": "x.npy"}, "corpus": {"leave_out": "remove"}}, "corpus.leave_out isn't given"),
        ({"quantization": {"weights": 4}}, "quantization.weights is 4: give a text"),
    ],
)
def test_what_is_wrong_is_named(place: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_run(table(place, tmp_path, **changes))
    assert not list(tmp_path.iterdir())  # nothing was begun


def test_what_only_the_files_know(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_run(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("out = ")
    with pytest.raises(InputError, match="is no TOML"):
        read_run(tmp_path / "broken.toml")
    long = make_run(table(place, tmp_path / "b", data={"length": 64}))
    with pytest.raises(ConfigError, match="length is 64 and the student reads at most 32"):
        run_training(long)
    apart = make_run(table(place, tmp_path / "c", corpus={"index": str(place / "larger"), "leave_out": "remove"}))
    with pytest.raises(ConfigError, match=r"corpus.leave_out isn't given and corpus.index is another"):
        run_training(apart)
    (tmp_path / "d").write_text("")
    with pytest.raises(OutputError, match=r"d can't be made"):
        run_training(make_run(table(place, tmp_path / "d")))
    with pytest.raises(ConfigError, match="student has no key 'model_type'"):
        make_run(table(place, tmp_path / "e", student={"checkpoint": "x"}))
    gone = table(place, tmp_path / "f")
    gone["student"] = {"checkpoint": str(tmp_path / "none")}
    with pytest.raises(InputError, match=r"student: .* is no folder with a model"):
        run_training(make_run(gone))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"index": "nowhere"}}, "data.index: .*nowhere"),
        ({"data": {"held_out": ["nothing.txt"]}}, "data.held_out: .*nothing.txt"),
        ({"data": {"train": ["nothing.txt"]}}, "data.train: .*nothing.txt"),
        (
            {"student": {"num_attention_heads": 3}},
            "student: no student can be made of this config: The hidden size \\(16\\)",
        ),
        ({"student": {"hidden_size": "wide"}}, "student: no student can be made of this config: .*wide"),
        ({"corpus": {"estimator": "wittenbell"}}, "corpus: .*wittenbell.*witten-bell"),
        ({"corpus": {"estimator": {"name": "witten-bell", "discount": 1}}}, "corpus: .*discount"),
        ({"corpus": {"index": "nowhere"}}, "corpus: .*nowhere"),
        ({"neural": {"cache": "nowhere"}}, "neural: .*nowhere"),
        (
            {"neural": {"model": "no-one/nothing"}},
            "neural: no causal language model can be loaded from 'no-one/nothing'",
        ),
        ({"self": {"checkpoint": "nowhere"}}, "self: 'nowhere' is no folder with a model"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_read(
    place: Path, tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading(*args: Any, **options: Any) -> Any:
        raise AssertionError("something was read or made")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("corpus_teacher.training.assemble.Opened.make", reading)
    settings = make_run(table(place, tmp_path / "out", **{"corpus": {"leave_out": "none"}, **changes}))
    with pytest.raises(CorpusIndexError, match=message):
        run_training(settings)
    assert not (tmp_path / "out").exists()
    file = tmp_path / "run.toml"
    file.write_text(_toml(settings.to_dict()))
    checked = CliRunner().invoke(app, ["train", str(file), "--check"])
    assert checked.exit_code != 0


def test_every_table_is_opened_once(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a check, and by the run that goes on from it."""
    opened: list[str] = []
    for name in ("open_index", "find_sources", "check_model"):
        plain = getattr(assemble, name)
        monkeypatch.setattr(assemble, name, lambda what, plain=plain: opened.append(str(what)) or plain(what))
    make_student(STUDENT, vocab_size=VOCAB).save_pretrained(tmp_path / "teacher")
    settings = make_run(
        table(
            place,
            tmp_path / "run",
            data={"train": str(place / "other.npy")},
            corpus={"index": str(place / "larger")},
            neural={"model": str(tmp_path / "teacher")},
            training={"max_steps": 1},
        )
    )
    places = [place / "index", [str(place / "other.npy")], [str(place / "held.npy")], place / "larger"]
    expected = [*map(str, places), str(tmp_path / "teacher")]
    with open_training(settings) as checked:
        assert opened == expected
        assert checked.plan().steps == 1
        run_opened(checked)
    assert opened == expected


def _toml(values: dict[str, Any]) -> str:
    """Tables of one level as TOML, by way of JSON."""
    top = {key: value for key, value in values.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    for name, table_ in tables.items():
        lines.append(f"[{name}]")
        for key, value in table_.items():
            if isinstance(value, dict):
                inner = ", ".join(f"{one} = {json.dumps(other)}" for one, other in value.items())
                lines.append(f"{key} = {{ {inner} }}")
            elif value is not None:
                lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines)
