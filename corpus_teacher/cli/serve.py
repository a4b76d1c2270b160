"""`corpus-teacher serve`: indexes over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from corpus_teacher.cli.options import estimator_option, max_order_option, order_of

TOKEN = "CORPUS_TEACHER_TOKEN"
"""The variable of the environment that holds the token."""

_MIB = 1 << 20


def serve(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=][ray:]DIR…",
            show_default=False,
            help="Folders of indexes, each called by its NAME or as its folder is; ray: shards in Ray's actors.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0: all that this machine has.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one.")] = 8000,
    estimator: Annotated[str, estimator_option("Of requests that name none")] = "witten-bell",
    max_order: Annotated[str, max_order_option()] = "5",
    leave_out: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="Of texts that are in the index, for requests that don't say: none, self, document, or auto.",
        ),
    ] = "none",
    top_k: Annotated[int, typer.Option(min=1, help="Explicit tokens a position of targets.")] = 64,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", "-t", metavar="T", show_default="the index's", help="For indexes of ready tokens."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=f"the variable {TOKEN}, if it is set",
            help="Whose first line clients have to send as a bearer token.",
        ),
    ] = None,
    max_body: Annotated[int, typer.Option(metavar="MIB", min=1, help="Of a request, in MiB.")] = 64,
    max_positions: Annotated[int, typer.Option(min=1, help="Tokens of a request.")] = 1 << 18,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Of a request, waiting included.")] = 60.0,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Requests that wait; whoever comes then is sent away for a second (429).")
    ] = 256,
    threads: Annotated[
        int | None, typer.Option(min=1, help="That ask the indexes.", show_default="all processors")
    ] = None,
    neural: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="none",
            help="A model that teaches beside the corpus on the page: a folder, a name, a GGUF file, or smollm2.",
        ),
    ] = None,
    access_log: Annotated[bool, typer.Option(help="A line on stderr for each request.")] = True,
) -> None:
    """Answer questions to indexes over HTTP, as vLLM and infini-gram do, and to people at /.

    Other machines reach it only with --host; then give it a token, and HTTPS by a proxy in front of it.
    """
    from corpus_teacher.cli.console import remark
    from corpus_teacher.errors import ConfigError

    try:
        from corpus_teacher.serve import Limits, ServeOptions
        from corpus_teacher.serve import serve as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("corpus_"):
            raise
        raise ConfigError(f"serving needs {error.name}: pip install corpus-teacher[serve]") from error

    options = ServeOptions(
        host=host,
        port=port,
        estimator=estimator,
        max_order=order_of(max_order),
        leave_out=None if leave_out == "none" else leave_out,
        top_k=top_k,
        token=_token_of(token_file),
        threads=threads,
        access_log=access_log,
        neural=neural,
        limits=Limits(
            body_bytes=max_body * _MIB, positions=max_positions, request_s=max_seconds, waiting_requests=max_waiting
        ),
    )
    if not options.is_loopback and options.token is None:
        remark(f"{host} is open to others, and no token is asked for: set {TOKEN}, or --token-file")
    run(places, options, tokenizer=tokenizer, ready=lambda address: typer.echo(f"serving at {address}"))
    remark("stopped")


def _token_of(file: Path | None) -> str | None:
    """The token, from a file or the environment: arguments of a command are everybody's to read."""
    from corpus_teacher.errors import ConfigError

    if file is None:
        return os.environ.get(TOKEN)
    text = file.read_text(encoding="utf-8").strip()
    if not text:
        raise ConfigError(f"{file} is empty: write the token into it")
    return text.splitlines()[0].strip()
