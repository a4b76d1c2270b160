"""Who chooses hostile cases besides the plain mutations: hypothesis, and libFuzzer, which follows the coverage.

Hypothesis exchanges a value of a valid sample for any other one that the format can express, nested as it likes, or
pieces of the sample's bytes; the plain mutations (`mutating`) choose from lists of what has broken readers before.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from bench.trust.inputs import Input
from bench.trust.mutating import MOST_BYTES, mutate
from corpus_teacher.settings import to_toml

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Run = Callable[[bytes], object]
"""Reads a case: a byte that says whether it is finished already, and the content."""


def drawn_cases(given: Input) -> SearchStrategy[bytes]:
    """Cases of one reader, for hypothesis to draw."""
    from hypothesis import strategies as st

    texts = st.text(st.characters(exclude_categories=()), max_size=20)
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
    values = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=10
    )
    edit = st.tuples(st.integers(0, MOST_BYTES), st.integers(0, 16), st.binary(max_size=16))
    edits = st.lists(edit, min_size=1, max_size=4)

    @st.composite
    def case(draw: Any) -> bytes:
        sample = draw(st.sampled_from(given.samples))
        if given.structure is not None and draw(st.booleans()):
            with contextlib.suppress(ValueError, TypeError, RecursionError, OverflowError):
                return b"\0" + _exchanged(draw, sample, given.structure, values)[:MOST_BYTES]
        finished = draw(st.booleans())
        content = bytearray(given.finish(sample) if finished else sample)
        for place, removed, inserted in draw(edits):
            begin = place % (len(content) + 1)
            content[begin : begin + removed] = inserted
        return (b"\1" if finished else b"\0") + bytes(content[:MOST_BYTES])

    return case()


def _exchanged(draw: Any, sample: bytes, structure: str, values: SearchStrategy[Any]) -> bytes:
    """The sample with one of its values exchanged for another."""
    from hypothesis import strategies as st

    def inside(value: Any) -> Any:
        if not isinstance(value, (dict, list)) or not value or not draw(st.integers(0, 4)):
            return draw(values)
        if isinstance(value, dict):
            name = draw(st.sampled_from(list(value)))
            return {**value, name: inside(value[name])}
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], inside(value[place]), *value[place + 1 :]]

    if structure == "toml":
        table = inside(tomllib.loads(sample.decode()))
        return to_toml(table if isinstance(table, dict) else {"": table}).encode("utf-8", "surrogatepass")
    lines = sample.split(b"\n") if structure == "lines" else [sample]
    place = draw(st.integers(0, len(lines) - 1))
    lines[place] = json.dumps(inside(json.loads(lines[place]))).encode()
    return b"\n".join(lines)


def draw(run: Run, given: Input, seed: int, count: int, seconds: float) -> None:
    """Run at most so many cases that hypothesis draws, in some seconds of processor time."""
    import hypothesis

    end = time.process_time() + seconds

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(drawn_cases(given))
    def each(case: bytes) -> None:
        if time.process_time() < end:
            run(case)

    each()


def follow_coverage(run: Run, given: Input, corpus: Path | None, seed: int, count: int, seconds: float) -> None:
    """Let libFuzzer choose the cases; the process ends with it."""
    import atheris

    folder = Path(tempfile.gettempdir()) / "corpus" if corpus is None else corpus
    folder.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(given.samples):
        (folder / f"sample-{number}").write_bytes(b"\0" + sample)
        (folder / f"sample-{number}-finished").write_bytes(b"\1" + given.finish(sample))

    def change(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.4 or not data:
            return bytes(atheris.Mutate(data, most))
        return data[:1] + mutate(rng, data[1:], given.samples, given.structure)[: most - 1]

    options = [
        f"-runs={count}",
        f"-max_total_time={max(1, int(seconds))}",
        f"-max_len={MOST_BYTES}",
        f"-seed={seed + 1}",
        "-handle_alrm=0",
        "-rss_limit_mb=0",
        "-print_final_stats=0",
        "-verbosity=0",
        "-detect_leaks=0",
    ]
    atheris.Setup(["fuzz", *options, str(folder)], run, custom_mutator=change)
    atheris.Fuzz()
