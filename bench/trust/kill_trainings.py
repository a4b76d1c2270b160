"""Commands that fit, cache, train, study and serve, to be killed; see `kill_cases`."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.trust.kill_cases import NOTHING, UNFINISHED, Case, call, done, hash_of_files, index_state, write_texts

_VOCAB, _LENGTH = 60, 16
_STUDENT = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
_TIMES = {"started", "seconds", "cpu_s", "total_s", "teacher_s", "loader_s", "written_s", "peak_memory_bytes", "logs"}
_REQUESTS = 40


def _tokens(folder: Path) -> None:
    """Ready tokens, their index, and held-out ones."""
    rng = np.random.default_rng(0)
    tokens = (rng.zipf(1.4, 3_000) % (_VOCAB - 1) + 1).astype(np.uint16)
    tokens[::50] = 0
    np.save(folder / "tokens.npy", tokens[:2_400])
    np.save(folder / "held.npy", tokens[2_400:])
    done("index", "build", "tokens.npy", "--out", "index", "--vocab-size", str(_VOCAB), "--end-of-document", "0")


def _warm(*modules: str, student: bool = False) -> None:
    """Import what trainings need, and no more: nothing is trained before a fork, whose threads it would lack.

    student: one is also written to a file, since the first time a model is, transformers makes a thousand patterns.
    """
    import importlib
    import tempfile

    import torch
    import tqdm
    import transformers

    torch.set_num_threads(1)
    for module in (
        "corpus_teacher.cli.main",
        "corpus_index.verify",
        "transformers.models.llama.modeling_llama",
        *modules,
    ):
        importlib.import_module(module)
    tqdm.tqdm.monitor_interval = 0  # a thread
    if student:
        config = transformers.AutoConfig.for_model(vocab_size=_VOCAB, **_STUDENT)
        with tempfile.TemporaryDirectory() as folder:
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


# fits


def _fit(name: str, *more: str) -> None:
    call("teacher", "fit", "index", "--estimator", name, "--max-order", "4", "--out", "fit.json", *more)


def _fitted(folder: Path) -> None:
    _tokens(folder)
    done("teacher", "fit", "index", "--estimator", "kneser-ney", "--max-order", "2", "--out", "fit.json")


def _fit_state(folder: Path) -> str:
    from corpus_index import load_estimator, open_index

    if not (folder / "fit.json").exists():
        return NOTHING
    with open_index(folder / "index", check="always") as index:
        found = load_estimator(folder / "fit.json", index)
    return f"{found.name} {found.discounts} {found.strengths}"


# caches


def _model(folder: Path) -> None:
    import torch
    import transformers

    _tokens(folder)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(vocab_size=_VOCAB, **_STUDENT)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")


def _cache(folder: Path) -> None:
    call(
        "teacher", "cache", "model", "--data", "index", "--out", "cache", "--length", str(_LENGTH), "--k", "6",
        "--shard-tokens", "256", "--rows", "4", "--device", "cpu",
    )  # fmt: skip


def _cache_state(folder: Path) -> str:
    """A hash of the windows of a whole cache; of a part, UNFINISHED, once what it holds is verified."""
    from corpus_teacher.neural import CachedTeacher

    if not (folder / "cache" / "manifest.json").exists():
        return NOTHING if not (folder / "cache").exists() else UNFINISHED
    cached = CachedTeacher(folder / "cache")
    cached.verify()
    if cached.num_windows < 2_400 // _LENGTH:
        return UNFINISHED
    named = [entry["file"] for entry in cached.manifest["shards"]]  # a kill after the last of them leaves the lock
    return hash_of_files([folder / "cache" / name for name in ("manifest.json", *named)])


# trainings


def _training(folder: Path) -> None:
    _tokens(folder)
    student = ", ".join(f"{name} = {json.dumps(value)}" for name, value in _STUDENT.items())
    (folder / "run.toml").write_text(f"""
out = "run"
student = {{ {student} }}
data = {{ index = "index", held_out = ["held.npy"], length = {_LENGTH} }}
corpus = {{ max_order = 3 }}

[training]
max_steps = 8
per_device_train_batch_size = 4
save_strategy = "steps"
save_steps = 2
save_total_limit = 2
use_cpu = true
""")


def _result(folder: Path) -> dict[str, Any]:
    told = json.loads((folder / "run" / "result.json").read_text())
    return {name: told[name] for name in ("held_out_nats", "bits_per_byte", "history", "steps", "tokens")}


def _training_state(folder: Path) -> str:
    """A hash of the student and its result; a training without a result isn't done."""
    if not (folder / "run" / "result.json").exists():
        return UNFINISHED if (folder / "run").exists() else NOTHING
    weights = (folder / "run" / "student" / "model.safetensors").read_bytes()
    return hashlib.sha256(weights + json.dumps(_result(folder)).encode()).hexdigest()


def _training_files(folder: Path) -> str:
    """Weights of the student and of the last checkpoint, optimiser and all, and the result."""
    checkpoint = folder / "run" / "checkpoint-8"
    names = ("model.safetensors", "optimizer.pt", "scheduler.pt")
    files = [folder / "run" / "student" / "model.safetensors", *(checkpoint / name for name in names)]
    return hash_of_files(files) + json.dumps(_result(folder))


# studies


def _study(folder: Path) -> None:
    write_texts(folder, ("texts",), documents=60)
    student = ", ".join(f"{name} = {json.dumps(value)}" for name, value in _STUDENT.items() if name != "model_type")
    (folder / "study.toml").write_text(f"""
name = "try"
question = "Does it help?"
baseline = "hard"
seeds = 1
learning_rates = [1e-2]
grow_rates = 0

[data]
sources = ["texts.jsonl"]
tokenizer = "train:280"
held_out_share = 0.2
tune_share = 0.1
max_overlap = 1.0
indexes = {{ train = "all" }}

[metrics]
fidelity_tokens = 32
induction_rows = 1
extraction_prompts = 2
extraction_length = 2
samples = 1

[base]
student = {{ {student} }}
data = {{ length = {_LENGTH} }}
training = {{ max_steps = 2, per_device_train_batch_size = 4, use_cpu = true }}
[arms.hard]
[arms.corpus]
corpus = {{ index = "train", leave_out = "document" }}
""")


def _rows(folder: Path) -> list[dict[str, Any]]:
    from corpus_teacher.study import read_rows

    rows = [{name: row[name] for name in sorted(row) if name not in _TIMES} for row in read_rows(folder / "out")]
    return sorted(rows, key=lambda row: str(row["fingerprint"]))


def _study_state(folder: Path) -> str:
    if not (folder / "out" / "rows.jsonl").exists():
        return UNFINISHED if (folder / "out").exists() else NOTHING
    rows = _rows(folder)
    return UNFINISHED if len(rows) < 2 else hashlib.sha256(json.dumps(rows).encode()).hexdigest()


# the server


def _serve(folder: Path) -> None:
    """A server, and a client of its own that ends it when all requests are answered."""
    server = os.getpid()
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(writer)
        _ask(folder, reader, server)
    os.close(reader)
    os.dup2(writer, 1)
    call("serve", "index", "--port", "0", "--no-access-log", "--threads", "1")


def _ask(folder: Path, reader: int, server: int) -> None:
    """Requests one after the other, a line for each answer; never returns."""
    (folder / "answers").unlink(missing_ok=True)
    with os.fdopen(reader) as said:
        address = said.readline().split()[-1].removeprefix("http://")
    connection = http.client.HTTPConnection(address.rstrip("/"), timeout=60)
    answers = os.open(folder / "answers", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for ids in _questions():
            connection.request("POST", "/", json.dumps({"query_type": "count", "query_ids": ids}))
            os.write(answers, f"{json.loads(connection.getresponse().read())['count']}\n".encode())
    finally:
        time.sleep(0.01)
        os.kill(server, signal.SIGTERM)
        os._exit(0)


def _questions() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(1, 6, 1 + number % 3).tolist() for number in range(_REQUESTS)]


def _answers_state(folder: Path) -> str:
    """A hash of the index and of all answers; UNFINISHED where some are missing, if those that are there are right."""
    from corpus_index import open_index

    with open_index(folder / "index", check="always") as index:
        expected = [str(index.count(ids)) for ids in _questions()]
    path = folder / "answers"
    given = path.read_text().splitlines() if path.exists() else []
    if given != expected[: len(given)]:
        return f"wrong: {given}"
    return UNFINISHED if len(given) < len(expected) else index_state(folder)


def _warm_server() -> None:
    _warm("corpus_teacher.serve", "corpus_teacher.serve.server", "uvicorn")


TRAININGS = (
    Case("teacher fit", _tokens, lambda folder: _fit("pitman-yor"), _fit_state, warm=_warm, again=False),
    Case("teacher fit --overwrite", _fitted, lambda folder: _fit("pitman-yor", "--overwrite"), _fit_state, warm=_warm),
    Case("teacher cache", _model, _cache, _cache_state, warm=lambda: _warm(student=True)),
    Case(
        "train",
        _training,
        lambda folder: call("train", "run.toml"),
        _training_state,
        resume=lambda folder: call("train", "run.toml", "--resume"),
        warm=lambda: _warm("corpus_teacher.training.command", student=True),
        files=_training_files,
    ),
    Case(
        "study run",
        _study,
        lambda folder: call("study", "run", "study.toml", "--out", "out"),
        _study_state,
        warm=lambda: _warm("corpus_teacher.study.running", student=True),
        files=lambda folder: json.dumps(_rows(folder)),
    ),
    Case("serve", _tokens, _serve, _answers_state, warm=_warm_server),
)
