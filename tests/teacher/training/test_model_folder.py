"""The finished student is a folder that other programs take for a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from corpus_teacher.data import BuildOptions, build_index_from_sources
from corpus_teacher.data.opening import index_tokenizer, open_index
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.neural import NeuralTeacher
from corpus_teacher.training.command import run_training
from corpus_teacher.training.settings import make_run, tomllib

TEXT = "the cat sat on the mat. the cat saw the dog. the dog sat on the cat, and nobody minded. "
ODD = ["the cat", " the  cat\nsat", "naïve – 猫 🐈", "", "a" * 50]


@pytest.fixture(scope="module", params=["bytes", "train:300"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training from a model with a chat template."""
    folder = tmp_path_factory.mktemp("model")
    for number in range(3):
        (folder / f"{number}.txt").write_text(TEXT * 6 + f"that was text {number}. ")
    sources = [str(folder / f"{number}.txt") for number in range(3)]
    build_index_from_sources(sources, folder / "index", BuildOptions(tokenizer=request.param))
    tables: dict[str, Any] = {
        "out": str(folder / "first"),
        "data": {"index": str(folder / "index"), "held_out": sources[0], "length": 16},
        "student": {"hidden_size": 32, "num_hidden_layers": 1},
        "corpus": {},
        "training": {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True},
    }
    run_training(make_run(tables))
    (folder / "first/student/chat_template.jinja").write_text("{{ messages }}")
    run_training(make_run({**tables, "out": str(folder / "run"), "student": {"checkpoint": f"{folder}/first/student"}}))
    return folder / "run"


def test_the_tokenizer_is_the_index_s(run: Path) -> None:
    loaded = transformers.AutoTokenizer.from_pretrained(run / "student")
    with open_index(run.parent / "index") as index:
        ours, end = index_tokenizer(index), index.end_of_document
        assert len(loaded) == index.vocab_size
    for text in ODD:
        assert loaded(text)["input_ids"] == ours.encode(text).tolist()
        assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.eos_token_id == loaded.bos_token_id == loaded.pad_token_id == end
    assert loaded(ODD, padding=True)["attention_mask"][1][-1] == 0
    assert loaded.chat_template == "{{ messages }}"
    assert load_tokenizer(run / "student").fingerprint == ours.fingerprint
    NeuralTeacher(run / "student", student_tokenizer=ours)  # as a teacher of its own index it is taken


def test_generation_ends(run: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(run / "student")
    assert model.config.use_cache
    end = model.generation_config.eos_token_id
    assert end == model.config.eos_token_id == model.generation_config.pad_token_id
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.model.norm.weight.fill_(1)
        model.model.embed_tokens.weight[:, 0] = 1
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
        model.lm_head.weight[end, 0] = 1  # says nothing but the end
    written = model.generate(torch.tensor([[5, 6]]), max_new_tokens=9, do_sample=False)
    assert written.tolist() == [[5, 6, end]]


def test_the_card_says_what_it_is(run: Path) -> None:
    card = (run / "student/README.md").read_text()
    result = json.loads((run / "result.json").read_text())
    with open_index(run.parent / "index") as index:
        for words in (
            "library_name: transformers", "# run\n", str(run.parent / "index"), index.fingerprint,
            "- corpus: estimator witten-bell",
            f"{result['held_out_nats']:.4f} nats/token", f"{result['bits_per_byte']:.4f}", f"torch {torch.__version__}",
        ):  # fmt: skip
            assert words in card, words
    again = tomllib.loads(card.partition("```toml\n")[2].partition("```")[0])
    assert make_run(again).to_dict()["data"]["length"] == 16
