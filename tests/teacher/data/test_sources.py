"""Sources: what is taken, in which order, what is left out, and data sets through the `datasets` library."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.sources import Inventory, find_sources
from corpus_teacher.errors import InputError


def write(path: Path, text: str = "some text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(inventory: Inventory, root: Path) -> list[str]:
    return [os.path.relpath(source.name, root) for source in inventory.sources]


def texts(inventory: Inventory, **options: Any) -> list[str]:
    return [document.text for document in inventory.documents(ReadOptions(**options), ReadLog())]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.txt", "a/z.md", "a/c.jsonl.zst", "B.py", ".hidden.txt", ".git/x.txt", "__pycache__/y.py"):
        write(tmp_path / name)
    for name in ("photo.jpg", "a/tokens.npy", "a/more.jpg", "README"):
        write(tmp_path / name)
    return tmp_path


def test_a_folder_is_walked_in_sorted_order_and_says_what_it_leaves_out(tree: Path) -> None:
    inventory = find_sources([str(tree)])
    assert names(inventory, tree) == ["B.py", "b.txt", "a/c.jsonl.zst", "a/z.md"]
    assert inventory.skipped == {".jpg": 2, ".npy": 1, "no suffix": 1, "hidden": 1}
    assert inventory.size_bytes == 4 * len("some text")


def test_globs_and_repeats(tree: Path) -> None:
    assert names(find_sources([f"{tree}/*.txt"]), tree) == ["b.txt"]
    assert names(find_sources([f"{tree}/**/*.md"]), tree) == ["a/z.md"]
    inventory = find_sources([str(tree / "b.txt"), f"{tree}/*", f"{tree}/a/../b.txt"])
    assert names(inventory, tree)[0] == "b.txt"
    assert len(set(names(inventory, tree))) == len(inventory.sources)
    assert inventory.repeated == 2
    assert inventory.skipped[".jpg"] >= 1


def test_named_files_keep_the_order_of_the_user(tree: Path) -> None:
    files = [str(tree / "b.txt"), str(tree / "B.py")]
    assert [source.name for source in find_sources(files).sources] == files


def test_a_pipe_or_a_device_is_refused_at_once(tree: Path) -> None:
    os.mkfifo(tree / "pipe.txt")
    for name, kind in ((str(tree / "pipe.txt"), "a pipe"), ("/dev/zero", "a device")):
        with pytest.raises(InputError, match=f"is {kind}, not a file; save what it yields"):
            find_sources([name], kind="text")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("nowhere.txt", r"there is no file or folder .*nowhere\.txt"),
        ("*.nothing", "no file matches"),
        ("photo.jpg", "suffix '.jpg' says nothing .*set the format to text"),
        ("README", "suffix '' says nothing"),
        ("empty", "holds nothing that can be read"),
        ("*.jpg", "holds nothing that can be read .*left out: 1 .jpg"),
    ],
)
def test_what_cannot_be_taken(tree: Path, spec: str, sentence: str) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(InputError, match=sentence):
        find_sources([f"{tree}/{spec}"])


def test_packed_json_in_a_folder_is_taken_if_it_holds_lines(tmp_path: Path) -> None:
    for name, data in (
        ("lines", b'{"text": "x"}\n{"text": "y"}\n'),
        ("value", b'{\n "a": 1\n}'),
        ("list", b"[1]"),
    ):
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(data))
    (tmp_path / "broken.json.gz").write_bytes(b"?")
    inventory = find_sources([str(tmp_path)])
    assert names(inventory, tmp_path) == ["lines.json.gz"]
    assert texts(inventory) == ["x", "y"]
    assert inventory.skipped == {".gz": 3}


def test_a_folder_without_text_gives_tokens_that_say_themselves(tmp_path: Path) -> None:
    for name in ("b.bin", "b.idx", "c.ds", "c.ds.index", "c.ds.metadata", "d/a.bin", "d/a.idx"):
        write(tmp_path / name)
    write(tmp_path / "model.bin")
    write(tmp_path / "array.npy")
    (tmp_path / "empty.ds").touch()
    inventory = find_sources([str(tmp_path)])
    assert names(inventory, tmp_path) == ["b.bin", "c.ds", "d/a.bin"]
    assert inventory.skipped == {".bin": 1, ".npy": 1, ".ds": 1}
    assert names(find_sources([f"{tmp_path}/c*"]), tmp_path) == ["c.ds"]
    assert names(find_sources([f"{tmp_path}/*.idx"]), tmp_path) == ["b.bin"]
    every = find_sources([str(tmp_path)], kind="tokens")
    assert names(every, tmp_path) == ["array.npy", "b.bin", "c.ds", "empty.ds", "model.bin", "d/a.bin"]
    write(tmp_path / "d" / "text.txt")
    assert names(find_sources([str(tmp_path)]), tmp_path) == ["d/text.txt"]


def test_no_source_at_all() -> None:
    with pytest.raises(InputError, match="there is no source"):
        find_sources([])


def test_a_format_can_be_said(tree: Path) -> None:
    inventory = find_sources([str(tree / "README")], kind="text")
    assert texts(inventory) == ["some text"]


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [{"text": f"text {number}", "id": number} for number in range(10)]


def test_a_saved_dataset(tmp_path: Path, rows: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(rows)
    saved.save_to_disk(tmp_path / "one")
    shuffled = saved.select([3, 1])  # a view: its rows are an indices table
    datasets.DatasetDict(train=saved, test=shuffled).save_to_disk(tmp_path / "two")
    wanted = [row["text"] for row in rows]
    one, two = find_sources([str(tmp_path / "one")]), find_sources([str(tmp_path / "two")])
    log = ReadLog()
    assert [document.text for document in one.documents(ReadOptions(), log)] == wanted
    assert log.done == pytest.approx(one.size_bytes)
    assert texts(two) == wanted
    assert texts(two, split="test") == ["text 3", "text 1"]
    list(two.documents(ReadOptions(), log := ReadLog()))
    assert log.notices == [f"{tmp_path / 'two'}: only its split 'train' is read, not 'test'; name a split to choose"]
    list(two.documents(ReadOptions(split="train"), log := ReadLog()))
    assert log.notices == []
    options = ReadOptions(name_field="id", split="test")
    assert [document.name for document in two.documents(options, ReadLog())] == ["3", "1"]
    with pytest.raises(InputError, match="no split 'dev'; set `split` to one of: train, test"):
        texts(two, split="dev")
    with pytest.raises(InputError, match="there is no field 'body'; name one of: 'id', 'text'"):
        texts(one, text_field="body")
    both = find_sources([str(tmp_path)])  # a folder that holds data sets
    assert [source.kind for source in both.sources] == ["dataset", "dataset"]


def test_a_damaged_saved_dataset(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    for name in ("state.json", "dataset_info.json"):
        write(tmp_path / "d" / name, "{}")
    with pytest.raises(InputError, match="can't be loaded"):
        texts(find_sources([str(tmp_path / "d")]))


def test_hf_streams_local_files(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    pytest.importorskip("datasets")
    wanted = [row["text"] for row in rows]
    file = write(tmp_path / "data" / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write(tmp_path / "data" / "test.jsonl", json.dumps({"text": "other"}) + "\n")
    folder = find_sources([f"hf:{tmp_path / 'data'}"])
    assert folder.size_bytes is None
    assert texts(folder) == wanted
    assert texts(find_sources([f"hf:{tmp_path / 'data'}::test"])) == ["other"]
    assert texts(find_sources([f"hf:{tmp_path / 'data'}"]), split="test") == ["other"]
    assert texts(find_sources([f"hf:{file}"])) == wanted


def test_hf_failures_are_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    write(tmp_path / "data" / "train.jsonl", '{"text": "x"}\n')
    for spec, sentence in (
        (f"hf:{tmp_path}/nowhere", "there is no file or folder"),
        (f"hf:{tmp_path / 'data'}::nope", "can't be loaded: the library says: Bad split: nope"),
        (f"hf:{tmp_path / 'data'}:config", "can't be loaded: the library says: BuilderConfig 'config' not found"),
        (
            "hf:no-such-data-set-at-all",
            "can't be loaded: there is no file or folder 'no-such-data-set-at-all' here, and",
        ),
    ):
        with pytest.raises(InputError, match=sentence) as caught:
            texts(find_sources([spec]))
        assert "\n" not in str(caught.value)


def test_hf_row_that_breaks_while_streaming(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    write(tmp_path / "data" / "train.jsonl", '{"text": "x"}\n{"text": \n')
    with pytest.raises(InputError, match=r"can't be (read after row|loaded)"):
        texts(find_sources([f"hf:{tmp_path / 'data'}"]))
