"""A record of any source (a JSON object, a row of a table) → its document, or a sentence about what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from corpus_teacher.data.documents import UNPACK_RATIO, Document, ReadLog, check_unpack_ratio
from corpus_teacher.errors import CorpusIndexError, EncodingError, InputError

OnErrors = Literal["fail", "replace", "skip"]


@dataclass(frozen=True)
class ReadOptions:
    """How to read.

    Parameters
    ----------
    errors : {"fail", "replace", "skip"}
        A document that is broken: stop; put U+FFFD in the place of bytes that are not valid UTF-8, and leave out what
        can't be mended so (no text field, broken JSON); leave it out.
    text_field : str
        The key or column that holds the text; "a.b" is the key b inside of a.
    split : str, optional
        Of a data set that has several.
    name_field : str, optional
        The key or column that names a document in the index: an `id`, a `url`. By default its file and line do.
    keep_fields : tuple of str
        Keys or columns that the index keeps with each document.
    render : callable, optional
        Makes text of what the text field holds, where that is a list of chat messages.
    unpack_ratio : float
        A packed file that unpacks to more than 256 MiB and to more than this many times its size is refused, wherever
        it is noticed; inf: no limit.
    """

    errors: OnErrors = "fail"
    text_field: str = "text"
    split: str | None = None
    name_field: str | None = None
    keep_fields: tuple[str, ...] = ()
    render: Callable[[list[dict[str, Any]]], str] | None = None
    unpack_ratio: float = UNPACK_RATIO

    def __post_init__(self) -> None:
        check_unpack_ratio(self.unpack_ratio)

    @property
    def fields(self) -> list[str]:
        """All keys or columns that are read, the text first."""
        names = [self.text_field, *([self.name_field] if self.name_field else []), *self.keep_fields]
        return list(dict.fromkeys(names))


def document_of(record: Mapping[str, Any], origin: str, options: ReadOptions, log: ReadLog) -> Iterator[Document]:
    """The document of a record: its text field, checked to be text that UTF-8 can hold."""
    try:
        value = _text_of(value_of(record, options.text_field, origin), origin, options, log)
        name, fields = None, None
        if options.name_field is not None:
            name = str(_plain(value_of(record, options.name_field, origin)))
        if options.keep_fields:
            fields = {field: _plain(value_of(record, field, origin)) for field in options.keep_fields}
    except InputError as error:
        if options.errors == "fail":
            raise
        log.note(str(error), skipped=True)
        return
    yield Document(value, origin, name=name, fields=fields)


def value_of(record: Mapping[str, Any], field: str, origin: str) -> Any:
    """What a record holds under a name, "a.b" inside of a.

    Raises
    ------
    InputError
        If there is no such field.
    """
    if field in record:
        return record[field]
    found: Any = record
    for key in field.split("."):
        if not isinstance(found, Mapping) or key not in found:
            raise missing_field(origin, field, list(record))
        found = found[key]
    return found


def _text_of(value: Any, origin: str, options: ReadOptions, log: ReadLog) -> str:
    """The text of a field's value, mended where the options ask for it."""
    field = options.text_field
    if options.render is not None:
        value = _rendered(value, origin, options)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            if options.errors != "replace":
                raise invalid_utf8(origin, error) from error
            log.note(f"{origin}: invalid UTF-8", skipped=False)
            value = value.decode(errors="replace")
    if not isinstance(value, str):
        hint = "such documents can be left out: set errors to skip"
        if isinstance(value, list) and value and isinstance(value[0], Mapping) and "content" in value[0]:
            hint = "chat messages become text through the tokenizer's chat template: ask for chat"
        raise InputError(f"{origin}: {field!r} holds {_kind(value)}, not text; {hint}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON may hold half of a surrogate pair: "\ud800"
        if options.errors != "replace":
            raise EncodingError(
                f"{origin}: the text holds half of a surrogate pair, which UTF-8 can't; set errors to replace or skip"
            ) from error
        log.note(f"{origin}: half of a surrogate pair", skipped=False)
        value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def _rendered(value: Any, origin: str, options: ReadOptions) -> str:
    assert options.render is not None
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        raise InputError(
            f"{origin}: {options.text_field!r} holds {_kind(value)}, not a list of chat messages; name the field that "
            "holds them, or read the text without a chat template"
        )
    messages = [{key: part for key, part in message.items() if part is not None} for message in value]
    try:
        return options.render(messages)
    except CorpusIndexError:
        raise
    except Exception as error:  # of any kind: a template is a program
        raise InputError(f"{origin}: the chat template refuses the messages: {one_line(error)}") from error


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: dates and the like as text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, float) and value != value:
        return None
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value)


def invalid_utf8(origin: str, error: UnicodeDecodeError) -> EncodingError:
    """The sentence about bytes that are not text."""
    shown = error.object[error.start : error.start + 1].hex()
    return EncodingError(
        f"{origin}: invalid UTF-8 (byte 0x{shown}, {error.reason}); set errors to replace to put U+FFFD there, or to "
        "skip to leave such documents out"
    )


def missing_field(origin: str, field: str, present: list[str]) -> InputError:
    """The sentence about a record without a field."""
    names = ", ".join(map(repr, sorted(map(str, present))[:8])) or "none"
    return InputError(f"{origin}: there is no field {field!r}; name one of: {names}")


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def one_line(error: BaseException) -> str:
    """The first line of a library's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
