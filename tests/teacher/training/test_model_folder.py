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
from corpus_teacher.files import tomllib
from corpus_teacher.neural import NeuralTeacher
from corpus_teacher.training.command import run_training
from corpus_teacher.training.settings import make_run

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


def test_the_files_are_those_that_vllm_reads(run: Path) -> None:
    """vLLM reads config.json, the safetensors and the tokenizer's files itself; it isn't installed in CI."""
    from safetensors import safe_open

    folder = run / "student"
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config.get("dtype", config.get("torch_dtype")) == "float32"
    assert "quantization_config" not in config
    with safe_open(folder / "model.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        assert file.metadata() == {"format": "pt"}
    vocab, width, inner = config["vocab_size"], config["hidden_size"], config["intermediate_size"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    expected = {
        "model.embed_tokens.weight": (vocab, width),
        "model.norm.weight": (width,),
        **({} if config["tie_word_embeddings"] else {"lm_head.weight": (vocab, width)}),
    }
    for layer in range(config["num_hidden_layers"]):
        named = {
            "input_layernorm": (width,),
            "post_attention_layernorm": (width,),
            "self_attn.q_proj": (config["num_attention_heads"] * config["head_dim"], width),
            "self_attn.k_proj": (kv, width),
            "self_attn.v_proj": (kv, width),
            "self_attn.o_proj": (width, config["num_attention_heads"] * config["head_dim"]),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        expected |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in named.items()}
    assert shapes == expected
    generation = json.loads((folder / "generation_config.json").read_text())
    words = json.loads((folder / "tokenizer.json").read_text())
    ids = {**words["model"]["vocab"], **{one["content"]: one["id"] for one in words["added_tokens"]}}
    about = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("bos", "eos", "pad"):
        end = config[f"{name}_token_id"]
        assert generation[f"{name}_token_id"] == end
        assert ids[about[f"{name}_token"]] == end
    assert max(ids.values()) < vocab
    assert about["model_max_length"] == config["max_position_embeddings"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of another project
def test_the_evaluation_harness_scores_it(run: Path, tmp_path: Path) -> None:
    """A task of one YAML file over local data, by the folder's name: what it reports is what the model says."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lm-eval")
    from lm_eval.tasks import TaskManager

    items = [
        {"question": "the cat sat on", "choices": [" the mat.", " a moon!"], "answer": 0},
        {"question": "the dog sat on", "choices": [" xyzzy", " the cat"], "answer": 1},
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": TEXT}) + "\n")
    shared = f"dataset_path: json\ntest_split: test\ndataset_kwargs:\n  cache_dir: {tmp_path}/cache\n  data_files:\n"
    (tmp_path / "choose.yaml").write_text(
        f"task: choose\n{shared}    test: {tmp_path}/data.jsonl\noutput_type: multiple_choice\n"
        "doc_to_text: '{{question}}'\ndoc_to_choice: choices\ndoc_to_target: answer\ntarget_delimiter: ''\n"
        "metric_list:\n  - metric: acc\n"
    )
    (tmp_path / "read.yaml").write_text(
        f"task: read\n{shared}    test: {tmp_path}/text.jsonl\noutput_type: loglikelihood_rolling\n"
        "doc_to_text: ''\ndoc_to_target: '{{text}}'\nmetric_list:\n  - metric: bits_per_byte\n"
    )
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={run / 'student'},dtype=float32",
        tasks=["choose", "read"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        device="cpu",
        batch_size=2,
        bootstrap_iters=0,
    )["results"]
    model = transformers.AutoModelForCausalLM.from_pretrained(run / "student")
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "student")

    def log_p(context: list[int], continuation: list[int]) -> float:
        with torch.no_grad():
            logits = model(torch.tensor([context + continuation])).logits[0].log_softmax(-1)
        places = range(len(context) - 1, len(context) + len(continuation) - 1)
        return float(sum(logits[at, token] for at, token in zip(places, continuation, strict=True)))

    begin = [tokenizer.bos_token_id]
    nats = -log_p(begin, tokenizer(TEXT)["input_ids"])
    bits = nats / len(TEXT.encode()) / torch.log(torch.tensor(2.0)).item()
    assert found["read"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-3)
    right = 0
    for item in items:
        context = tokenizer(item["question"])["input_ids"]
        scores = [
            log_p(context, tokenizer(item["question"] + one)["input_ids"][len(context) :]) for one in item["choices"]
        ]
        right += scores.index(max(scores)) == item["answer"]
    assert found["choose"]["acc,none"] == right / len(items)
