"""Targets over HTTP: a remote teacher gives the bits of the local one, whatever is asked, and outlives bad moments."""

from __future__ import annotations

import contextlib
import gc
import pickle
import socket
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from corpus_index import build_index, open_index

import corpus_teacher
from corpus_teacher import CorpusTeacher, RemoteTeacher, SoftTargets, TeacherCollator
from corpus_teacher.adapters import TeachingTrainer
from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import ConfigError, InputError, RemoteError
from corpus_teacher.teaching import Teacher
from corpus_teacher.training import DistillationConfig, DistillationTrainer, make_student
from corpus_teacher.wire import ARROW, SAFETENSORS, pack_batch, unpack_batch, unpack_targets
from tests import warm
from tests.teacher.serve.conftest import Client, running

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*texts of a batch")]  # said by the local one


def assert_same(actual: SoftTargets, expected: SoftTargets) -> None:
    for name in vars(expected):
        one, other = getattr(actual, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name


@pytest.fixture(scope="module")
def local(indexes: dict[str, Path]) -> CorpusTeacher:
    return CorpusTeacher(indexes["animals"], top_k=8)


@pytest.fixture(scope="module")
def remote(server: Client) -> RemoteTeacher:
    return RemoteTeacher(server.url, index="animals", top_k=8)


@pytest.fixture(scope="module")
def rows(local: CorpusTeacher) -> np.ndarray:
    return np.asarray(local.index.tokens[:96]).astype(np.int64).reshape(4, 24)


@pytest.mark.parametrize("form", ["arrow", "safetensors"])
@pytest.mark.parametrize("leave_out", ["auto", "self", None])
@pytest.mark.parametrize("estimator", ["witten-bell", "katz"])
def test_the_same_bits(
    server: Client, indexes: dict[str, Path], rows: np.ndarray, form: str, leave_out: str | None, estimator: str
) -> None:
    how: dict[str, Any] = {"estimator": estimator, "max_order": 3, "leave_out": leave_out, "top_k": 5}
    local = CorpusTeacher(indexes["animals"], **how)
    remote = RemoteTeacher(server.url, index="animals", form=form, **how)
    positions = np.arange(4) * 24
    starts = np.array([True, False, False, False])
    assert_same(
        remote(rows, starts_document=starts, positions=positions),
        local(rows, starts_document=starts, positions=positions),
    )
    assert remote.describe() == {**local.describe(), "url": server.url, "index": "animals"}
    assert torch.equal(remote.base_distribution(), torch.from_numpy(local.index.base_distribution(local.estimator)))


def test_batches_of_every_shape(local: CorpusTeacher, remote: RemoteTeacher, rows: np.ndarray) -> None:
    packed = {"input_ids": torch.from_numpy(rows), "position_ids": torch.arange(24).remainder(12).expand(4, 24)}
    padded = {"input_ids": rows, "attention_mask": np.arange(24)[None] < np.array([[24], [20], [3], [1]])}
    flat = {"input_ids": rows.reshape(1, -1), "cu_seq_lens": np.array([0, 10, 96])}
    for batch in (rows, rows[0], packed, padded, flat):
        assert_same(remote(batch), local(batch))
    assert_same(remote(rows, rows[:, ::-1], end_token=32), local(rows, rows[:, ::-1], end_token=32))
    assert torch.equal(remote.distinct(rows), local.distinct(rows))
    assert isinstance(remote, Teacher)


def test_what_is_refused(server: Client, remote: RemoteTeacher, rows: np.ndarray) -> None:
    with pytest.raises(InputError, match="wrong_column"):
        remote(rows, wrong_column=rows)
    with pytest.raises(InputError, match="positions"):
        remote(rows, positions=np.array([5, 6, 7, 8]))
    with pytest.raises(ConfigError, match="animals, tales"):
        RemoteTeacher(server.url)
    with pytest.raises(ConfigError, match="animls"):
        RemoteTeacher(server.url, index="animls")
    with pytest.raises(InputError, match="/etc/passwd"):
        RemoteTeacher(server.url, index="animals", estimator="/etc/passwd")(rows)
    with pytest.raises(ConfigError, match="flat"):
        remote.mixed(rows)
    with pytest.raises(RemoteError, match="2 tries"):
        RemoteTeacher("http://127.0.0.1:9", retries=1)
    with pytest.raises(ConfigError, match="ftp"):
        RemoteTeacher("ftp://here")


def test_a_teacher_in_a_cycle_closes_its_connection(server: Client, rows: np.ndarray) -> None:
    """The collector may finalize a socket before the object that would have closed it."""
    for _ in range(4):
        holder: dict[str, Any] = {"teacher": RemoteTeacher(server.url, index="animals", top_k=8)}
        holder["teacher"](rows)
        connection = holder["teacher"]._connection()
        holder["socket"], holder["itself"] = connection.sock, holder
        del connection
    del holder
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        gc.collect()
    assert not said


def test_many_clients_at_once_get_their_own(local: CorpusTeacher, remote: RemoteTeacher, rows: np.ndarray) -> None:
    batches = [np.roll(rows, shift, 1)[: 1 + shift % 4] for shift in range(24)]
    expected = [local(batch) for batch in batches]
    wrong: list[int] = []

    def ask(number: int) -> None:
        try:
            assert_same(remote(batches[number]), expected[number])
        except BaseException:
            wrong.append(number)
            raise

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_prefetched_and_pickled(local: CorpusTeacher, remote: RemoteTeacher, rows: np.ndarray) -> None:
    batches = [{"input_ids": np.roll(rows, shift, 1)} for shift in range(5)]
    told = list(remote.prefetch(batches, depth=2))
    assert [batch for batch, _ in told] == batches
    for batch, targets in told:
        assert_same(targets, local(batch))
    assert_same(pickle.loads(pickle.dumps(remote))(rows), local(rows))
    with pytest.raises(InputError):
        list(remote.prefetch([{"input_ids": rows, "position_ids": rows[:, :3]}]))


def test_a_connection_that_breaks_is_made_again(server: Client, local: CorpusTeacher, rows: np.ndarray) -> None:
    """Through a proxy that cuts every second connection after some bytes."""
    host, port = server.url.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))
    cut = [0]

    def pump(source: socket.socket, sink: socket.socket, most: int) -> None:
        passed = 0
        try:
            while part := source.recv(1024):
                passed += len(part)
                if passed > most:
                    break
                sink.sendall(part)
        except OSError:
            pass
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def accept() -> None:
        number = 0
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            number += 1
            most = 700 if number % 2 else 1 << 30
            cut[0] += number % 2
            there = socket.create_connection((host, int(port)))
            threading.Thread(target=pump, args=(client, there, 1 << 30), daemon=True).start()
            threading.Thread(target=pump, args=(there, client, most), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        remote = RemoteTeacher(f"http://127.0.0.1:{listener.getsockname()[1]}", index="animals", top_k=8)
        for _ in range(3):
            assert_same(remote(rows), local(rows))
    finally:
        listener.close()
    assert cut[0] >= 1


@pytest.mark.parametrize("kind", [ARROW, SAFETENSORS])
def test_requests_of_others(server: Client, local: CorpusTeacher, rows: np.ndarray, kind: str) -> None:
    body = pack_batch({"input_ids": rows}, {"index": "animals", "top_k": 8, "leave_out": "auto"}, kind)
    answer = server.ask("/v1/targets", body, headers={"content-type": kind, "accept": kind})
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == kind
    arrays, about = unpack_targets(answer.body, kind)
    expected = local(rows)
    assert np.array_equal(arrays["probs"], expected.probs.numpy())
    assert about["shape"] == [4, 24]
    ragged = {"input_ids": [rows[0].tolist(), rows[1, :5].tolist()], "index": "animals", "form": "arrow"}
    assert server.ask("/v1/targets", ragged).status == 200
    assert server.ask("/v1/targets", {"index": "animals"}).status == 400
    assert "tok" in server.ask("/v1/targets", {**ragged, "tok": 1}).sentence
    assert server.ask("/v1/targets", b"nothing", headers={"content-type": kind}).status == 400
    back, settings = unpack_batch(body, kind)
    assert np.array_equal(back["input_ids"], rows)
    assert settings["top_k"] == 8


def test_a_training_with_workers(server: Client, local: CorpusTeacher, tmp_path: Path) -> None:
    losses = []
    how: dict[str, Any] = {"leave_out": "self", "top_k": 8}
    local, remote = CorpusTeacher(local.index, **how), RemoteTeacher(server.url, index="animals", **how)
    for teacher, workers in ((local, 0), (remote, 0), (remote, 2)):
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        student = make_student(shape, vocab_size=257)
        args = DistillationConfig(
            str(tmp_path / "out"), alpha=0.5, max_steps=2, per_device_train_batch_size=2, logging_steps=1, report_to=[],
            use_cpu=True, dataloader_num_workers=workers, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        windows = TokenWindows(np.asarray(local.index.tokens), 16, seed=0)
        trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=windows)
        trainer.train()
        losses.append([one["loss"] for one in trainer.state.log_history if "loss" in one])
    assert losses[0] == losses[1] == losses[2]
    warm.begin_parent()
    loader = torch.utils.data.DataLoader(
        TokenWindows(np.asarray(local.index.tokens), 16, seed=0),
        batch_size=2,
        num_workers=1,
        multiprocessing_context=warm.CONTEXT,  # the teacher goes there as a pickle, as to a spawned worker
        collate_fn=TeacherCollator(remote),  # type: ignore[arg-type]
    )
    batch = next(iter(loader))
    assert batch["soft_targets"].num_positions == 32


def test_in_the_trainers_of_others(server: Client, local: CorpusTeacher, tmp_path: Path) -> None:
    import transformers

    class Taught(TeachingTrainer, transformers.Trainer):
        pass

    how: dict[str, Any] = {"leave_out": None, "top_k": 8}
    rows = [{"input_ids": np.asarray(local.index.tokens[at : at + 12]).tolist()} for at in range(0, 48, 12)]
    losses = []
    for teacher in (CorpusTeacher(local.index, **how), RemoteTeacher(server.url, index="animals", **how)):
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        trainer = Taught(
            make_student(shape, vocab_size=257),
            transformers.TrainingArguments(
                str(tmp_path), max_steps=2, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=[{**row, "labels": row["input_ids"]} for row in rows],
            corpus_teacher=teacher,
        )  # fmt: skip
        trainer.train()
        losses.append([one["loss"] for one in trainer.state.log_history if "loss" in one])
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]


def test_a_sharded_index(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 20, 400)
    options: dict[str, Any] = {"doc_starts": np.arange(0, 401, 40), "vocab_size": 20, "workers": 1}
    build_index(tokens, tmp_path / "shards", shard_tokens=120, **options).close()
    with running("--no-access-log", indexes={"shards": tmp_path / "shards"}) as client:
        local = CorpusTeacher(open_index(tmp_path / "shards"), leave_out="self", top_k=8)
        remote = RemoteTeacher(client.url, leave_out="self", top_k=8)
        rows = tokens[:160].reshape(4, 40)
        assert_same(remote(rows), local(rows))
        body = {"prompt": tokens[:5].tolist(), "max_tokens": 4, "seed": 1, "prompt_logprobs": 2}
        answer = client.ask("/v1/completions", body)
        assert answer.status == 200, answer.body
        assert len(answer.json["choices"][0]["prompt_logprobs"]) == 5
        local.index.close()


def test_the_name_at_the_front_door() -> None:
    assert corpus_teacher.RemoteTeacher is RemoteTeacher
