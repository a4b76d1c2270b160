"""Beside Markdown, for mkdocs: links out of docs/ lead to the repository, and the command line describes itself."""

from __future__ import annotations

import posixpath
import re
from typing import Any

COMMANDS = "<!-- every command -->"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files outside of docs/ lead to the repository, pictures to raw files; the mark becomes the commands."""
    folder = posixpath.dirname(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, match[1]))
        kind = "raw" if path.endswith((".svg", ".png")) else "blob"
        return match[0] if path.startswith("docs/") else f"]({config['repo_url']}/{kind}/main/{path}{match[2] or ''})"

    markdown = re.sub(r"\]\((\.\.?/[^)#\s]*)(#[^)]*)?\)", link, markdown)
    return markdown.replace(COMMANDS, commands()) if COMMANDS in markdown else markdown


def commands() -> str:
    """Every command with its arguments and options, as its help has them."""
    import typer.main

    from corpus_teacher.cli.main import app

    lines: list[str] = []
    _describe(typer.main.get_command(app), "corpus-teacher", lines)
    return "\n".join(lines)


def _describe(command: Any, name: str, lines: list[str]) -> None:
    """A command and those below it."""
    below = getattr(command, "commands", None)
    if below:
        for key in sorted(below):
            _describe(below[key], f"{name} {key}", lines)
        return
    lines += [f"## {name}", "", _plain(command.help or ""), "", "| argument or option | default | |", "|---|---|---|"]
    for one in command.params:
        is_option = one.param_type_name == "option"
        names = ", ".join(f"`{text}`" for text in (*one.opts, *one.secondary_opts)) if is_option else f"`{one.name}`"
        shown = is_option and one.default not in (None, False, ()) and not callable(one.default)
        default = f"`{getattr(one.default, 'value', one.default)}`" if shown else ""
        said = _plain(getattr(one, "help", "") or "").replace("|", chr(92) + "|")
        lines.append(f"| {names} | {default} | {said} |")
    lines.append("")


def _plain(text: str) -> str:
    """Help in one paragraph, safe in Markdown."""
    return " ".join(text.replace("\b", " ").replace("<", "&lt;").split())
