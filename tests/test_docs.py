"""The documentation: its Python runs, its commands exist (and run, where a page is a walk), its links lead somewhere.

A block that isn't run says why, in a comment before it: `<!-- not run: … -->`, or `<!-- output -->`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import typer.main
from typer.testing import CliRunner

from corpus_teacher.blend import make_policy
from corpus_teacher.cli.main import app
from corpus_teacher.study import make_study
from corpus_teacher.training.settings import make_run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
WALKS = (
    "tutorial.md",
    "how-to/index-my-corpus.md",
    "how-to/grow-an-index.md",
    "how-to/read-the-evidence.md",
    "how-to/trace.md",
    "how-to/score.md",
    "how-to/export.md",
    "explanation/estimators.md",
)
"""Pages whose commands are run, in their order, with the Python between them."""

OTHERS = ("pip", "git", "cd", "python", "python3", "torchrun")
OPTIONAL = {"adapters.md": "lightning", "how-to/ray.md": "ray", "recipes/quantization.md": "torchao"}
SERVED = "how-to/serve.md"
ADDRESS = "http://127.0.0.1:8000"
"""Where the server of that page is, which a test starts at a free port."""

A_STUDENT = """
import torch
from corpus_teacher import CorpusTeacher
from corpus_teacher.data import TokenWindows
from corpus_teacher.training import make_student
_teacher = CorpusTeacher("my-index", leave_out=None)
_shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
student = make_student(_shape, vocab_size=_teacher.vocab_size)
input_ids = ids = torch.from_numpy(_teacher.index.tokens[:256].astype("int64")).view(4, 64)
windows = TokenWindows(_teacher.index.tokens, 32, seed=0)
windows = [windows[number] for number in range(8)]
generator = torch.Generator().manual_seed(0)
"""
SETUP = {
    "caches.md": A_STUDENT,
    "recipes/on-policy.md": A_STUDENT
    + "from corpus_teacher import soft_cross_entropy\noutside, step = CorpusTeacher('my-index', leave_out=None), 0\n",
    "recipes/quantization.md": A_STUDENT + "import copy\nfrom corpus_teacher.neural import NeuralTeacher\n",
    "recipes/demonstrations.md": A_STUDENT
    + "from corpus_teacher.data.opening import index_tokenizer\ntokenizer = index_tokenizer(_teacher.index)\n"
    + "import json\nfrom pathlib import Path\n"
    + "_one = json.dumps({'prompt': 'What is a', 'demonstration': 'a context is'}) + '\\n'\n"
    + "Path('pairs.jsonl').write_text(_one * 2)\nimport copy\nteacher = copy.deepcopy(student)\n",
}
"""What a reader of a page has already."""


class Block(NamedTuple):
    """A block of code: where it stands, its language, and whether it says that it is not run."""

    page: str
    language: str
    code: str
    mark: str


def blocks(page: str) -> list[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r"(?:<!-- (output|not run: [^>]*) -->\n)?```(\w*)\n(.*?)```", text, flags=re.DOTALL)
    return [Block(page, language, code, mark) for mark, language, code in found]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the things that pages speak of: books/, held-out/, my-index, and teacher, a model."""
    from corpus_teacher.training import make_student

    folder = tmp_path_factory.mktemp("docs")
    for name, sources in (
        ("books", ("explanation/idea.md", "tutorial.md", "findings/first-studies.md")),
        ("held-out", ("studies.md",)),
    ):
        (folder / name).mkdir()
        for source in sources:
            (folder / name / Path(source).name).write_text(
                (DOCS / source).read_text(encoding="utf-8"), encoding="utf-8"
            )
    (folder / "notes.jsonl.zst").symlink_to(_packed_notes(folder))
    run(folder, "corpus-teacher index build books --out my-index --tokenizer train:1024")
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    make_student(shape, vocab_size=1024).save_pretrained(folder / "teacher")
    (folder / "teacher" / "tokenizer.json").write_bytes((folder / "my-index" / "tokenizer.json").read_bytes())
    return folder


def _packed_notes(folder: Path) -> Path:
    import zstandard

    path = folder / "packed"
    path.write_bytes(zstandard.compress(b'{"text": "a note of the corpus"}\n{"text": "another note"}\n'))
    return path


def run(folder: Path, line: str) -> None:
    """Run a command in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"


def commands(code: str) -> Iterator[str]:
    """The lines of a shell block, continued ones joined."""
    for line in code.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(one.language == "python" and not one.mark for one in blocks(page)) or page in WALKS],
)
def test_a_page_runs(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page in OPTIONAL:
        pytest.importorskip(OPTIONAL[page])
    monkeypatch.chdir(place)
    monkeypatch.setenv("CORPUS_TEACHER_CACHE", str(place / "user-cache"))  # put back after a page that names another
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(SETUP.get(page, ""), scope)
    with contextlib.ExitStack() as stack:
        if page == "adapters.md":  # Lightning warns of few workers, and of what its own code uses
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        address = stack.enter_context(serving(place)) if page == SERVED else ADDRESS
        _run_page(page, place, scope, address)


@contextlib.contextmanager
def serving(place: Path) -> Iterator[str]:
    """The address of a server of my-index."""
    for name in ("starlette", "uvicorn", "prometheus_client", "openai"):
        pytest.importorskip(name)
    from tests.teacher.serve.conftest import running

    with running("--no-access-log", indexes={"my-index": place / "my-index"}) as client:
        yield client.url


def _run_page(page: str, place: Path, scope: dict[str, Any], address: str) -> None:
    for block in blocks(page):
        if block.mark:
            continue
        if block.language == "python":
            exec(compile(block.code.replace(ADDRESS, address), page, "exec"), scope)
        elif block.language == "toml" and (named := _file_of(block)):
            (place / named).write_text(block.code, encoding="utf-8")
        elif block.language == "sh" and page in WALKS:
            for line in commands(block.code):
                if line.startswith("corpus-teacher"):
                    run(place, line)


def _file_of(block: Block) -> str | None:
    """The name that the words before a block give it: `NAME.toml`:"""
    text = (DOCS / block.page).read_text(encoding="utf-8")
    before = text[: text.index(block.code)].rstrip().rpartition("\n")[0].rstrip()
    found = re.search(r"`([\w-]+\.toml)`:$", before)
    return found[1] if found else None


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_checked_or_says_why_not(page: str) -> None:
    for block in blocks(page):
        if block.mark:
            continue
        assert block.language in ("python", "sh", "toml"), f"{page}: a block of {block.language!r} without a mark"
        if block.language == "toml":
            check_toml(tomllib.loads(block.code))
        if block.language == "sh":
            for line in commands(block.code):
                check_command(line)


def check_toml(table: dict[str, Any]) -> None:
    """A study, a training or a part of one, or a policy: whose keys are known."""
    if "question" in table:
        make_study(table)
    elif "data" in table or set(table) <= {"training"}:
        make_run(
            {
                "out": "runs/x",
                "data": {"index": "my-index", "held_out": ["held-out"]},
                "training": {"max_steps": 1},
                **_few(table),
            }
        )
    else:
        make_policy(table)


def _few(table: dict[str, Any]) -> dict[str, Any]:
    """Without what can't be checked without a GPU."""
    training = {
        key: value for key, value in table.get("training", {}).items() if key not in ("bf16", "fsdp", "fsdp_config")
    }
    return {**table, "training": {"max_steps": 1, **training}}


def check_command(line: str) -> None:
    """A command of ours exists, and has the options that the line gives it."""
    words = shlex.split(line, comments=True)
    if words[0] in OTHERS and words[0] != "torchrun":
        return
    assert "corpus-teacher" in words, line
    words = words[words.index("corpus-teacher") + 1 :]
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not getattr(command, "commands", None), f"no such command: {line}"
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    for word in words:
        if re.match(r"--?[a-zA-Z]", word):
            assert word.partition("=")[0] in options, f"{word} is no option: {line}"


@pytest.mark.parametrize(
    "page",
    [f"docs/{page}" for page in PAGES]
    + ["README.md", "CONTRIBUTING.md", "index/README.md", "studies/results/README.md"],
)
def test_links_and_commands_in_words(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)]*)?\)", prose):
        if link.startswith("https://"):
            continue
        target = (ROOT / page).parent / link if link else ROOT / page
        assert target.exists(), f"{page}: {link} is not there"
        if anchor:
            assert anchor[1:] in anchors(target), f"{page}: {link}{anchor} is not there"
    for code in re.findall(r"`(corpus-teacher [^`\n]*)`", prose):
        if not re.search(r"[A-Z]{4,}$|…|COMMAND", code):
            check_command(code)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_names_of_the_reference_exist() -> None:
    for page in ("reference/api.md", "reference/toml.md"):
        for name in re.findall(r"^::: (\S+)", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE):
            module, _, last = name.rpartition(".")
            try:
                assert hasattr(importlib.import_module(module), last), name
            except ModuleNotFoundError:
                importlib.import_module(name)


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(
        r"(?:: |- )([\w\-/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert sorted(listed) == PAGES


def test_every_extra_is_in_the_table() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    table = (DOCS / "index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == sorted(extras)


def test_what_is_not_in_the_site_is_looked_up_in_the_repository() -> None:
    """But for pictures, which the site holds: it can be read where the repository can't be reached."""
    made = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert made is not None
    assert made.loader is not None
    hooks = importlib.util.module_from_spec(made)
    made.loader.exec_module(hooks)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="findings/text.md"))
    text = "![Loss](../../studies/a.svg) [rows](../../studies/a.md#b) [length](training-length.md)"
    assert hooks.on_page_markdown(text, page, {"repo_url": "https://host/us"}, None) == (
        "![Loss](../studies/a.svg) [rows](https://host/us/blob/main/studies/a.md#b) [length](training-length.md)"
    )
