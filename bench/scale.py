"""How building, files and questions grow with the corpus: one index, and the same text in shards, size by size.

`python -m bench.scale CORPUS --sizes 1M,10M,100M --out bench/results/scale.json` cuts a folder of the bench's tokens
(see bench/README.md) to each size, builds one index and one in four shards of it, and asks both. Every build and every
asking is a process of its own on one core, and times are its processor time, so that another load on the machine counts
only by what it does to the caches and the memory. A result that is there is not measured again, so a run that was cut
short goes on with the same command; `--only 100M:shards` measures a part. `--table` prints what is there, `--curves`
draws it.

Questions are timed when 24 batches have been asked: what a shard's answers share (rows of wide contexts, put together
once and kept) is mostly there by then. `first` is what the first batch after opening took.

Beyond the tokens that there are, text is cut from them with noise: documents drawn again, in which every seventh token
on average is exchanged for one of the corpus. It is as diverse as tokens go, and more repetitive than new text.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index import (
    CorpusIndex,
    InsufficientMemoryError,
    build_index,
    merge_shards,
    open_index,
    remove_documents,
)

CUTS = ("single", "shards")
SHARDS = 4
BATCH, ROW = 64, 128
WARM, LEAST_S = 24, 1.0
MAX_ORDER = 5
NOISE = 1 / 7
MOST_FITTED = 10**8
"""Tokens of shards on which Kneser–Ney is fitted: that sorts all n-grams of each order, longer than all else takes."""
REMOVED_OF = 100  # documents, of which one is removed
QUESTIONS: dict[str, dict[str, Any]] = {
    "match": {},
    "targets": {"estimator": "witten-bell", "max_order": MAX_ORDER, "leave_out": "self"},
    "targets_without_document": {"estimator": "witten-bell", "max_order": MAX_ORDER, "leave_out": "document"},
    "scores": {"estimator": "modified-kneser-ney", "max_order": MAX_ORDER},
}
FITTED = ("build_s", "match", "targets", "targets_without_document", "scores")
"""What an exponent is fitted to; questions by the time per position."""


def size_of(word: str) -> int:
    """A number of tokens.

    >>> size_of("300M"), size_of("1B")
    (300000000, 1000000000)
    """
    return int(float(word[:-1]) * {"k": 10**3, "M": 10**6, "B": 10**9}[word[-1]])


# text


def text_of(corpus: Path, size: int, work: Path) -> tuple[np.ndarray, np.ndarray, bool]:
    """Tokens and document starts of that size, and whether all of it is real text."""
    largest = max(corpus.glob("train_*.u16"), key=lambda path: path.stat().st_size)
    real = np.memmap(largest, np.uint16, "r")
    starts = np.load(largest.with_suffix(".doc_starts.npy"))
    if size <= real.size:
        inside = starts[starts < size]
        return real[:size], np.append(inside, size), True
    path = work / f"text_{size}.u16"
    if not path.with_suffix(".npy").exists():
        _write_noisy(real, starts, size, path)
    return np.memmap(path, np.uint16, "r"), np.load(path.with_suffix(".npy")), False


def _write_noisy(real: np.ndarray, starts: np.ndarray, size: int, path: Path) -> None:
    rng, begins, end = np.random.default_rng(0), [starts[:-1]], int(real.size)
    with open(path, "wb") as file:
        real.tofile(file)
        while end < size:
            drawn = rng.integers(0, starts.size - 1, 256)
            pieces = [real[starts[d] : starts[d + 1]] for d in drawn.tolist()]
            text = np.concatenate(pieces)[: size - end]
            noisy = rng.random(text.size) < NOISE
            text[noisy] = real[rng.integers(0, real.size, int(noisy.sum()))]
            firsts = end + np.cumsum([0, *(piece.size for piece in pieces[:-1])])
            begins.append(firsts[firsts < size])
            text.tofile(file)
            end += int(text.size)
    np.save(path.with_suffix(".npy"), np.append(np.concatenate(begins), size).astype(np.int64))


# measured in a process of its own


def peak_bytes() -> int:
    """The most memory that this process has held at once, mapped pages included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def build(corpus: Path, size: int, cut: str, work: Path) -> dict[str, Any]:
    """Build an index of one size, and say what that took."""
    tokens, starts, real = text_of(corpus, size, work)
    vocab_size = int(tokens[: min(size, 10**8)].max()) + 1
    options: dict[str, Any] = {"workers": 1, "overwrite": True}
    build_index(np.asarray(tokens[:4096]), work / "small", vocab_size=vocab_size, **options).close()  # compiles
    if cut == "shards":
        options["shard_tokens"] = -(-size // SHARDS)
    before, begin, wall = peak_bytes(), time.process_time(), time.perf_counter()
    index = build_index(tokens, work / f"{size}-{cut}", doc_starts=starts, vocab_size=vocab_size, **options)
    took, wall = time.process_time() - begin, time.perf_counter() - wall
    with index:
        return {
            "real_text": real,
            "documents": index.num_documents,
            "shards": len(getattr(index, "shards", [index])),
            "build_s": took,
            "build_cpu_share": took / wall,
            "peak_bytes_per_token": (peak_bytes() - before) / size,
            "disk_bytes_per_token": sum(index.size_bytes.values()) / size,
            "hot_bytes_per_token": index.hot_bytes / size,
        }


def ask(corpus: Path, size: int, cut: str, work: Path) -> dict[str, Any]:
    """Open an index of one size and ask it; rates are positions per second."""
    path, opened = work / f"{size}-{cut}", []
    for _ in range(6):  # the first one compares files with their checksums
        begin = time.process_time()
        with open_index(path) as index:
            index.count([1])
        opened.append(1e3 * (time.process_time() - begin))
    found: dict[str, Any] = {"open_ms": statistics.median(opened[1:])}
    held_out = np.fromfile(corpus / "heldout_1M.u16", np.uint16).astype(np.int64)
    with open_index(path) as index:
        for name, options in _asked(size, cut).items():
            question = _question(index, name, options, held_out)
            begin = time.process_time()
            question(np.random.default_rng(0))
            found[f"{name}_first_s"] = time.process_time() - begin
            found[name], found[f"{name}_cpu_share"] = rate(question)
    return found


def change(corpus: Path, size: int, cut: str, work: Path) -> dict[str, Any]:
    """Remove every hundredth document of shards, ask what is left, and merge it into one index."""
    path, held_out = work / f"{size}-{cut}", np.fromfile(corpus / "heldout_1M.u16", np.uint16).astype(np.int64)
    with open_index(path) as index:
        gone = np.arange(REMOVED_OF // 2, index.num_documents, REMOVED_OF)
        tokens = int(np.diff(index.doc_starts)[gone].sum())
    begin = time.process_time()
    index = remove_documents(path, gone.tolist())
    found: dict[str, Any] = {"removed_tokens": tokens, "remove_s": time.process_time() - begin}
    with index:
        for name in _asked(size, cut).keys() & {"targets", "scores"}:
            found[f"{name}_with_masks"], _ = rate(_question(index, name, QUESTIONS[name], held_out))
    begin = time.process_time()
    try:
        merge_shards(path, workers=1).close()
    except InsufficientMemoryError:
        return found | {"merge_s": None}
    return found | {"merge_s": time.process_time() - begin}


def _asked(size: int, cut: str) -> dict[str, dict[str, Any]]:
    return {
        name: options
        for name, options in QUESTIONS.items()
        if (name, cut) != ("scores", "shards") or size <= MOST_FITTED
    }


def _question(
    index: CorpusIndex, name: str, options: dict[str, Any], held_out: np.ndarray
) -> Callable[[np.random.Generator], object]:
    """A batch at random places: of unseen text for scores, else of the corpus."""

    def batch(rng: np.random.Generator) -> object:
        text = held_out if name == "scores" else index.tokens
        places = rng.integers(0, len(text) - ROW - 1, BATCH)
        rows = np.asarray(text[places[:, None] + np.arange(ROW + 1)]).astype(np.int64)
        if name == "match":
            return index.match(rows[:, :-1])
        if name == "scores":
            return index.next_probabilities(rows[:, :-1], rows[:, 1:], **options)
        return index.smoothed_targets(rows[:, :-1], rows[:, 1:], positions=places, **options)

    return batch


def rate(batch: Callable[[np.random.Generator], object]) -> tuple[float, float]:
    """Positions per second of the processor, and the share of a core that was there for them."""
    rng = np.random.default_rng(0)
    for _ in range(WARM):
        batch(rng)
    batches, begin, wall = 0, time.process_time(), time.perf_counter()
    while batches < 8 or time.process_time() - begin < LEAST_S:
        batch(rng)
        batches += 1
    took = time.process_time() - begin
    return batches * BATCH * ROW / took, took / (time.perf_counter() - wall)


# the run


def measured(corpus: Path, size: int, cut: str, work: Path, step: str) -> dict[str, Any]:
    """A step in a process of its own on one core."""
    command = [sys.executable, "-m", "bench.scale", str(corpus), "--work", str(work), "--step", f"{step}:{size}:{cut}"]
    cores = sorted(os.sched_getaffinity(0))
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores[-1:]),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def exponents(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By cut and figure: the power of the number of tokens that it grows with, by least squares of logarithms."""
    found: dict[str, dict[str, float]] = {}
    for cut in CUTS:
        mine = [row for row in rows if row["cut"] == cut]
        for name in FITTED:
            points = [
                (math.log(row["tokens"]), math.log(row[name] if name == "build_s" else 1 / row[name]))
                for row in mine
                if row.get(name)
            ]
            if len(points) > 1:
                x, y = np.array(points).T
                found.setdefault(cut, {})[name] = round(float(np.polyfit(x, y, 1)[0]), 3)
    return found


def table(result: dict[str, Any]) -> str:
    """The figures for people, in Markdown."""
    heads = (
        ("build_s", "build, s", "{:,.3g}"),
        ("peak_bytes_per_token", "memory of it, bytes/token", "{:.1f}"),
        ("disk_bytes_per_token", "files, bytes/token", "{:.2f}"),
        ("hot_bytes_per_token", "of them read by targets", "{:.2f}"),
        ("open_ms", "opening, ms", "{:.2g}"),
        ("match", "matches/s", "{:,.0f}"),
        ("targets", "targets/s", "{:,.0f}"),
        ("targets_without_document", "targets/s, document left out", "{:,.0f}"),
        ("scores", "Kneser–Ney scores/s", "{:,.0f}"),
    )
    lines = ["| tokens | | " + " | ".join(head for _, head, _ in heads) + " |", "|---:|---|" + "---:|" * len(heads)]
    for row in result["rows"]:
        of = "one index" if row["cut"] == "single" else f"{row['shards']} shards"
        figures = [form.format(row[name]) if name in row else "–" for name, _, form in heads]
        lines.append(f"| {row['tokens']:,} | {of} | " + " | ".join(figures) + " |")
    for cut, powers in result["exponents"].items():
        of = "one index" if cut == "single" else "shards"
        figures = [f"{powers[name]:.2f}" if name in powers else "" for name, _, _ in heads]
        lines.append(f"| power | {of} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def changes_table(result: dict[str, Any]) -> str:
    """What removing and merging took, in Markdown."""
    lines = [
        "| tokens | removed tokens | removing, s | targets/s with masks | Kneser–Ney scores/s with masks "
        "| merging, s | building one index, s |",
        "|---:|" + "---:|" * 6,
    ]
    built = {row["tokens"]: row["build_s"] for row in result["rows"] if row["cut"] == "single"}
    for row in result["rows"]:
        if "merge_s" in row:
            figures = [f"{row['removed_tokens']:,}", f"{row['remove_s']:.3g}"]
            masked = (row.get(f"{name}_with_masks") for name in ("targets", "scores"))
            figures += ["–" if one is None else f"{one:,.0f}" for one in masked]
            seconds = (row["merge_s"], built.get(row["tokens"]))
            figures += ["needs more memory" if one is None else f"{one:.3g}" for one in seconds]
            lines.append(f"| {row['tokens']:,} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def tables(result: dict[str, Any]) -> str:
    """Both tables, as the page has them."""
    return f"{table(result)}\n\n{changes_table(result)}"


def curves(result: dict[str, Any]) -> str:
    """Times per token and per position by the number of tokens, both axes in powers of ten: SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = {
        "match": "match",
        "targets": "targets",
        "targets_without_document": "document left out",
        "scores": "scores",
    }
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, cut, title in zip(figure.subplots(1, 2, sharey=True), CUTS, ("one index", "shards"), strict=True):
        rows = [row for row in result["rows"] if row["cut"] == cut and "match" in row]
        tokens = np.array([row["tokens"] for row in rows])
        axes.loglog(tokens, [1e6 * row["build_s"] / row["tokens"] for row in rows], "k--", marker="o", label="build")
        for name, label in names.items():
            axes.loglog(tokens, [1e6 / row.get(name, math.nan) for row in rows], marker="o", label=label)
        axes.set(title=title, xlabel="tokens of the corpus")
        axes.grid(visible=True, alpha=0.3)
    figure.axes[0].set_ylabel("µs of a core per token, or position")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    file = io.StringIO()
    with rc_context({"svg.hashsalt": "scale"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, nargs="?", help="a folder of tokens, as bench/README.md describes it")
    parser.add_argument("--sizes", default="1M,10M,100M")
    parser.add_argument("--only", help="one size and cut, such as 100M:shards")
    parser.add_argument("--work", type=Path, default=Path("scale-work"), help="where indexes are built")
    parser.add_argument("--keep", action="store_true", help="keep the indexes")
    parser.add_argument("--out", type=Path, default=Path("bench/results/scale.json"))
    parser.add_argument("--table", action="store_true", help="print what --out holds")
    parser.add_argument("--curves", type=Path, help="draw what --out holds into this SVG file")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.table:
        print(tables(json.loads(arguments.out.read_text())))
        return
    if arguments.curves:
        arguments.curves.write_text(curves(json.loads(arguments.out.read_text())), encoding="utf-8")
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.step:
        step, size, cut = arguments.step.split(":")
        function = {"build": build, "ask": ask, "change": change}[step]
        print(json.dumps(function(arguments.corpus, int(size), cut, arguments.work)))
        return
    run(arguments)
    print(tables(json.loads(arguments.out.read_text())))


def run(arguments: argparse.Namespace) -> None:
    """Measure what isn't there yet; the file is written after each step."""
    from bench.machine import describe

    result: dict[str, Any] = {"bench": "scale", "rows": []}
    if arguments.out.exists():
        result = json.loads(arguments.out.read_text())
    wanted = [(size_of(word), cut) for word in arguments.sizes.split(",") for cut in CUTS]
    if arguments.only:
        word, _, cut = arguments.only.partition(":")
        wanted = [(size_of(word), one) for one in CUTS if cut in ("", one)]
    for size, cut in wanted:
        row = next((row for row in result["rows"] if (row["tokens"], row["cut"]) == (size, cut)), None)
        if row is None:
            row = {"tokens": size, "cut": cut}
            result["rows"].append(row)
        folder = arguments.work / f"{size}-{cut}"
        if "match" in row and (cut == "single" or "merge_s" in row):
            continue
        if "build_s" not in row or not folder.exists():
            row.update(measured(arguments.corpus, size, cut, arguments.work, "build"))
            _write(arguments.out, result, describe())
        if "match" not in row:
            row.update(measured(arguments.corpus, size, cut, arguments.work, "ask"))
            _write(arguments.out, result, describe())
        if cut == "shards":  # the last thing, since it leaves another index
            row.update(measured(arguments.corpus, size, cut, arguments.work, "change"))
            _write(arguments.out, result, describe())
        if not arguments.keep:
            subprocess.run(["rm", "-r", str(folder)], check=True)


def _write(path: Path, result: dict[str, Any], machine: dict[str, Any]) -> None:
    result["rows"].sort(key=lambda row: (row["tokens"], CUTS.index(row["cut"])))
    result["machine"], result["exponents"] = machine, exponents(result["rows"])
    result["noise"], result["batch"] = NOISE, [BATCH, ROW]
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
