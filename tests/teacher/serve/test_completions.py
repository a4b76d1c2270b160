"""vLLM's shape, asked by the clients of others; every number against the dense distribution."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from corpus_teacher import CorpusTeacher
from corpus_teacher.targets.likeliest import RankedBase, likeliest
from tests.teacher.serve.conftest import Client

pytestmark = pytest.mark.slow


def dense_of(path: Path, ids: list[int], temperature: float = 1.0, **how: Any) -> np.ndarray:
    """Probabilities of all tokens at every position of a row."""
    teacher = CorpusTeacher(path, **{"leave_out": None, "top_k": 257, **how})
    dense = teacher(np.array([ids])).dense().double().numpy() ** (1 / temperature)
    return dense / dense.sum(1, keepdims=True)


def check(said: list[Any], dense: np.ndarray, ids: list[int], k: int) -> None:
    assert said[0] is None
    assert len(said) == len(ids)
    for place in range(1, len(ids)):
        row, entries = dense[place - 1], said[place]
        assert str(ids[place]) in entries
        assert len(entries) in (k, k + 1)
        for token, entry in entries.items():
            assert entry["logprob"] == pytest.approx(math.log(row[int(token)]), abs=1e-5)
        likeliest = sorted(entries.values(), key=lambda entry: entry["rank"])[:k]
        assert [entry["rank"] for entry in likeliest] == list(range(1, len(likeliest) + 1))
        expected = np.sort(row)[::-1][:k]
        assert np.allclose([entry["logprob"] for entry in likeliest], np.log(expected), atol=1e-5)
        higher = int((row > row[ids[place]] * (1 + 1e-6)).sum())
        ties = int((row > row[ids[place]] * (1 - 1e-6)).sum())
        assert higher < entries[str(ids[place])]["rank"] <= ties + 1


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0, 0.02])
@pytest.mark.parametrize("estimator", ["witten-bell", "katz", "modified-kneser-ney"])
def test_prompt_logprobs_are_exact(
    server: Client, indexes: dict[str, Path], temperature: float, estimator: str
) -> None:
    prompts = [list(b"the cat sat on a zebra"), list(b"king")]
    body = {"model": "animals", "prompt": prompts, "max_tokens": 0, "prompt_logprobs": 3}
    extra = {"temperature": temperature, "estimator": estimator, "max_order": 3}
    answer = server.ask("/v1/completions", {**body, **extra})
    assert answer.status == 200, answer.body
    for choice, ids in zip(answer.json["choices"], prompts, strict=True):
        dense = dense_of(indexes["animals"], ids, temperature, estimator=estimator, max_order=3)
        check(choice["prompt_logprobs"], dense, ids, 3)
    assert answer.json["usage"]["prompt_tokens"] == 26


def test_prompts_of_every_kind(server: Client) -> None:
    body: dict[str, Any] = {"model": "tales", "max_tokens": 0, "prompt_logprobs": 1, "echo": True}
    text, ids = "the king", list(b"the king")
    asked = [server.ask("/v1/completions", {**body, "prompt": prompt}).json for prompt in (text, [text], ids, [ids])]
    assert [one["choices"] for one in asked] == [asked[0]["choices"]] * 4
    assert asked[0]["choices"][0]["text"] == text
    assert asked[0]["choices"][0]["prompt_logprobs"][1]["104"]["decoded_token"] == "h"


def test_leaving_out(server: Client, indexes: dict[str, Path]) -> None:
    ids = list(b"once upon a time the cat")
    body = {"model": "tales", "prompt": ids, "max_tokens": 1, "prompt_logprobs": 2, "leave_out": "self"}
    said = server.ask("/v1/completions", body).json["choices"][0]["prompt_logprobs"]
    check(said, dense_of(indexes["tales"], ids, leave_out="self"), ids, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": [1, 300]}, "300"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "token ids"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"estimator": "witten"}, "witten-bell"),
        ({"estimator": "/etc/passwd"}, "/etc/passwd"),
        ({"leave_out": "all"}, "leave_out"),
        ({"repetition_penalty": 2}, "repetition_penalty"),
        ({"tempreature": 1}, "temperature"),
        ({"model": "none"}, "none"),
        ({"max_tokens": 1 << 20}, "positions"),
        ({"stop": float("-inf")}, "stop is -inf: give a text, or a list of texts"),
        ({"temperature": 10**400}, "give a number that a float can hold"),
    ],
)
def test_what_is_refused(server: Client, change: dict[str, Any], words: str) -> None:
    answer = server.ask("/v1/completions", {"model": "tales", "prompt": "a", **change})
    assert 400 <= answer.status < 500
    assert words in answer.sentence
    assert server.ask("/v1/completions", b"{").status == 400


def test_the_openai_client(server: Client, indexes: dict[str, Path]) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        assert [one.id for one in client.models.list()] == ["animals", "tales"]
        how: dict[str, Any] = {"model": "tales", "prompt": "the cat ", "max_tokens": 12, "seed": 4, "logprobs": 2}
        one, two = client.completions.create(**how), client.completions.create(**how)
        assert one.choices[0].text == two.choices[0].text
        logs = one.choices[0].logprobs
        ids = [*b"the cat ", *"".join(logs.tokens).encode()]
        dense = dense_of(indexes["tales"], ids)
        for place, (token, log) in enumerate(zip(logs.tokens, logs.token_logprobs, strict=True)):
            assert log == pytest.approx(math.log(dense[7 + place, ord(token)]), abs=1e-5)
        sharp = client.completions.create(
            model="tales", prompt=["once upon", "the k"], max_tokens=3, temperature=0, n=2
        )
        assert [one.text for one in sharp.choices] == [" a ", " a ", "ing", "ing"]
        echoed = client.completions.create(model="tales", prompt="once", max_tokens=0, echo=True, logprobs=0)
        assert echoed.choices[0].text == "once"
        assert echoed.choices[0].logprobs.token_logprobs[0] is None
        parts = list(client.completions.create(**how, stream=True, stream_options={"include_usage": True}))
        assert len(parts) == 13  # a token each, and what it took
        assert "".join(part.choices[0].text for part in parts[:-1]) == one.choices[0].text
        told = [token for part in parts[:-1] for token in part.choices[0].logprobs.tokens]
        assert told == logs.tokens
        assert [part.choices[0].finish_reason for part in parts[:-1]] == [None] * 11 + ["length"]
        assert parts[-1].usage == one.usage
        with pytest.raises(openai.NotFoundError, match="nothing"):
            client.completions.create(model="nothing", prompt="a")


def vllm_client(monkeypatch: pytest.MonkeyPatch) -> Any:
    """TRL's own client; all that it wants of vLLM, which the teacher's side of it never calls, is that it is there."""
    pytest.importorskip("trl")
    pytest.importorskip("requests")
    module = pytest.importorskip("trl.generation.vllm_client")
    monkeypatch.setattr(module, "is_vllm_available", lambda *_, **__: True)
    return module.VLLMClient


@pytest.mark.filterwarnings("ignore")
def test_trls_client(server: Client, indexes: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make = vllm_client(monkeypatch)
    client = make(base_url=server.url)
    try:
        sequences = [list(b"the cat sat"), list(b"the king and a queen")]
        told = client.get_sequence_logprobs(sequences, [4, 8], top_logprobs=5, temperature=2.0, chunk_size=1)
    finally:
        client.session.close()
    for number, (ids, begin) in enumerate(zip(sequences, [4, 8], strict=True)):
        dense = dense_of(indexes["animals"], ids, 2.0)
        for place in range(begin, len(ids)):
            row = dense[place - 1]
            assert told["actual_logprobs"][number][place - begin][0] == pytest.approx(
                math.log(row[ids[place]]), abs=1e-5
            )
            likeliest = np.sort(row)[::-1][:5]
            assert np.allclose(told["logprobs"][number][place - begin], np.log(likeliest), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_trls_server_distillation_trainer(
    server: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, beta: float
) -> None:
    vllm_client(monkeypatch)
    module = pytest.importorskip("trl.experimental.server_distillation")
    from datasets import Dataset
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from corpus_teacher.data import ByteTokenizer

    backend = Backend.from_str(ByteTokenizer().to_bytes().decode())
    assert isinstance(backend.model, models.BPE)
    assert pre_tokenizers is not None
    words = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    words.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    student = LlamaForCausalLM(LlamaConfig(vocab_size=257, max_position_embeddings=128, **shape))
    before = [parameter.detach().clone() for parameter in student.parameters()]
    args = module.ServerDistillationConfig(
        output_dir=str(tmp_path),
        teacher_model_server_url=server.url,
        per_device_train_batch_size=2,
        max_steps=2,
        max_completion_length=6,
        loss_top_k=8 if beta == 0 else 1,
        beta=beta,
        learning_rate=1e-2,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": "the cat sat on "}]}] * 8)
    trainer = module.ServerDistillationTrainer(model=student, args=args, train_dataset=data, processing_class=words)
    try:
        trainer.train()
    finally:
        trainer.teacher_client.session.close()
    losses = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert any(not torch.equal(*pair) for pair in zip(before, student.parameters(), strict=True))


def test_the_likeliest_against_all(random_targets: Any) -> None:
    for seed in range(40):
        targets = random_targets(seed, positions=5, vocab_size=9)
        dense = targets.dense().double().numpy()
        actual = np.random.default_rng(seed).integers(0, 9, 5)
        for k in (0, 1, 4, 9):
            told = likeliest(targets, np.arange(5), actual, k, RankedBase(targets.base.numpy()))
            for row, token, entries in zip(dense, actual.tolist(), told, strict=True):
                row = np.maximum(row, 0)
                assert (
                    len({one.token for one in entries})
                    == len(entries)
                    == k + (token not in [o.token for o in entries[:k]])
                )
                mine = next(one for one in entries if one.token == token)
                assert abs(mine.rank - 1 - int((row > row[token] + 1e-7).sum())) <= int(
                    (abs(row - row[token]) <= 1e-7).sum()
                )
                expected = np.log(np.maximum(np.sort(row)[::-1][:k], 1e-300))
                actual_logs = [max(one.logprob, math.log(1e-300)) for one in entries[:k]]
                big = expected > -12
                assert np.allclose(np.array(actual_logs)[big], expected[big], atol=1e-3)
