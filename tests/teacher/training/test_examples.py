"""Every TOML under examples/train runs, on texts and models of a moment."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from corpus_teacher.cli.main import app
from corpus_teacher.data import BuildOptions, build_index_from_sources
from corpus_teacher.training import make_student
from corpus_teacher.training.command import run_training
from corpus_teacher.training.settings import read_run

pytestmark = pytest.mark.slow

EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "train").glob("*.toml"))
TINY = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
TEXT = "the cat sat on the mat. the cat saw the dog. the dog sat on the cat, and nobody minded. "


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all the names that the files speak of."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "held-out").mkdir()
    (folder / "held-out" / "a.txt").write_text("the dog saw the mat, and the cat sat on it. " * 8)
    for name, texts in (("my-index", 4), ("large-index", 9)):
        sources = []
        for number in range(texts):
            sources.append(folder / f"{number}.txt")
            sources[-1].write_text(TEXT * 6 + f"that was text {number}. ")
        build_index_from_sources([str(source) for source in sources], folder / name, BuildOptions(tokenizer="bytes"))
    make_student({"model_type": "llama", **TINY}, vocab_size=257).save_pretrained(folder / "teacher")
    shutil.copy(folder / "my-index" / "tokenizer.json", folder / "teacher")
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(place: Path, monkeypatch: pytest.MonkeyPatch, example: Path) -> None:
    if example.stem == "quantization" and importlib.util.find_spec("torchao") is None:
        pytest.skip("torchao isn't installed: pip install torchao")
    monkeypatch.chdir(place)
    smaller: dict[str, Any] = {
        "data": {"length": 32},
        "training": {"max_steps": 3, "per_device_train_batch_size": 4, "use_cpu": True},
    }
    if example.stem == "on-policy":
        smaller["on_policy"] = {"prompt_len": 8, "share": 1.0}
    if "checkpoint" not in read_run(example).student:
        smaller["student"] = TINY
    for command in commands_of(example):
        told = CliRunner().invoke(app, command)
        assert told.exit_code == 0, told.output
    result = run_training(read_run(example, smaller))
    assert result.steps == 3
    assert 0 < result.held_out_nats < 8
    assert sum(value for name, value in result.logs[-1].items() if name.startswith("weight_")) == pytest.approx(1)


def commands_of(example: Path) -> list[list[str]]:
    """What the file says is to be run before it, on less text."""
    comment = "".join(line[1:] for line in example.read_text().splitlines(keepends=True) if line.startswith("#"))
    found = re.findall(r"^\s+corpus-teacher (synthesize (?:.*\\\n)*.*)$", comment, flags=re.MULTILINE)
    smaller = {"100000": "600", "5000": "40", "256": "32"}
    # a model of random weights, and a corpus that repeats itself
    others = {"--max-copied": "1.0", "--max-repeated": "1.0"}
    commands = [shlex.split(one.replace("\\\n", " ")) for one in found]
    for command in commands:
        for place, word in enumerate(command):
            command[place] = others.get(command[place - 1], smaller.get(word, word))
    return commands


def test_texts_are_written_first() -> None:
    for name in ("sequence-level", "own-samples"):
        (command,) = commands_of(EXAMPLES[0].with_name(f"{name}.toml"))
        assert command[-2:] == ["--out", "synthetic" if name == "sequence-level" else name]


def test_there_is_one_for_every_way_that_is_a_training() -> None:
    names = {"corpus-only", "annealed", "blend", "classic", "own-average", "on-policy", "quantization", "larger-index"}
    names |= {"sequence-level", "own-samples"}
    assert {example.stem for example in EXAMPLES} == names
