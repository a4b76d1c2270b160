"""Kills on a Ray cluster: of the process that asks or builds, and of an actor that holds a shard.

The cluster is one of this machine, in processes of its own, begun at the first case and ended with this process. Where
the driver is killed, the means are those of the other commands (`kills`): it is forked, connects, and is killed; the
next one must find an index that is the old or the new, answers that are right, and none of the dead one's actors.
Where an actor is killed, the driver goes on: its answers must be those of the same shards opened here; an error of ours
is counted as refused, and the next answer must be right. Workers that build are killed by a test alone
(tests/teacher/distributed/test_ray.py).
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index import CorpusIndexError

from bench.trust import flips, load
from bench.trust.kill_cases import UNFINISHED, Case, build, done, freeze_clocks, index_state, tree, write_texts
from bench.trust.killing import Plan, run_killed

_ACTOR = "ray::ShardActor"
_GONE_S = 30.0  # in which the actors of a dead driver have to end
_TURN_S = 120  # for an answer, or a build
_LIMIT_S = 7_200.0  # for a campaign


def has_ray() -> bool:
    """Whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


# the cluster


_HEAD = """
import os, sys, time
from ray.cluster_utils import Cluster
for tries in range(5):  # a busy machine doesn't start a node in the 30 s that Ray waits
    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        break
    except Exception:
        if tries == 4:
            raise
print(cluster.address, flush=True)
while os.getppid() == int(sys.argv[1]):
    time.sleep(0.5)
"""


class Cluster:
    """A cluster of this machine, which ends with this process; `address` is that of its head."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="rays-")
        os.environ["HOME"] = self._home.name  # where a token of the cluster is kept
        path = os.pathsep.join(filter(None, sys.path))
        self._head = subprocess.Popen(
            [sys.executable, "-c", _HEAD, str(os.getpid())],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._head.stdout is not None
        self.address = self._head.stdout.readline().strip()
        assert self.address, "the Ray cluster doesn't start"
        self._process = os.getpid()
        atexit.register(self.close)

    def close(self) -> None:
        """End all its processes."""
        if os.getpid() != self._process or self._head.poll() is not None:
            return
        left = self.processes()
        self._head.kill()
        self._head.communicate()
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._home.cleanup()

    def processes(self) -> dict[int, str]:
        """Its processes and what they are called."""
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:  # it ended meanwhile
                    continue
        found, waiting = {}, [self._head.pid]
        while waiting:
            one = waiting.pop()
            more = [process for process, parent in parents.items() if parent == one]
            waiting += more
            for process in more:
                try:
                    found[process] = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
        return found

    def called(self, title: str) -> list[int]:
        """Its processes of such a name."""
        return [process for process, found in self.processes().items() if found.startswith(title)]


@cache
def cluster() -> Cluster:
    """The one of this process."""
    return Cluster()


def _warm() -> None:
    for module in ("ray", "corpus_teacher.cli.main", "corpus_teacher.distributed.ray_host", "corpus_index.verify"):
        importlib.import_module(module)
    freeze_clocks()
    cluster()


# the driver is killed


def _shards(folder: Path) -> None:
    """An index in two shards."""
    tokens = flips.small_corpus(0, wide=False)
    np.save(folder / "tokens.npy", tokens["tokens"])
    done(
        "index", "build", "tokens.npy", "--out", "index", "--vocab-size", "1000", "--end-of-document", "0",
        "--shard-tokens", "10000", "--workers", "1",
    )  # fmt: skip


def _told(index: Any) -> list[str]:
    """A line for each question."""
    return [f"{name} {_hash(question())}" for name, question in load.questions(index)]


def _hash(answer: Any) -> str:
    return hashlib.sha256(repr(flips.plain(answer)).encode()).hexdigest()


def _ask(folder: Path) -> None:
    """Ask actors, a line for each answer; the last one is how many actors there are when those of others have ended."""
    from corpus_teacher.distributed import RayIndex

    (folder / "answers").unlink(missing_ok=True)
    answers = os.open(folder / "answers", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with RayIndex(folder / "index", address=cluster().address) as index:
        for name, question in load.questions(index):
            os.write(answers, f"{name} {_hash(question())}\n".encode())
        until = time.monotonic() + _GONE_S
        while len(cluster().called(_ACTOR)) > len(index.shards) and time.monotonic() < until:
            time.sleep(0.05)
        os.write(answers, f"actors {len(cluster().called(_ACTOR))}\n".encode())


def _answers_state(folder: Path) -> str:
    """A hash of the index and of all answers; UNFINISHED where some are missing, if those that are there are right."""
    from corpus_index import open_index

    with open_index(folder / "index", check="always") as index:
        expected = [*_told(index), f"actors {len(index.shards)}"]
    path = folder / "answers"
    given = path.read_text().splitlines() if path.exists() else []
    if given != expected[: len(given)]:
        return f"wrong: {given}"
    return UNFINISHED if len(given) < len(expected) else tree(folder)


# another process is killed, and the driver goes on


class Kills:
    """As `kills.Campaign`, but `operate` goes on while an actor is killed, and its answer is compared.

    It runs again and again in one child, which is connected. `killed` are those that hit; `resumed` the answers after
    these; one that is an error of ours, in a sentence, is no answer: the next one has to be.
    """

    def __init__(self, case: Case, place: Path, seed: int = 0) -> None:
        self.case = case
        self.folder, self.log, self.told = place / "work", place / "log", place / "told"
        self.random = random.Random(f"{seed} {case.name}")
        self.counts = dict.fromkeys(("killed", "lost", "wrong", "resumed", "bit_equal", "left"), 0)
        self.faults: list[str] = []

    def run(self, kills: int, seconds: float = float("inf")) -> dict[str, Any]:
        """Kill that often, or as often as it goes in some seconds; what was counted."""
        self.folder.mkdir()

        def work() -> None:
            os.chdir(self.folder)
            self.told.write_text(json.dumps(self._count(kills, seconds)))

        ended = run_killed(work, Plan(), log=self.log, limit_s=_LIMIT_S)
        assert ended.code == 0, f"{self.case.name}: exit {ended.code}: {self.log.read_text()[-2000:]}"
        return dict(json.loads(self.told.read_text()))

    def _count(self, kills: int, seconds: float) -> dict[str, Any]:
        self.case.prepare(self.folder)
        right = self.case.state(self.folder)
        self._turn()  # starts workers
        begin = time.monotonic()
        answer = self._turn()
        assert answer == right, f"{self.case.name}: nothing was killed, and the answer is {answer}"
        took, names = time.monotonic() - begin, set(os.listdir(self.folder))
        while self.counts["killed"] < kills and time.monotonic() - begin < seconds:
            self._kill(right, self.random.uniform(0, took))
        left = sorted(set(os.listdir(self.folder)) - names)
        self.counts["left"] += bool(left)
        self.faults += [f"left: {name}" for name in left]
        return {**self.counts, "calls": 0, "seconds": round(took, 2), "faults": self.faults[:20]}

    def _kill(self, right: str, after_s: float) -> None:
        hit, over = list[int](), threading.Event()

        def kill() -> None:
            over.wait(after_s)
            while not hit and not over.is_set():
                found = cluster().called(_ACTOR)
                if found:
                    hit.append(self.random.choice(found))
                    os.kill(hit[0], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        found = self._turn()
        over.set()
        killer.join()
        self.counts["killed"] += len(hit)
        if found.startswith("refused: "):
            self.faults.append(found)
            found = self._turn()
        else:
            self.counts["resumed"] += len(hit)
            self.counts["bit_equal"] += len(hit) * (found == right)
        if found != right:
            self.counts["lost" if found.startswith(("lost: ", "refused: ")) else "wrong"] += 1
            self.faults.append(found[:300] if found.startswith("lost: ") else f"wrong: {found[:300]}")

    def _turn(self) -> str:
        """What is answered; "refused: …" where that is one sentence of ours, "lost: …" where it is something else."""
        signal.signal(signal.SIGUSR1, _late)
        late = threading.Timer(_TURN_S, os.kill, (os.getpid(), signal.SIGUSR1))
        late.start()
        try:
            return str(self.case.operate(self.folder))
        except CorpusIndexError as error:
            return f"refused: {error}"
        except Exception as error:
            return f"lost: {type(error).__name__}: {error}"
        finally:
            late.cancel()


def _late(number: int, frame: object) -> None:
    raise TimeoutError(f"no answer in {_TURN_S} s")


@cache
def _actors(folder: Path) -> Any:
    from corpus_teacher.distributed import RayIndex

    return RayIndex(folder / "index", address=cluster().address)


def _right_answers(folder: Path) -> str:
    from corpus_index import open_index

    with open_index(folder / "index", check="always") as index:
        return _hash(_told(index))


RAYS = (
    Case(
        "index build --ray",
        write_texts,
        lambda folder: build(folder, "new", "--ray", cluster().address),
        index_state,
        warm=_warm,
        again=False,
    ),
    Case("RayIndex", _shards, _ask, _answers_state, warm=_warm),
    Case(
        "RayIndex, an actor",
        _shards,
        lambda folder: _hash(_told(_actors(folder))),
        _right_answers,
        warm=_warm,
        campaign=Kills,
    ),
)
