"""A manifest that lies under an honest seal is refused in one sentence that names the field, whatever it says."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex, IndexFormatError, ShardedIndex, build_index, open_index, verify_index
from corpus_index.manifest import seal
from corpus_index.shard_manifest import format_of, likely_format_of
from hypothesis import given
from hypothesis import strategies as st

TOKENS = np.array([1, 2, 1, 2, 3, 0, 1, 0], np.uint16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    build_index(TOKENS, tmp_path / "index", end_of_document=0, attachments={"note": b"hello"}).close()
    return tmp_path / "index"


def lie(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    edit(manifest)
    manifest["fingerprint"] = seal(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def refusal(path: Path) -> str:
    """What opening and verification say, which is the same."""
    with pytest.raises(IndexFormatError) as opened:
        CorpusIndex.open(path)
    with pytest.raises(IndexFormatError) as verified:
        verify_index(path)
    assert str(opened.value) == str(verified.value)
    return str(opened.value)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("num_tokens",), "8", "wrong in 'num_tokens': '8' is not an integer in 1 .. 4,294,967,294"),
        (("num_tokens",), 9, "wrong in 'arrays.tokens.shape'"),
        (("num_tokens",), 8.0, "wrong in 'num_tokens'"),
        (("num_tokens",), True, "wrong in 'num_tokens'"),
        (("num_tokens",), 10**40, "wrong in 'num_tokens'"),
        (("num_documents",), 1, "wrong in 'num_starts': 2 is more"),
        (("num_documents",), 3, "wrong in 'arrays.doc_starts.shape'"),
        (("num_starts",), 0, "wrong in 'num_starts'"),
        (("vocab_size",), 2**31 + 1, "wrong in 'vocab_size'"),
        (("vocab_size",), 2**31, "wrong in 'num_symbols': 4 doesn't fit"),
        (("num_symbols",), 5, "wrong in 'num_symbols': 5 doesn't fit"),
        (("document_shift",), 64, "wrong in 'document_shift'"),
        (("document_shift",), -1, "wrong in 'document_shift'"),
        (("row_shift",), None, "wrong in 'row_shift'"),
        (("light",), 0, "wrong in 'light'"),
        (("deepest",), 65_535, "wrong in 'deepest'"),
        (("metadata",), [], "wrong in 'metadata'"),
        (("metadata", "end_of_document"), 4, "wrong in 'metadata.end_of_document': 4 is not a token id below 4"),
        (("metadata", "end_of_document"), False, "wrong in 'metadata.end_of_document'"),
        (("arrays",), [], "wrong in 'arrays'"),
        (("arrays", "tokens"), 1, "wrong in 'arrays.tokens'"),
        (("arrays", "tokens", "dtype"), "<u4", "wrong in 'arrays.tokens.bytes'"),
        (("arrays", "tokens", "dtype"), "<i2", "wrong in 'arrays.tokens.dtype'"),
        (("arrays", "tokens", "dtype"), "O", "wrong in 'arrays.tokens.dtype': 'O' is not the type of a number"),
        (("arrays", "tokens", "shape"), [4, 2], "wrong in 'arrays.tokens.shape'"),
        (("arrays", "tokens", "shape"), [-8], "wrong in 'arrays.tokens.shape'"),
        (("arrays", "tokens", "shape"), 8, "wrong in 'arrays.tokens.shape'"),
        (("arrays", "tokens", "bytes"), 1e3, "wrong in 'arrays.tokens.bytes'"),
        (("arrays", "tokens", "sha256"), "0", "wrong in 'arrays.tokens.sha256'"),
        (
            ("arrays", "../outside"),
            {"dtype": "<u2", "shape": [0], "bytes": 0, "sha256": "0" * 64},
            "'../outside' can't",
        ),
        (("arrays", "/etc/passwd"), {}, "'/etc/passwd' can't be the name"),
        (("attachments", "../outside"), {"bytes": 0, "sha256": "0" * 64}, "'../outside' can't be the name"),
        (("attachments", "/etc/passwd"), {"bytes": 0, "sha256": "0" * 64}, "'/etc/passwd' can't be the name"),
        (("attachments", ".."), {"bytes": 0, "sha256": "0" * 64}, "'..' can't be the name"),
        (("attachments", "manifest.json"), {"bytes": 0, "sha256": "0" * 64}, "'manifest.json' can't be the name"),
        (("attachments", "note"), {"bytes": -5, "sha256": "0" * 64}, "wrong in 'attachments.note.bytes'"),
        (("attachments", "note"), {"bytes": 6, "sha256": "0" * 64}, "note has 5 bytes instead of 6"),
        (("version",), "1", "format version 1, this program"),
        (("version",), 0, "format version 0, this program"),
    ],
)
def test_a_lie_is_named(path: Path, keys: tuple[str, ...], value: object, message: str) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        inner = manifest
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    lie(path, edit)
    assert message in refusal(path)


@pytest.mark.parametrize("name", ["tokens", "order", "near", "row_counts"])
def test_a_missing_array_is_named(path: Path, name: str) -> None:
    lie(path, lambda manifest: manifest["arrays"].pop(name))
    assert f"'{name}' is missing" in refusal(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
def test_no_lie_gets_further_than_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "lying" / "index"
    if not path.exists():
        build_index(TOKENS, path, end_of_document=0, attachments={"note": b"hello"}).close()
    kept = (path / "manifest.json").read_bytes()

    def edit(manifest: dict[str, Any]) -> None:
        inner: Any = manifest
        while True:
            key = data.draw(st.sampled_from(sorted(inner)))
            if not isinstance(inner[key], dict) or not inner[key] or data.draw(st.booleans()):
                break
            inner = inner[key]
        inner[key] = data.draw(_JSON)

    try:
        lie(path, edit)
        with suppress(IndexFormatError):
            with CorpusIndex.open(path) as index:
                index.next_tokens([1, 2])
            verify_index(path, full=True)
    finally:
        (path / "manifest.json").write_bytes(kept)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 200_000, "nested too deeply"),
        ("[" * 150 + "]" * 150, "nested more than 100 deep"),
        ('{"format": "corpus-index", "format": "corpus-index"}', "the key 'format' twice"),
        ("{", "can't be read"),
        ("\xff", "can't be read"),
        ("1" * 10_000, "can't be read"),
    ],
)
def test_json_that_is_no_manifest(path: Path, content: str, message: str) -> None:
    (path / "manifest.json").write_text(content, encoding="latin-1")
    assert message in refusal(path)


@pytest.mark.parametrize("name", ["manifest.json", "near.bin", "note"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_not_a_file_is_refused_at_once(path: Path, name: str, kind: str) -> None:
    (path / name).unlink()
    if kind == "pipe":
        os.mkfifo(path / name)
    elif kind == "device":
        (path / name).symlink_to("/dev/zero")
    else:
        (path / name).mkdir()
    assert f"{name} can't be read (it is not a regular file)" in refusal(path)


def test_arrays_of_later_versions_are_let_be(path: Path) -> None:
    (path / "names.bin").write_bytes(b"\0" * 8)
    entry = {"dtype": "<u8", "shape": [1], "bytes": 8, "sha256": hashlib.sha256(b"\0" * 8).hexdigest()}
    lie(path, lambda manifest: manifest["arrays"].update(names=entry))
    assert CorpusIndex.open(path).array("names").tolist() == [0]


def test_an_opening_parses_the_manifest_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def loads(content: bytes, **options: Any) -> Any:
        parsed.append(str(content[:40]))
        return _loads(content, **options)

    _loads = json.loads
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    build_index(np.arange(9, dtype=np.uint16), whole, vocab_size=9).close()
    build_index(np.arange(9, dtype=np.uint16), shards, doc_starts=[0, 4, 9], vocab_size=9, shard_tokens=5).close()
    monkeypatch.setattr("corpus_index.manifest.json.loads", loads)
    for path, of_shards in ((whole, 0), (shards, 2)):
        parsed.clear()
        with open_index(path) as index:
            assert isinstance(index, ShardedIndex) == bool(of_shards)
        assert len(parsed) == 1 + of_shards, parsed


def test_what_a_folder_is_is_said_anywhere_in_its_manifest(tmp_path: Path) -> None:
    build_index(np.arange(9, dtype=np.uint16), tmp_path / "it", vocab_size=9).close()
    manifest = tmp_path / "it" / "manifest.json"
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(dict(reversed(fields.items()))))
    assert likely_format_of(tmp_path / "it") == format_of(tmp_path / "it") == "corpus-index"
    open_index(tmp_path / "it").close()
    assert likely_format_of(tmp_path) is None
    manifest.write_text('{"format": "another"}')
    assert likely_format_of(tmp_path / "it") == "another"
    with pytest.raises(IndexFormatError, match="describes no corpus-index"):
        open_index(tmp_path / "it")
