"""Compiled kernels: kept between processes, compiled anew when a helper in another file changes, and only once.

Most of this runs in processes of their own, on a package of two kernels with a copy of the decorator.
"""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import corpus_index._kernels.jit as jit
import corpus_index._kernels.rows as rows_module
import numpy as np
import pytest
from corpus_index import build_index, compiling_s, working_s
from corpus_index._kernels import cache_folder, walk
from corpus_index._kernels.cache_folder import _sources, read_by
from corpus_index._kernels.front_end import Flags, shortcuts
from numba.core import errors, types
from numba.core.base import BaseContext
from numba.core.compiler_lock import global_compiler_lock
from numba.core.imputils import builtin_registry
from numba.core.targetconfig import ConfigStack
from numba.core.types.functions import BaseFunction

pytestmark = pytest.mark.slow

_CALLER = """
from kernels.helper import answer
from kernels.jit import kernel


@kernel()
def ask(x):
    return answer(x)


@kernel()
def ask_twice():
    return answer(1) + answer(2)


@kernel(work=lambda x: 2_000)
def ask_little(x):
    return answer(x)
"""
_HELPER = """
from kernels.jit import kernel


@kernel()
def answer(x):
    return x + {added}
"""


def _package(folder: Path) -> Path:
    """A package of two kernels with a copy of the decorator."""
    package = folder / "kernels"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("jit.py", "cache_folder.py", "front_end.py"):
        text = (Path(jit.__file__).parent / name).read_text()
        (package / name).write_text(text.replace("corpus_index._kernels.", "kernels."))
    (package / "caller.py").write_text(_CALLER)
    (package / "helper.py").write_text(_HELPER.format(added=1))
    return package


def _run(folder: Path) -> tuple[int, int]:
    """What a fresh process answers, and how many of its two kernels' machine code came from the cache."""
    code = (
        "from kernels.caller import ask, answer; print(ask(0));"
        "print(sum(len(f.stats.cache_hits) for f in (ask, answer)))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    answer, hits = done.stdout.split()
    return int(answer), int(hits)


def test_the_cache_sees_an_edit_in_a_helpers_file(tmp_path: Path) -> None:
    package = _package(tmp_path)
    assert _run(tmp_path) == (1, 0)
    assert _run(tmp_path) == (1, 1)
    (package / "helper.py").write_text(_HELPER.format(added=2))
    assert _run(tmp_path) == (2, 0)
    (package / "other.py").write_text(_HELPER.format(added=3))  # which the caller doesn't read
    assert _run(tmp_path) == (2, 1)
    (package / "helper.py").write_text("from kernels.other import answer\n")
    assert _run(tmp_path)[0] == 3


@pytest.mark.parametrize("module", sorted(_sources()))
def test_what_a_kernel_calls_is_read_by_its_module(module: str) -> None:
    imported = importlib.import_module(f"{cache_folder.__package__}.{module}")
    reached = read_by(module)
    for value in vars(imported).values():
        if hasattr(value, "py_func") and value.py_func.__module__ == imported.__name__:
            called = (value.py_func.__globals__.get(name) for name in value.py_func.__code__.co_names)
            others = {one.py_func.__module__.rpartition(".")[2] for one in called if hasattr(one, "py_func")}
            assert others <= reached
    for node in ast.walk(ast.parse(Path(str(imported.__file__)).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(cache_folder.__package__):
            assert str(node.module).rpartition(".")[2] in reached


def test_every_kernel_is_compiled_so() -> None:
    files = Path(jit.__file__).parent.glob("*.py")
    assert [file.name for file in files if "njit" in file.read_text()] == ["jit.py"]


def _start(folder: Path, code: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**inherited, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _said(folder: Path, code: str, **environment: str) -> tuple[str, str]:
    """What a fresh process prints, on stdout and on stderr."""
    process = _start(folder, code, **environment)
    out, error = process.communicate()
    assert process.returncode == 0, error
    return out, error


def test_a_helper_has_one_specialisation_for_all_literals_and_is_a_kernel_where_python_asks(tmp_path: Path) -> None:
    _package(tmp_path)
    code = (
        "from kernels.caller import answer, ask_twice; print(ask_twice(), len(answer.signatures));"
        "print(answer(5), len(answer.signatures), ask_twice())"
    )
    for _ in range(2):  # compiled, and from the cache
        out, _ = _said(tmp_path, code, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
        assert out.split()[0::2] == ["5", "6", "5"]
        assert out.split()[3] == "1"


def test_little_work_is_interpreted_at_first(tmp_path: Path) -> None:
    _package(tmp_path)
    code = "from kernels.caller import ask_little as f; print([(f(x), len(f.signatures)) for x in (1, 2, 3, 4)])"
    out, error = _said(tmp_path, code, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert out.strip() == "[(2, 0), (3, 0), (4, 1), (5, 1)]"
    assert error.count("Compiling kernels") == 1
    out, error = _said(tmp_path, code, NUMBA_CACHE_DIR=str(tmp_path / "cache"))  # there is no need to any more
    assert out.strip() == "[(2, 1), (3, 1), (4, 1), (5, 1)]"
    assert not error


def test_who_waits_for_the_compiler_is_told_so_once(tmp_path: Path) -> None:
    _package(tmp_path)
    code = "from kernels.caller import answer, ask; print(ask(0), ask(0.5), answer(0))"
    out, error = _said(tmp_path, code, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert out.split() == ["1", "1.5", "1"]
    assert len(error.splitlines()) == 1
    assert "Compiling kernels" in error
    assert _said(tmp_path, code, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == (out, "")


def test_of_several_processes_one_compiles(tmp_path: Path) -> None:
    _package(tmp_path)
    code = "from kernels.caller import ask; print(ask(0), len(ask.stats.cache_misses))"
    started = [_start(tmp_path, code, NUMBA_CACHE_DIR=str(tmp_path / "cache")) for _ in range(3)]
    answers = [process.communicate()[0].split() for process in started]
    assert sorted(answers) == [["1", "0"], ["1", "0"], ["1", "1"]]


def test_where_nothing_can_be_written_the_cache_is_a_temporary_folder_and_that_is_said_once(tmp_path: Path) -> None:
    """No home folder, a read-only installation: files stand where folders would be made, which stops root as well."""
    package = _package(tmp_path)
    (package / "__pycache__").touch()
    blocked = tmp_path / "a file"
    blocked.touch()
    (tmp_path / "temporary").mkdir()
    environment = {"HOME": str(blocked), "TMPDIR": str(tmp_path / "temporary"), "NUMBA_CACHE_DIR": str(blocked)}
    code = "from kernels.caller import ask, ask_twice; print(ask(0), ask_twice(), len(ask.stats.cache_hits))"
    out, error = _said(tmp_path, code, **environment)
    told = [line for line in error.splitlines() if "can be written" in line]
    assert out.split() == ["1", "5", "0"]
    assert len(told) == 1
    assert str(tmp_path / "temporary") in told[0]
    out, error = _said(tmp_path, code, **environment)
    assert out.split() == ["1", "5", "1"]
    assert "Compiling" not in error


def test_a_temporary_folder_that_others_may_write_is_not_trusted(tmp_path: Path) -> None:
    """Machine code is unpickled: whoever may write the folder could run anything."""
    package = _package(tmp_path)
    (package / "__pycache__").touch()
    blocked, temporary = tmp_path / "a file", tmp_path / "temporary"
    blocked.touch()
    shared = temporary / f"corpus-index-kernels-{os.getuid()}"
    shared.mkdir(parents=True)
    shared.chmod(0o777)
    _said(tmp_path, "from kernels.caller import ask; print(ask(0))", HOME=str(blocked), TMPDIR=str(temporary))
    assert not list(shared.iterdir())
    assert len(list(temporary.iterdir())) == 2


def test_a_kernel_interpreted_answers_as_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 5, 2_000)
    starts = np.arange(0, 2_001, 50)
    rows = np.random.default_rng(1).integers(0, 6, (3, 40))
    answers = []
    with build_index(tokens, tmp_path / "index", doc_starts=starts, vocab_size=6) as index:
        for kernel in (walk.match_rows, walk.listed_step, rows_module.rows_of_nodes):
            answers.append([])
            for run in (kernel, jit.plain(kernel)):
                module = rows_module if kernel is rows_module.rows_of_nodes else walk
                monkeypatch.setattr(module, kernel.__name__, run)
                for order in (None, 0, 2):
                    found = index.next_tokens_batch(rows, max_order=order, starts_document=[True, False, True])
                    parts = (*found.match, found.rows, found.offsets, found.token_ids, found.counts)
                    answers[-1].append([part.tolist() for part in parts])
                    answers[-1][-1].append([index.count(row[:n]) for row in rows for n in range(6)])
            assert answers[-1][:3] == answers[-1][3:]


def test_the_clock_of_summaries_stands_still_while_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = working_s()
    monkeypatch.setattr(jit, "_compiling_s", jit._compiling_s + 1_000.0)
    assert compiling_s() >= 1_000.0
    assert -1_001.0 < working_s() - begin < -900.0


def test_one_thread_at_a_time_looks_for_what_is_cached() -> None:
    locked = []

    class Target:
        def codegen(self) -> Any:
            locked.append(global_compiler_lock.is_locked())
            return walk.match_rows.targetctx.codegen()

    walk.match_rows._cache.holds((), Target())
    assert locked == [True]


def test_what_is_cached_wants_nothing_of_the_compiler(tmp_path: Path) -> None:
    """Not its own versions of functions, which numba imports before it compiles: most of a second."""
    code = (
        "import sys; import numpy as np; from corpus_index._kernels.suffix_sort import count_symbols;"
        "counts = np.zeros(3, np.int64); count_symbols(np.array([2, 0, 2], np.uint16), counts);"
        "print(counts.tolist(), 'numba.cpython.setobj' in sys.modules)"
    )
    for compiles in (True, False):
        out, _ = _said(tmp_path, code, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
        assert out.split("] ") == ["[1, 0, 2", f"{compiles}\n"]


def test_what_is_interpreted_is_known_only_when_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread would call it without the helpers that it still lacks."""
    function_type, known_too_early = jit.FunctionType, []

    def making(*arguments: Any) -> Any:
        known_too_early.append(walk.match_rows in jit._plain)
        return function_type(*arguments)

    monkeypatch.setattr(jit, "_plain", {})
    monkeypatch.setattr(jit, "FunctionType", making)
    interpreted = jit.plain(walk.match_rows)
    assert len(known_too_early) > 1  # it has helpers
    assert not any(known_too_early)
    assert jit.plain(walk.match_rows) is interpreted
    assert not hasattr(interpreted.__globals__["_broken_match"], "py_func")


def test_numba_is_asked_once_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    looked: list[Any] = []

    def answer(function: Any, context: Any, args: Any, kws: Any) -> Any:
        asked.append((args, kws))
        if args == ("bad",):
            raise TypeError(str(args))
        return len(asked)

    monkeypatch.setattr(BaseFunction, "get_call_type", answer)
    monkeypatch.setattr(BaseContext, "refresh", looked.append)
    others, function = (Flags(), Flags()), object()
    others[1].nrt = True
    coloured = errors.termcolor()

    functions: Any = BaseFunction
    contexts: Any = BaseContext

    def ask(*args: Any, **kws: Any) -> Any:
        return functions.get_call_type(function, "context", args, kws)

    def fail_in_another_kernel() -> None:
        with shortcuts():
            assert ask(1) == 8  # it asks anew
            raise ZeroDivisionError

    with global_compiler_lock, shortcuts():
        assert [ask(1), ask(1), ask(2), ask(1)] == [1, 1, 2, 1]
        for flags, expected in zip(others, (1, 3), strict=True):
            with ConfigStack().enter(flags):
                assert [ask(1), ask(1)] == [expected, expected]  # as no flags, and others
        assert [ask(1, k=2), ask(1, k=2)] == [4, 5]
        for _ in range(2):  # what is refused isn't remembered
            with pytest.raises(TypeError):
                ask("bad")
        assert len(asked) == 7
        for _ in range(2):
            contexts.refresh("one")
        assert looked == ["one"]
        assert errors.termcolor().errmsg("plain") == "plain"
        assert str(errors.TypingError("no such thing")) == "no such thing"
    with global_compiler_lock, pytest.raises(ZeroDivisionError):
        fail_in_another_kernel()
    assert BaseFunction.get_call_type is answer
    assert BaseContext.refresh == looked.append
    assert errors.termcolor() is coloured


def test_what_is_registered_meanwhile_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By contexts that stand where others stood in memory, and by one that has looked before."""
    target = walk.match_rows.targetctx
    looked: list[int] = []
    with global_compiler_lock:
        with monkeypatch.context() as patch:
            patch.setattr(BaseContext, "refresh", lambda context: looked.append(id(context)))
            with shortcuts():
                for _ in range(50):
                    target.subtarget().refresh()
        assert len(looked) == 50

        def function(_: int) -> None: ...

        with shortcuts():
            target.refresh()
            builtin_registry.lower(function, types.int64)(lambda context, builder, sig, args: args[0])
            assert target.get_function(function, types.int64(types.int64)) is not None
