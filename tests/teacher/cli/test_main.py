"""The command line as a user meets it: whole runs on real files, and one sentence for whatever goes wrong."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from corpus_teacher import __version__
from corpus_teacher.cli.main import app

HEAVY = (
    "torch",
    "numba",
    "transformers",
    "datasets",
    "matplotlib",
    "numpy",
    "tokenizers",
    "pyarrow",
    "pandas",
)
COMMAND = [sys.executable, "-m", "corpus_teacher.cli.main"]
STORY = "the cat sat on the mat. the cat saw the dog. the dog sat on the cat."


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fine(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result


def answer(*arguments: object) -> Any:
    return json.loads(fine(*arguments, "--json").stdout)


def refused(*arguments: object) -> str:
    """The sentence of a run that must fail: alone on stderr, exit code 2, nothing on stdout."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "a.txt").write_text(STORY)
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        for number in range(20):
            file.write(json.dumps({"text": f"{STORY} number {number}"}) + "\n")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    return folder


@pytest.fixture(scope="module")
def built(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("built") / "deep" / "index"
    return path, answer("index", "build", corpus, "--out", path, "--tokenizer", "train:320")


@pytest.fixture
def index(built: tuple[Path, dict[str, Any]]) -> Path:
    return built[0]


def test_build_tells_what_it_did(built: tuple[Path, dict[str, Any]], corpus: Path) -> None:
    path, summary = built
    assert summary["path"] == str(path)
    assert (summary["num_files"], summary["num_documents"]) == (2, 21)
    assert summary["skipped_files"] == {".jpg": 1}
    assert summary["num_bytes"] == 21 * len(STORY) + sum(len(f" number {number}") for number in range(20))
    assert summary["text_bytes_per_token"] == pytest.approx(summary["num_bytes"] / summary["num_tokens"])
    assert summary["index_bytes"] == sum(answer("index", "info", path)["size_bytes"].values())
    assert summary["tokens_per_s"] > 0
    assert summary["peak_memory_bytes"] > 10_000_000
    assert list(summary["stage_s"]) == ["train the tokenizer", "tokenize", "build"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["index"]
    assert (path / "tokenizer.json").is_file()


def test_build_is_reproducible(corpus: Path, index: Path, tmp_path: Path) -> None:
    fine("index", "build", corpus, "--out", tmp_path / "i", "--tokenizer", "train:320", "--workers", 1)
    for name in ("tokens.bin", "order.bin", "tokenizer.json"):
        assert (tmp_path / "i" / name).read_bytes() == (index / name).read_bytes()


def test_the_summary_for_people(corpus: Path, tmp_path: Path) -> None:
    result = fine("index", "build", corpus, "--out", tmp_path / "i", "--tokenizer", "bytes")
    for words in ("tokens in 21 documents, from 2 files", "257 (bytes)", "bytes/token", "tokens/s", "1 .jpg"):
        assert words in result.stdout
    assert "peak memory" in result.stdout
    command = ("index", "build", corpus, "--out", tmp_path / "i", "--force", "--tokenizer", "train:9000")
    assert "of the 9,000 tokens asked for" in fine(*command).stdout


def test_info(index: Path, built: tuple[Path, dict[str, Any]]) -> None:
    info = answer("index", "info", index)
    assert info["num_tokens"] == built[1]["num_tokens"]
    assert info["tokenizer"] == "train:320"
    shown = fine("index", "info", index).stdout
    for words in (info["fingerprint"], "tokens.bin", "train:320", f"{info['num_tokens']:,} tokens"):
        assert words in shown


def test_verify(index: Path) -> None:
    assert answer("index", "verify", index)["passed"]
    assert "is sound" in fine("index", "verify", index, "--full").stdout


def test_query(index: Path) -> None:
    found = answer("index", "query", index, "the cat sat on", "--top", 2, "--snippets", 3)
    assert found["match"] == "the cat sat on"
    assert found["continuations"][0]["text"] == " the"
    assert found["continuations"][0]["share"] == 1.0
    assert [step["order"] for step in found["backoff"]] == list(range(found["match_len"], -1, -1))
    assert len(found["occurrences"]) == 3
    shown = fine("index", "query", index, "the cat sat on").stdout
    for words in ("continuation", "‹ the›", "100.0%", "order", "where it stands (5 of 21)", "⟦", "(none)"):
        assert words in shown
    assert "█" in shown


def test_query_explains_an_estimator(index: Path) -> None:
    options = ("--estimator", "ppm-c", "--max-order", 3, "--top", 4)
    found = answer("index", "query", index, "the cat sat on", *options)["explained"]
    assert found["estimator"] == "ppm-c"
    assert [order["order"] for order in found["orders"]] == [0, 1, 2, 3]
    assert found["tokens"][0]["text"] == " the"
    for token in found["tokens"]:
        assert sum(token["contributions"]) == pytest.approx(token["probability"])
    shown = fine("index", "query", index, "the cat sat on", *options).stdout
    for words in ("ppm-c, and what each order adds", "probability", "base", "keeps", "passes on", "·"):
        assert words in shown
    assert answer("index", "query", index, "the")["explained"] is None
    assert "there is no estimator 'magic'" in refused("index", "query", index, "the", "--estimator", "magic")


def test_query_shows_markup_of_the_corpus_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("[bold]x[/bold] [/nonsense]\n\x1b[31mred")
    fine("index", "build", tmp_path / "a.txt", "--out", tmp_path / "i", "--tokenizer", "bytes")
    shown = fine("index", "query", tmp_path / "i", "[bold]x").stdout
    assert "⟦[bold]x⟧[/bold] [/nonsense]⏎" in shown
    assert "\x1b[31m" not in shown


@pytest.mark.parametrize("text", ["", "zzz"])
def test_query_for_what_the_corpus_lacks(index: Path, text: str) -> None:
    assert "nothing of it" in fine("index", "query", index, text, "--max-order", "0").stdout


def test_ready_tokens(tmp_path: Path) -> None:
    tokens = np.array([1, 2, 3, 0, 1, 2, 4, 0], dtype=np.uint16)
    tokens.tofile(tmp_path / "train.bin")
    command = ("index", "build", tmp_path / "train.bin", "--out", tmp_path / "i", "--force")
    assert answer(*command, "--end-of-document", 0)["num_documents"] == 2
    assert answer("index", "query", tmp_path / "i", "1 2", "--ids")["distinct"] == 2
    whole = answer(*command)
    assert (whole["num_documents"], whole["vocab_size"]) == (1, 5)
    assert any("is taken for one document" in note for note in whole["notes"])
    np.save(tmp_path / "starts.npy", np.array([0, 2, 8]))
    assert answer(*command, "--doc-offsets", tmp_path / "starts.npy")["num_documents"] == 2
    wide = answer(*command, "--dtype", "uint32", "--vocab-size", 300_000)
    assert (wide["num_tokens"], wide["vocab_size"]) == (4, 300_000)
    named = answer(*command, "--tokenizer", "bytes")
    assert (named["vocab_size"], named["end_of_document"]) == (257, 256)


def test_json_lines_with_another_field_and_broken_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"body": "one"}\n{"body": "\xff"}\n{"body": 3}\n{"body": "two"}\n')
    command = ("index", "build", tmp_path / "a.jsonl", "--out", tmp_path / "i", "-t", "bytes", "--text-field")
    assert "line 2: invalid UTF-8" in refused(*command, "body")
    assert "'text'" not in refused(*command, "nobody")
    summary = answer(*command, "body", "--errors", "skip")
    assert (summary["num_documents"], summary["num_skipped_documents"]) == (2, 2)
    assert "line 2: invalid UTF-8" in summary["notes"][0]


WRONG: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "missing file": (lambda f: [f / "nowhere.txt", "-t", "bytes"], "there is no file or folder"),
    "unknown suffix": (lambda f: [f / "photo.jpg", "-t", "bytes"], "pass --format text"),
    "no tokenizer": (lambda f: [f / "a.txt"], "text needs a tokenizer"),
    "small vocabulary": (lambda f: [f / "a.txt", "-t", "train:20"], "a vocabulary of 20 is too small"),
    "wrong vocabulary": (lambda f: [f / "a.txt", "-t", "train:x"], "write train:VOCAB"),
    "missing tokenizer": (lambda f: [f / "a.txt", "-t", "./no.json"], "there is no tokenizer file or folder"),
    "empty corpus": (lambda f: [f / "empty.txt", "-t", "bytes"], "the corpus is empty"),
    "empty corpus to train on": (lambda f: [f / "empty.txt", "-t", "train:300"], "the corpus is empty"),
    "invalid UTF-8": (lambda f: [f / "latin.txt", "-t", "bytes"], "latin.txt, line 2: invalid UTF-8"),
    "invalid UTF-8 in training": (
        lambda f: [f / "latin.txt", "-t", "train:300"],
        "latin.txt, line 2: invalid",
    ),
    "bad JSON": (lambda f: [f / "bad.jsonl", "-t", "bytes"], "bad.jsonl, line 2 is not JSON"),
    "damaged archive": (lambda f: [f / "cut.txt.gz", "-t", "bytes"], "damaged or cut short"),
    "id outside": (lambda f: [f / "ids.npy", "--vocab-size", 5], "token 1 is 7, which is outside of"),
    "id outside of the tokenizer": (lambda f: [f / "wide.npy", "-t", "bytes"], "token 0 is 1000, which is"),
    "tokens and text": (lambda f: [f / "ids.npy", f / "a.txt", "-t", "bytes"], "don't go together"),
    "trained on tokens": (lambda f: [f / "ids.npy", "-t", "train:300"], "can't be trained on ready tokens"),
    "wrong end": (lambda f: [f / "ids.npy", "--end-of-document", "x"], "'x' is a name"),
    "end outside": (
        lambda f: [f / "ids.npy", "--end-of-document", 9, "--vocab-size", 8],
        "--end-of-document 9 is outside",
    ),
    "offsets missing": (lambda f: [f / "ids.npy", "--doc-offsets", f / "no.npy"], "no.npy can't be read"),
    "not UTF-8 in the tokenizer": (lambda f: [f / "a.txt", "-t", f / "latin.txt"], "is not a tokenizer.json"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_text("fine")
    (files / "empty.txt").write_text("")
    (files / "photo.jpg").write_text("?")
    (files / "latin.txt").write_bytes("one\nün\n".encode("latin-1"))
    (files / "bad.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (files / "cut.txt.gz").write_bytes(gzip.compress(os.urandom(5000))[:-100])
    np.save(files / "ids.npy", np.array([1, 7, 2]))
    np.save(files / "wide.npy", np.array([1000]))
    arguments, words = WRONG[kind]
    assert words in refused("index", "build", *arguments(files), "--out", tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


def test_an_index_is_never_replaced_without_force(index: Path, corpus: Path, tmp_path: Path) -> None:
    copy = tmp_path / "i"
    shutil.copytree(index, copy)
    before = (copy / "manifest.json").read_bytes()
    assert "--overwrite" in refused("index", "build", corpus, "--out", copy, "-t", "bytes")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{")
    refused("index", "build", bad, "--out", copy, "-t", "bytes", "--force")
    assert (copy / "manifest.json").read_bytes() == before
    fine("index", "build", corpus, "--out", copy, "-t", "bytes", "--force")
    assert answer("index", "info", copy)["tokenizer"] == "bytes"


def test_force_replaces_nothing_but_an_index(corpus: Path, tmp_path: Path) -> None:
    precious = tmp_path / "home" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("years of work")
    assert "is not an index" in refused("index", "build", corpus, "--out", precious.parent, "-t", "bytes", "--force")
    assert precious.read_text() == "years of work"


def test_a_folder_that_cannot_be_made(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = ("index", "build", corpus, "-t", "bytes", "--out")
    assert "is a file, so no index can be made in it" in refused(*command, tmp_path / "file" / "index")
    assert "Not a directory" in refused(*command, tmp_path / "file" / "deep" / "index")


@pytest.mark.parametrize("damage", ["cut", "edited manifest", "newer", "foreign", "missing"])
def test_a_damaged_index(index: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "i"
    shutil.copytree(index, copy)
    manifest = copy / "manifest.json"
    content = json.loads(manifest.read_text())
    if damage == "cut":
        (copy / "order.bin").write_bytes((copy / "order.bin").read_bytes()[:-1])
    elif damage == "edited manifest":
        manifest.write_text(json.dumps({**content, "metadata": {}}))
    elif damage == "newer":
        manifest.write_text(json.dumps({**content, "version": 99}))
    elif damage == "foreign":
        manifest.write_text('{"format": "something else"}')
    else:
        shutil.rmtree(copy)
    for command in (["info", copy], ["verify", copy], ["query", copy, "x"]):
        assert str(copy) in refused("index", *command)


def test_edited_bytes_are_found_by_verify(index: Path, tmp_path: Path) -> None:
    copy = tmp_path / "i"
    shutil.copytree(index, copy)
    data = bytearray((copy / "order.bin").read_bytes())
    data[5] ^= 1
    (copy / "order.bin").write_bytes(bytes(data))
    assert "order.bin" in refused("index", "verify", copy)


def test_another_tokenizer(index: Path) -> None:
    sentence = refused("index", "query", index, "x", "--tokenizer", "bytes")
    assert "'bytes' is not the one that" in sentence
    assert "'train:320'" in sentence


def test_usage_errors_are_typer_s_own() -> None:
    for arguments in (
        ["index", "build"],
        ["index", "query", "x"],
        ["nonsense"],
        ["index", "query", "x", "y", "--top", "0"],
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "Usage" in result.output


def test_every_option_has_help() -> None:
    for command in (["demo"], ["index", "build"], ["index", "query"], ["index", "info"], ["index", "verify"]):
        assert fine(*command, "--help").stdout


def test_demo_hands_over_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_demo(out: Path, **options: Any) -> dict[str, Any]:
        assert options.pop("console").stderr
        return {"out": out, "nats": np.float32(1.5), **options}

    monkeypatch.setitem(sys.modules, "corpus_teacher.demo.run", types.SimpleNamespace(run_demo=run_demo))
    result = answer("demo", "--out", tmp_path, "--seed", 3, "--quick")
    assert result == {"out": str(tmp_path), "nats": 1.5, "seconds": None, "seed": 3, "quick": True}


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "corpus_teacher", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"corpus-teacher {__version__}\n"
    assert "--install-completion" in fine("--help").stdout


def test_an_option_that_counts_once_is_not_given_twice(index: Path) -> None:
    result = run("index", "query", index, "the", "-e", "mle", "-e", "katz")
    assert result.exit_code == 2
    assert "given 2 times" in " ".join(result.output.replace("│", " ").split())


def test_quiet_and_log_level(index: Path) -> None:
    assert "tokens/s" in fine("sample", index).stderr
    assert fine("sample", index, "-q").stderr == ""
    assert "tokens/s" in fine("sample", index).stderr
    assert "is not a level" in run("sample", index, "--log-level", "loud").output


def test_orders_are_given_alike_everywhere(index: Path) -> None:
    for command in (["index", "query", index, "the"], ["sample", index]):
        fine(*command, "--max-order", "none")
        assert "--max-order -1 is too small" in refused(*command, "--max-order", -1)
        assert "--max-order 'x' is not an order" in refused(*command, "--max-order", "x")


def test_a_text_that_is_cut_otherwise_is_shown(index: Path) -> None:
    shown = " ".join(fine("index", "query", index, "sat on the ").stdout.split())
    assert "did you mean" in shown
    assert "tokens ‹" in shown


def test_version() -> None:
    assert fine("--version").stdout == f"corpus-teacher {__version__}\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from corpus_teacher.analysis import query as lookup

    def broken(path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(lookup, "index_info", broken)
    assert isinstance(run("index", "info", tmp_path).exception, ZeroDivisionError)


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CORPUS_TEACHER_DEBUG", "1")
    assert type(run("index", "info", tmp_path).exception).__name__ == "IndexFormatError"


def shell(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, corpus_teacher.cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "index" in shell("--help").stdout


def test_index_commands_do_not_import_torch(corpus: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom corpus_teacher.cli.main import app\n"
        f"for a in (['index','build',{str(corpus)!r},'-o',{str(tmp_path / 'i')!r},'-t','train:300'],"
        f"['index','info',{str(tmp_path / 'i')!r}],['index','query',{str(tmp_path / 'i')!r},'the']):\n"
        "    app(a, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_error_in_a_real_process(tmp_path: Path) -> None:
    done = shell("index", "info", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_no_space_in_a_real_process(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 1_000_000)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    done = shell("index", "build", tmp_path / "a.txt", "-o", tmp_path / "i", "-t", "bytes", preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    assert "no space for the tokens" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


_WAITING = """
import pathlib, sys, time
from corpus_teacher.cli.main import main
from corpus_teacher.data import build

sign = pathlib.Path(sys.argv.pop())
tokenize = build.tokenize_documents

def waiting(documents, *arguments, **options):
    def slow():
        yield from documents
        sign.touch()
        time.sleep(60)
    return tokenize(slow(), *arguments, **options)

build.tokenize_documents = waiting
main()
"""
"""Builds an index, but waits where all of the text is read."""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_build_that_is_stopped_leaves_nothing_and_a_rerun_works(tmp_path: Path, number: int, code: int) -> None:
    text, out, sign = tmp_path / "a.txt", tmp_path / "out" / "index", tmp_path / "sign"
    text.write_text("some text\n" * 1000)
    command = [sys.executable, "-c", _WAITING, "index", "build", str(text), "-o", str(out), "-t", "bytes", str(sign)]
    # a job in the background of a shell inherits that SIGINT is ignored, and so would its children
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        while not sign.exists():  # it is made when all of the text is read
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) == code
        assert "Traceback" not in process.stderr.read()  # type: ignore[union-attr]
    assert list(out.parent.iterdir()) == []
    fine("index", "build", text, "-o", out, "-t", "bytes")


def test_a_stop_in_a_callback_whose_exceptions_are_ignored_is_not_lost() -> None:
    code = (
        "import signal, time, weakref; from corpus_teacher.cli.main import listen; listen()\n"
        "class Thing: pass\n"
        "thing = Thing(); kept = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM)); del thing\n"
        "time.sleep(300)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (143, "")


def test_the_installed_script_runs() -> None:
    script = Path(sysconfig.get_path("scripts")) / "corpus-teacher"
    if not script.exists():
        pytest.skip("corpus-teacher is not installed here: pip install -e .")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"corpus-teacher {__version__}\n"


def test_documents_are_named_wherever_they_are_shown(tmp_path: Path) -> None:
    passage = "a passage that is long enough to be told from chance, and <|endoftext|> stands in it as well"
    records = [{"body": f"{passage} {number}", "id": f"doc-{number}", "url": f"u{number}"} for number in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    build = ("index", "build", tmp_path / "a.jsonl", "-o", tmp_path / "i", "-t", "bytes", "--text-field", "body")
    summary = answer(*build, "--name-field", "id", "--keep-field", "url")
    assert any("<|endoftext|> (3 times)" in note for note in summary["notes"])
    found = answer("index", "query", tmp_path / "i", "as well 1")
    assert [one["name"] for one in found["occurrences"]] == ["doc-1"]
    assert [(one["name"], one["count"]) for one in found["sources"]] == [("doc-1", 1)]
    shown = fine("index", "query", tmp_path / "i", "as well").stdout
    assert "doc-2 (document 2), token " in shown
    assert "documents that it occurs in most" in shown
    repeats = answer("index", "near-duplicates", tmp_path / "i", "--top-length", 32)
    assert repeats["documents"][0]["name"].startswith("doc-")
    assert "doc-0" in fine("index", "near-duplicates", tmp_path / "i", "--top-length", 32).stdout
    (tmp_path / "held.txt").write_text(passage)
    evaluate = (
        "teacher",
        "eval",
        tmp_path / "i",
        "--data",
        tmp_path / "held.txt",
        "-e",
        "witten-bell",
        "--max-order",
        2,
    )
    assert answer(*evaluate)["recited"][0]["name"].startswith("doc-")
    assert "documents of the index that the held-out text repeats" in fine(*evaluate).stdout
    split = answer(*build, "--special-tokens", "ids", "--force")
    assert split["num_documents"] == 6
    assert any("the document is split there" in note for note in split["notes"])
    assert "no field 'body'" in refused(*build[:-1], "id", "--name-field", "no", "--force").replace("'no'", "'body'")
