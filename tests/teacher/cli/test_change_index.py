"""`index append`, `remove` and `merge` from end to end."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex, ShardedIndex, memory, open_index
from typer.testing import CliRunner

from corpus_teacher import CorpusTeacher, open_corpus
from corpus_teacher.cli.main import app
from corpus_teacher.data.memory import free_memory_bytes, parse_bytes, tokens_within
from corpus_teacher.errors import ConfigError

runner = CliRunner()


def run(*arguments: str) -> Any:
    done = runner.invoke(app, [*arguments, "--quiet"])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Three documents, of which two shards were made."""
    lines = ["the cat sat on the mat", "the dog sat on the cat", "a cat and a dog"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    path = tmp_path / "index"
    run("index", "build", str(tmp_path / "a.jsonl"), "--out", str(path), "-t", "bytes", "--shard-tokens", "50")
    return path


def test_an_index_grows_shrinks_and_is_merged(index: Path, tmp_path: Path) -> None:
    with open_index(index) as opened:
        assert isinstance(opened, ShardedIndex)
        assert len(opened.shards) == 2
    (tmp_path / "b.txt").write_text("the cat sat on the cat")
    grown = json.loads(run("index", "append", str(index), str(tmp_path / "b.txt"), "--json"))
    assert (grown["documents_before"], grown["num_documents"], grown["num_shards"]) == (3, 4, 3)
    with open_corpus(index) as corpus:
        assert corpus.count("cat") == 5
        assert corpus.where("the cat", limit=9)[-1].name == str(tmp_path / "b.txt")
    with open_corpus(index) as corpus:
        name = corpus.document(0).name
        assert name is not None
    (tmp_path / "gone").write_text(f"{name}\n")
    shrunk = json.loads(run("index", "remove", str(index), "-d", str(tmp_path / "gone"), "-d", "2", "--json"))
    assert shrunk["num_documents"] == 2
    with open_corpus(index) as corpus:
        assert corpus.count("cat") == 3
        assert corpus.next("the dog").tokens[0].text == " "
    merged = json.loads(run("index", "merge", str(index), "--json"))
    assert merged["num_shards"] == 1
    info = json.loads(run("index", "info", str(index), "--json"))
    assert [entry["what"] for entry in info["history"]] == ["build", "append", "remove", "merge"]
    assert [one["number"] for one in info["history"][2]["removed"]] == [0, 2]
    assert info["shards"] == []
    assert "history" not in info["metadata"]
    shown = run("index", "info", str(index))
    assert all(word in shown for word in ("append", "remove", "merge"))
    assert "sound" in run("index", "verify", str(index), "--full")


def test_what_is_asked_of_shards_is_answered(index: Path) -> None:
    answer = json.loads(run("index", "query", str(index), "the cat", "--json"))
    assert answer["num_occurrences"] == 2
    teacher = CorpusTeacher(index, max_order=3)
    ids = np.asarray(teacher.index.tokens)[:40].astype(np.int64)[None]
    assert teacher(ids).rest.shape == (40,)


def test_a_small_corpus_stays_one_index(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("once upon a time")
    run("index", "build", str(tmp_path / "a.txt"), "--out", str(tmp_path / "index"), "-t", "bytes", "--memory", "1G")
    with open_index(tmp_path / "index") as opened:
        assert type(opened) is CorpusIndex


def test_refusals(index: Path) -> None:
    for arguments, sentence in (
        (["index", "remove", str(index), "-d", "nobody.txt"], "is called 'nobody.txt'"),
        (["index", "remove", str(index), "-d", "7"], "there is no document 7"),
        (["index", "merge", str(index), "--memory", "much"], "'much' is no amount of memory"),
    ):
        done = runner.invoke(app, arguments)
        assert done.exit_code == 2
        assert sentence in " ".join(done.output.split())


def test_memory(tmp_path: Path) -> None:
    assert tokens_within(parse_bytes("22M"), 300) == 2**20
    assert tokens_within(parse_bytes("1T"), 300) < 2**31
    assert tokens_within(1, 70_000) == 2**20
    with pytest.raises(ConfigError, match="no amount of memory"):
        parse_bytes("0G")
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    (proc / "self" / "cgroup").write_text("0::/jobs/one\n")
    (groups / "jobs" / "one").mkdir(parents=True)
    assert free_memory_bytes(proc, groups) == 8000 * 1024
    (groups / "jobs" / "memory.max").write_text("4096000\n")
    (groups / "jobs" / "memory.current").write_text("96000\n")
    (groups / "jobs" / "one" / "memory.max").write_text("max\n")
    assert free_memory_bytes(proc, groups) == 4_000_000
    (groups / "jobs" / "memory.stat").write_text("anon 5\ninactive_file 1000\n")
    assert free_memory_bytes(proc, groups) == 4_001_000
    (proc / "self" / "cgroup").write_text("4:cpu,memory:/a\n0::/\n")
    (groups / "memory" / "a").mkdir(parents=True)
    (groups / "memory" / "a" / "memory.limit_in_bytes").write_text("2000")
    (groups / "memory" / "a" / "memory.usage_in_bytes").write_text("500")
    assert free_memory_bytes(proc, groups) == 1500


def test_memory_that_addresses_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("MemAvailable:    8000 kB\n")
    (tmp_path / "self" / "statm").write_text("100 50 3 4 5 6 7\n")
    page = os.sysconf("SC_PAGE_SIZE")
    threads = memory._THREADS_ADDRESSES
    monkeypatch.setattr(resource, "getrlimit", lambda which: (150 * page + threads, resource.RLIM_INFINITY))
    assert free_memory_bytes(tmp_path, tmp_path / "none") == 50 * page
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert free_memory_bytes(tmp_path, tmp_path / "none") == 8000 * 1024
