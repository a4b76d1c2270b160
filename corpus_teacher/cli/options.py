"""What the modules of the command line share; imports nothing heavy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

IndexPath = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the index.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]


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


def write_page(render: Any, path: Path) -> None:
    """Write an HTML page that `render()` makes.

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
