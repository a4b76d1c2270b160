"""Caches of a neural teacher under kills, full disks, second runs, successors and lying manifests."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus_teacher.data import TokenWindows
from corpus_teacher.errors import CacheError, FolderInUseError, OutputError
from corpus_teacher.files import held_folder
from corpus_teacher.neural import CachedTeacher, NeuralTeacher, TargetFormat, caching, write_cache
from corpus_teacher.neural.shards import MANIFEST, _seal, read_manifest

from ...faults import run_faults
from ..neural_models import VOCAB, make_model

LENGTH = 8
TOKENS = np.random.default_rng(0).integers(0, VOCAB, 5 * LENGTH).astype(np.uint16)


@pytest.fixture(scope="module")
def teacher() -> NeuralTeacher:
    return NeuralTeacher(make_model(), kept=TargetFormat(k=VOCAB))


def write(teacher: NeuralTeacher, out: Path, tokens: Any = TOKENS, **options: Any) -> None:
    options.setdefault("kept", TargetFormat(k=6))
    write_cache(teacher, TokenWindows(tokens, LENGTH, shuffle=False), out, shard_tokens=2 * LENGTH, **options)


def test_a_cache_holds_whole_shards_after_any_fault_and_a_rerun_mends(tmp_path: Path) -> None:
    count = run_faults(
        tmp_path / "work",
        """
        import os
        import numpy as np, torch
        torch.set_num_threads(1)
        from corpus_teacher.neural import CachedTeacher
        from corpus_teacher.neural.formats import SparseRows
        from corpus_teacher.neural.importing import import_rows
        rng = np.random.default_rng(0)
        def rows():
            probs = torch.from_numpy(rng.dirichlet(np.ones(3), 4).astype(np.float32))
            ids = torch.arange(3).repeat(4)
            return SparseRows(torch.full((4,), 3), ids, probs.reshape(-1), torch.zeros(4))
        pairs = [(np.array([n, 1, 2, 3]), rows()) for n in range(5)]
        def prepare(folder):
            pass
        def operate(folder):
            import_rows(pairs, folder / "cache", vocab_size=9, k=3, name="x", shard_tokens=8)
        def content(folder):
            return {path.name: path.read_bytes() for path in sorted((folder / "cache").iterdir())}
        def check(folder, finished):
            if (folder / "cache" / "manifest.json").exists():
                cached = CachedTeacher(folder / "cache")
                cached.verify()
                assert cached.num_windows in ((5,) if finished else (0, 2, 4, 5))
            else:
                assert not finished
            operate(folder)
            assert CachedTeacher(folder / "cache").num_windows == 5
            found = content(folder)
            assert sorted(found) == ["manifest.json", *(f"shard-0000{n}.bin" for n in range(3))], sorted(found)
        """,
        arguments="sizes=(0, 100, 700)",
        warm=True,
    )
    assert count > 30


def test_a_run_killed_at_once_leaves_a_folder_that_is_gone_on_with(teacher: NeuralTeacher, tmp_path: Path) -> None:
    for name in (".lock", ".manifest.json.partial", "manifest.json.partial", ".shard-00000.bin.partial"):
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache" / name).write_bytes(b"half")
    write(teacher, tmp_path / "cache")
    assert sorted(os.listdir(tmp_path / "cache")) == [MANIFEST, *(f"shard-0000{n}.bin" for n in range(3))]


def test_a_head_that_a_killed_run_did_not_write_is_written(teacher: NeuralTeacher, tmp_path: Path) -> None:
    write(teacher, tmp_path / "cache", kept=TargetFormat("hidden"))
    (tmp_path / "cache" / caching.HEAD).unlink()
    write(teacher, tmp_path / "cache", kept=TargetFormat("hidden"))
    CachedTeacher(tmp_path / "cache").verify()


def test_a_second_run_is_refused(teacher: NeuralTeacher, tmp_path: Path) -> None:
    write(teacher, tmp_path / "cache")
    before = read_manifest(tmp_path / "cache")
    with held_folder(tmp_path / "cache", "being written"):
        for overwrite in (False, True):
            with pytest.raises(FolderInUseError, match=rf"cache is being written already \(process {os.getpid()}"):
                write(teacher, tmp_path / "cache", overwrite=overwrite)
    assert read_manifest(tmp_path / "cache") == before


def test_begun_anew_it_keeps_what_is_not_its_own(teacher: NeuralTeacher, tmp_path: Path) -> None:
    write(teacher, tmp_path / "cache", kept=TargetFormat("hidden"))
    (tmp_path / "cache" / "diary").write_text("words")
    write(teacher, tmp_path / "cache", TOKENS[: 2 * LENGTH], overwrite=True)
    assert sorted(os.listdir(tmp_path / "cache")) == ["diary", MANIFEST, "shard-00000.bin"]
    (tmp_path / "cache" / MANIFEST).write_text('{"format": "something else"}')
    with pytest.raises(CacheError, match="is no cache of a teacher"):
        write(teacher, tmp_path / "cache", overwrite=True)
    (tmp_path / "cache" / MANIFEST).unlink()
    with pytest.raises(OutputError, match="is not empty and holds no cache"):
        write(teacher, tmp_path / "cache")
    assert (tmp_path / "cache" / "shard-00000.bin").exists()


def test_an_open_cache_stays_the_one_that_was_opened(teacher: NeuralTeacher, tmp_path: Path) -> None:
    write(teacher, tmp_path / "cache")
    cached = CachedTeacher(tmp_path / "cache")
    rows = TOKENS.reshape(-1, LENGTH).astype(np.int64)
    expected, sent = cached(rows).dense(), pickle.dumps(cached)
    shard = (tmp_path / "cache" / "shard-00000.bin").read_bytes()
    other = NeuralTeacher(make_model(seed=1), kept=TargetFormat(k=VOCAB))
    write(other, tmp_path / "cache", overwrite=True)
    assert bool((cached(rows).dense() == expected).all())
    with pytest.raises(CacheError, match="was replaced since it was pickled"):
        pickle.loads(sent)
    (tmp_path / "cache" / "shard-00000.bin").write_bytes(shard)
    with pytest.raises(CacheError, match=r"shard-00000\.bin is another cache's"):
        CachedTeacher(tmp_path / "cache")


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda manifest: manifest["shards"][0].update(file="../out.bin"), "shards"),
        (lambda manifest: manifest["shards"][0].update(file="/etc/passwd"), "shards"),
        (lambda manifest: manifest["shards"][0].update(file=MANIFEST), "shards"),
        (lambda manifest: manifest["shards"][0].update(windows="2"), "shards"),
        (lambda manifest: manifest["shards"][0].update(windows=-1), "shards"),
        (lambda manifest: manifest["shards"][0].update(bytes=1.5), "shards"),
        (lambda manifest: manifest["shards"][0].update(cut_mass=None), "shards"),
        (lambda manifest: manifest["shards"].append(1), "shards"),
        (lambda manifest: manifest.update(shards={}), "shards"),
        (lambda manifest: manifest.update(head={"file": "../head.pt", "bytes": 1, "sha256": ""}), "head"),
        (lambda manifest: manifest.update(length=0), "length"),
        (lambda manifest: manifest.update(length=True), "length"),
        (lambda manifest: manifest.update(kept={"kind": "top-k", "k": "6"}), "kept"),
        (lambda manifest: manifest.update(kept={"kind": "top-k", "colour": 1}), "kept"),
        (lambda manifest: manifest.update(kept=None), "kept"),
        (lambda manifest: manifest["teacher"].pop("vocab_size"), "teacher"),
        (lambda manifest: manifest["teacher"].update(vocab_size=2**31 - 1), "teacher"),
        (lambda manifest: manifest.pop("hidden_size"), "hidden_size"),
    ],
)
def test_a_lie_under_an_honest_seal_is_named(
    teacher: NeuralTeacher, tmp_path: Path, edit: Callable[[dict[str, Any]], object], field: str
) -> None:
    write(teacher, tmp_path / "cache")
    manifest = json.loads((tmp_path / "cache" / MANIFEST).read_text())
    edit(manifest)
    manifest["seal"] = _seal(manifest)
    (tmp_path / "cache" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CacheError, match=f"is wrong in '{field}'"):
        CachedTeacher(tmp_path / "cache")


@pytest.mark.parametrize("name", [MANIFEST, "shard-00000.bin"])
def test_a_pipe_is_refused_at_once(teacher: NeuralTeacher, tmp_path: Path, name: str) -> None:
    write(teacher, tmp_path / "cache")
    (tmp_path / "cache" / name).unlink()
    os.mkfifo(tmp_path / "cache" / name)
    with pytest.raises(CacheError, match=r"can't be read .*not a regular file"):
        CachedTeacher(tmp_path / "cache")


def test_a_cache_without_checksums_of_heads_is_read(teacher: NeuralTeacher, tmp_path: Path) -> None:
    write(teacher, tmp_path / "cache")
    manifest = json.loads((tmp_path / "cache" / MANIFEST).read_text())
    for entry in manifest["shards"]:
        del entry["head_crc32"]
    manifest["seal"] = _seal(manifest)
    (tmp_path / "cache" / MANIFEST).write_text(json.dumps(manifest))
    assert CachedTeacher(tmp_path / "cache").num_windows == 5
