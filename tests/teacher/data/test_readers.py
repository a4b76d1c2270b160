"""Readers: what is read, to the byte, and what a user is told when it is broken."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from corpus_teacher.data import readers
from corpus_teacher.data.benchmarks import read_benchmark
from corpus_teacher.data.documents import Document, ReadLog
from corpus_teacher.data.readers import ReadOptions, read_json_lines, read_parquet, read_text
from corpus_teacher.errors import InputError

BAD = b"one\ntwo \xff three\n"


def texts(documents: object) -> list[str]:
    return [document.text for document in documents]  # type: ignore[attr-defined]


def pack(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    if suffix == ".zst":
        return zstandard.compress(data)
    return data


def lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_text_is_one_document_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    text = "one\r\ntwo\rthree\n\n €uro \U0001f600\x00end\ufeff"
    path = tmp_path / f"a.txt{suffix}"
    for mark in ("", "\ufeff"):  # a byte order mark in front is no part of the text
        path.write_bytes(pack((mark + text).encode(), suffix))
        log = ReadLog()
        assert list(read_text(path, ReadOptions(), log)) == [Document(text, str(path))]
        assert log.done == path.stat().st_size


@pytest.mark.parametrize("line", ["it ended.\n", "it ended.\r\n", "it ended. \n", "it ended\n\n", "word ", "x", "\0"])
def test_every_long_text_comes_in_bounded_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(readers, "PART_CHARS", 1000)
    monkeypatch.setattr(readers, "_BLOCK_BYTES", 300)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(line.encode() * 3000))
    parts = texts(read_text(path, ReadOptions(), ReadLog()))
    assert max(map(len, parts)) <= 1300
    assert "".join(parts) == line * 3000


@pytest.mark.parametrize("errors", ["fail", "replace", "skip"])
def test_a_byte_order_mark_of_json_lines(tmp_path: Path, errors: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n{"text": "two"}\r\n')
    log = ReadLog()
    assert texts(read_json_lines(path, ReadOptions(errors=errors), log)) == ["one", "two"]
    assert log.num_skipped == 0


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("read", [read_text, read_json_lines])
def test_another_encoding_is_named(tmp_path: Path, encoding: str, read: Any) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes((json.dumps({"text": "one day"}) + "\n").encode(encoding))
    with pytest.raises(InputError, match=rf"a\.jsonl is UTF-{encoding[4:6]}, not UTF-8"):
        list(read(path, ReadOptions(), ReadLog()))
    log = ReadLog()
    assert list(read(path, ReadOptions(errors="skip"), log)) == []
    assert log.num_skipped == 1


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_json_lines(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(b"\n" + lines("one", "", "dréi\n"), suffix))
    log = ReadLog()
    documents = list(read_json_lines(path, ReadOptions(), log))
    assert texts(documents) == ["one", "", "dréi\n"]
    assert documents[2].origin == f"{path}, line 4"
    assert log.done == path.stat().st_size


def test_long_text_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "PART_CHARS", 50)
    monkeypatch.setattr(readers, "_BLOCK_BYTES", 7)
    text = "".join(f"líne {number} €\nnext\n" for number in range(100))
    path = tmp_path / "a.txt"
    path.write_text(text, newline="")
    documents = list(read_text(path, ReadOptions(), ReadLog()))
    assert len(documents) > 10
    assert "".join(texts(documents)) == text
    assert [document.ends for document in documents] == [False] * (len(documents) - 1) + [True]


@given(data=st.binary(max_size=40), block=st.integers(1, 9))
def test_replacing_broken_bytes_does_not_depend_on_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, block: int
) -> None:
    assume(data[:2] not in (b"\xff\xfe", b"\xfe\xff") and data[:4] != b"\0\0\xfe\xff" and data.count(0) < 6)
    path = tmp_path_factory.getbasetemp() / "replaced.txt"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_BLOCK_BYTES", block)
        (document,) = read_text(path, ReadOptions(errors="replace"), log := ReadLog())
    expected = data.decode("utf-8", "replace").removeprefix("\ufeff")
    assert document.text == expected
    assert log.num_replaced == ("\ufffd" in expected and "\ufffd".encode() not in data)


def test_invalid_utf8_is_named_with_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"ok\n" * 40 + BAD)
    for block in (5, 1 << 20):
        monkeypatch.setattr(readers, "_BLOCK_BYTES", block)
        with pytest.raises(InputError, match=r"a\.txt, line 42: invalid UTF-8 \(byte 0xff.*set errors to replace"):
            list(read_text(path, ReadOptions(), ReadLog()))


def test_invalid_utf8_at_the_very_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("a\n€".encode()[:-1])
    with pytest.raises(InputError, match="line 2: invalid UTF-8"):
        list(read_text(path, ReadOptions(), ReadLog()))


def test_invalid_utf8_skipped_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(BAD)
    log = ReadLog()
    assert texts(read_text(path, ReadOptions(errors="skip"), log)) == []
    assert (log.num_skipped, log.done) == (1, len(BAD))
    assert texts(read_text(path, ReadOptions(errors="replace"), log)) == ["one\ntwo \ufffd three\n"]
    assert log.num_replaced == 1


BROKEN_LINES = {
    "not JSON": (b'{"text": "cut', "line 2 is not JSON .*set errors to skip"),
    "not an object": (b'["text"]', "line 2 holds a JSON list"),
    "no such field": (b'{"content": "x", "id": 1}', "line 2: there is no field 'text'.*'content', 'id'"),
    "null": (b'{"text": null}', "line 2: 'text' holds null"),
    "a number": (b'{"text": 3}', "line 2: 'text' holds a int"),
    "not a number": (b'{"text": NaN}', "line 2: 'text' holds a float"),
    "messages": (b'{"text": [{"role": "user", "content": "x"}]}', "'text' holds a list.*chat template"),
    "invalid UTF-8": (b'{"text": "\xe9t\xe9"}', "line 2: invalid UTF-8"),
    "half a surrogate pair": (rb'{"text": "\ud800"}', "line 2: the text holds half of a surrogate pair"),
}


@pytest.mark.parametrize("kind", BROKEN_LINES)
def test_a_broken_line_is_named_or_skipped(tmp_path: Path, kind: str) -> None:
    line, sentence = BROKEN_LINES[kind]
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines("one") + line + b"\n" + lines("two"))
    with pytest.raises(InputError, match=sentence):
        list(read_json_lines(path, ReadOptions(), ReadLog()))
    log = ReadLog()
    assert texts(read_json_lines(path, ReadOptions(errors="skip"), log)) == ["one", "two"]
    assert log.num_skipped == 1
    if kind not in ("invalid UTF-8", "half a surrogate pair"):  # these are mended
        assert texts(read_json_lines(path, ReadOptions(errors="replace"), log := ReadLog())) == ["one", "two"]
        assert (log.num_skipped, log.num_replaced) == (1, 0)


def test_fields_inside_of_fields_names_and_more(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    record = {"doc": {"body": "x", "id": 7}, "a.b": "y", "url": "u", "score": float("nan")}
    path.write_text(json.dumps(record) + "\n")
    options = ReadOptions(text_field="doc.body", name_field="doc.id", keep_fields=("url", "score"))
    (document,) = read_json_lines(path, options, ReadLog())
    assert (document.text, document.name, document.fields) == ("x", "7", {"url": "u", "score": None})
    assert texts(read_json_lines(path, ReadOptions(text_field="a.b"), ReadLog())) == ["y"]
    with pytest.raises(InputError, match=r"line 1: there is no field 'doc\.title'"):
        list(read_json_lines(path, ReadOptions(text_field="doc.title"), ReadLog()))


def test_messages_are_rendered(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "hi", "name": None}]}) + "\n")
    options = ReadOptions(text_field="messages", render=lambda messages: repr(messages))
    assert texts(read_json_lines(path, options, ReadLog())) == ["[{'role': 'user', 'content': 'hi'}]"]

    def refuse(messages: list) -> str:
        raise ValueError("roles must alternate")

    with pytest.raises(InputError, match="line 1: the chat template refuses the messages: roles must alternate"):
        list(read_json_lines(path, ReadOptions(text_field="messages", render=refuse), ReadLog()))


@pytest.mark.parametrize("kind", ["invalid UTF-8", "half a surrogate pair"])
def test_a_broken_text_is_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(BROKEN_LINES[kind][0])
    (document,) = read_json_lines(path, ReadOptions(errors="replace"), log := ReadLog())
    assert "\ufffd" in document.text
    assert document.text.encode()
    assert log.num_replaced == 1


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_archive(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    packed = pack(lines(*map(str, range(20_000))), suffix)
    path.write_bytes(packed[: len(packed) // 2] if damage == "cut" else b"no archive at all")
    with pytest.raises(InputError, match="can't be unpacked, it is damaged or cut short"):
        list(read_json_lines(path, ReadOptions(), ReadLog()))


def test_several_frames_in_one_zst(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b"".join(zstandard.compress(lines(text)) for text in ("one", "two", "three")))
    assert texts(read_json_lines(path, ReadOptions(), ReadLog())) == ["one", "two", "three"]


def test_several_members_in_one_gz(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b"".join(gzip.compress(lines(text)) for text in ("one", "two", "three")) + b"\0" * 9)
    assert texts(read_json_lines(path, ReadOptions(), ReadLog())) == ["one", "two", "three"]


def test_an_empty_zst(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.zst"
    path.write_bytes(zstandard.compress(b""))
    assert texts(read_text(path, ReadOptions(), ReadLog())) == [""]


def parquet(path: Path, columns: dict[str, object]) -> Path:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    wanted = [f"text {number} é" for number in range(1000)]
    chunked = pa.chunked_array([wanted[:300], wanted[300:300], wanted[300:]])
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        column = chunked.cast(kind)
        path = parquet(tmp_path / "a.parquet", {"id": list(range(1000)), "text": column})
        log = ReadLog()
        documents = list(read_parquet(path, ReadOptions(), log))
        assert texts(documents) == wanted
        assert documents[-1].origin.endswith("row 1000")
        assert log.done == path.stat().st_size


def test_nested_parquet(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "url": f"u{number}"} for number in range(300)]
    path = parquet(tmp_path / "a.parquet", {"doc": rows, "id": list(range(300)), "list": [["x"]] * 300})
    options = ReadOptions(text_field="doc.text", name_field="id", keep_fields=("doc.url",))
    documents = list(read_parquet(path, options, ReadLog()))
    assert texts(documents) == [row["text"] for row in rows]
    assert (documents[299].name, documents[299].fields) == ("299", {"doc.url": "u299"})
    for field, sentence in (("doc.no", "no field 'doc.no'"), ("list", "holds list<.*not text")):
        with pytest.raises(InputError, match=sentence):
            list(read_parquet(path, ReadOptions(text_field=field), ReadLog()))


def test_a_column_whose_name_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["x"], "strange": [1]})
    path.write_bytes(path.read_bytes().replace(b"strange", b"str\x93nge"))
    refused = pytest.raises(InputError, match=r"a\.parquet can't be read as Parquet.*can't decode byte 0x93")
    with refused:
        list(read_parquet(path, ReadOptions(), ReadLog()))
    with refused:
        list(read_benchmark([str(path)]))


def test_broken_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"body": ["x"], "n": [1]})
    with pytest.raises(InputError, match=r"no field 'text'; name one of: 'body', 'n'"):
        list(read_parquet(path, ReadOptions(), ReadLog()))
    with pytest.raises(InputError, match="column 'n' holds int64, not text"):
        list(read_parquet(path, ReadOptions(text_field="n"), ReadLog()))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="can't be read as Parquet"):
        list(read_parquet(path, ReadOptions(), ReadLog()))
    null = parquet(tmp_path / "b.parquet", {"text": ["x", None]})
    with pytest.raises(InputError, match="row 2: 'text' holds null"):
        list(read_parquet(null, ReadOptions(), ReadLog()))
    assert texts(read_parquet(null, ReadOptions(errors="skip"), ReadLog())) == ["x"]
