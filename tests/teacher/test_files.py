"""Files of ours are whole or not there, their errors say what to do, and a folder has one run at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from corpus_teacher import files
from corpus_teacher.errors import FolderInUseError, OutputError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"ä": [1, None]})
    files.write_text(tmp_path / "b.txt", "ä\n")
    evidence = np.zeros(3, np.dtype([("verdict", np.uint8), ("nats", np.float32)]))
    for number, array in enumerate([np.arange(6).reshape(2, 3).T, np.float32(1.5), np.empty((0, 2)), evidence]):
        files.write_array(tmp_path / f"{number}.npy", array)
        actual = np.load(tmp_path / f"{number}.npy")
        assert (actual.dtype, actual.shape) == (np.asarray(array).dtype, np.shape(array))
        assert np.array_equal(actual, array)
    assert json.loads((tmp_path / "a.json").read_text()) == {"ä": [1, None]}
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "ä\n"


def test_a_value_that_is_not_json_leaves_the_old_file(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", object())
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_what_can_not_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no/a\.json can't be written \(No such file or directory\): name a place"):
        files.write_json(tmp_path / "no" / "a.json", 1)
    with pytest.raises(OutputError, match=r"/dev/full can't be written .*No space left on device.*: free some space"):
        files.write_text("/dev/full", "a" * 100_000)


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    def make(content: str, replace: bool = False) -> None:
        with files.new_folder(tmp_path / "data", ".making-", replace=replace) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "file").write_text(content)

    def fail() -> None:
        with files.new_folder(tmp_path / "data", ".making-") as folder:
            (folder / "file").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".making-01234567").mkdir()  # what a killed run left
    make("old")
    with pytest.raises(OutputError, match="File exists"):
        make("new")
    make("newer", replace=True)
    assert (tmp_path / "data" / "inner" / "file").read_text() == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_second_run_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    script = f"""
import sys
from corpus_teacher import files
with files.held_folder({str(tmp_path / "out")!r}, "being written by a study"):
    print("held", flush=True)
    sys.stdin.read()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        expected = rf"out is in use already \(process {process.pid} on .*\): wait for its end"
        with pytest.raises(FolderInUseError, match=expected), files.held_folder(tmp_path / "out", "in use"):
            pass
        process.kill()
    with files.held_folder(tmp_path / "out", "being written"):
        assert (tmp_path / "out" / ".lock").exists()
    assert list((tmp_path / "out").iterdir()) == []
