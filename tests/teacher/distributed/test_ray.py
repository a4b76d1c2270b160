"""Shards in Ray's actors, and building as its tasks, on a real cluster of two nodes on this machine; with kills."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="Ray isn't installed: pip install corpus-teacher[ray]")

from corpus_index import ESTIMATORS, QueryError, ShardedIndex, build_index, open_index  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from corpus_teacher import CorpusTeacher, open_corpus  # noqa: E402
from corpus_teacher.cli.main import app  # noqa: E402
from corpus_teacher.data.build import BuildOptions, build_index_from_sources  # noqa: E402
from corpus_teacher.data.readers import ReadOptions  # noqa: E402
from corpus_teacher.distributed import RayIndex, build_index_on_ray  # noqa: E402
from corpus_teacher.distributed.cluster import connect  # noqa: E402
from corpus_teacher.errors import ConfigError, CorpusError, IndexFormatError, InputError, OutputError, RemoteError  # noqa: E402

pytestmark = pytest.mark.slow

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors can't import a test

VOCAB_SIZE = 12


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes of one processor each, and this process connected to them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # where Ray keeps a token of the cluster
        patch.setenv("CORPUS_TEACHER_CACHE", str(tmp_path_factory.mktemp("cache")))  # of this process and all actors
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardedIndex]:
    """Two shards of ten documents, opened here."""
    rng = np.random.default_rng(0)
    tokens = rng.choice(VOCAB_SIZE, size=600, p=np.arange(1, VOCAB_SIZE + 1) / 78)
    path = tmp_path_factory.mktemp("index") / "shards"
    starts = np.arange(0, 601, 60)
    build_index(tokens, path, doc_starts=starts, vocab_size=VOCAB_SIZE, shard_tokens=300).close()
    with open_index(path) as index:
        assert isinstance(index, ShardedIndex)
        yield index


@pytest.fixture(scope="module")
def remote(cluster: Any, local: ShardedIndex) -> Iterator[RayIndex]:
    """The same, in actors."""
    with RayIndex(local.path) as index:
        yield index


def same(actual: Any, expected: Any) -> None:
    """That two answers are equal to the last bit."""
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def pids(index: RayIndex) -> list[int]:
    """Of the actors."""
    return [shard.ask(_pid) for shard in index.shards]


def _pid(shard: Any) -> int:
    return os.getpid()


def rows_of(index: ShardedIndex) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Two rows of the corpus, what follows each position, and where they begin."""
    places = [60, 330]
    rows = np.stack([index.tokens[place : place + 20] for place in places]).astype(np.int64)
    following = np.stack([index.tokens[place + 1 : place + 21] for place in places]).astype(np.int64)
    return rows, following, places


def test_no_cluster_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RemoteError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 \(.*refused\): start one there"):
        connect("127.0.0.1:1")
    with pytest.raises(ConfigError, match="'nowhere' of a Ray cluster is not HOST:PORT"):
        connect("nowhere")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_and_leave_out(local: ShardedIndex, remote: RayIndex, name: str) -> None:
    rows, following, places = rows_of(local)
    for leave_out in (None, "self", "document"):
        options: dict[str, Any] = {"estimator": name, "max_order": 3, "leave_out": leave_out, "positions": places}
        answers = []
        for index in (local, remote):
            targets = index.smoothed_targets(rows, following, top_k=5, **options)
            mixed = index.mixed_targets(rows, following, **options)
            answers.append((index.next_probabilities(rows, following, **options), *targets, *mixed))
        same(*answers)


def test_it_answers_like_any_index(local: ShardedIndex, remote: RayIndex) -> None:
    assert [node["Alive"] for node in ray.nodes()] == [True, True]
    actors = [actor for actor in _actors(remote) if actor]
    assert len({actor["node"] for actor in actors}) == 2  # one shard on each
    assert remote.count([11, 10]) == local.count([11, 10]) > 0
    same(remote.positions([11, 10]), local.positions([11, 10]))
    same(remote.next_tokens([11, 9]), local.next_tokens([11, 9]))
    same(remote.documents_of([11, 9]), local.documents_of([11, 9]))
    same(remote.tokens[:], local.tokens[:])
    assert remote.fingerprint == local.fingerprint
    with pytest.raises(QueryError, match=r"^token id 99 is outside"):
        remote.count([99])


def test_a_teacher_of_it_works_in_a_loop(local: ShardedIndex, remote: RayIndex) -> None:
    rows, _, places = rows_of(local)
    for form in ("__call__", "mixed"):
        expected, actual = (
            getattr(CorpusTeacher(index, estimator="modified-kneser-ney"), form)(rows, positions=places)
            for index in (local, remote)
        )
        for part, value in vars(expected).items():
            if hasattr(value, "shape"):
                np.testing.assert_array_equal(np.asarray(getattr(actual, part)), np.asarray(value))


def test_an_actor_that_is_killed_costs_a_retry(local: ShardedIndex, remote: RayIndex, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def dies_once(shard: Any, value: int) -> int:
        """In the middle of a question."""
        if not begun.exists():
            begun.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return value + shard.num_tokens

    assert remote._host.ask(dies_once, [0, 1], [(1,), (2,)]) == [301, 302]
    assert begun.exists()
    before = pids(remote)
    ray.kill(remote._host._actors[1])  # for good: Ray doesn't start it again
    rows, following, places = rows_of(local)
    options: dict[str, Any] = {"leave_out": "document", "positions": places}
    same(
        remote.smoothed_targets(rows, following, **options),
        local.smoothed_targets(rows, following, **options),
    )
    assert pids(remote)[0] == before[0]
    assert pids(remote)[1] != before[1]


def test_kills_during_a_loop(local: ShardedIndex, remote: RayIndex) -> None:
    rows, following, _ = rows_of(local)
    expected = local.smoothed_targets(rows, following)
    pid = pids(remote)[0]
    killer = threading.Timer(0.2, lambda: os.kill(pid, signal.SIGKILL))
    killer.start()
    while killer.is_alive() or _is_alive(pid):
        same(remote.smoothed_targets(rows, following), expected)
    for _ in range(3):
        same(remote.smoothed_targets(rows, following), expected)
    assert pids(remote)[0] != pid


def test_an_actor_that_dies_of_a_question_is_a_sentence(remote: RayIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(shard: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("corpus_teacher.distributed.ray_host._TRIES", 1)
    with pytest.raises(RemoteError, match=r"the actor of .* died 1 times while it was asked"):
        remote.shards[0].ask(dies)
    assert remote.count([1]) > 0


def test_other_processes_ask_the_same_actors(local: ShardedIndex, remote: RayIndex) -> None:
    content = pickle.dumps(remote)

    def asked(content: bytes) -> tuple[int, int, list[int]]:
        index = pickle.loads(content)
        tokens = pickle.loads(pickle.dumps(index.tokens))
        return os.getpid(), index.count([11, 10]), tokens[:5].tolist()

    pid, count, first = ray.get(ray.remote(asked).options(num_cpus=0).remote(content))
    assert pid != os.getpid()
    assert count == local.count([11, 10])
    assert first == local.tokens[:5].tolist()


def test_named_actors_stay(local: ShardedIndex, cluster: Any) -> None:
    first, second = RayIndex(local.path, name="shared"), RayIndex(local.path, name="shared")
    assert pids(first) == pids(second)
    first.close()
    assert second.count([1]) == local.count([1])
    second.end_actors()
    with pytest.raises(RemoteError, match="was ended: open the index again"):
        second.count([1])


def test_what_cannot_be_asked_is_said(local: ShardedIndex, remote: RayIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"connected to the Ray cluster at .*, not 127\.0\.0\.1:1"):
        RayIndex(local.path, address="127.0.0.1:1")
    with pytest.raises(ConfigError, match="at least 1 question at once"):
        RayIndex(local.path, concurrency=0)
    with pytest.raises(IndexFormatError, match="there is no index at"):
        RayIndex(local.path.parent / "nothing")
    moved = local.shards[1].path
    os.rename(moved, moved.parent.parent / "away")
    try:
        with pytest.raises(IndexFormatError, match=rf"no machine of the cluster has the shard {moved}"):
            RayIndex(local.path)
    finally:
        os.rename(moved.parent.parent / "away", moved)
    monkeypatch.setattr(remote._host, "_process", -1)
    with pytest.raises(ConfigError, match="before this process was forked"):
        remote.count([1])


def test_an_index_behind_a_url(cluster: Any, local: ShardedIndex) -> None:
    """Actors share no memory with this process, so the storage is a server of files."""
    pytest.importorskip("aiohttp", reason="aiohttp isn't installed")
    asked: list[str] = []

    class Files(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = local.path / self.path.removeprefix("/index/")
            content = file.read_bytes() if file.is_file() else b""
            told = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            part = content[int(told[1]) : int(told[2]) + 1] if told else content
            self.send_response(206 if told else 200 if file.is_file() else 404)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if self.command == "GET":
                asked.append(self.path)
                self.wfile.write(part)

        do_HEAD = do_GET

        def log_message(self, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with RayIndex(f"http://127.0.0.1:{server.server_port}/index") as index:
                actors = _actors(index)
                assert len({actor["node"] for actor in actors}) == 2  # one shard on each
                assert index.count([11, 10]) == local.count([11, 10])
                rows, following, places = rows_of(local)
                options: dict[str, Any] = {"leave_out": "document", "positions": places}
                same(
                    index.smoothed_targets(rows, following, **options),
                    local.smoothed_targets(rows, following, **options),
                )
                os.kill(actors[0]["pid"], signal.SIGKILL)
                assert index.count([11, 10]) == local.count([11, 10])
        finally:
            server.shutdown()
    files = [path for path in asked if not path.endswith("manifest.json")]
    assert len(files) == len(set(files)) > 20  # nothing twice


# building


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still, which metadata and history keep."""
    clock = SimpleNamespace(now=lambda zone: datetime(2026, 1, 1, tzinfo=timezone.utc))
    monkeypatch.setattr("corpus_teacher.data.indexing.datetime", clock)
    monkeypatch.setattr("corpus_index.sharded.shard_writer.datetime", clock)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that several tasks read: text, lines of JSON, an empty one."""
    monkeypatch.setattr("corpus_teacher.distributed.ray_build._GROUP_BYTES", 1500)
    folder = tmp_path / "books"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        (folder / f"{number}.txt").write_text(" ".join(rng.choice(["the", "cat", "sat", "down", "é"], 250)))
    (folder / "empty.txt").write_text("")
    lines = [f'{{"text": "line {number} of the news", "id": "n{number}"}}' for number in range(30)]
    (folder / "news.jsonl").write_text("\n".join(lines))
    return [str(folder)]


@pytest.mark.parametrize("shard_tokens", [1200, 1 << 20])
def test_the_index_is_that_of_a_local_build(
    cluster: Any, frozen: None, sources: list[str], tmp_path: Path, shard_tokens: int
) -> None:
    options = BuildOptions(tokenizer="bytes", shard_tokens=shard_tokens)
    expected = build_index_from_sources(sources, tmp_path / "local", options)
    actual = build_index_on_ray(sources, tmp_path / "ray", options)
    with open_index(tmp_path / "local") as one, open_index(tmp_path / "ray") as other:
        assert isinstance(one, ShardedIndex) == (shard_tokens == 1200)
        assert other.fingerprint == one.fingerprint
        assert [other.document(n).name for n in range(other.num_documents)] == [
            one.document(n).name for n in range(one.num_documents)
        ]
    assert sorted(os.listdir(tmp_path / "ray")) == sorted(os.listdir(tmp_path / "local"))
    for name in ("num_files", "num_documents", "num_tokens", "num_bytes", "vocab_size", "notes", "skipped_files"):
        assert getattr(actual, name) == getattr(expected, name), name


def test_sources_are_named_from_where_the_driver_is(
    cluster: Any, frozen: None, sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # workers of the cluster are elsewhere
    options = BuildOptions(tokenizer="bytes", shard_tokens=1200)
    build_index_from_sources(["books"], "local", options)
    build_index_on_ray(["books"], "ray", options)
    with open_index(tmp_path / "local") as one, open_index(tmp_path / "ray") as other:
        assert other.fingerprint == one.fingerprint
        assert other.document(0).name == one.document(0).name


def test_ready_tokens(cluster: Any, frozen: None, tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.random.default_rng(0).integers(0, 9, 3000).astype(np.uint16))
    options = BuildOptions(shard_tokens=1000, end_of_document="0")
    for name, build in (("local", build_index_from_sources), ("ray", build_index_on_ray)):
        build([str(tmp_path / "tokens.npy")], tmp_path / name, options)
    with open_index(tmp_path / "local") as one, open_index(tmp_path / "ray") as other:
        assert isinstance(one, ShardedIndex)
        assert other.fingerprint == one.fingerprint


def test_workers_that_are_killed_cost_a_retry(
    cluster: Any, frozen: None, sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, text = tmp_path / "begun", tmp_path / "chats.jsonl"
    text.write_text("\n".join('{"messages": [{"content": "hello"}, {"content": "you"}]}' for _ in range(400)))

    def render(messages: list[dict[str, str]]) -> str:
        """Kills its worker in the middle of reading, once in each process; the driver's build isn't touched."""
        if os.getpid() != here and not begun.exists():
            begun.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return " ".join(message["content"] for message in messages)

    here = os.getpid()
    options = BuildOptions(tokenizer="bytes", shard_tokens=1000, read=ReadOptions(text_field="messages", render=render))
    build_index_from_sources([str(text)], tmp_path / "local", options)
    killed: list[int] = []
    stop = threading.Event()

    def kill_one_that_builds() -> None:
        while not killed and not stop.is_set():
            for pid in _processes("ray::_build_shard"):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                break
            time.sleep(0.001)

    killer = threading.Thread(target=kill_one_that_builds)
    killer.start()
    try:
        build_index_on_ray([str(text)], tmp_path / "ray", options)
    finally:
        stop.set()
        killer.join()
    assert begun.exists()
    assert killed
    with open_index(tmp_path / "local") as one, open_index(tmp_path / "ray") as other:
        assert isinstance(one, ShardedIndex)
        assert other.fingerprint == one.fingerprint
    assert sorted(os.listdir(tmp_path / "ray")) == sorted(os.listdir(tmp_path / "local"))


def test_the_commands(cluster: Any, local: ShardedIndex, sources: list[str], tmp_path: Path) -> None:
    out = tmp_path / "index"
    build = ["index", "build", *sources, "--out", str(out), "-t", "bytes", "--shard-tokens", "1200", "--ray", "local"]
    done = CliRunner().invoke(app, [*build, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["num_files"] == 6
    pytest.importorskip("starlette", reason="the server isn't installed: pip install corpus-teacher[serve]")
    pytest.importorskip("uvicorn", reason="the server isn't installed: pip install corpus-teacher[serve]")
    from corpus_teacher.serve import ServeOptions
    from corpus_teacher.serve.indexes import open_indexes

    served = open_indexes([f"books=ray:{out}", f"ray:{local.path}"], ServeOptions())
    with open_index(out) as one:
        assert list(served) == ["books", local.path.name]
        assert isinstance(served["books"].index, RayIndex)
        ids = served["books"].encode("the cat")
        assert served["books"].index.count(ids) == one.count(ids) > 0
        assert served["books"].describe()["fingerprint"] == one.fingerprint
        corpus = open_corpus(served["books"].index)
        assert corpus.count("the cat") == one.count(ids)
        assert corpus.document(0).name == one.document(0).name
    served.close()


def test_a_server_of_compact_shards_in_actors(cluster: Any, tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="the server isn't installed: pip install corpus-teacher[serve]")
    pytest.importorskip("uvicorn", reason="the server isn't installed: pip install corpus-teacher[serve]")
    from corpus_teacher.serve.app import create_app
    from corpus_teacher.serve.indexes import open_indexes
    from tests.teacher.serve.answers import PATIENT, answers
    from tests.teacher.serve.conftest import TEXTS

    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}.txt").write_text(text)
    for layout in ("full", "compact"):
        options = BuildOptions(tokenizer="bytes", workers=1, shard_tokens=120, layout=layout)
        build_index_from_sources([str(tmp_path / "*.txt")], tmp_path / layout, options)
    served = open_indexes([tmp_path / "full", f"actors=ray:{tmp_path / 'compact'}"], PATIENT)
    assert isinstance(served["actors"].index, RayIndex)
    assert {shard.ask(_layout) for shard in served["actors"].index.shards} == {"compact"}
    app = create_app(served, PATIENT)
    expected, actual = answers(app, "full"), answers(app, "actors")
    for question, told in expected.items():
        assert actual[question] == told, question
    served.close()


def _layout(shard: Any) -> str:
    return str(shard.layout)


def test_what_cannot_be_built_is_said_and_leaves_nothing(cluster: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.txt"
    broken.write_bytes("café".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "out").mkdir()
    options = BuildOptions(tokenizer="bytes")
    with pytest.raises(InputError, match=r"broken\.txt, line 1: invalid UTF-8"):
        build_index_on_ray([str(broken)], tmp_path / "out" / "index", options)
    with pytest.raises(CorpusError, match="the corpus is empty"):
        build_index_on_ray([str(tmp_path / "empty.txt")], tmp_path / "out" / "index", options)
    with pytest.raises(OutputError, match="s3://books/index is a URL"):
        build_index_on_ray([str(broken)], "s3://books/index", options)
    assert os.listdir(tmp_path / "out") == []


def test_a_machine_that_is_lost_costs_a_retry(cluster: Any, local: ShardedIndex) -> None:
    """The last test: the cluster has one node after it."""
    with RayIndex(local.path) as index:
        assert len({actor["node"] for actor in _actors(index)}) == 2
        cluster.remove_node(next(node for node in cluster.list_all_nodes() if not node.head))
        assert index.count([11, 10]) == local.count([11, 10])
        assert len({actor["node"] for actor in _actors(index)}) == 1


def _actors(index: RayIndex) -> list[dict[str, Any]]:
    return [{"node": shard.ask(_node), "pid": shard.ask(_pid)} for shard in index.shards]


def _node(shard: Any) -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _processes(title: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if (folder / "cmdline").read_bytes().startswith(title.encode()):
                    found.append(int(folder.name))
            except OSError:  # it ended meanwhile
                continue
    return found
