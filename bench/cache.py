"""`python -m bench.cache`: what each format of a neural teacher's cache costs, and what it loses, on a real model.

The model reads some windows once; every format is then written and read as a user would, and what is read is compared
with the whole distributions over V, position by position:

- bytes a token of the shards (the output embedding beside hidden states is a fixed cost, told apart);
- KL(teacher ‖ cached), mean nats a position, with the mass beyond the kept tokens spread as a uniform base and as the
  text's unigrams (each count + 1), and KL(cached ‖ teacher); the first is infinite where a cached target has zeros;
- total variation, mean of a position, and between the *means over all positions*: what is left of a format's error when
  it averages out, so the bias (and, of random draws, the noise that more positions would take away);
- positions read a second, from the page cache, in random order, batches of 8 windows, to `SoftTargets`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from bench import machine
from bench.index.run import say
from corpus_teacher.data import TokenWindows, tokenize_documents
from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.sources import find_sources
from corpus_teacher.neural import CachedTeacher, NeuralTeacher, TargetFormat, soft_targets, write_cache
from corpus_teacher.neural.distillkit import IDS, LOGS, from_distillkit, to_distillkit
from corpus_teacher.neural.distillkit_format import ColumnFormat
from corpus_teacher.neural.formats import sparsify
from corpus_teacher.neural.identity import token_rows, window_keys
from corpus_teacher.targets.soft import SoftTargets

FORMATS = (
    *(TargetFormat("top-k", k=k, precision="fp16") for k in (16, 64, 128)),
    *(TargetFormat("top-k", k=64, precision=precision) for precision in ("fp32", "bf16", "int8")),
    *(TargetFormat("top-p", k=100, p=0.95, precision=precision) for precision in ("fp16", "bf16", "int8")),
    *(TargetFormat("sample", draws=draws) for draws in (50, 200)),
    *(TargetFormat("systematic", draws=draws) for draws in (50, 200)),
    *(TargetFormat("hidden", precision=precision) for precision in ("fp16", "bf16", "int8")),
)


@dataclass
class Row:
    """One format; nats and shares are means over positions."""

    name: str
    bytes_per_token: float
    fixed_bytes: int = 0
    tokens_kept: float | None = None
    cut_mass: float = 0.0
    kl_teacher_cached: float | None = None  # None: infinite
    kl_unigram_base: float | None = None  # the same with unigrams for a base
    kl_cached_teacher: float = 0.0
    total_variation: float = 0.0
    bias: float = 0.0
    positions_per_s: float | None = None
    states_per_s: float | None = None  # hidden states alone, without the output embedding


class Known:
    """Logits that are there already, by window, with the identity of the teacher that gave them."""

    def __init__(self, teacher: NeuralTeacher, rows: np.ndarray) -> None:
        self.teacher, self.rows = teacher, rows
        self.vocab_size, self.kept = teacher.vocab_size, teacher.kept
        hidden = [teacher.hidden_states(row) for row in rows]
        self.hidden = dict(zip(window_keys(rows), hidden, strict=True))
        weight, bias = teacher.output_embedding()
        self.logits = {key: torch.nn.functional.linear(states, weight, bias) for key, states in self.hidden.items()}

    def identity(self) -> dict[str, Any]:
        """Of the teacher."""
        return self.teacher.identity()

    def output_embedding(self) -> tuple[Tensor, Tensor | None]:
        """Of the teacher."""
        return self.teacher.output_embedding()

    def hidden_states(self, input_ids: Any) -> Tensor:
        """(B · T, H)."""
        return torch.cat([self.hidden[key] for key in window_keys(token_rows(input_ids, self.vocab_size))])

    def logit_chunks(self, input_ids: Any) -> Iterator[tuple[int, int, Tensor]]:
        """A window at a time."""
        lo = 0
        for key in window_keys(token_rows(input_ids, self.vocab_size)):
            yield lo, lo + len(self.logits[key]), self.logits[key]
            lo += len(self.logits[key])


class Loss:
    """What targets lose against whole distributions, added up window by window."""

    def __init__(self, vocab_size: int) -> None:
        self.positions, self.sums = 0, np.zeros(5)
        self.infinite = False
        self.difference = torch.zeros(vocab_size, dtype=torch.float64)

    def add(self, targets: SoftTargets, logits: Tensor) -> None:
        """A window's targets and logits."""
        log_p, q = logits.double().log_softmax(-1), targets.dense().double().clamp_min_(0)
        p, log_q = log_p.exp(), q.log()
        self.infinite |= bool(((q == 0) & (p > 0)).any())
        forward = 0.0 if self.infinite else float((p * (log_p - log_q)).sum(dtype=torch.float64))
        backward = float(torch.where(q > 0, q * (log_q - log_p), 0).sum(dtype=torch.float64))
        gap = q - p
        self.difference += gap.sum(0, dtype=torch.float64)
        variation = 0.5 * float(gap.abs().sum(dtype=torch.float64))
        kept, cut = targets.token_ids.shape[0], float(targets.cut_mass.sum())
        self.sums += forward, backward, variation, kept, cut
        self.positions += len(p)

    def fill(self, row: Row) -> Row:
        """The means, in a row."""
        forward, backward, variation, kept, cut = (self.sums / self.positions).tolist()
        row.kl_teacher_cached = None if self.infinite else forward
        row.kl_cached_teacher, row.total_variation, row.tokens_kept, row.cut_mass = backward, variation, kept, cut
        row.bias = 0.5 * float((self.difference / self.positions).abs().sum())
        return row


def name_of(kept: TargetFormat) -> str:
    """ "top-k 64, fp16"."""
    settings = {"top-k": f" {kept.k}", "top-p": f" {kept.p} (≤ {kept.k})", "hidden": " states"}
    return f"{kept.kind}{settings.get(kept.kind, f' {kept.draws}')}" + ("" if kept.is_drawn else f", {kept.precision}")


def bench_format(
    known: Known, windows: TokenWindows, kept: TargetFormat, unigrams: Tensor, folder: Path, runs: int
) -> Row:
    """Write, read, compare."""
    path = folder / "cache"
    summary = write_cache(known, windows, path, kept=kept, overwrite=path.exists())  # type: ignore[arg-type]
    whole = TargetFormat("top-k", k=known.vocab_size) if kept.kind == "hidden" else None
    cached, loss = CachedTeacher(folder / "cache", kept=whole), Loss(known.vocab_size)
    for row in known.rows:
        loss.add(cached(row), known.logits[window_keys(row[None])[0]])
    line = loss.fill(Row(name_of(kept), summary.bytes_per_token, summary.head_bytes))
    if kept.kind in ("top-k", "top-p"):
        informed, other = CachedTeacher(folder / "cache", base=unigrams), Loss(known.vocab_size)
        for row in known.rows:
            other.add(informed(row), known.logits[window_keys(row[None])[0]])
        line.kl_unigram_base = other.fill(Row("", 0.0)).kl_teacher_cached
    order = np.random.default_rng(0)
    batches = [order.integers(0, len(known.rows), 8) for _ in range(2 if kept.kind == "hidden" else 12)]
    positions = 8 * known.rows.shape[1] * len(batches)
    reader = CachedTeacher(folder / "cache")
    if kept.kind == "hidden":
        line.tokens_kept = None
        line.states_per_s = positions / _median_s(lambda batch: reader.hidden_states(known.rows[batch]), batches, runs)
        runs = 1
    line.positions_per_s = positions / _median_s(lambda batch: reader(known.rows[batch]), batches, runs)
    return line


def bench_distillkit(known: Known, k: int) -> Row:
    """DistillKit's columns with k exact bfloat16 values; sizes are those of the byte strings, without Parquet."""
    loss, size = Loss(known.vocab_size), 0
    base = torch.full((known.vocab_size,), 1 / known.vocab_size)
    form = ColumnFormat(known.vocab_size, k)
    for row in known.rows:
        logits = known.logits[window_keys(row[None])[0]]
        columns = to_distillkit(sparsify(logits, TargetFormat("top-k", k=k)), form)
        size += sum(len(position) for name in (LOGS, IDS) for position in columns[name])
        loss.add(soft_targets(from_distillkit(columns, form), base), logits)
    return loss.fill(Row(f"DistillKit's columns, {k} exact, bf16", size / known.rows.size))


def _median_s(read: Any, batches: list[np.ndarray], runs: int) -> float:
    """Seconds of a pass over all batches, after a first one that isn't timed."""
    read(batches[0])
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        for batch in batches:
            read(batch)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| format | B/token | tokens kept | mass cut | KL(teacher ‖ cached) | unigram base | KL(cached ‖ teacher) "
        "| TV | TV of means | positions/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kept = "all" if row.tokens_kept is None else f"{row.tokens_kept:.1f}"
        forward = "∞" if row.kl_teacher_cached is None else f"{row.kl_teacher_cached:.5f}"
        informed = "–" if row.kl_unigram_base is None else f"{row.kl_unigram_base:.5f}"
        speed = "–" if row.positions_per_s is None else f"{row.positions_per_s / 1e3:,.1f} k"
        if row.states_per_s is not None:
            speed += f" (states {row.states_per_s / 1e3:,.0f} k)"
        lines.append(
            f"| {row.name} | {row.bytes_per_token:.1f} | {kept} | {row.cut_mass:.2%} | {forward} | {informed} "
            f"| {row.kl_cached_teacher:.5f} | {row.total_variation:.4f} | {row.bias:.4f} | {speed} |"
        )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m bench.cache", description="Formats of a neural teacher's cache.")
    add = parser.add_argument
    add("--model", default="smollm2", help="as `corpus-teacher teacher cache` takes it (default: smollm2)")
    add("--data", nargs="+", required=True, help="text that the teacher reads")
    add("--windows", type=int, default=24, help="how many, evenly spaced over the text (default: 24)")
    add("--length", type=int, default=512, help="tokens of each (default: 512)")
    add("--runs", type=int, default=5, help="timed passes (default: 5)")
    add("--out", type=Path, help="write the result here")
    return parser.parse_args()


def main() -> None:
    """The table on stdout, and one line of JSON at the end."""
    options = parse()
    described = machine.describe()
    torch.set_num_threads(1)
    teacher = NeuralTeacher(options.model, dtype=torch.float32)
    words = teacher.tokenizer
    if words is None:
        raise SystemExit(f"{options.model} has no tokenizer beside it, so it can't read the text")
    with tempfile.TemporaryDirectory(prefix="corpus-teacher-bench-") as work:
        documents = find_sources(options.data).documents(ReadOptions(), ReadLog())
        text = tokenize_documents(documents, words, folder=Path(work))
        whole = TokenWindows(text.tokens, options.length, shuffle=False)
        chosen = np.linspace(0, len(whole) - 1, options.windows).round().astype(int)
        rows = np.stack([whole[int(number)]["input_ids"] for number in chosen])
        begin = time.perf_counter()
        known = Known(teacher, rows)
        model_s = time.perf_counter() - begin
        say(f"{rows.size:,} positions in {model_s:.0f} s ({rows.size / model_s:,.0f}/s)")
        counts = torch.from_numpy(np.bincount(text.tokens, minlength=teacher.vocab_size) + 1.0)
        unigrams = counts / counts.sum()
        windows = TokenWindows(rows.reshape(-1), options.length, shuffle=False)
        lines = []
        for kept in FORMATS:
            lines.append(bench_format(known, windows, kept, unigrams, Path(work), options.runs))
            say(f"{lines[-1].name}: {lines[-1].bytes_per_token:.1f} B/token")
        lines += [bench_distillkit(known, 64)]
    entropies = [float(-(q.softmax(-1) * q.log_softmax(-1)).sum(-1).mean()) for q in known.logits.values()]
    result = {
        "machine": {**described, "torch": torch.__version__, "transformers": transformers.__version__},
        "teacher": teacher.identity(),
        "data": [Path(name).name for name in options.data],
        "positions": int(rows.size),
        "length": options.length,
        "teacher_entropy_nats": statistics.mean(entropies),
        "teacher_positions_per_s": rows.size / model_s,
        "rows": [asdict(line) for line in lines],
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(table(lines))
    print()
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
