"""Inputs of odd sizes: each ends in bounded time and memory, or at once in one sentence.

For each case one process writes the input, and another does the work: a command, or calls of the library that build an
index and ask it. The parent watches the second: how much processor time it took, how much memory at its peak, mapped
files included, and whether it ended as it should: with an answer, or with exit code 2 and one sentence. A child that
takes more than its bounds is killed, which counts as a failure, and so does a traceback.

Sizes are those of `CASES`, times a scale: 1 in the long form, a thousandth in tests.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_ROOT = Path(__file__).parents[2]
_POLL_S = 0.1
_WALL = 30  # times the bound of processor time, on a machine that others use too
_BASE_BYTES = 700 << 20  # an interpreter with the libraries of a command, and compiled kernels
_WORDS = "tokenizer.json"
_WORD = 99  # letters of a word, and a blank: few tokens for many bytes


class Case(NamedTuple):
    """An input, what is done with it, and how that ends.

    Attributes
    ----------
    name, what : str
    count : int
        How large it is at scale 1: bytes, documents or tokens.
    make : callable
        (folder, count): writes it.
    work : callable
        (folder, count): does the work; raises an error of ours where that is what is expected.
    cpu_s, memory_bytes : float
        Bounds at scale 1, beside those of a process that does nothing.
    sentence : str, optional
        A pattern that the refusal matches; None: it has to end with an answer.
    least : int
        Of the count, whatever the scale.
    """

    name: str
    what: str
    count: int
    make: Callable[[Path, int], object]
    work: Callable[[Path, int], object]
    cpu_s: float
    memory_bytes: float
    sentence: str | None = None
    least: int = 1


def _command(*arguments: str) -> None:
    from corpus_teacher.cli.main import app

    app(args=[*arguments, "--quiet", "--json"], prog_name="corpus-teacher")


def _build(source: str, tokenizer: str) -> Callable[[Path, int], None]:
    """Build an index of a source in the folder; the tokenizer lies there too, or is the one of bytes."""

    def work(folder: Path, count: int) -> None:
        words = f"{folder / tokenizer}" if tokenizer.endswith(".json") else tokenizer
        _command("index", "build", f"{folder / source}", "--out", f"{folder / 'index'}", "--tokenizer", words)

    return work


# what is written


def _words(folder: Path, count: int) -> bytes:
    """So many bytes of long words, and a tokenizer of words beside them."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    rng = np.random.default_rng(0)
    words = ["".join(map(chr, rng.integers(97, 123, _WORD))) for _ in range(500)]
    made = tokenizers.Tokenizer(models.WordLevel({word: n for n, word in enumerate(["<unk>", *words])}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(f"{folder / _WORDS}")
    encoded = [word.encode() for word in words]
    return b" ".join(encoded[number] for number in rng.integers(0, 500, -(-count // (_WORD + 1))))[:count]


def _text_line(folder: Path, count: int) -> None:
    (folder / "line.txt").write_bytes(_words(folder, count))


def _json_line(folder: Path, count: int) -> None:
    (folder / "line.jsonl").write_bytes(b'{"text": "' + _words(folder, count) + b'"}\n')


def _empty_documents(folder: Path, count: int) -> None:
    with (folder / "empty.jsonl").open("wb") as file:
        for begin in range(0, count, 1 << 16):
            file.write(b'{"text": ""}\n' * min(1 << 16, count - begin))


def _empty_documents_and_one(folder: Path, count: int) -> None:
    _empty_documents(folder, count)
    with (folder / "empty.jsonl").open("ab") as file:
        file.write(b'{"text": "one document with words"}\n')


def _bomb(suffix: str) -> Callable[[Path, int], None]:
    def make(folder: Path, count: int) -> None:
        import zstandard

        lines = b'{"text": "", "more": "' + b" " * 1000 + b'"}\n'
        some = lines * min(1 << 14, -(-count // len(lines)))
        packed = gzip.compress(some) if suffix == "gz" else zstandard.compress(some)
        with (folder / f"bomb.jsonl.{suffix}").open("wb") as file:
            for _ in range(-(-count // len(some))):
                file.write(packed)

    return make


def _pipe(folder: Path, count: int) -> None:
    os.mkfifo(folder / "pipe.jsonl")


def _device(folder: Path, count: int) -> None:
    (folder / "device.jsonl").symlink_to("/dev/zero")


def _nothing(folder: Path, count: int) -> None:
    pass


# what is done


def _asked(folder: Path, tokens: np.ndarray, **options: Any) -> None:
    """Build an index with the library, and ask it all kinds of things, leaving out included."""
    from corpus_index import build_index, verify_index

    with build_index(tokens, folder / "index", **options) as index:
        places = np.linspace(0, max(0, tokens.size - 65), 4).astype(np.int64)
        rows = np.stack([tokens[place : place + 65] for place in places]).astype(np.int64)
        given, labels = rows[:, :-1], rows[:, 1:]
        index.match(given)
        index.next_tokens(given[0])
        index.count(given[0, :3])
        index.positions(given[0, :8], limit=10)
        for leave_out in (None, "self", "document"):
            chosen = {"leave_out": leave_out, "positions": places if leave_out == "document" else None}
            index.smoothed_targets(given, labels, **chosen)
            index.mixed_targets(given, labels, **chosen)
            index.next_probabilities(given, labels, **chosen)
    verify_index(folder / "index")


def _zipf(count: int, vocab_size: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    parts = [rng.zipf(1.2, min(1 << 22, count - begin)) for begin in range(0, count, 1 << 22)]
    return np.concatenate([np.minimum(part, vocab_size - 1).astype(np.uint32) for part in parts])


def _long_document(folder: Path, count: int) -> None:
    _asked(folder, _zipf(count, 50_000).astype(np.uint16), vocab_size=50_000)


def _one_token(folder: Path, count: int) -> None:
    _asked(folder, np.full(count, 7, np.uint16), vocab_size=50_000)


def _wide_vocabulary(folder: Path, count: int) -> None:
    vocab_size = 2_000_000
    tokens = (_zipf(count, vocab_size).astype(np.uint64) * 999_983 % vocab_size).astype(np.uint32)
    _asked(folder, tokens, vocab_size=vocab_size, doc_starts=np.linspace(0, count, 101).astype(np.int64))


def _empty_starts(folder: Path, count: int) -> None:
    starts = np.concatenate([np.zeros(count, np.int64), [500, 1000]])
    _asked(folder, np.arange(1000, dtype=np.uint16) % 50, vocab_size=50, doc_starts=starts)


GB, MB = 10**9, 10**6
CASES = (
    Case("text-line", "bytes of a text of one line", GB, _text_line, _build("line.txt", _WORDS), 600, GB / 2),
    Case("json-line", "bytes of one line of JSON", GB, _json_line, _build("line.jsonl", _WORDS), 600, 6 * GB),
    Case(
        "empty-documents", "empty documents in JSON lines, and one with text", 10 * MB, _empty_documents_and_one,
        _build("empty.jsonl", "bytes"), 1200, 2 * GB,
    ),
    Case(
        "only-empty", "empty documents in JSON lines, and nothing else", 10 * MB, _empty_documents,
        _build("empty.jsonl", "bytes"), 1200, 2 * GB, "the corpus is empty",
    ),
    Case("empty-starts", "empty documents of an array", 10 * MB, _nothing, _empty_starts, 120, GB),
    Case("long-document", "tokens of one document", 100 * MB, _nothing, _long_document, 900, 4 * GB),
    Case("one-token", "times the same token", 100 * MB, _nothing, _one_token, 900, 4 * GB),
    Case("wide-vocabulary", "tokens of a vocabulary of two million", 5 * MB, _nothing, _wide_vocabulary, 300, 2 * GB),
    Case(
        "gzip-bomb", "bytes that a gz unpacks to", 20 * GB, _bomb("gz"), _build("bomb.jsonl.gz", "bytes"), 60,
        GB / 2,
        "unpacks to more than 200 times its size", 400 * MB,
    ),
    Case(
        "zstd-bomb", "bytes that a zst unpacks to", 20 * GB, _bomb("zst"), _build("bomb.jsonl.zst", "bytes"), 60,
        GB / 2,
        "unpacks to more than 200 times its size", 400 * MB,
    ),
    Case("pipe", "a pipe as a source", 1, _pipe, _build("pipe.jsonl", "bytes"), 10, 0, "is a pipe"),
    Case("device", "a device as a source", 1, _device, _build("device.jsonl", "bytes"), 10, 0, "is a device"),
)  # fmt: skip
"""All cases, the largest first where they are alike."""


def run(case: Case, scale: float, folder: Path) -> dict[str, Any]:
    """Do the work of a case in a child; what it took, and whether it ended as it should."""
    count = max(case.least, int(case.count * scale))
    _child("make", case, folder, count).communicate()
    begin = time.monotonic()
    child = _child("work", case, folder, count)
    bounds = {"cpu_s": 60 + case.cpu_s * scale, "memory_bytes": _BASE_BYTES + case.memory_bytes * scale}
    broken, peak, cpu_s = "", 0, 0.0
    while child.poll() is None:
        with contextlib.suppress(OSError, TypeError):
            told = Path(f"/proc/{child.pid}/status").read_text()
            peak = max(peak, int(re.search(r"VmHWM:\s+(\d+)", told)[1]) * 1024)  # type: ignore[index]
            ticks = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            cpu_s = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
            if cpu_s > bounds["cpu_s"] or time.monotonic() - begin > _WALL * bounds["cpu_s"]:
                broken = f"more than {bounds['cpu_s']:.0f} s"
            if peak > bounds["memory_bytes"]:
                broken = f"more than {bounds['memory_bytes'] / 2**20:,.0f} MiB"
        if broken:
            child.kill()
        time.sleep(_POLL_S)
    seconds = time.monotonic() - begin
    said = (child.communicate()[1] or "").strip()
    sentence = said.rpartition("error: ")[2].splitlines()[0] if "error: " in said else ""
    if case.sentence is None:
        right = child.returncode == 0
    else:
        right = child.returncode == 2 and re.search(case.sentence, sentence) is not None
    return {
        "what": case.what,
        "count": count,
        "expected": "an answer" if case.sentence is None else "a sentence",
        "ended": broken or (f"exit {child.returncode}" if child.returncode not in (0, 2) else sentence or "an answer"),
        "right": right and not broken and "Traceback" not in said,
        "seconds": round(seconds, 1),
        "cpu_s": round(cpu_s, 1),
        "peak_bytes": peak,
        "bounds": bounds,
        **({} if right else {"said": said[-2000:]}),
    }


def _child(step: str, case: Case, folder: Path, count: int) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(_ROOT), str(_ROOT / "index"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "bench.trust.sizes", step, case.name, str(folder), str(count)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )


def campaign(scale: float = 1.0, names: Sequence[str] | None = None, *, say: Callable[[str], None] = print) -> Any:
    """All cases, or some, one after the other; a row for each."""
    found = {}
    say(f"{'case':18s}{'count':>16s}{'s':>9s}{'CPU s':>9s}{'MiB':>8s}  ended")
    for case in CASES:
        if names and case.name not in names:
            continue
        with tempfile.TemporaryDirectory(prefix="sizes-") as folder:
            row = found[case.name] = run(case, scale, Path(folder))
        word = "" if row["right"] else "WRONG: "
        say(
            f"{case.name:18s}{row['count']:16,d}{row['seconds']:9.1f}{row['cpu_s']:9.1f}"
            f"{row['peak_bytes'] / 2**20:8.0f}  {word}{row['ended'][:100]}"
        )
    return found


def _main() -> int:
    """A child: make an input, or do the work."""
    from corpus_index import CorpusIndexError

    step, name, place, count = sys.argv[1:]
    case = next(case for case in CASES if case.name == name)
    try:
        (case.make if step == "make" else case.work)(Path(place), int(count))
    except CorpusIndexError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())
