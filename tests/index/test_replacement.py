"""A replacement is one step: nothing of others is removed, nothing is lost, and nobody reads two indexes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from corpus_index import CorpusIndex, IndexExistsError, IndexFormatError, build_index, files, verify_index

from ..faults import run_faults

OLD, NEW = np.array([1, 2, 1, 2, 3, 0, 1, 0], np.uint16), np.array([2, 2, 1, 3, 3, 0, 2, 0], np.uint16)

SCRIPT = """
import os, tempfile
from pathlib import Path
import numpy as np
from corpus_index import CorpusIndex, IndexExistsError, build_index, files
TEXTS = {"old": [1, 2, 1, 2, 3, 0, 1, 0], "new": [2, 2, 1, 3, 3, 0, 2, 0]}
def build(folder, name, overwrite=True):
    text, note = np.array(TEXTS[name], np.uint16), {"note": name.encode()}
    return build_index(text, folder / "index", attachments=note, overwrite=overwrite, workers=1)
def found(folder):
    with CorpusIndex.open(folder / "index") as index:
        name = index.attachment("note").decode()
        assert index.tokens.tolist() == TEXTS[name]
        return name
build(Path(tempfile.mkdtemp()), "old").close()  # compiles
def rerun(folder):
    build(folder, "new")
    assert found(folder) == "new"
    assert os.listdir(folder) == ["index"], os.listdir(folder)
"""


def build(path: Path, tokens: np.ndarray = OLD, note: bytes = b"old") -> CorpusIndex:
    return build_index(tokens, path, attachments={"note": note}, overwrite=True)


def test_a_first_build_is_whole_or_nothing_after_any_fault_and_a_rerun_mends(tmp_path: Path) -> None:
    count = run_faults(
        tmp_path / "work",
        SCRIPT
        + textwrap.dedent("""
        def prepare(folder):
            pass
        def operate(folder):
            build(folder, "new", overwrite=False)
        def check(folder, finished):
            assert found(folder) == "new" if (folder / "index").exists() else not finished
            rerun(folder)
        """),
        arguments="sizes=(0, 100, 3000)",
    )
    assert count > 50


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_replaced_index_is_old_or_new_after_any_fault_and_a_rerun_mends(tmp_path: Path, exchanges: bool) -> None:
    count = run_faults(
        tmp_path / "work",
        SCRIPT
        + textwrap.dedent(f"""
        if not {exchanges}:
            files._renameat2 = lambda *_: False
        def prepare(folder):
            build(folder, "old")
        def operate(folder):
            build(folder, "new")
        def check(folder, finished):
            if {exchanges}:  # nobody had to put it back
                assert found(folder) in (["new"] if finished else ["old", "new"])
            try:
                build(folder, "old", overwrite=False)
                raise AssertionError("nothing stood at the path")
            except IndexExistsError:
                assert found(folder) in (["new"] if finished else ["old", "new"])
            rerun(folder)
        """),
        arguments="sizes=(100, 3000)",
    )
    assert count > 50


def test_what_an_earlier_version_had_taken_away_is_put_back(tmp_path: Path) -> None:
    fingerprint = build(tmp_path / "index").fingerprint
    (tmp_path / ".index.old-ab_9xyz0").mkdir()
    (tmp_path / "index").rename(tmp_path / ".index.old-ab_9xyz0" / "index")
    with pytest.raises(IndexExistsError, match="exists already"):
        build_index(NEW, tmp_path / "index")
    assert CorpusIndex.open(tmp_path / "index").fingerprint == fingerprint
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.parametrize(
    "manifest",
    ["{}", '{"format": "corpus-teacher-cache", "version": 1, "shards": []}', "{", "[1]", '{"format": "corpus-index"}'],
)
def test_a_folder_that_is_not_an_index_by_its_own_word_stays(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text(manifest)
    (tmp_path / "app" / "app.js").write_text("code")
    with pytest.raises(IndexExistsError, match="app is not an index, so it is not overwritten"):
        build(tmp_path / "app")
    assert (tmp_path / "app" / "app.js").read_text() == "code"
    assert os.listdir(tmp_path) == ["app"]


@pytest.mark.parametrize("kind", ["file", "folder", "folder under a name of ours"])
def test_a_file_of_the_user_in_an_index_stays(tmp_path: Path, kind: str) -> None:
    fingerprint = build(tmp_path / "index").fingerprint
    name = "note" if kind == "folder under a name of ours" else "diary"
    if kind == "file":
        (tmp_path / "index" / name).write_text("words")
    else:
        (tmp_path / "index" / name).unlink(missing_ok=True)
        (tmp_path / "index" / name).mkdir()
    with pytest.raises(IndexExistsError, match=f"holds '{name}', which is not the index's, so it is not overwritten"):
        build(tmp_path / "index", NEW)
    assert (tmp_path / "index" / name).exists()
    if kind == "file":
        assert CorpusIndex.open(tmp_path / "index").fingerprint == fingerprint


def test_a_link_to_an_index_stays(tmp_path: Path) -> None:
    fingerprint = build(tmp_path / "index").fingerprint
    (tmp_path / "link").symlink_to("index")
    with pytest.raises(IndexExistsError, match="link is a link to index, so it is not overwritten"):
        build(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert CorpusIndex.open(tmp_path / "link").fingerprint == fingerprint


def test_an_empty_folder_and_a_damaged_index_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    build(tmp_path / "index")
    os.truncate(tmp_path / "index" / "order.bin", 3)
    (tmp_path / "index" / "near.bin").unlink()
    assert build(tmp_path / "index", NEW).tokens.tolist() == NEW.tolist()
    assert os.listdir(tmp_path) == ["index"]


def test_a_file_that_comes_while_the_index_is_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = build(tmp_path / "index").fingerprint
    exchange = files.exchange

    def late(one: Path, other: Path) -> bool:
        if not (tmp_path / "index" / "diary").exists() and not (one / "diary").exists():
            (tmp_path / "index" / "diary").write_text("words")
        return exchange(one, other)

    monkeypatch.setattr(files, "exchange", late)
    with pytest.raises(IndexExistsError, match="holds 'diary'"):
        build(tmp_path / "index", NEW)
    assert (tmp_path / "index" / "diary").read_text() == "words"
    assert CorpusIndex.open(tmp_path / "index").fingerprint == fingerprint
    assert os.listdir(tmp_path) == ["index"]


def test_the_working_folder_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "index")
    monkeypatch.chdir(tmp_path / "index")
    assert build(Path("."), NEW).tokens.tolist() == NEW.tolist()
    assert CorpusIndex.open(tmp_path / "index").tokens.tolist() == NEW.tolist()


def test_an_open_index_stays_the_one_that_was_opened(tmp_path: Path) -> None:
    with build(tmp_path / "index") as index:
        whole, sent = index.next_tokens([1]).counts.tolist(), pickle.dumps(index)
        build(tmp_path / "index", np.array([5], np.uint16), b"new").close()
        assert index.tokens.tolist() == OLD.tolist()
        assert index.attachment("note") == b"old"
        assert index.next_tokens([1]).counts.tolist() == whole
        with pytest.raises(IndexFormatError, match="was replaced since it was pickled"):
            pickle.loads(sent)
    assert CorpusIndex.open(tmp_path / "index").attachment("note") == b"new"


def test_the_tokens_are_a_map_with_a_name_and_a_stamp(tmp_path: Path) -> None:
    with build(tmp_path / "index") as index:
        tokens = index.tokens
        assert isinstance(tokens, np.memmap)
        assert (tokens.filename, tokens.offset, tokens.mode) == (tmp_path / "index" / "tokens.bin", 0, "r")
        assert tokens.stamp == files.stamp_of((tmp_path / "index" / "tokens.bin").stat())  # type: ignore[attr-defined]
        assert type(tokens[1:3]) is np.memmap
        assert not tokens.flags.writeable
        part = pickle.loads(pickle.dumps(tokens[2:4]))
    assert part.tolist() == OLD[2:4].tolist()
    assert tokens.tolist() == OLD.tolist()  # the map outlives the index


@pytest.mark.parametrize("exchanges", [True, False])
def test_what_opens_during_replacements_is_one_index(tmp_path: Path, exchanges: bool) -> None:
    script = f"""
        import sys
        from pathlib import Path
        import numpy as np
        from corpus_index import build_index, files
        if not {exchanges}:
            files._renameat2 = lambda *_: False
        path, texts = Path({str(tmp_path / "index")!r}), {[OLD.tolist(), NEW.tolist()]}
        for number in range(10**6):
            text = np.array(texts[number % 2], np.uint16)
            build_index(text, path, attachments={{"note": bytes(texts[number % 2])}}, overwrite=True, workers=1).close()
            if number == 0:
                print("begun", flush=True)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    seen = set()
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            for _ in range(300):
                with CorpusIndex.open(tmp_path / "index") as index:
                    text = index.tokens.tolist()
                    assert index.attachment("note") == bytes(text)
                    assert index.array("next_tokens").tolist() == [text[p] for p in index.array("order").tolist()]
                    seen.add(index.fingerprint)
        finally:
            process.kill()
    assert len(seen) == 2


def test_two_builds_into_one_folder(tmp_path: Path) -> None:
    script = f"""
        import sys
        from pathlib import Path
        import numpy as np
        from corpus_index import IndexExistsError, build_index
        sys.stdin.read()
        try:
            build_index(np.arange(3000) % 7, Path({str(tmp_path / "index")!r}), overwrite=sys.argv[1] == "overwrite")
        except IndexExistsError:
            print("exists")
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    for overwrite in ("", "overwrite"):
        both = [
            subprocess.Popen([*command, overwrite], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            for _ in range(2)
        ]
        for process in both:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        said = [process.communicate()[0] for process in both]
        assert [process.returncode for process in both] == [0, 0]
        assert said.count(b"exists\n") == (0 if overwrite else 1)
        assert os.listdir(tmp_path) == ["index"]
        verify_index(tmp_path / "index", full=True)


def test_a_system_without_locks_and_descriptors_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "_renameat2", lambda *_: False)
    monkeypatch.setattr("corpus_index.store._HAS_FOLDERS", False)
    build(tmp_path / "index").close()
    with build(tmp_path / "index", NEW, b"new") as index:
        assert (index.tokens.tolist(), index.attachment("note")) == (NEW.tolist(), b"new")
    verify_index(tmp_path / "index")
    (tmp_path / "index" / "near.bin").unlink()
    with pytest.raises(IndexFormatError, match=r"near\.bin is missing"):
        CorpusIndex.open(tmp_path / "index")
    with pytest.raises(IndexFormatError, match=r"it has no manifest\.json"):
        CorpusIndex.open(tmp_path)
    with pytest.raises(IndexFormatError, match="there is no index"):
        CorpusIndex.open(tmp_path / "none")
    with pytest.raises(OSError, match="not supported"):
        files.lock_file(tmp_path / "lock")
    assert os.listdir(tmp_path) == ["index"]
