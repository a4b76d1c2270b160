"""Hostile input to every reader, case by case, in child processes; what a case may do, and what makes it a find.

A case is read in a child process. It is *fine*, or *refused* by an exception of the project's own; anything else is a
find: an exception of another type, a crash of the interpreter (a library's abort among them), more than 10 s of CPU
time or 120 s at all, more memory than `most_memory` of the input's size, a file that is opened outside of what the
reader was given, and a module or program that is started.

The mutations are a function of the seed and the case's number. With atheris (`pip install atheris`) they follow the
coverage of the project's own Python instead.
"""

from __future__ import annotations

import faulthandler
import gc
import hashlib
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from corpus_index import CorpusIndexError

from bench.trust.choosing import draw, follow_coverage
from bench.trust.inputs import Input, Reader
from bench.trust.mutating import MOST_BYTES, mutate

HANG_S = 10
"""CPU seconds of a case."""
WAIT_S = 120
"""Seconds of a case in all: one that waits takes no CPU time."""
_ROOM_BYTES, _FACTOR = 64 << 20, 100
_ADDRESSES = 4 << 30
_CASES_PER_CHILD = 5_000
_ROOT = Path(__file__).parents[2]
_COUNTED = ("cases", "refused", "drawn", "guided")
_COUNTS = struct.Struct("<4Q")  # cases, refused, finds written, bytes of the current case


class Find(NamedTuple):
    """A case that is neither fine nor refused: what it did, where, and the case itself."""

    kind: str
    what: str
    case: bytes


@dataclass
class Outcome:
    """What became of the cases of one reader; finds are of one sort each, the first case of it."""

    reader: str
    cases: int = 0
    refused: int = 0
    drawn: int = 0
    guided: int = 0
    cpu_s: float = 0.0
    finds: dict[str, Find] = field(default_factory=dict)


def most_memory(size_bytes: int) -> int:
    """Bytes by which a process may grow that reads an input of that size."""
    return _ROOM_BYTES + _FACTOR * size_bytes


def in_memory() -> Path | None:
    """A folder whose files lie in memory; None where there is none: then the usual place for scratch."""
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK) else None


def fuzz(
    reader: Reader,
    *,
    cases: int,
    seconds: float = float("inf"),
    seed: int = 0,
    drawn: int = 0,
    guided: bool = False,
    corpus: Path | None = None,
    known: Sequence[bytes] = (),
) -> Outcome:
    """Give a reader that many cases, or as many as there is time for.

    Parameters
    ----------
    seconds : float
        Of processor time, which a busy machine doesn't take away.
    drawn : int
        Cases that hypothesis draws, besides and before the others.
    known : sequence of bytes
        Cases that come before all others: those that were once found.
    guided : bool
        Follow the coverage; the caller has imported the project under `atheris.instrument_imports`.
    corpus : Path, optional
        Where the cases that reached something new are kept, of guided runs: a folder for each reader.
    """
    corpus = None if corpus is None else corpus / reader.name
    outcome, started = Outcome(reader.name), _children_s()
    with _prepared(reader) as (folder, given):
        while outcome.cases < len(known):
            _in_child(outcome, folder, given, lambda child: [child.run(case) for case in known[outcome.cases :]])
        before = len(known)
        for way, count in (("drawn", drawn), ("guided" if guided else "plain", cases)):
            _give(outcome, folder, given, way, count, seed, started + seconds, corpus)
            made, before = outcome.cases - before, outcome.cases
            outcome.drawn += made * (way == "drawn")
            outcome.guided += made * (way == "guided")
    outcome.cpu_s = _children_s() - started
    return outcome


def _give(
    outcome: Outcome, folder: Path, given: Input, way: str, cases: int, seed: int, end: float, corpus: Path | None
) -> None:
    """That many more cases, chosen in one way, in children; none after so much processor time of all children."""
    cases += outcome.cases
    while outcome.cases < cases and _children_s() < end:
        first, count = outcome.cases, min(_CASES_PER_CHILD, cases - outcome.cases)
        left = min(end - _children_s(), 1e6)

        def work(child: _Child, first: int = first, count: int = count, left: float = left) -> None:
            if way == "drawn":
                return draw(child.run, given, seed + first, count, left)
            if way == "guided":
                return follow_coverage(child.run, given, corpus, seed + first, count, left)
            until = time.process_time() + left
            for number in range(first, first + count):
                child.run(_case(given, outcome.reader, seed, number))
                if time.process_time() > until:
                    break
            return None

        _in_child(outcome, folder, given, work)


def _children_s() -> float:
    """Processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def campaign(
    readers: Sequence[Reader],
    *,
    keep: Callable[[str, Find], object] | None = None,
    before: Mapping[str, Any] | None = None,
    told: Callable[[dict[str, Any]], object] = lambda found: None,
    **options: Any,
) -> dict[str, Any]:
    """`fuzz` of several readers with these options, printed as a table: counts, in all and by reader.

    Parameters
    ----------
    keep : callable, optional
        Takes each find, with its reader's name.
    before : mapping, optional
        What earlier campaigns found, of other seeds: it is added to.
    told : callable
        Takes all that is found so far, after each reader.
    """
    earlier = before or {"by_reader": {}, "seeds": []}
    by_reader: dict[str, dict[str, Any]] = {name: dict(one) for name, one in earlier["by_reader"].items()}
    seeds = sorted({*earlier["seeds"], options.get("seed", 0)})
    print(f"{'reader':20s}{'cases':>11s}{'refused':>11s}{'finds':>7s}{'CPU s':>8s}", flush=True)
    for reader in readers:
        made = fuzz(reader, **options)
        print(f"{reader.name:20s}{made.cases:11,d}{made.refused:11,d}{len(made.finds):7d}{made.cpu_s:8.1f}", flush=True)
        for find in made.finds.values():
            print(f"    {find.kind}: {find.what}", flush=True)
            if keep is not None:
                keep(reader.name, find)
        known = by_reader.get(reader.name, {"cases": 0, "refused": 0, "finds": []})
        finds = [f"{find.kind}: {find.what}" for find in made.finds.values()]
        by_reader[reader.name] = {
            "cases": known["cases"] + made.cases,
            "refused": known["refused"] + made.refused,
            "drawn": known.get("drawn", 0) + made.drawn,
            "guided": known.get("guided", 0) + made.guided,
            "finds": list(dict.fromkeys([*known["finds"], *finds])),
        }
        told(_summed(by_reader, seeds))
    return _summed(by_reader, seeds)


def _summed(by_reader: dict[str, dict[str, Any]], seeds: list[int]) -> dict[str, Any]:
    return {
        **{name: sum(one.get(name, 0) for one in by_reader.values()) for name in _COUNTED},
        "finds": sum(len(one["finds"]) for one in by_reader.values()),
        "seeds": seeds,
        "by_reader": by_reader,
    }


@contextmanager
def _prepared(reader: Reader) -> Iterator[tuple[Path, Input]]:
    with tempfile.TemporaryDirectory(dir=in_memory()) as place:
        folder = Path(place).resolve()
        kept, tempfile.tempdir, environment = tempfile.tempdir, str(folder), dict(os.environ)
        given = None
        try:
            given = reader.prepare(folder)
            for number, sample in enumerate(given.samples):
                try:
                    given.read(given.finish(sample))
                except CorpusIndexError:
                    if not number:  # a reader that refuses what is valid tests nothing
                        raise
            yield folder, given
        finally:
            tempfile.tempdir = kept
            if given is not None:
                given.close()
            os.environ.clear()  # or what is written later makes the folder anew
            os.environ.update(environment)


def _case(given: Input, name: str, seed: int, number: int) -> bytes:
    """Case `number`: a byte that says whether it is finished already, and the content."""
    rng = random.Random(f"{seed} {name} {number}")
    sample = rng.choice(given.samples)
    if rng.random() < 0.5:
        return b"\0" + mutate(rng, sample, given.samples, given.structure)
    return b"\1" + mutate(rng, given.finish(sample), given.samples, given.structure)


def _content(given: Input, case: bytes) -> bytes:
    return given.finish(case[1:]) if case[:1] == b"\0" else case[1:]


class _Child:
    """Runs cases in this process and writes what becomes of them into memory that the parent shares."""

    def __init__(self, shared: mmap.mmap, sender: int, given: Input, folder: Path) -> None:
        self._shared, self._sender, self._given = shared, sender, given
        self._strange: str | None = None
        self._inside = (str(folder), *_readable())
        kernels = os.environ.get("NUMBA_CACHE_DIR")
        self._ours = (str(folder),) if kernels is None else (str(folder), os.path.abspath(kernels))
        self._watching = False
        self.cases = self.refused = self.finds = 0
        sys.addaudithook(self._hear)
        self._least = _peak_bytes()

    def run(self, case: bytes) -> None:
        """One case."""
        case = case[: MOST_BYTES + 1]
        self.cases += 1
        self._shared[_COUNTS.size : _COUNTS.size + len(case)] = case
        self._write(len(case))
        kind = self._read(case)
        self.refused += kind == "refused"
        self._write(0)

    def _read(self, case: bytes) -> str:
        self._strange, before = None, _peak_bytes()
        kind, what, content = "fine", "", b""
        try:
            content = _content(self._given, case)
        except Exception:  # what can't be sealed or packed is no case
            return kind
        self._watching = True
        _arm(HANG_S, WAIT_S)
        try:
            self._given.read(content)
        except CorpusIndexError as error:
            kind = "refused"
            if not str(error).strip() or len(str(error)) > 4_000:
                kind, what = "exception", f"{type(error).__name__} with {len(str(error)):,} characters"
        except BaseException as error:  # what a library in Rust raises when it gives up is no Exception
            kind, what = "exception", _place(error)
        finally:
            _arm(0, 0)
            self._watching = False
        grown = _peak_bytes() - max(before, self._least)
        if grown > most_memory(len(content)):
            kind, what = "memory", f"{grown / 2**20:,.0f} MiB for {len(content):,} bytes"
        if self._strange is not None:
            kind, what = "outside", self._strange
        if kind not in ("fine", "refused"):
            self.finds += 1
            _send(self._sender, Find(kind, what, case))
        return kind

    def _write(self, size: int) -> None:
        self._shared[: _COUNTS.size] = _COUNTS.pack(self.cases, self.refused, self.finds, size)

    def _hear(self, event: str, details: tuple[Any, ...]) -> None:
        """An audit hook: what is opened, and whether anything is started."""
        if not self._watching or self._strange is not None:
            return
        if event in ("open", *_WRITING):
            for name in details[: 2 if event in ("os.rename", "os.link", "shutil.move") else 1]:
                if isinstance(name, bytes):
                    name = os.fsdecode(name)
                if not isinstance(name, (str, os.PathLike)):
                    continue
                path = os.path.abspath(name)
                flags = details[2] if event == "open" else os.O_WRONLY
                writes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
                allowed = self._ours if writes and "__pycache__" not in path else self._inside
                if not path.startswith(allowed):
                    self._strange = f"{event} {'to write' if writes else 'to read'} {path[:120]}"
        elif event in _FORBIDDEN and not (event == "pickle.find_class" and _asked_by_numba()):
            self._strange = f"{event} {str(details)[:120]}"


_WRITING = (
    "os.rename",
    "os.link",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
)
_FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "pickle.find_class",
    "socket.connect",
    "ctypes.dlopen",
)


def _asked_by_numba() -> bool:
    """Whether numba asks, which keeps compiled kernels in pickles of its own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("numba."):
            return True
        frame = frame.f_back
    return False


def _readable() -> tuple[str, ...]:
    """Where any process may read: the interpreter, its packages, the project, and what the system says of itself."""
    places = [sys.prefix, sys.base_prefix, *sys.path, str(_ROOT), "/proc", "/sys", "/dev/null", "/dev/urandom"]
    places.append(os.environ.get("NUMBA_CACHE_DIR", ""))
    found = [os.path.abspath(place) for place in places if place]
    return tuple({*found, *map(os.path.realpath, found)} | {"/etc/localtime", "/usr/share/zoneinfo", "/etc/mime.types"})


def _in_child(outcome: Outcome, folder: Path, given: Input, work: Callable[[_Child], object]) -> None:
    """Do the work in a fork; a death counts as a find of the case that was being read."""
    shared = mmap.mmap(-1, _COUNTS.size + MOST_BYTES + 1)
    receiver, sender = os.pipe()
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what a fork of threads may lead to: children use none
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(receiver)
            _limit()
            gc.freeze()  # what the parent holds is never garbage here, nor copied to look
            work(_Child(shared, sender, given, folder))
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        while header := pipe.read(8):
            kind, what, case = (pipe.read(int.from_bytes(pipe.read(4), "little")) for _ in range(3))
            del header
            _add(outcome, Find(kind.decode(), what.decode(), case))
    _, status = os.waitpid(pid, 0)
    cases, refused, _, size = _COUNTS.unpack(shared[: _COUNTS.size])
    outcome.cases += cases
    outcome.refused += refused
    if size:
        case = shared[_COUNTS.size : _COUNTS.size + size]
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        kind = "hang" if number in (signal.SIGPROF, signal.SIGALRM) else "crash"
        what = signal.Signals(number).name if number else f"exit {os.waitstatus_to_exitcode(status)}"
        _add(outcome, Find(kind, f"{what} {hashlib.sha256(case).hexdigest()[:4]}", case))
    elif not os.WIFEXITED(status) or os.WEXITSTATUS(status) or not cases:
        raise RuntimeError(f"a child of {outcome.reader} ended with {status} after {cases:,} cases")


def _add(outcome: Outcome, find: Find) -> None:
    known = outcome.finds.get(f"{find.kind} {find.what}")
    if known is None or len(find.case) < len(known.case):
        outcome.finds[f"{find.kind} {find.what}"] = find


def _send(sender: int, find: Find) -> None:
    parts = [find.kind.encode(), find.what.encode("utf-8", "replace")[:4_000], find.case]
    message = b"a find: " + b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    while message:
        message = message[os.write(sender, message) :]


def _limit() -> None:
    """What a child may take; and silence, since libraries complain of what they are given."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.disable()
    os.environ["RUST_BACKTRACE"] = "0"  # a panic that tells where it was reads 50 MiB of symbols
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESSES, used + _ADDRESSES))
    if "torch" in sys.modules:  # its threads didn't outlive the fork
        sys.modules["torch"].set_num_threads(1)
    with open(os.devnull, "wb") as silence:
        os.dup2(silence.fileno(), 1)
        if not os.environ.get("FUZZ_ALOUD"):
            os.dup2(silence.fileno(), 2)
    warnings.simplefilter("ignore")


def _arm(cpu_s: float, wall_s: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, wall_s)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _place(error: BaseException) -> str:
    """Type of an exception, and the innermost line of the project that it passed through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame.filename)]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "elsewhere"
    return (
        f"{type(error).__name__} at {where}: {str(error)[:80]!r}"
        if not frames
        else f"{type(error).__name__} at {where}"
    )


def _is_ours(name: str) -> bool:
    return name.startswith(str(_ROOT)) and "site-packages" not in name and f"{os.sep}bench{os.sep}" not in name
