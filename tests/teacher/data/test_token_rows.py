"""Rows of token ids from all that has rows: Parquet, JSON lines, saved data sets, MDS, litdata, tar archives."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus_index
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus_teacher.data.build import BuildOptions, build_index_from_sources
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.sources import find_sources
from corpus_teacher.data.token_streams import join_ready_tokens
from corpus_teacher.data.tokens import are_ready, open_ready_sources
from corpus_teacher.errors import ConfigError, InputError
from tests.teacher.data.shard_writers import npy, write_litdata, write_mds, write_tar

ROWS = [[5, 6, 7], [8], [], [300, 9]]


def read(*specs: Path, dtype: str = "auto", vocab_size: int | None = None, **options: Any) -> list[list[int]]:
    """The documents of ready tokens."""
    inventory, said = find_sources([str(one) for one in specs]), ReadOptions(**options)
    assert are_ready(inventory, said)
    files = open_ready_sources(inventory, dtype=dtype, read=said)
    corpus, _ = join_ready_tokens(
        files, vocab_size=vocab_size, end_of_document=None, folder=Path(specs[0]).parent, notes=[]
    )
    return [part.tolist() for part in np.split(corpus.tokens, corpus.doc_starts[1:-1])]


def parquet(folder: Path, kind: Any = None, name: str = "input_ids", rows: Any = None) -> Path:
    path = folder / "a.parquet"
    column = pa.array(ROWS if rows is None else rows, kind or pa.list_(pa.int32()))
    pq.write_table(pa.table({name: column, "id": list(range(len(column)))}), path)
    return path


def json_lines(folder: Path) -> Path:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in ROWS))
    return path


def saved(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"input_ids": ROWS}).save_to_disk(folder / "saved")
    return folder / "saved"


def mds(folder: Path) -> Path:
    rows = [{"tokens": np.array(row, "<i8").tobytes()} for row in ROWS]
    write_mds(folder / "mds", {"tokens": ("bytes", None)}, [rows[:2], rows[2:]])
    return folder / "mds"


def litdata(folder: Path) -> Path:
    samples = [[np.array(row, "<i4").tobytes()] for row in ROWS]
    write_litdata(folder / "lit", ["no_header_tensor:16"], [samples[:1], samples[1:]], loader="TokensLoader")
    return folder / "lit"


def tar(folder: Path) -> Path:
    write_tar(
        folder / "a.tar", [(f"{number}.tokens.npy", npy(np.array(row, "<u2"))) for number, row in enumerate(ROWS)]
    )
    return folder / "a.tar"


def tar_of_lists(folder: Path) -> Path:
    write_tar(folder / "a.tar", [(f"{number}.json", json.dumps(row).encode()) for number, row in enumerate(ROWS)])
    return folder / "a.tar"


MAKERS = [parquet, json_lines, saved, mds, litdata, tar, tar_of_lists]


@pytest.mark.parametrize("make", MAKERS)
def test_rows_are_documents(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert read(make(tmp_path)) == ROWS


@pytest.mark.parametrize("make", MAKERS)
def test_an_index_is_built_of_them(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source, out = make(tmp_path), tmp_path / "index"
    summary = build_index_from_sources([str(source)], out, BuildOptions(vocab_size=301, end_of_document=8))
    assert (summary.num_documents, summary.num_tokens) == (4, 6)
    assert any("token ids in" in note for note in summary.notes)
    with corpus_index.open_index(out) as index:
        assert index.tokens.tolist() == [5, 6, 7, 8, 300, 9]
        assert index.document(0).name.startswith(str(source))
        assert index.document(0).name.endswith(", document 0")


@pytest.mark.parametrize("make", MAKERS)
def test_an_id_outside_of_the_vocabulary_is_named(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(InputError, match=r"token \d is 300, which is outside of the vocabulary of 300"):
        read(make(tmp_path), vocab_size=300)


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.int64()), pa.large_list(pa.uint16()), pa.list_(pa.uint32())],
)
def test_lists_of_any_integers(tmp_path: Path, kind: Any) -> None:
    assert read(parquet(tmp_path, kind)) == ROWS
    rows = [[1, 2], [3, 4]]
    assert read(parquet(tmp_path, pa.list_(pa.int16(), 2), rows=rows)) == rows


def test_many_rows_come_in_pieces(tmp_path: Path) -> None:
    rows = [list(range(number % 7)) for number in range(1000)]
    assert read(parquet(tmp_path, rows=rows)) == rows


def test_which_field_holds_them(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "input_ids": [[1], [2]], "other": [[3], [4]]}), path)
    inventory = find_sources([str(path)])
    assert not are_ready(inventory)
    assert are_ready(inventory, ReadOptions(text_field="other"))
    assert read(path, text_field="other") == [[3], [4]]
    assert read(path, text_field="input_ids") == [[1], [2]]
    assert read(parquet(tmp_path, name="token_ids")) == ROWS
    assert not are_ready(find_sources([str(parquet(tmp_path, name="numbers"))]))


@pytest.mark.parametrize(("dtype", "said"), [("<u2", "auto"), ("<u4", "auto"), ("<i8", "auto"), ("<u2", "uint16")])
def test_ids_in_bytes(tmp_path: Path, dtype: str, said: str) -> None:
    rows = [[500 + 7 * number for number in range(20)], [1, 2]]
    path = parquet(tmp_path, pa.binary(), "tokens", [np.array(row, dtype).tobytes() for row in rows])
    assert read(path, dtype=said) == rows
    with pytest.raises(InputError, match=r"row 2: 5 bytes in .* are no whole number of uint16: set the dtype"):
        read(parquet(tmp_path, pa.binary(), "tokens", [b"\1\2", b"12345"]), dtype="uint16")


def test_nulls_and_what_is_no_list(tmp_path: Path) -> None:
    path = parquet(tmp_path, rows=[[1], None, [2]])
    with pytest.raises(InputError, match=r"a\.parquet, row 2: there is null, not a list"):
        read(path)
    assert read(path, errors="skip") == [[1], [2]]
    with pytest.raises(InputError, match=r"a\.parquet, row 3: there is a null among the token ids"):
        read(parquet(tmp_path, rows=[[1], [2], [3, None]]))
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"input_ids": [1]}\n{"input_ids": [1.5]}\n{"input_ids": [2]}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: 'input_ids' holds a list, not a list of token ids"):
        read(lines)
    assert read(lines, errors="skip") == [[1], [2]]
    lines.write_text(f'{{"input_ids": [1]}}\n{{"input_ids": [{2**70}]}}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: 'input_ids' holds a number that is no token id"):
        read(lines)


def test_tokens_and_text_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("text")
    with pytest.raises(ConfigError, match=r"a\.parquet holds tokens, .*b\.txt holds text"):
        are_ready(find_sources([str(parquet(tmp_path)), str(tmp_path / "b.txt")]))
    with pytest.raises(ConfigError, match=r"doc_offsets fits a flat file of tokens; of .*a\.parquet each row"):
        open_ready_sources(find_sources([str(parquet(tmp_path))]), doc_offsets=tmp_path / "x.npy")


def test_columns_that_are_flat_arrays_in_mds(tmp_path: Path) -> None:
    rows = [{"tokens": bytes([1 << 2, len(row)]) + np.array(row, "<u4").tobytes()} for row in ([1, 2], [70_000])]
    write_mds(tmp_path / "mds", {"tokens": ("ndarray:uint32", None), "id": ("int", 8)}, [
        [{**row, "id": struct.pack("<q", 1)} for row in rows]
    ])  # fmt: skip
    assert read(tmp_path / "mds") == [[1, 2], [70_000]]
