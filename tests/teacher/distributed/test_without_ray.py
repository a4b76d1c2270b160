"""What is said where Ray isn't installed; and what doesn't need it."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import build_index, remove_documents
from corpus_index.integrity import Check
from typer.testing import CliRunner

from corpus_teacher.cli.main import app
from corpus_teacher.data.documents import ReadLog
from corpus_teacher.distributed import RayIndex
from corpus_teacher.distributed.ray_host import ShardActor, ShardPlace, _by_preference
from corpus_teacher.distributed.ray_index import _places_of
from corpus_teacher.errors import ConfigError, IndexFormatError


class HostHere:
    """In place of `RayHost`: actors in this process, each of which pickles what it is asked and made of."""

    def __init__(self, places: list[ShardPlace], prefix: str, *, check: Check, **options: Any) -> None:
        self.actors = [ShardActor(pickle.loads(pickle.dumps(place)), check) for place in places]

    def __len__(self) -> int:
        return len(self.actors)

    def ask(self, function: Any, numbers: Any, arguments: Any) -> list[Any]:
        return [self.actors[number].ask(function, given) for number, given in zip(numbers, arguments, strict=True)]

    def close(self) -> None: ...


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("corpus_teacher.distributed.ray_index.RayHost", HostHere)
    monkeypatch.setenv("CORPUS_TEACHER_CACHE", str(tmp_path / "cache"))


TOKENS = np.random.default_rng(0).integers(1, 5, 400).astype(np.uint16)
STARTS = [0, 90, 170, 300, 400]


def put(path: Path, **options: Any) -> None:
    """Build an index, and put it behind memory://bucket/index."""
    build_index(TOKENS, path, doc_starts=STARTS, vocab_size=5, progress=False, **options).close()
    put_again(path)


def put_again(path: Path) -> None:
    system = pytest.importorskip("fsspec").filesystem("memory")
    if system.exists("/bucket"):
        system.rm("/bucket", recursive=True)
    system.put(str(path), "/bucket/index", recursive=True)


@pytest.mark.parametrize("shard_tokens", [None, 130])
def test_an_index_behind_a_url(here: None, tmp_path: Path, shard_tokens: int | None) -> None:
    put(tmp_path / "built", shard_tokens=shard_tokens)
    rows = TOKENS[:40].astype(np.int64).reshape(2, 20)
    with RayIndex("memory://bucket/index") as index, RayIndex(tmp_path / "built") as built:
        assert len(index.shards) == (1 if shard_tokens is None else 4)
        assert (index.fingerprint, index.num_documents) == (built.fingerprint, 4)
        assert index.path.parent == tmp_path / "cache" / "indexes"  # where fits are kept, as those of `open_index`
        assert index.count([1, 2]) == built.count([1, 2]) > 0
        np.testing.assert_array_equal(index.tokens[:], TOKENS)
        for actual, expected in zip(index.smoothed_targets(rows), built.smoothed_targets(rows), strict=True):
            np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))
    with RayIndex(Path("memory://bucket/index")) as index:
        assert index.num_tokens == 400


def test_an_actor_fetches_its_own_shard_once(here: None, tmp_path: Path, asked: list[str]) -> None:
    put(tmp_path / "built", shard_tokens=130)
    asked.clear()
    _, places = _places_of("memory://bucket/index/")
    assert asked == ["memory://bucket/index/manifest.json"]
    assert [place.is_here() for place in places] == [False] * 4
    asked.clear()
    assert ShardActor(places[1], "first").ask(lambda shard: shard.num_tokens, ()) == 80
    assert {name.rpartition("/")[0] for name in asked} == {places[1].path}
    assert [place.is_here() for place in places] == [False, True, False, False]
    asked.clear()
    assert ShardActor(places[1], "first").ask(lambda shard: shard.num_tokens, ()) == 80
    assert asked == []


def test_masks_and_damage_behind_a_url(here: None, tmp_path: Path) -> None:
    put(tmp_path / "built", shard_tokens=130)
    with remove_documents(tmp_path / "built", [1, 2]) as built:
        put_again(tmp_path / "built")
        with RayIndex("memory://bucket/index") as index:
            assert index.count([1, 2]) == built.count([1, 2])
            np.testing.assert_array_equal(index.tokens[:], np.asarray(built.tokens))
    [file, *_] = (tmp_path / "built").glob("shard-*/common.bin")
    file.write_bytes(b"\xff" + file.read_bytes()[1:])
    put_again(tmp_path / "built")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(IndexFormatError, match=r"memory://bucket/index/shard-.*/common\.bin doesn't have the checksum"):
        RayIndex("memory://bucket/index")
    with pytest.raises(IndexFormatError, match="there is no index at memory://bucket/other"):
        RayIndex("memory://bucket/other")


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # type: ignore[arg-type]


def test_it_is_a_sentence(without_ray: None, tmp_path: Path) -> None:
    build_index(np.array([1, 2, 1]), tmp_path / "index").close()
    with pytest.raises(ConfigError, match=r"need Ray: pip install corpus-teacher\[ray\], on every machine"):
        RayIndex(tmp_path / "index")


def test_the_commands_say_it(without_ray: None, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("a book")
    build_index(np.array([1, 2, 1]), tmp_path / "index").close()
    build = [
        "index",
        "build",
        str(tmp_path / "book.txt"),
        "--out",
        str(tmp_path / "new"),
        "-t",
        "bytes",
        "--ray",
        "local",
    ]
    for arguments in (build, ["serve", f"books=ray:{tmp_path / 'index'}", "--port", "0"]):
        if arguments[0] == "serve":
            pytest.importorskip("starlette", reason="the server isn't installed: pip install corpus-teacher[serve]")
            pytest.importorskip("uvicorn", reason="the server isn't installed: pip install corpus-teacher[serve]")
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code != 0
        assert "need Ray: pip install corpus-teacher[ray]" in f"{result.output} {result.exception}"
    assert not (tmp_path / "new").exists()


def test_the_package_costs_nothing_to_import() -> None:
    """An actor that opens a shard must not load what building needs."""
    code = (
        "import sys, corpus_teacher.distributed.ray_host;"
        "assert not {'ray', 'torch', 'transformers', 'tokenizers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=None)


def test_logs_are_joined() -> None:
    first, second = ReadLog(), ReadLog()
    for log, name in ((first, "one"), (second, "other")):
        log.notice("said once")
        for number in range(4):
            log.note(f"{name} {number}; do something", skipped=name == "one")
        log.specials["<|end|>"] += 2
        log.done += 10
    first.add(second)
    assert (first.num_skipped, first.num_replaced, first.done) == (4, 4, 20)
    assert first.examples == [*(f"one {number}; left out" for number in range(4)), "other 0; mended"]
    assert first.notices == ["said once"]
    assert first.specials == {"<|end|>": 4}


def test_a_shard_that_any_machine_can_fetch_goes_where_it_is_until_that_one_has_its_share() -> None:
    load = {"a": 5, "b": 9, "c": 4}
    assert _by_preference(["a", "b", "c"], {"b"}, load, 10.0) == ["b", "c", "a"]
    assert _by_preference(["a", "b", "c"], {"b"}, load, 9.0) == ["c", "a", "b"]
