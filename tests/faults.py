"""Faults, injected: a kill before every call that changes the file system, and a disk that is full after any byte.

A test writes a small script of three functions and hands it to `run_faults`. One process imports what is needed, goes
through all once, which loads the kernels, and forks for each fault, so a fault costs milliseconds:

    prepare(folder)          makes what stands there before
    operate(folder)          what is killed, or finds the disk full
    check(folder, finished)  asserts what must hold afterwards; runs in another fork
"""

from __future__ import annotations

import gc
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path

from bench.trust.killing import at_calls
from tests.warm import run_warm

_KILLED, _FAILED = 99, 98

Prepare = Callable[[Path], None]
Check = Callable[[Path, bool], None]


def run_faults(folder: Path, script: str, *, arguments: str = "", warm: bool = False) -> int:
    """Run a script's `prepare`, `operate` and `check` under every fault; how many faults there were.

    With `warm` in a child that needn't import torch, for the scripts that do.
    """
    program = textwrap.dedent(script) + textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import faults
        print("faults:", faults.inject({str(folder)!r}, prepare, operate, check{", " + arguments if arguments else ""}))
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if warm:
        done = run_warm("-c", program, env=environment)
    else:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return int(done.stdout.rsplit("faults:", 1)[1])


def inject(
    place: str,
    prepare: Prepare,
    operate: Prepare,
    check: Check,
    *,
    kills: bool = True,
    sizes: tuple[int, ...] = (),
    step: int = 1,
) -> int:
    """All faults, one after the other; in the child of a test.

    Parameters
    ----------
    kills : bool
        Kill before each call that changes the file system; with `step` before every step-th.
    sizes : tuple of int
        Bytes after which a file can't grow: once as a kill in the midst of a write, once as a full disk.
    """
    folder, count = Path(place), 0
    os.fsync = lambda descriptor: None  # the power stays on
    made = folder.with_name(f"{folder.name}.made")
    with tempfile.TemporaryDirectory() as rehearsed:
        prepare(Path(rehearsed))
        operate(Path(rehearsed))
        check(Path(rehearsed), True)
    gc.collect()
    gc.freeze()  # or a child's collections would copy the pages of all that is here
    made.mkdir()
    assert _forked(lambda: None, lambda: prepare(made)) == 0, "the preparation failed"
    for number in itertools.count(0, step) if kills else ():
        _fresh(folder, made)
        code = _forked(lambda number=number: _kill_at(number), lambda: operate(folder))  # type: ignore[misc]
        assert code in (0, _KILLED), f"before call {number}: exit {code}"
        _checked(folder, check, code == 0, f"after a kill before call {number}")
        if code == 0:
            break
        count += 1
    for size, kill in itertools.product(sizes, (True, False)):
        _fresh(folder, made)
        code = _forked(lambda size=size, kill=kill: _limit(size, kill), lambda: operate(folder))  # type: ignore[misc]
        _checked(folder, check, code == 0, f"after {'a kill' if kill else 'a full disk'} at byte {size}")
        count += 1
    shutil.rmtree(folder)
    shutil.rmtree(made)
    return count


def _fresh(folder: Path, made: Path) -> None:
    """Put a copy of what was prepared in place of what a fault left."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, folder, symlinks=True)


def _checked(folder: Path, check: Check, finished: bool, when: str) -> None:
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert _forked(lambda: None, lambda: check(folder, finished)) == 0, f"{when}, with {left}"


def _forked(begin: Callable[[], None], work: Callable[[], None]) -> int:
    """Run in a child; its exit code, or minus its signal."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            begin()
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(_FAILED)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _kill_at(number: int) -> None:
    def seen(call: int) -> None:
        if call == number:
            os._exit(_KILLED)

    at_calls(seen)


def _limit(size: int, kill: bool) -> None:
    if kill:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
