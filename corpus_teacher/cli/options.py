"""What the commands share: how options are written, errors put, JSON printed; imports nothing heavy."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperOption

FAILED = 2
"""The exit code of whatever went wrong on purpose, and of a command that is written wrongly."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell gives it."""

ESTIMATOR_NAMES = (
    *("mle", "jelinek-mercer", "dirichlet", "witten-bell", "absolute-discounting", "kneser-ney", "modified-kneser-ney"),
    *("pitman-yor", "auto", "add-k", "katz", "stupid-backoff", "ppm-c"),
)
"""Those of `corpus_index.ESTIMATORS`, written out again because help must not import the engine."""

_NAMES = f"one of {', '.join(ESTIMATOR_NAMES)}"
_CALLED = {"force": "overwrite", "kind": "file_format", "format": "file_format", "token_dtype": "dtype"}
"""What a message calls an argument that the command calls otherwise."""


class State:
    """What holds for the whole process: whether progress and remarks are left out, and the command's options."""

    quiet = False
    options: ClassVar[dict[str, str]] = {}
    """The option that stands for each argument of Python."""


class Command(TyperCommand):
    """A command: one sentence for what goes wrong, and no option that is given twice and counts once."""

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """Parse; see the class."""
        with self._one_sentence():
            return super().make_context(*arguments, **settings)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and refuse an option that is given twice and counts once."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for one in set(order):
            if isinstance(one, TyperOption) and order.count(one) > 1 and not (one.multiple or one.is_flag or one.count):
                raise typer.BadParameter(f"{one.opts[0]} is given {order.count(one)} times: give it once", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run; see the class."""
        State.options = self._options()
        with self._one_sentence():
            for one in self.params:
                if "--out" in one.opts and isinstance(ctx.params.get(one.name), Path):
                    ctx.params[one.name] = _written(ctx.params[one.name])
            return super().invoke(ctx)

    @contextlib.contextmanager
    def _one_sentence(self) -> Iterator[None]:
        """Turn what was raised on purpose into a sentence on stderr and an exit code."""
        try:
            yield
        except KeyboardInterrupt:
            typer.echo("interrupted: nothing was left behind", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            sentence = _sentence(error)
            if sentence is None or os.environ.get("CORPUS_TEACHER_DEBUG") == "1":
                raise
            typer.echo(f"error: {with_options(sentence, self._options())}", err=True)
            raise typer.Exit(FAILED) from None

    def _options(self) -> dict[str, str]:
        """The option that stands for each argument of Python."""
        named = {str(one.name): one.opts[0] for one in self.params if isinstance(one, TyperOption)}
        return named | {
            theirs: named[ours] for theirs, ours in _CALLED.items() if ours in named and theirs not in named
        }


class App(typer.Typer):
    """A group of commands, with the settings that all groups have."""

    def __init__(self, **settings: Any) -> None:
        shared = {
            "no_args_is_help": True,
            "pretty_exceptions_enable": False,
            "context_settings": {"help_option_names": ["-h", "--help"]},
        }
        super().__init__(**{**shared, **settings})

    def command(self, name: str | None = None, **settings: Any) -> Callable[..., Any]:
        """Register a `Command`, with the options that all commands have."""
        register = super().command(name, cls=Command, **settings)

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            register(_with_common_options(function))
            return function

        return decorate


_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks on stderr.")]
_LogLevel = Annotated[
    str, typer.Option("--log-level", metavar="LEVEL", help="Of Python's logging: debug, info, warning or error.")
]


def _with_common_options(function: Callable[..., None]) -> Callable[..., None]:
    """A command's function with the options that all commands have, which it is not called with."""

    @functools.wraps(function)
    def command(*, quiet: bool, log_level: str, **options: Any) -> None:
        State.quiet = quiet
        level = getattr(logging, log_level.upper(), None)
        if not isinstance(level, int):
            raise typer.BadParameter(f"{log_level!r} is not a level: give debug, info, warning or error")
        logging.getLogger().setLevel(level)
        function(**options)

    signature = inspect.signature(function, eval_str=True)
    common = [
        inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Quiet),
        inspect.Parameter("log_level", inspect.Parameter.KEYWORD_ONLY, default="warning", annotation=_LogLevel),
    ]
    parameters = [*signature.parameters.values(), *common]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return command


def _written(path: Path) -> Path:
    """Where something is written: a URL is refused, and a `file://` is a path."""
    if ":/" not in str(path):
        return path
    from corpus_teacher.storage import written_path

    return written_path(path)


def _sentence(error: Exception) -> str | None:
    """What to tell the user about an error, or None for one that is a bug or typer's own."""
    from corpus_teacher.errors import CorpusIndexError

    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, CorpusIndexError):
        # an error that is an OSError too may carry its sentence as the only argument
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    if isinstance(error, MemoryError):
        return "out of memory: split the corpus into several indexes, or use a machine with more"
    return None


def with_options(sentence: str, options: dict[str, str]) -> str:
    """A sentence of the library, which speaks of arguments of Python, with a command's options in their place.

    `` `name` ``, ``name=value`` and names with an underscore are taken for arguments; parts of paths are not.

    >>> with_options('max_order -1 is too small; say overwrite=True, or errors="skip"', {
    ...     "max_order": "--max-order", "overwrite": "--overwrite", "errors": "--errors"})
    '--max-order -1 is too small; say --overwrite, or --errors skip'
    """
    if not options:
        return sentence
    if "overwrite" in options:
        sentence = sentence.replace("ask to overwrite it", f"say {options['overwrite']} to overwrite it")
    names = "|".join(sorted(map(re.escape, options), key=len, reverse=True))
    before, after = r"(?<![\w/.'\"`-])", r"(?![\w/.'\"=-])"
    sentence = re.sub(rf"`({names})`", lambda found: options[found[1]], sentence)
    sentence = re.sub(rf"{before}({names})=True\b", lambda found: options[found[1]], sentence)
    sentence = re.sub(
        rf"{before}({names})=(?:\"([^\"]*)\"|'([^']*)'|(\w+))",
        lambda found: f"{options[found[1]]} {found[2] or found[3] or found[4]}",
        sentence,
    )
    sentence = re.sub(
        rf"{before}set (?:the )?({names}) to (\w+)", lambda found: f"pass {options[found[1]]} {found[2]}", sentence
    )
    scored = "|".join(sorted((re.escape(name) for name in options if "_" in name), key=len, reverse=True))
    if scored:
        sentence = re.sub(rf"{before}({scored}){after}", lambda found: options[found[1]], sentence)
    return sentence


def order_of(word: str | int) -> int | None:
    """A bound of the order from "5" or "none".

    Raises
    ------
    ConfigError
        If it is neither.
    """
    from corpus_teacher.errors import ConfigError

    if word == "none":
        return None
    try:
        order = int(word)
    except ValueError as error:
        raise ConfigError(f"max_order {word!r} is not an order: give a whole number, or none for no bound") from error
    if order < 0:
        raise ConfigError(f"max_order {order} is too small: it must be at least 0")
    return order


def numbers_of(text: str, name: str) -> list[int]:
    """Integers of "16,32 64".

    Raises
    ------
    ConfigError
        If it is not a list of integers.
    """
    from corpus_teacher.errors import ConfigError

    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise ConfigError(
            f"`{name}` {text!r} is not a list of whole numbers: write them with commas between"
        ) from error


def text_of(path: Path) -> str:
    """The text of a file; "-" is stdin.

    Raises
    ------
    InputError
        If it can't be read, or isn't UTF-8.
    """
    from corpus_teacher.errors import InputError

    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return data.decode()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: byte {error.start} can't be read") from error


IndexPath = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder of the index, or a URL of one.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", "--force", help="Replace what an earlier run made there.")]
OwnTokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        "-t",
        metavar="T",
        help="Must be the index's own; for indexes of ready tokens.",
        show_default="the index's",
    ),
]
OutPage = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE.html", show_default=False, help="Write a page with tables and plots."),
]
TokenDtype = Annotated[
    str, typer.Option("--token-dtype", help="The integers of a raw .bin file of tokens: uint16 or uint32; auto looks.")
]
Device = Annotated[
    str, typer.Option(help="Where the model runs: auto (a GPU where there is one), cpu, cuda, cuda:1, mps.")
]
WithRecall = Annotated[
    bool,
    typer.Option(
        "--recall", help="Mix in what followed the same last tokens earlier in the text; the mixture is fitted."
    ),
]


def estimator_option(help: str = "How counts become probabilities", **settings: Any) -> Any:
    """An option -e, whose help names all estimators."""
    return typer.Option(
        "--estimator",
        "-e",
        metavar="NAME|FILE",
        help=f"{help}: {_NAMES}; or the file of a fitted one, which has its own order.",
        **settings,
    )


def max_order_option(**settings: Any) -> Any:
    """An option --max-order: a whole number or none."""
    return typer.Option(
        "--max-order",
        metavar="N",
        help="The longest context, in tokens, or none: no bound.",
        **settings,
    )


@contextlib.contextmanager
def going_on(sentence: str) -> Iterator[None]:
    """Say what is kept, where a command that can be continued is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {sentence}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def print_json(answer: Any) -> None:
    """Anything of ours as JSON on stdout; infinity, which JSON lacks, as the text "inf"."""
    typer.echo(json.dumps(_finite(answer), default=_plain, ensure_ascii=False, indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """The same with infinities and NaN as texts."""
    if hasattr(value, "__dataclass_fields__"):
        value = {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _plain(value: Any) -> Any:
    """What JSON doesn't know: paths, numpy numbers."""
    return _finite(value.item()) if hasattr(value, "item") else str(value)


def check_page(path: Path | None) -> None:
    """Refuse a page that can't be written, before the work for it is done.

    Raises
    ------
    OutputError
    """
    from corpus_teacher.errors import OutputError

    if path is None:
        return
    if path.is_dir():
        raise OutputError(f"the page {path} can't be written (it is a folder): name a file")
    above = next((one for one in path.absolute().parents if one.exists()), None)
    if above is not None and not (above.is_dir() and os.access(above, os.W_OK)):
        problem = "no permission" if above.is_dir() else f"{above} is a file"
        raise OutputError(f"the page {path} can't be written ({problem}): name another file")


def write_page(render: Callable[[], str], path: Path) -> None:
    """Write an HTML page that `render()` makes, whole or not at all.

    Raises
    ------
    OutputError
        If it can't be written.
    """
    from corpus_teacher.errors import OutputError
    from corpus_teacher.files import write_text

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the page {path} can't be written ({error.strerror or error})") from error
    write_text(path, render())
