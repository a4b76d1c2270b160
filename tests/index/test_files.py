"""Files and folders appear whole or not at all, whatever kills or fills; locks end with their process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpus_index import files

from ..faults import run_faults

OLD, NEW = b"old " * 1000, b"new " * 1500


def test_a_file_is_old_or_new_after_any_fault_and_a_rerun_mends(tmp_path: Path) -> None:
    count = run_faults(
        tmp_path / "work",
        f"""
        import os
        from corpus_index import files
        OLD, NEW = {OLD!r}, {NEW!r}
        def prepare(folder):
            (folder / "file").write_bytes(OLD)
        def operate(folder):
            files.write_file(folder / "file", NEW)
        def check(folder, finished):
            assert (folder / "file").read_bytes() in ((NEW,) if finished else (OLD, NEW))
            operate(folder)
            assert (folder / "file").read_bytes() == NEW
            assert os.listdir(folder) == ["file"]
        """,
        arguments="sizes=(0, 1, 4096, 5999)",
    )
    assert count >= 6 + 8


def test_a_new_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    run_faults(
        tmp_path / "work",
        f"""
        import os
        from corpus_index import files
        NEW = {NEW!r}
        def prepare(folder):
            pass
        def operate(folder):
            files.write_file(folder / "file", NEW, overwrite=False)
        def check(folder, finished):
            assert not (folder / "file").exists() or (folder / "file").read_bytes() == NEW
            try:
                operate(folder)
            except FileExistsError:
                assert (folder / "file").read_bytes() == NEW
            assert os.listdir(folder) == ["file"]
        """,
        arguments="sizes=(1, 5999)",
    )


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_old_or_new_after_any_fault_and_a_rerun_mends(tmp_path: Path, exchanges: bool) -> None:
    run_faults(
        tmp_path / "work",
        f"""
        import os
        from corpus_index import files
        if not {exchanges}:
            files._renameat2 = lambda *_: False
        def whole(folder):
            return (folder / "a").is_file() and (folder / "b").is_file()
        def make(path, content):
            files.recover(path, whole)
            with files.scratch_folder(path.parent, f".{{path.name}}.making-") as scratch:
                for name in "ab":
                    files.write_file(scratch / name, content)
                files.place_folder(scratch, path, check=lambda old: None)
        def prepare(folder):
            make(folder / "it", b"old")
        def operate(folder):
            make(folder / "it", b"new")
        def check(folder, finished):
            path = folder / "it"
            if {exchanges}:  # something stands at the path at every moment
                assert path.is_dir()
            files.recover(path, whole)
            contents = {{(path / name).read_bytes() for name in "ab"}}
            assert contents in (([{{b"new"}}] if finished else [{{b"old"}}, {{b"new"}}]))
            operate(folder)
            assert {{(path / name).read_bytes() for name in "ab"}} == {{b"new"}}
            assert os.listdir(folder) == ["it"], os.listdir(folder)
        """,
    )


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(f"fsync {os.readlink(f'/proc/self/fd/{fd}')}"), fsync(fd))[1]
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(f"rename {b}"), replace(a, b))[1])

    files.write_file(tmp_path / "file", b"content")

    assert calls == [f"fsync {tmp_path}/.file.partial", f"rename {tmp_path}/file", f"fsync {tmp_path}"]


def test_links_modes_and_devices(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "link").symlink_to("file")

    files.write_file(tmp_path / "link", NEW)

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == NEW
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    files.write_file("/dev/null", NEW)
    with pytest.raises(IsADirectoryError):
        files.write_file(tmp_path, NEW)
    with pytest.raises(FileExistsError):
        files.write_file(tmp_path / "file", NEW, overwrite=False)


def test_a_lock_ends_with_its_process_and_not_before(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from corpus_index import files
lock = files.lock_file(Path({str(tmp_path / "lock")!r}), b"holder")
print("held", flush=True)
sys.stdin.read()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert files.lock_file(tmp_path / "lock") is None
        assert (tmp_path / "lock").read_bytes() == b"holder"
        process.kill()
    lock = files.lock_file(tmp_path / "lock", b"me")
    assert lock is not None
    assert files.lock_file(tmp_path / "lock") is None
    lock.release()
    assert not (tmp_path / "lock").exists()


def test_a_living_scratch_folder_is_left_alone(tmp_path: Path) -> None:
    with files.scratch_folder(tmp_path, ".x-") as living:
        (tmp_path / ".x-0123abcd").mkdir()
        (tmp_path / ".x-0123abcd" / "part").write_bytes(b"left")
        (tmp_path / ".x-not-one-of-ours").mkdir()
        files.clear_leftovers(tmp_path, ".x-")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, ".x-not-one-of-ours"])


def test_a_rename_never_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        (tmp_path / "a").write_bytes(b"a")
        (tmp_path / "b").write_bytes(b"b")
        with pytest.raises(FileExistsError):
            files.rename_new(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == b"b"
        monkeypatch.setattr(files, "_renameat2", lambda *_: False)


def test_errors_of_the_system_come_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write_file(tmp_path / "no" / "file", b"")
    assert list(tmp_path.iterdir()) == []
