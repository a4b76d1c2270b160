"""The command line: parse, one call, show.

Nothing heavy is imported here: `corpus-teacher --help` answers at once, and each command imports what it
needs. Whatever goes wrong on purpose ends as one sentence on stderr and exit code 2, Ctrl-C as 130;
CORPUS_TEACHER_DEBUG=1 shows the traceback.
"""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from corpus_teacher import __version__
from corpus_teacher.cli.change_index import index_app
from corpus_teacher.cli.demo import demo
from corpus_teacher.cli.options import App, State, with_options
from corpus_teacher.cli.recipe import recipe
from corpus_teacher.cli.sample import sample
from corpus_teacher.cli.serve import serve
from corpus_teacher.cli.study import study_app
from corpus_teacher.cli.synthesize import synthesize
from corpus_teacher.cli.teacher import teacher_app
from corpus_teacher.cli.trace import trace
from corpus_teacher.cli.train import train
from corpus_teacher.cli.warm_up import warm_up
from corpus_teacher.noise import still_noise

app = App(
    name="corpus-teacher",
    help="What the pre-training corpus itself says about the next token: index it, ask it, learn from it.",
    epilog="Exit codes: 0 done; 2 refused, with a sentence that says why; 130 interrupted.",
)
app.add_typer(index_app, name="index")
app.add_typer(teacher_app, name="teacher")
app.add_typer(study_app, name="study")
app.command("sample")(sample)
app.command("trace")(trace)
app.command("serve")(serve)
app.command("synthesize")(synthesize)
app.command("train")(train)
app.command("recipe")(recipe)
app.command("demo")(demo)
app.command("warm-up")(warm_up)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"corpus-teacher {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Nothing but `--version`: the commands do the work."""


def _stop(number: int, frame: object) -> None:
    """SIGTERM unwinds the stack, so that temporary files go away."""
    del frame
    sys.exit(128 + number)


def _stop_again(otherwise: Callable[[Any], None], ignored: Any) -> None:
    """A stop that came where Python ignores exceptions, in a weak reference's callback say, comes once more."""
    if not isinstance(ignored.exc_value, SystemExit) or not hasattr(signal, "setitimer"):
        otherwise(ignored)
        return
    code = ignored.exc_value.code
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(code))
    signal.setitimer(signal.ITIMER_REAL, 0.01)


def listen() -> None:
    """End at SIGTERM as at the end of a command, wherever it comes."""
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = partial(_stop_again, sys.unraisablehook)


def _show_warning(
    otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any, **more: Any
) -> None:
    """A warning of ours as a note with the command's options; others as ever."""
    if category.__name__ != "TeacherWarning":
        otherwise(message, category, *place, **more)
    elif not State.quiet:
        typer.echo(f"note: {with_options(str(message), State.options)}", err=True)


def main() -> None:
    """The entry point of the `corpus-teacher` script."""
    listen()
    still_noise()
    warnings.showwarning = partial(_show_warning, warnings.showwarning)
    app(prog_name="corpus-teacher")


if __name__ == "__main__":
    main()
