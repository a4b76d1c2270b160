"""What 10 B, 100 B and 1 T tokens take: machines, memory, disk, hours, latency and money, from measured rows.

`python -m bench.scale_plan` prints the tables of docs/how-to/what-scale-takes.md, which a test holds equal to this
script's. Measured are one index at 10M and 100M tokens (`bench/results/10M.json`, `100M.json`: building, memory, files,
matching) and what shards cost (`bench/results/shards.json`). Between and beyond the two sizes figures follow a power of
the size that both fix; what is assumed stands in `ASSUMED`, and in the page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from corpus_index.manifest import HOT_ARRAYS

RESULTS = Path(__file__).parent / "results"

SIZES = {"10 B": 10e9, "100 B": 100e9, "1 T": 1e12}


class Assumed(NamedTuple):
    """What no row says."""

    shard_tokens: float = 2e9
    cores: int = 64
    memory_bytes: float = 512 * 2**30
    memory_share: float = 0.8  # of a machine's, for the files of shards
    machine_per_hour: float = 4.0  # dollars
    disk_per_gb_month: float = 0.08  # dollars
    text_bytes_per_token: float = 4.0  # of a vocabulary of 50,000
    batch: int = 8192  # positions
    rounds: int = 3  # of questions, for a batch
    round_s: float = 0.005  # of each, beside the counting
    network_bytes_per_s: float = 25e9 / 8


ASSUMED = Assumed()


class Curve(NamedTuple):
    """value = at · (tokens / 100M) ** power."""

    at: float
    power: float

    def __call__(self, tokens: float) -> float:
        """At a size."""
        return float(self.at * (tokens / 1e8) ** self.power)


class Measured(NamedTuple):
    """Of one core, by tokens of a shard; microseconds and bytes are per position."""

    build_s: Curve
    build_bytes: float  # of memory, per token
    disk_bytes: float  # per token
    hot_bytes: float  # per token
    sharded_tokens: float  # of the corpus that shards were measured with
    match_us: Curve
    tokenize_s_per_byte: float
    shard_us: Callable[[float], float]
    together_us: Callable[[float], float]
    travelled_bytes: Callable[[float], float]
    document: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """What leaving a document out adds, whatever the number of shards, since it lies in one: to these three."""


class Plan(NamedTuple):
    """What a corpus takes."""

    tokens: float
    shards: int
    hot_bytes: float
    disk_bytes: float
    machines: int
    tokenize_core_hours: float
    build_core_hours: float
    build_hours: float
    build_dollars: float
    latency_s: float
    positions_per_s: float
    asking_cores: float
    serve_dollars_per_hour: float
    disk_dollars_per_month: float


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of a file of results."""
    found: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return found


def value(rows: Iterable[dict[str, Any]], section: str, slice_: str = "", cores: int = 1) -> dict[str, Any]:
    """Our own row of a section."""
    [found] = [
        row
        for row in rows
        if (row["who"], row["section"], row["slice"], row["cores"]) == ("corpus_index", section, slice_, cores)
    ]
    return found


def curve(small: float, large: float) -> Curve:
    """Through values at 10M and 100M tokens."""
    return Curve(large, math.log10(large / small))


def line(shards: list[int], values: list[float]) -> Callable[[float], float]:
    """The least-squares line through values by the number of shards."""
    n, mean_x, mean_y = len(shards), sum(shards) / len(shards), sum(values) / len(values)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(shards, values, strict=True)) / sum(
        (x - mean_x) ** 2 for x in shards
    )
    assert n > 1
    return lambda number: mean_y + slope * (number - mean_x)


def measured(estimator: str = "witten-bell", leave_out: str | None = None) -> Measured:
    """What the rows say."""
    small, large = rows_of("10M"), rows_of("100M")
    match = [1e6 / value(rows, "match", "in-corpus")["value"] for rows in (small, large)]
    files = value(large, "disk")["details"]["files"]
    shards = json.loads((RESULTS / "shards.json").read_text())
    rows, with_documents = (
        [row for row in shards["rows"] if (row["estimator"], row["leave_out"]) == (estimator, left)]
        for left in (None, "document")
    )
    cuts = [row["shards"] for row in rows]
    columns = [
        [[row["shard_us"], row["together_us"], row["sent_bytes"] + row["answered_bytes"]] for row in some]
        for some in (rows, with_documents)
    ]
    added = [
        sum(more[k] - less[k] for less, more in zip(*columns, strict=True)) / len(cuts) if leave_out else 0.0
        for k in range(3)
    ]
    return Measured(
        build_s=curve(value(small, "build")["value"], value(large, "build")["value"]),
        build_bytes=value(large, "memory")["value"],
        disk_bytes=value(large, "disk")["value"],
        hot_bytes=sum(files.get(f"{name}.bin", 0) for name in HOT_ARRAYS) / 1e8,
        match_us=curve(*match),
        sharded_tokens=shards["num_tokens"],
        tokenize_s_per_byte=shards["tokenize_s"] / shards["num_bytes"],
        shard_us=line(cuts, [row["shard_us"] for row in rows]),
        together_us=line(cuts, [row["together_us"] for row in rows]),
        travelled_bytes=line(cuts, [row["sent_bytes"] + row["answered_bytes"] for row in rows]),
        document=(added[0], added[1], added[2]),
    )


def plan(tokens: float, found: Measured, said: Assumed = ASSUMED) -> Plan:
    """What a corpus of that many tokens takes."""
    shards = math.ceil(tokens / said.shard_tokens)
    hot, disk = tokens * found.hot_bytes, tokens * found.disk_bytes
    machines = math.ceil(hot / (said.memory_bytes * said.memory_share))
    tokenize = tokens * said.text_bytes_per_token * found.tokenize_s_per_byte / 3600
    build = shards * found.build_s(tokens / shards) / 3600
    at_once = min(said.cores, int(said.memory_bytes * said.memory_share / (found.build_bytes * tokens / shards)))
    hours = (
        tokenize / (machines * said.cores)
        + math.ceil(shards / (machines * at_once)) * found.build_s(tokens / shards) / 3600
    )
    # a shard's part grows with its size as matching does; what is put together doesn't
    growth = found.match_us(tokens / shards) / found.match_us(found.sharded_tokens)
    on_one = math.ceil(shards / machines)
    document_us, document_together_us, document_bytes = found.document
    on_machine_us = found.shard_us(on_one) * growth
    together_us = found.together_us(shards) + document_together_us
    counting_us = on_machine_us / min(said.cores, on_one)
    counting_us += document_us * growth / min(said.cores * machines, shards)  # each shard has some of the documents
    travelled = found.travelled_bytes(shards) + document_bytes
    latency = said.batch * (counting_us + together_us) / 1e6
    latency += said.rounds * said.round_s + said.batch * travelled / said.network_bytes_per_s
    rate = said.cores / (on_machine_us + document_us * growth / machines) * 1e6
    return Plan(
        tokens=tokens,
        shards=shards,
        hot_bytes=hot,
        disk_bytes=disk,
        machines=machines,
        tokenize_core_hours=tokenize,
        build_core_hours=build,
        build_hours=hours,
        build_dollars=hours * machines * said.machine_per_hour,
        latency_s=latency,
        positions_per_s=rate,
        asking_cores=rate * together_us / 1e6,
        serve_dollars_per_hour=machines * said.machine_per_hour,
        disk_dollars_per_month=disk / 1e9 * said.disk_per_gb_month,
    )


def rounded(number: float, digits: int = 2) -> str:
    """Two digits that count, thousands parted.

    >>> rounded(12345), rounded(0.01234), rounded(3.0)
    ('12,000', '0.012', '3')
    """
    if number == 0:
        return "0"
    shown = round(number, digits - 1 - math.floor(math.log10(abs(number))))
    return f"{shown:,.0f}" if abs(shown) >= 10 else f"{shown:.10f}".rstrip("0").rstrip(".")


def table() -> str:
    """The page's table."""
    plans = [plan(tokens, measured()) for tokens in SIZES.values()]
    with_documents = [plan(tokens, measured(leave_out="document")) for tokens in SIZES.values()]
    lines: list[tuple[str, list[str]]] = [
        ("shards", [f"{one.shards:,}" for one in plans]),
        ("files, TB", [rounded(one.disk_bytes / 1e12) for one in plans]),
        ("of them read by targets, TB of memory", [rounded(one.hot_bytes / 1e12) for one in plans]),
        ("machines that hold them in memory", [f"{one.machines:,}" for one in plans]),
        ("tokenising, core-hours", [rounded(one.tokenize_core_hours) for one in plans]),
        ("building, core-hours", [rounded(one.build_core_hours) for one in plans]),
        ("both on these machines, hours", [rounded(one.build_hours) for one in plans]),
        ("both, dollars", [rounded(one.build_dollars) for one in plans]),
        ("a batch of targets, seconds", [rounded(one.latency_s) for one in plans]),
        ("a batch, its documents left out, seconds", [rounded(one.latency_s) for one in with_documents]),
        ("positions/s that the shards' machines count", [rounded(one.positions_per_s) for one in plans]),
        ("cores that put as many together", [rounded(one.asking_cores) for one in plans]),
        ("the machines, dollars per hour", [rounded(one.serve_dollars_per_hour) for one in plans]),
        ("the files, dollars per month", [rounded(one.disk_dollars_per_month) for one in plans]),
    ]
    head = "| | " + " | ".join(f"{name} tokens" for name in SIZES) + " |\n|---|" + "---:|" * len(SIZES)
    return head + "".join(f"\n| {name} | " + " | ".join(values) + " |" for name, values in lines)


def inputs() -> str:
    """The page's table of what was measured."""
    found, documents = measured(), measured(leave_out="document")
    lines = [
        ("building, core-seconds at 100M tokens", rounded(found.build_s.at, 3)),
        ("its growth: tokens to the power of", rounded(found.build_s.power, 3)),
        ("memory of a build, bytes per token", rounded(found.build_bytes, 3)),
        ("files, bytes per token", rounded(found.disk_bytes, 3)),
        ("files that targets read, bytes per token", rounded(found.hot_bytes, 3)),
        ("tokenising, MB of text per core-second", rounded(1e-6 / found.tokenize_s_per_byte)),
        ("matching, growth: tokens to the power of", rounded(found.match_us.power)),
        ("what 8 shards count of a position, core-microseconds", rounded(found.shard_us(8))),
        ("leaving documents out adds", rounded(documents.document[0])),
        ("putting that together, core-microseconds", rounded(found.together_us(8))),
        ("leaving documents out adds", rounded(documents.document[1])),
        ("what travels of a position and 8 shards, bytes", rounded(found.travelled_bytes(8))),
        ("leaving documents out adds", rounded(documents.document[2])),
    ]
    return "| measured | |\n|---|---:|" + "".join(f"\n| {name} | {number} |" for name, number in lines)


def main() -> None:
    """Print both tables."""
    print(inputs())
    print()
    print(table())


if __name__ == "__main__":
    main()
