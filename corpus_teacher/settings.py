"""Strict reading of settings: a key that isn't known, a value of another type or out of range is refused by name."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields
from numbers import Integral, Real
from typing import Any, TypeVar

from corpus_teacher.errors import ConfigError
from corpus_teacher.names import CACHE_KINDS as CACHE_KINDS
from corpus_teacher.names import PRECISIONS as PRECISIONS

_Made = TypeVar("_Made")


_FEW = 16


def nearest(word: object, known: Collection[str]) -> str:
    """What to do instead: the nearest known word, or all of them, or of many the few that are least far.

    Examples
    --------
    >>> nearest("lenght", ["length", "limit"])
    "did you mean 'length'?"
    """
    close = difflib.get_close_matches(str(word), known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if len(known) <= _FEW:
        return f"give one of {', '.join(known)}"
    least_far = difflib.get_close_matches(str(word), known, n=3, cutoff=0)
    return f"the nearest are {', '.join(least_far)}"


def check_known(word: object, known: Collection[str], what: str) -> None:
    """Refuse a word that isn't one of those known."""
    if not isinstance(word, (str, int, float, type(None))) or word not in known:  # lists and tables can't be looked up
        raise ConfigError(f"{what} is {word!r}, which is unknown: {nearest(word, known)}")


def check_keys(table: object, known: Collection[str], where: str) -> Mapping[str, Any]:
    """The table itself; refuses what is no table, and a key that isn't one of those known."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} is {table!r}: give a table with keys of {', '.join(known)}")
    for key in table:
        if key not in known:
            raise ConfigError(f"{where} has no key {key!r}: {nearest(key, known)}")
    return table


def is_number(value: object) -> bool:
    """Whether it is a finite float, or an int that a float can hold, and no bool."""
    number: Any = value  # Real has no order for the type checker
    return isinstance(value, Real) and not isinstance(value, bool) and bool(abs(number) <= sys.float_info.max)


def check_share(value: object, name: str) -> None:
    """Refuse what is no number from 0 to 1."""
    if not is_number(value) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ConfigError(f"{name} is {value!r}: give a number from 0 to 1")


def is_whole(value: object) -> bool:
    """Whether it is a whole number of Python or numpy, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_whole(value: object, name: str, least: int) -> None:
    """Refuse what is no whole number, or too small."""
    if not is_whole(value) or value < least:  # type: ignore[operator]
        raise ConfigError(f"{name} is {value!r}: give a whole number of at least {least}")


@contextmanager
def within(where: str) -> Iterator[None]:
    """Say where a setting stands in whatever is refused inside."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def make_from(kind: type[_Made], table: Mapping[str, Any], where: str) -> _Made:
    """A dataclass of a table of its fields; those without a default have to be there."""
    made = fields(kind)  # type: ignore[arg-type]
    check_keys(table, [field.name for field in made], where)
    required = [field.name for field in made if field.default is MISSING and field.default_factory is MISSING]
    missing = [name for name in required if name not in table]
    if missing:
        raise ConfigError(f"{where} has no {missing[0]}: give it")
    with within(where):
        return kind(**table)


def make_switched(kind: type[_Made], said: Any, where: str, settings: str = "its settings") -> _Made | None:
    """A dataclass of a table of its fields, or of true for all defaults; of false none."""
    if isinstance(said, bool):
        return kind() if said else None
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where} is {said!r}: give true, or a table of {settings}")
    with within(where):
        return make_from(kind, said, where)


def to_toml(table: Mapping[str, Any]) -> str:
    """Tables as the text of a TOML file that reads back as the same; what is None is left out.

    Tables of the first level get headers, what lies deeper stands in braces.

    Examples
    --------
    >>> print(to_toml({"out": "runs/a", "data": {"length": 8, "train": ("a", "b")}}), end="")
    out = "runs/a"
    <BLANKLINE>
    [data]
    length = 8
    train = ["a", "b"]
    """
    top = {key: value for key, value in table.items() if not isinstance(value, Mapping) and value is not None}
    lines = [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in top.items()]
    for name, inner in table.items():
        if isinstance(inner, Mapping):
            lines += ["", f"[{_toml_key(name)}]"]
            lines += [f"{_toml_key(key)} = {_toml_value(one)}" for key, one in inner.items() if one is not None]
    return "\n".join(lines) + "\n"


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        inner = ", ".join(
            f"{_toml_key(str(key))} = {_toml_value(one)}" for key, one in value.items() if one is not None
        )
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"[{', '.join(_toml_value(one) for one in value)}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
