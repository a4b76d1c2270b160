"""Kills, the means: a command in a forked process, killed before a call that changes files, or after some time.

The kill is SIGKILL: no handler runs, no `finally`, no buffer is written. Calls are seen by an audit hook of Python;
files that libraries write underneath (safetensors, torch) are hit by kills at random times only.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

EVENTS = {
    "fcntl.flock",
    "os.chmod",
    "os.fsync",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
}
"""Beside opening a file to write: the events of calls that change files."""

FAILED = 98
"""The exit code of a child that ended in an exception."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Plan(NamedTuple):
    """When to kill: before the n-th call that changes files (from 0), or after some seconds; never, where both lack."""

    call: int | None = None
    after_s: float | None = None

    def __str__(self) -> str:
        if self.call is not None:
            return f"before call {self.call}"
        return "never" if self.after_s is None else f"after {self.after_s:.3f} s"


class Ended(NamedTuple):
    """How a child ended: its exit code, minus the signal where one ended it; and how long it ran."""

    code: int
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL


def at_calls(seen: Callable[[int], None]) -> None:
    """Call seen(n) before the n-th call of this process, not of its children, that changes files, from now on."""
    number, fsync, own = [0], os.fsync, os.getpid()

    def hook(event: str, details: tuple[object, ...]) -> None:
        if os.getpid() != own:
            return
        if event == "open":
            flags = details[2]
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        elif event not in EVENTS:
            return
        seen(number[0])
        number[0] += 1

    def audited(descriptor: int) -> None:
        sys.audit("os.fsync", descriptor)
        fsync(descriptor)

    os.fsync = audited
    sys.addaudithook(hook)


def kill_at(call: int) -> None:
    """Kill this process before its n-th call that changes files."""

    def seen(number: int) -> None:
        if number == call:
            os.kill(os.getpid(), signal.SIGKILL)

    at_calls(seen)


def loaded_here() -> bytes:
    """Which modules this process has imported, and which kernels it has run, for `load` in another one."""
    kernels = []
    for name, module in list(sys.modules.items()):
        if name.startswith("corpus_index._kernels."):
            for attribute, value in list(vars(module).items()):
                if getattr(value, "__module__", None) == name and hasattr(value, "overloads"):
                    kernels += [(name, attribute, signature) for signature in value.overloads]
    return pickle.dumps((list(sys.modules), kernels))


def load(told: bytes) -> None:
    """Import and read from the cache of kernels what another process had; starts no thread, runs no kernel."""
    modules, kernels = pickle.loads(told)
    for name in modules:
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(Exception):  # such as are made, not imported
                importlib.import_module(name)
    for name, attribute, signature in kernels:
        kernel = getattr(importlib.import_module(name), attribute)
        if kernel.is_cached(signature):
            kernel.compile(signature)


def run_killed(work: Callable[[], object], plan: Plan, *, log: Path, limit_s: float = 300.0) -> Ended:
    """Run work in a forked child, and kill it as planned; what it says goes to the file log.

    Work may end in SystemExit, as commands do. What runs beyond limit_s ends by SIGALRM.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        _in_child(work, plan, log, limit_s)
    while plan.after_s is not None:
        found, status = os.waitpid(child, os.WNOHANG)
        spent = time.monotonic() - begin
        if found:
            return _ended(child, status, spent)
        if spent >= plan.after_s:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(min(0.002, plan.after_s - spent))
    _, status = os.waitpid(child, 0)
    return _ended(child, status, time.monotonic() - begin)


def _ended(child: int, status: int, seconds: float) -> Ended:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started and didn't end
    return Ended(os.waitstatus_to_exitcode(status), seconds)


def _in_child(work: Callable[[], object], plan: Plan, log: Path, limit_s: float) -> None:
    code = FAILED
    try:
        os.setpgid(0, 0)  # a group to be killed as one
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        if plan.call is not None:
            kill_at(plan.call)
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
