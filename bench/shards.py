"""What shards cost a teacher: processor time where a shard is and where answers are put together, and bytes between.

`python -m bench.shards SOURCE --out bench/results/shards.json` trains a tokenizer on a text, tokenises it, cuts it into
1, 2, 4 and 8 shards, and asks for flat targets of the corpus's own text through a host in this process that pickles all
that travels, as `RayIndex` does, and takes the time of each side. Times are processor time, so that another load on the
machine doesn't count. Targets of all cuts are compared with those of one shard before anything counts.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from corpus_index import ShardedIndex, build_index, open_index
from corpus_index.sharded.shard_elsewhere import ShardElsewhere, facts_of

from bench.machine import describe
from corpus_teacher.data import train_tokenizer
from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.pipeline import tokenize_documents
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.sources import find_sources

CUTS = (1, 2, 4, 8)
BATCH, ROW = 64, 128
WARM, BATCHES = 4, 6
ESTIMATORS = ("witten-bell", "modified-kneser-ney")
MAX_ORDER = 5


class TimingHost:
    """Shards of this process behind pickles; what each side took, and what travelled."""

    def __init__(self, shards: Sequence[Any]) -> None:
        self.shards = list(shards)
        self.forget()

    def forget(self) -> None:
        """Begin to count."""
        self.shard_s = 0.0
        self.sent_bytes = self.answered_bytes = self.rounds = 0

    def ask(
        self, function: Callable[..., Any], numbers: Sequence[int], arguments: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        """As `corpus_index.sharded.asking.ShardHost`."""
        self.rounds += 1
        answers = []
        for number, given in zip(numbers, arguments, strict=True):
            question = pickle.dumps((function, given), protocol=5)
            begin = time.process_time()
            asked, received = pickle.loads(question)
            answer = pickle.dumps(asked(self.shards[number], *received), protocol=5)
            self.shard_s += time.process_time() - begin
            self.sent_bytes += len(question)
            self.answered_bytes += len(answer)
            answers.append(pickle.loads(answer))
        return answers


class TimedIndex(ShardedIndex):
    """The index over a `TimingHost`."""

    def __init__(self, local: ShardedIndex) -> None:
        self.path, self.host = local.path, TimingHost(local.shards)
        facts = self.host.ask(facts_of, range(len(local.shards)), [()] * len(local.shards))
        self.take_over(local._manifest, [ShardElsewhere(self.host, number, one) for number, one in enumerate(facts)])


def measure(source: str, vocab_size: int, folder: Path) -> dict[str, Any]:
    """All rows, and the tokenizer's time."""
    inventory = find_sources([source])
    documents = list(inventory.documents(ReadOptions(), ReadLog()))
    tokenizer = train_tokenizer((document.text for document in documents), vocab_size)
    begin = time.process_time()
    corpus = tokenize_documents(documents, tokenizer, folder=folder, workers=1)
    tokenize_s = time.process_time() - begin
    num_tokens = len(corpus.tokens)
    rows, expected = [], {}
    for shards in CUTS:
        path = folder / f"cut-{shards}"
        build_index(
            corpus.tokens,
            path,
            doc_starts=corpus.doc_starts,
            vocab_size=tokenizer.vocab_size,
            shard_tokens=-(-num_tokens // shards) if shards > 1 else num_tokens - 1,
            workers=1,
        ).close()
        with open_index(path) as local:
            assert isinstance(local, ShardedIndex)
            for name in ESTIMATORS:
                for leave_out in (None, "document"):
                    index = TimedIndex(local)
                    row = timed(index, local, name, leave_out, expected)
                    rows.append({"shards": len(local.shards), "estimator": name, "leave_out": leave_out, **row})
                    print(rows[-1], flush=True)
    return {
        "bench": "shards",
        "machine": describe(),
        "num_tokens": num_tokens,
        "num_bytes": corpus.num_bytes,
        "vocab_size": tokenizer.vocab_size,
        "tokenize_s": tokenize_s,
        "batch": [BATCH, ROW],
        "rows": rows,
    }


def timed(
    index: TimedIndex, local: ShardedIndex, name: str, leave_out: str | None, expected: dict[Any, Any]
) -> dict[str, float]:
    """One row: of all batches but the first ones, whose rows of wide contexts are made for all that come."""
    options: dict[str, Any] = {"estimator": name, "max_order": MAX_ORDER, "leave_out": leave_out}
    rng = np.random.default_rng(0)
    total_s = 0.0
    for number in range(WARM + BATCHES):
        places = rng.integers(0, index.num_tokens - ROW - 1, BATCH)
        ids = local.tokens[places[:, None] + np.arange(ROW)].astype(np.int64)
        following = local.tokens[places[:, None] + np.arange(1, ROW + 1)].astype(np.int64)
        if number == WARM:
            index.host.forget()
        begin = time.process_time()
        found = index.smoothed_targets(ids, following, positions=places, **options)
        if number >= WARM:
            total_s += time.process_time() - begin
    known = expected.setdefault((name, leave_out), found)
    np.testing.assert_array_equal(found.match_len, known.match_len)
    np.testing.assert_allclose(found.rest, known.rest, rtol=1e-4, atol=1e-6)
    positions, host = BATCH * ROW * BATCHES, index.host
    return {
        "shard_us": host.shard_s / positions * 1e6,
        "together_us": (total_s - host.shard_s) / positions * 1e6,
        "sent_bytes": host.sent_bytes / positions,
        "answered_bytes": host.answered_bytes / positions,
        "rounds": host.rounds / BATCHES,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a text, as `index build` takes it")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.source, arguments.vocab_size, Path(folder))
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({"out": str(arguments.out), "rows": len(result["rows"])}))


if __name__ == "__main__":
    main()
