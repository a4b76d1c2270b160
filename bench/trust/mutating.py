"""Valid inputs made hostile: bytes changed anywhere, and values of JSON and TOML exchanged for odd ones."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from corpus_teacher.settings import to_toml

MOST_BYTES = 1 << 16
"""Of an input; longer ones are cut."""

_NUMBERS = (0, 1, 127, 128, 255, 256, 32_767, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_PIECES = (
    b"\0" * 8, b"\xff" * 8, b"\xed\xa0\x80", b"\xc0\xaf", b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b"\r\n",
    b"\xe2\x80\xa8", b"../", b"/etc/passwd", b"\"", b"\\u0000", b"\\ud800", b"{", b"[" * 300, b"}", b"]", b",",
    b":", b"-", b"1e999", b"NaN", b"null", b"true", b"'", b"#", b"=", b"%s", b"9" * 40,

)  # fmt: skip
_DEEP = "[" * 150 + "]" * 150
_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1,
    2**63, 2**64, -(2**31), -(2**63), 10**30, 10**400, 0.0, -0.0, 0.5, 1.0, 1.5, -0.5, 1e-300, 1e308, float("inf"),
    -float("inf"), float("nan"), "", " ", "x", "0", "1", "a\nb", "a\0b", "\ud800", "é" * 40, "x" * 5_000, ".", "..",
    "../x", "../../../etc/passwd", "/etc/passwd", "/dev/zero", "nan", "60%", "-1%", "auto", "bytes", "remove", [],
    {}, [[]], [0], [1, 2, 3], [-1], [0.5], ["x"], [None], [[1], [2, 3]], [[1, 2], [3, "x"]], {"a": 1}, {"": None},
    [{}], [[[[[]]]]],

)  # fmt: skip


def mutate(rng: random.Random, sample: bytes, others: Sequence[bytes], structure: str | None) -> bytes:
    """A sample with one to eight changes.

    Parameters
    ----------
    others : sequence of bytes
        Samples that pieces are taken from.
    structure : {"json", "lines", "toml"} or None
        What the sample is; half of the time its values are exchanged, not its bytes.
    """
    if structure is not None and rng.random() < 0.5:
        changed = _structured(rng, sample, structure)
        if changed is not None:
            return changed[:MOST_BYTES]
    data = bytearray(sample)
    for _ in range(1 << rng.randrange(4)):
        rng.choice(_CHANGES)(rng, data, others)
    return bytes(data[:MOST_BYTES])


def _flip(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _number(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    size = rng.choice((1, 2, 4, 8))
    if len(data) >= size:
        number = rng.choice(_NUMBERS) + rng.randrange(-1, 2)
        place = rng.randrange(len(data) - size + 1)
        data[place : place + size] = (number % (1 << 8 * size)).to_bytes(size, rng.choice(("little", "big")))


def _insert(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.choice(_PIECES) if rng.random() < 0.7 else rng.randbytes(rng.randrange(1, 17))


def _remove(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        place = rng.randrange(len(data))
        del data[place : place + 1 + rng.randrange(min(len(data), 64))]


def _cut(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _repeat(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        place = rng.randrange(len(data))
        piece = data[place : place + 1 + rng.randrange(64)]
        data[place:place] = piece * rng.choice((1, 2, 30))


def _splice(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    if other:
        start, place = rng.randrange(len(other)), rng.randrange(len(data) + 1)
        piece = other[start : start + 1 + rng.randrange(256)]
        data[place : place + rng.choice((0, len(piece)))] = piece


_CHANGES: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip, _flip, _byte, _number, _number, _insert, _remove, _cut, _repeat, _splice,
)  # fmt: skip


def _structured(rng: random.Random, sample: bytes, structure: str) -> bytes | None:
    """The sample with one to three values exchanged; None where it isn't what it should be."""
    try:
        if structure == "lines":
            lines = sample.split(b"\n")
            place = rng.randrange(len(lines))
            lines[place] = _dumped(_changed(rng, json.loads(lines[place])))
            return b"\n".join(lines)
        if structure == "toml":
            table = _changed(rng, tomllib.loads(sample.decode()))
            return to_toml(table).encode("utf-8", "surrogatepass") if isinstance(table, dict) else None
        return _dumped(_changed(rng, json.loads(sample)))
    except (ValueError, RecursionError, OverflowError):
        return None


def _dumped(value: Any) -> bytes:
    text = json.dumps(value)
    return text.replace('"<deep>"', _DEEP).encode("utf-8", "surrogatepass")


def _changed(rng: random.Random, value: Any) -> Any:
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _with_change(rng, value)
    return value


def _with_change(rng: random.Random, value: Any) -> Any:
    """One value somewhere inside exchanged, taken away, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.93:
        key = rng.choice(list(value))
        change = rng.random()
        if change < 0.06:
            return {one: value[one] for one in value if one != key}
        if change < 0.1:
            return {(rng.choice(("", "x", "../x", key + "_")) if one == key else one): value[one] for one in value}
        if change < 0.13:
            return {**value, rng.choice(("", "x", "format", "arrays")): rng.choice(_ODD)}
        return {**value, key: _with_change(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        change = rng.random()
        if change < 0.1:
            return value[:place] + value[place + 1 :]
        if change < 0.2:
            return [*value[:place], value[place], *value[place:]]
        return [*value[:place], _with_change(rng, value[place]), *value[place + 1 :]]
    choice = rng.random()
    if type(value) in (int, float) and choice < 0.3:
        return rng.choice((value + 1, value - 1, -value, value * 2, value + 0.5, str(value), [value]))
    if isinstance(value, str) and choice < 0.2:
        return rng.choice((value[:-1], value + "x", value.upper(), [value], {value: value}, value * 2))
    return "<deep>" if choice > 0.99 else rng.choice(_ODD)
