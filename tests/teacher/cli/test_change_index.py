"""`index append`, `remove` and `merge` from end to end."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import corpus_index
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


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Six documents: called 5, 007, 90, a, b, c."""
    lines = [{"text": f"text {name}", "id": name} for name in ("5", "007", "90", "a", "b", "c")]
    (tmp_path / "named.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = tmp_path / "named"
    run("index", "build", str(tmp_path / "named.jsonl"), "--out", str(path), "-t", "bytes", "--name-field", "id")
    return path


def names_of(path: Path) -> list[str | None]:
    with open_index(path) as opened:
        return [one.name for one in opened.document_names]


@pytest.mark.parametrize(
    ("word", "gone"), [("007", "007"), ("90", "90"), ("name:5", "5"), ("number:5", "c"), ("3", "a"), ("b", "b")]
)
def test_documents_are_known_by_numbers_and_by_names(named: Path, word: str, gone: str) -> None:
    before = names_of(named)
    change = json.loads(run("index", "remove", str(named), "-d", word, "--json"))
    assert names_of(named) == [name for name in before if name != gone]
    assert f"({gone})" in change["notes"][0]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("5", "5 is the number of one document and the name of another: say number:5 or name:5"),
        ("99999999999999999999999", "there is no document 99999999999999999999999: documents are 0 .. 5"),
        ("number:6", "there is no document 6"),
        ("x" * 300, "is called 'xxx"),
        ("latin", "is not UTF-8 (byte 0)"),
    ],
)
def test_words_that_are_no_document(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin").write_bytes(b"\xff\xfe\n")
    before = names_of(named)
    done = runner.invoke(app, ["index", "remove", str(named), "-d", word, "--quiet"])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert names_of(named) == before


def test_names_that_are_their_numbers(tmp_path: Path) -> None:
    lines = [{"text": f"text {number}", "id": str(number)} for number in range(6)]
    (tmp_path / "same.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = tmp_path / "same"
    run("index", "build", str(tmp_path / "same.jsonl"), "--out", str(path), "-t", "bytes", "--name-field", "id")
    (tmp_path / "list").write_text("1\nname:3\nnumber:4\n")
    run("index", "remove", str(path), "-d", str(tmp_path / "list"), "-d", "5")
    assert names_of(path) == ["0", "2"]


def test_a_list_of_names_may_begin_with_a_mark(named: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfa\n007\n")
    run("index", "remove", str(named), "-d", str(tmp_path / "list"))
    assert names_of(named) == ["5", "90", "b", "c"]


def test_the_folder_that_one_stands_in_is_changed(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["append", ".", "../named.jsonl"], ["remove", ".", "-d", "3"], ["merge", "."]):
        monkeypatch.chdir(named)
        change = json.loads(run("index", *arguments, "--json"))
        assert "enter it again" in change["notes"][-1]
        monkeypatch.chdir(named.parent)
    monkeypatch.chdir(named)
    run("index", "convert", ".", "--layout", "compact")
    assert len(names_of(named)) == 11


def test_a_file_url_is_a_path_where_something_is_written(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"file://{named}"
    run("index", "append", url, str(tmp_path / "named.jsonl"))
    run("index", "remove", url, "-d", "number:0")
    run("index", "convert", url, "--layout", "compact", "--out", f"file://{tmp_path}/small")
    run("index", "build", str(tmp_path / "named.jsonl"), "--out", f"file://{tmp_path}/other", "-t", "bytes")
    assert [len(names_of(tmp_path / name)) for name in ("named", "small", "other")] == [11, 11, 6]
    assert not (tmp_path / "file:").exists()


@pytest.mark.parametrize("arguments", [["teacher", "export-arpa"], ["index", "near-duplicates"], ["teacher", "score"]])
def test_what_is_written_is_not_written_to_a_url(named: Path, tmp_path: Path, arguments: list[str]) -> None:
    more = ["--data", str(tmp_path / "named.jsonl")] if arguments[1] == "score" else []
    done = runner.invoke(app, [*arguments, str(named), *more, "--out", "memory://bucket/x.parquet"])
    assert done.exit_code == 2
    assert "memory://bucket/x.parquet is a URL" in " ".join(done.output.split())


def test_what_was_looked_up_in_another_index_is_refused(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process commits between the look at names, or at the tokenizer, and the change."""
    for arguments in (["remove", str(named), "-d", "c"], ["append", str(named), str(named.parent / "named.jsonl")]):
        for function in ("remove_documents", "append_documents"):
            change = getattr(corpus_index, function)

            def late(path: Path, *given: Any, _change: Any = change, **options: Any) -> Any:
                monkeypatch.undo()
                run("index", "remove", str(path), "-d", "number:0")
                return _change(path, *given, **options)

            monkeypatch.setattr(corpus_index, function, late)
        before = names_of(named)
        done = runner.invoke(app, ["index", *arguments])
        assert done.exit_code == 2
        assert "was changed by another process since it was read: do it again" in " ".join(done.output.split())
        assert names_of(named) == before[1:]


def test_bytes_of_text_are_not_said_of_what_is_left(named: Path) -> None:
    assert json.loads(run("index", "info", str(named), "--json"))["num_bytes"] > 0
    run("index", "remove", str(named), "-d", "a")
    for _ in range(2):
        assert json.loads(run("index", "info", str(named), "--json"))["num_bytes"] == 0
        run("index", "merge", str(named))


def test_a_shard_is_not_changed_by_itself(index: Path, tmp_path: Path) -> None:
    with open_index(index) as opened:
        shard = str(opened.path / opened.entries[0].name)
    for arguments in (
        ["append", shard, str(tmp_path / "a.jsonl")],
        ["convert", shard, "--layout", "compact"],
        ["convert", str(index), "--layout", "compact", "--out", str(index / "inside")],
        ["build", str(tmp_path / "a.jsonl"), "--out", shard, "--overwrite", "-t", "bytes"],
    ):
        done = runner.invoke(app, ["index", *arguments])
        assert done.exit_code == 2
        assert "is in the folder of a sharded index" in " ".join(done.output.split())
    run("index", "verify", str(index))


def test_one_token_can_not_be_evaluated(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.array([2], np.uint16))
    corpus_index.build_index(np.array([1, 2, 1, 3]), tmp_path / "plain").close()
    done = runner.invoke(app, ["teacher", "eval", str(tmp_path / "plain"), "--data", str(tmp_path / "one.npy")])
    assert done.exit_code == 2
    assert "no token that follows another" in " ".join(done.output.split())
