"""Beside Markdown, for mkdocs: links out of docs/ lead to the repository, pictures from there are taken into the site,
and the command line describes itself."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

COMMANDS = "<!-- every command -->"
_LINK = re.compile(r"\]\((\.\.?/[^)#\s]*)(#[^)]*)?\)")
_PICTURES = (".svg", ".png")


def on_files(files: Any, config: Any) -> Any:
    """Pictures that pages show from outside of docs/, the figures of studies, are files of the site."""
    from mkdocs.structure.files import File

    root = Path(config["docs_dir"]).parent
    for page in list(files.documentation_pages()):
        text = Path(page.abs_src_path).read_text(encoding="utf-8")
        for match in _LINK.finditer(text):
            path = _in_repository(page.src_uri, match[1])
            outside = path.endswith(_PICTURES) and not path.startswith("docs/")
            if outside and files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(root / path)))
    return files


def _in_repository(page: str, link: str) -> str:
    """Where a link of a page leads, from the root of the repository."""
    return posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files outside of docs/ lead to the repository, pictures to the site's; the mark becomes the commands."""
    folder = posixpath.dirname(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        path = _in_repository(page.file.src_uri, match[1])
        if path.startswith("docs/"):
            return match[0]
        if path.endswith(_PICTURES):
            return f"]({posixpath.relpath(path, folder or '.')})"
        return f"]({config['repo_url']}/blob/main/{path}{match[2] or ''})"

    markdown = _LINK.sub(link, markdown)
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
