"""Children of tests, forked from a process that has imported what takes ten seconds: torch, transformers, the package.

A child has its arguments, environment, outputs and session as if it had been started by itself, and runs a module as
`python -m` does, code as `python -c` does, or a file. Its parent, one for each worker of pytest, never runs anything,
so it has no threads that a fork would lose. What is about imports, a compiler's cache or a first start needs a process
of its own, and starts one.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
_READ_AT_IMPORT = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE")


class WarmChild:
    """A child with what tests use of `subprocess.Popen`; its outputs are text, in pipes."""

    def __init__(
        self,
        *arguments: Any,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        start_new_session: bool = False,
    ) -> None:
        environment = dict(os.environ if env is None else env)
        changed = [name for name in _READ_AT_IMPORT if environment.get(name) != os.environ.get(name)]
        assert not changed, f"{changed} were read when the parent imported: start a process of its own"
        begin_parent()
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
        writers = [writer for _, writer in pipes]
        self.args = [str(one) for one in arguments]
        self._process = CONTEXT.Process(
            target=_run, args=(self.args, environment, str(cwd or Path.cwd()), writers, start_new_session)
        )
        self._process.start()
        for writer in writers:
            writer.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(reader.fileno()), encoding="utf-8") for reader, _ in pipes)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code; minus its signal; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has written until it ended."""
        with ThreadPoolExecutor(2) as threads:
            texts = [threads.submit(stream.read) for stream in (self.stdout, self.stderr)]
            self._process.join(timeout)
            if self.returncode is None:
                os.kill(self.pid, 9)
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            out, errors = (text.result() for text in texts)
        self.stdout.close()
        self.stderr.close()
        return out, errors


def run_warm(*arguments: Any, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([sys.executable, *arguments], capture_output=True, text=True)`."""
    child = WarmChild(*arguments, **options)
    out, errors = child.communicate(timeout)
    return subprocess.CompletedProcess(child.args, child.returncode or 0, out, errors)


def run_ranks(count: int, *arguments: Any, **variables: str) -> list[subprocess.CompletedProcess[str]]:
    """A script as `count` processes of one training, with the variables that torchrun gives them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common = {**os.environ, "OMP_NUM_THREADS": "1", **world, **variables}
    with ThreadPoolExecutor(count) as threads:
        ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
        return list(threads.map(lambda env: run_warm(*arguments, env=env), ranks))


def begin_parent() -> None:
    """Start the parent, unless it runs: with this process's path, which it isn't told otherwise."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        CONTEXT.set_forkserver_preload(["tests.warm_parent"])
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(
    arguments: list[str], environment: dict[str, str], folder: str, outputs: list[Connection], new_session: bool
) -> None:
    if new_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, output in zip((1, 2), outputs, strict=True):
        os.dup2(output.fileno(), descriptor)
        output.close()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if threads := environment.get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))
    first, *rest = arguments
    if first in ("-m", "-c"):
        what, *rest = rest
        sys.argv = [first, *rest]
        if first == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")
