"""Windows with their places in the streams of others: shuffled, in shards, resumed; their documents are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import corpus_index
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from corpus_teacher.data import TokenWindows
from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.mds import read_mds
from corpus_teacher.data.shards import shard_folder
from corpus_teacher.data.window_streams import stream_windows, write_window_shards
from corpus_teacher.errors import ConfigError, OutputError
from corpus_teacher.teacher import CorpusTeacher, TeacherCollator

TOKENS = np.random.default_rng(0).integers(0, 6, 400).astype(np.uint16)
STARTS = np.array([0, 40, 41, 130, 250, 400])


def windows(**options: Any) -> TokenWindows:
    return TokenWindows(TOKENS, 10, doc_starts=STARTS, **options)


def check_rows(rows: list[dict[str, Any]]) -> None:
    """Every window once, each with the text of its place."""
    assert sorted(int(row["position"]) for row in rows) == list(range(0, 400, 10))
    for row in rows:
        place = int(row["position"])
        assert np.asarray(row["input_ids"]).tolist() == TOKENS[place : place + 10].tolist()
        assert bool(row["starts_document"]) == (place in STARTS)


@pytest.mark.parametrize("num_shards", [1, 3, 1000])
def test_a_stream_keeps_places_in_any_order(num_shards: int) -> None:
    plain = stream_windows(windows(seed=1), num_shards)
    assert [row["position"] for row in plain] == [windows(seed=1)[k]["position"] for k in range(40)]
    shuffled = list(plain.shuffle(seed=5, buffer_size=16))
    check_rows(shuffled)
    assert [row["position"] for row in shuffled] != [row["position"] for row in plain]
    assert plain.num_shards == min(num_shards, 40)


def test_a_stream_of_no_shards() -> None:
    with pytest.raises(ConfigError, match="num_shards is 0: give at least 1"):
        stream_windows(windows(), 0)


def test_shards_keep_places(tmp_path: Path) -> None:
    folder = write_window_shards(windows(seed=1), tmp_path / "shards", shard_bytes=1000)
    found = shard_folder(folder)
    assert found is not None
    assert len(found.paths) > 3
    rows = [row for path in found.paths for _, row in read_mds(path, None, ReadLog())]
    check_rows(rows)
    assert [row["position"] for row in rows] == [windows(seed=1)[k]["position"] for k in range(40)]
    index = json.loads((folder / "index.json").read_text())
    assert sum(one["samples"] for one in index["shards"]) == 40
    assert all((folder / one["raw_data"]["basename"]).stat().st_size == one["raw_data"]["bytes"]
               for one in index["shards"])  # fmt: skip
    with pytest.raises(OutputError, match="shards isn't empty: name a new folder"):
        write_window_shards(windows(), folder)
    with pytest.raises(OutputError, match=r"s3://bucket/a is a URL"):
        write_window_shards(windows(), "s3://bucket/a")


def test_mosaicml_itself_reads_the_shards(tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming", reason="mosaicml-streaming isn't installed", exc_type=ImportError)
    write_window_shards(windows(), tmp_path / "shards")
    check_rows(list(streaming.StreamingDataset(local=str(tmp_path / "shards"), shuffle=True, batch_size=4)))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> CorpusTeacher:
    path = tmp_path_factory.mktemp("streams") / "index"
    corpus_index.build_index(TOKENS, path, doc_starts=STARTS, vocab_size=6, progress=False).close()
    return CorpusTeacher(path, leave_out="document", max_order=4)


def check_targets(batches: list[dict[str, Any]], places: list[list[int]], teacher: CorpusTeacher) -> None:
    """Targets are those of the same rows asked with their places, and not those without."""
    other = 0
    for batch, positions in zip(batches, places, strict=True):
        starts = np.isin(positions, STARTS)
        expected = teacher(batch["input_ids"], positions=np.array(positions), starts_document=starts)
        torch.testing.assert_close(batch["soft_targets"].dense(), expected.dense(), rtol=0, atol=0)
        nothing = CorpusTeacher(teacher.index, leave_out=None, max_order=4)(batch["input_ids"], starts_document=starts)
        other += not torch.equal(nothing.dense(), expected.dense())
    assert other == len(batches)


def test_documents_are_left_out_of_a_shuffled_stream(teacher: CorpusTeacher) -> None:
    stream = stream_windows(windows(seed=1), 4).shuffle(seed=5, buffer_size=16)
    rows = list(stream)
    batches = list(DataLoader(stream, batch_size=8, collate_fn=TeacherCollator(teacher)))
    places = [[row["position"] for row in rows[k : k + 8]] for k in range(0, 40, 8)]
    check_targets(batches, places, teacher)


def test_documents_are_left_out_of_shards(teacher: CorpusTeacher, tmp_path: Path) -> None:
    folder = write_window_shards(windows(), tmp_path / "shards")
    rows = [row for _, row in read_mds(folder / "shard.00000.mds", None, ReadLog())]
    order = np.random.default_rng(0).permutation(40).tolist()
    batches = [TeacherCollator(teacher)([rows[one] for one in order[k : k + 8]]) for k in range(0, 40, 8)]
    check_targets(batches, [[rows[one]["position"] for one in order[k : k + 8]] for k in range(0, 40, 8)], teacher)


@pytest.mark.filterwarnings("ignore:.*set_vital")
@pytest.mark.parametrize("make", [lambda: windows(seed=1), lambda: stream_windows(windows(seed=1), 4)])
def test_a_stateful_loader_goes_on_where_it_was(teacher: CorpusTeacher, make: Any) -> None:
    loading = pytest.importorskip("torchdata.stateful_dataloader", exc_type=ImportError)

    def loader() -> Any:
        return loading.StatefulDataLoader(make(), batch_size=8, collate_fn=TeacherCollator(teacher))

    first = loader()
    running = iter(first)
    begun = [next(running), next(running)]
    state = first.state_dict()
    rest = list(running)
    again = loader()
    again.load_state_dict(state)
    resumed = list(again)
    assert len(resumed) == len(rest) == 3
    for one, other in zip(resumed, rest, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"])
        assert torch.equal(one["soft_targets"].dense(), other["soft_targets"].dense())
    places = [[windows(seed=1)[k]["position"] for k in range(begin, begin + 8)] for begin in range(0, 40, 8)]
    check_targets([*begun, *resumed], places, teacher)
