"""Data sets of the `datasets` library, saved on disk or by name: rows, mapped or streamed, to documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus_teacher.data.documents import Document, ReadLog
from corpus_teacher.data.file_kinds import kind_of_file, looks_like_path
from corpus_teacher.data.records import ReadOptions, document_of, missing_field, one_line
from corpus_teacher.errors import InputError


def read_rows(rows: Any, name: str, options: ReadOptions, log: ReadLog) -> Iterator[Document]:
    """The rows of a data set of the `datasets` library, mapped or streamed."""
    iterator, number = iter(rows), 0
    while True:
        try:
            row = next(iterator)
        except StopIteration:
            return
        except Exception as error:  # of any kind: the library reads dozens of formats
            raise InputError(f"{name} can't be read after row {number}: {one_line(error)}") from error
        number += 1
        yield from document_of(row, f"{name}, row {number}", options, log)


def load_saved(name: str, options: ReadOptions, log: ReadLog, *, select: bool = True) -> Any:
    """The rows of a data set that `save_to_disk` wrote, mapped; with `select` the columns that are read and no others.

    Raises
    ------
    InputError
        If it is damaged, or has no such split.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(name)
    except Exception as error:
        raise InputError(f"the data set in {name} can't be loaded: {one_line(error)}") from error
    if isinstance(loaded, datasets.DatasetDict):
        loaded = _choose_split(loaded, name, options.split, log)
    return _checked(_with_fields(loaded, name, options), name) if select else loaded


def _checked(rows: Any, name: str) -> Any:
    """Mapped rows whose columns lead nowhere outside of their file, which the library believes and dies of.

    All is read once more for it, at more than a gigabyte per second; tokenising takes a hundred times as long.
    """
    import pyarrow as pa

    for batch in rows.data.table.to_batches():
        try:
            batch.validate(full=True)
        except pa.ArrowException as error:
            raise InputError(f"the data set in {name} is damaged: {one_line(error)}") from error
    return rows


def _with_fields(rows: Any, name: str, options: ReadOptions) -> Any:
    """Rows with the columns that are read, and no others."""
    present = rows.column_names
    if present is None:  # a stream that doesn't know them
        return rows
    wanted = [field if field in present else field.partition(".")[0] for field in options.fields]
    for field, column in zip(options.fields, wanted, strict=True):
        if column not in present:
            raise missing_field(name, field, present)
    return rows.select_columns(list(dict.fromkeys(wanted)))


def _choose_split(splits: Any, name: str, split: str | None, log: ReadLog) -> Any:
    names = list(splits)
    wanted = split or ("train" if "train" in names else names[0] if len(names) == 1 else None)
    if wanted not in names:
        problem = f"has no split {wanted!r}" if wanted else "has several splits and none is called train"
        raise InputError(f"the data set in {name} {problem}; set `split` to one of: {', '.join(names)}")
    if split is None:
        _say_left_out(name, wanted, names, log)
    return splits[wanted]


def _say_left_out(name: str, taken: str | None, names: list[str], log: ReadLog) -> None:
    """Say which other splits there are; a user who named one knows."""
    others = [other for other in names if other != taken]
    if others:
        log.notice(
            f"{name}: only its split {taken!r} is read, not {', '.join(map(repr, others))}; name a split to choose"
        )


def load_hub(spec: str, options: ReadOptions, log: ReadLog, *, select: bool = True) -> Any:
    """The rows of `name[:config[:split]]` through `datasets.load_dataset`, streamed; `select` as in `load_saved`.

    Raises
    ------
    InputError
        With the first line of what the library says.
    """
    import datasets

    name, _, rest = spec.partition(":")
    config, _, split = rest.partition(":")
    path = Path(name).expanduser()
    loader: dict[str, Any] = {"path": str(path) if path.is_dir() else name, "name": config or None}
    if path.is_file():  # one local file: the loader that its suffix stands for
        known = {"jsonl": "json", "parquet": "parquet", "text": "text"}.get(kind_of_file(path) or "")
        plain = {".csv": "csv", ".json": "json", ".arrow": "arrow"}.get(path.suffix)
        if known is None and plain is None:
            raise InputError(f"hf:{spec}: datasets has no loader for the suffix {path.suffix!r}")
        loader = {"path": known or plain, "data_files": str(path)}
    elif not path.exists() and (not name or looks_like_path(name)):
        raise InputError(f"hf:{spec}: there is no file or folder {name!r}")
    try:
        rows = datasets.load_dataset(**loader, split=split or options.split or "train", streaming=True)
    except Exception as error:
        missing = "" if path.exists() else f"there is no file or folder {name!r} here, and "
        raise InputError(f"hf:{spec} can't be loaded: {missing}the library says: {one_line(error)}") from error
    if not split and options.split is None:
        _say_left_out(f"hf:{spec}", "train", list(getattr(rows.info, "splits", None) or ()), log)
    return _with_fields(rows, f"hf:{spec}", options) if select else rows
