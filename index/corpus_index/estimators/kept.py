"""Estimators as files: JSON that appears whole or not at all, with a checksum, read by a schema."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from corpus_index.errors import CorpusIndexError, IndexExistsError, IndexFormatError, IndexWriteError
from corpus_index.files import write_file
from corpus_index.manifest import read_json

_CHECKSUM = "checksum"
_TABLES = ("discounts", "strengths", "ratios")


def write_fields(path: str | os.PathLike[str], fields: Mapping[str, Any], *, overwrite: bool) -> None:
    """Write an estimator's fields and their checksum.

    Raises
    ------
    IndexExistsError
        A file stands there, and overwrite is False.
    IndexWriteError
        It can't be written; a file that stood there stays.
    """
    plain = json.loads(json.dumps(fields))  # as it will be read: keys are text
    content = json.dumps({**plain, _CHECKSUM: _checksum(plain)}, indent=1) + "\n"
    try:
        write_file(path, content.encode(), overwrite=overwrite)
    except FileExistsError as error:
        raise IndexExistsError(f"{path} exists already: choose another name, or ask to overwrite it") from error
    except OSError as error:
        raise IndexWriteError(f"the estimator {path} can't be written ({error.strerror or error})") from error


def read_fields(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of an estimator, its tables as tuples; files of versions without a checksum are read as well.

    Raises
    ------
    IndexFormatError
        There is no such file, or it is damaged or not an estimator.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
        checksum = content.pop(_CHECKSUM, None)
        if checksum is not None and checksum != _checksum(content):
            raise ValueError("it was changed after it was written")
        for key, is_right in _SCHEMA.items():
            if key in content and not is_right(content[key]):
                raise ValueError(f"its {key!r} is {str(content[key])[:80]}")
    except FileNotFoundError:
        raise IndexFormatError(f"there is no estimator at {path}: fit one, and save it there") from None
    except (OSError, ValueError) as error:
        if isinstance(error, CorpusIndexError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise IndexFormatError(f"{path} is not an estimator ({reason}): fit one again") from error
    return {key: _as_tuples(value) if key in _TABLES else value for key, value in content.items()}


def _checksum(fields: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the fields' canonical JSON."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _as_tuples(table: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in table)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**63 and math.isfinite(value)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, list) and all(map(_is_number, row)) for row in value)


_SCHEMA: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "max_order": lambda value: value is None or (type(value) is int and 0 <= value < 2**31),
    "discounts": _is_table,
    "strengths": _is_table,
    "ratios": _is_table,
    "fingerprint": lambda value: value is None or isinstance(value, str),
    "convention": lambda value: isinstance(value, str),
    "alpha": _is_number,
    "k": _is_number,
    "facts": lambda value: isinstance(value, dict),
}
