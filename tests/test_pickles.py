"""No pickle is loaded from a file: no module asks for one, and opening an index loads none."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import corpus_index
import numpy as np
from corpus_index import build_index

import corpus_teacher

_LOADERS = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def _complaints(source: str) -> Iterator[str]:
    """What in a module loads pickles, or might."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in _LOADERS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _LOADERS:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            options = {word.arg: word.value for word in node.keywords}
            if isinstance(options.get("allow_pickle"), ast.Constant) and options["allow_pickle"].value:
                yield "allow_pickle"
            if ast.unparse(node.func) == "torch.load" and ast.unparse(options.get("weights_only", node)) != "True":
                yield "torch.load without weights_only=True"


def test_the_check_can_fail() -> None:
    assert list(_complaints("import pickle")) == ["pickle"]
    assert list(_complaints("np.load(x, allow_pickle=True)")) == ["allow_pickle"]
    assert list(_complaints("torch.load(x)")) == ["torch.load without weights_only=True"]
    assert list(_complaints("np.load(x, allow_pickle=False); torch.load(x, weights_only=True)")) == []


def test_no_module_loads_pickles() -> None:
    found = {}
    for package in (corpus_index, corpus_teacher):
        for file in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            complaints = list(_complaints(file.read_text(encoding="utf-8")))
            if file.name == "warming.py":  # warm_up tells its own child processes, through a pipe, what to compile
                complaints.remove("pickle")
            if complaints:
                found[file.name] = complaints
    assert found == {}


def test_opening_an_index_unpickles_nothing(tmp_path: Path) -> None:
    build_index(np.array([1, 2, 1]), tmp_path / "index", attachments={"note.txt": b"hello"}).close()
    script = f"""
import sys
import corpus_index
events = []
sys.addaudithook(lambda event, arguments: events.append(event))
with corpus_index.CorpusIndex.open({str(tmp_path / "index")!r}, check="always") as index:
    assert index.tokens.tolist() == [1, 2, 1] and index.attachment("note.txt") == b"hello"
assert "open" in events and not [event for event in events if "pickle" in event], events
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
