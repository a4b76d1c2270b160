"""A study's folder under kills, full disks and a second run: rows stay whole lines, leftovers go."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from corpus_teacher.errors import FolderInUseError, OutputError
from corpus_teacher.files import held_folder
from corpus_teacher.study import Study, join_studies, make_study, running, step_costs
from corpus_teacher.study.row_file import RowWriter, read_rows

from ...faults import run_faults


def study_of(folder: Path) -> Study:
    table = {
        "name": "try",
        "question": "Does it help?",
        "baseline": "hard",
        "data": {"sources": [str(folder / "texts.jsonl")], "tokenizer": "bytes", "indexes": {"train": 2000}},
        "base": {"student": {"hidden_size": 16}, "data": {"length": 16}, "training": {"max_steps": 4}},
        "arms": {"hard": {}, "corpus": {"corpus": {"index": "train", "leave_out": "document"}}},
    }
    return make_study(table)


def test_rows_are_whole_after_any_fault_and_a_rerun_goes_on(tmp_path: Path) -> None:
    count = run_faults(
        tmp_path / "work",
        """
        import os
        from corpus_teacher.study.row_file import RowWriter, read_rows
        ROWS = [{"number": number, "text": "x" * 100} for number in range(3)]
        def prepare(folder):
            pass
        def operate(folder):
            have = read_rows(folder)
            writer = RowWriter(folder)
            for row in ROWS[len(have):]:
                writer.append(row)
        def check(folder, finished):
            rows = read_rows(folder)
            assert rows == (ROWS if finished else ROWS[: len(rows)])
            operate(folder)
            assert read_rows(folder) == ROWS
            assert os.listdir(folder) == ["rows.jsonl"]
        """,
        arguments="sizes=(0, 1, 130, 131, 262, 300)",
    )
    assert count >= 6 + 12


def test_a_row_that_found_no_space_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RowWriter(tmp_path)
    writer.append({"number": 0})
    with monkeypatch.context() as patch:

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            writer.append({"number": 1})
    writer.append({"number": 2})
    assert [row["number"] for row in read_rows(tmp_path)] == [0, 2]


def test_a_data_folder_appears_whole_after_any_fault(tmp_path: Path) -> None:
    run_faults(
        tmp_path / "work",
        """
        import os
        import numpy as np
        from corpus_teacher import files
        def prepare(folder):
            pass
        def operate(folder):
            with files.held_folder(folder / "out", "being written by a study"):
                data = folder / "out" / "data"
                files.clear_leftovers(data, ".making-")
                if not (data / "abc").exists():
                    with files.new_folder(data / "abc", ".making-") as scratch:
                        files.write_array(scratch / "in.npy", np.arange(5))
                        files.write_json(scratch / "manifest.json", {"a": 1})
        def check(folder, finished):
            data = folder / "out" / "data" / "abc"
            if data.exists():
                assert sorted(os.listdir(data)) == ["in.npy", "manifest.json"]
            operate(folder)
            assert np.load(data / "in.npy").tolist() == [0, 1, 2, 3, 4]
            assert os.listdir(folder / "out") == ["data"]
            assert os.listdir(folder / "out" / "data") == ["abc"]
        """,
        arguments="sizes=(1, 100)",
    )


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    with held_folder(tmp_path / "out", "being written by a study"):
        for start in (lambda: running.run_study(study, tmp_path / "out"), lambda: step_costs(study, tmp_path / "out")):
            with pytest.raises(FolderInUseError, match="out is being written by a study already"):
                start()
        assert os.listdir(tmp_path / "out") == [".lock"]
        (tmp_path / "share").mkdir()
        (tmp_path / "share" / "study.json").write_text(json.dumps({"name": "try", "form": None}))
        with pytest.raises(FolderInUseError):
            join_studies(tmp_path / "out", [tmp_path / "share"])


def test_leftovers_of_killed_runs_go(tmp_path: Path) -> None:
    for folder in ("data/.making-0a1b2c3d", "data/.making-ab_cd123", "students/.saving-0a1b2c3d", "data/.making-mine"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text("half")
    running._begin(study_of(tmp_path), tmp_path)
    assert os.listdir(tmp_path / "data") == [".making-mine"]
    assert os.listdir(tmp_path / "students") == []
