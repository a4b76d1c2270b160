"""The package as a user gets it: what the wheel holds, that it installs, and what --help must not load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "datasets", "numba", "pandas", "pyarrow", "matplotlib", "tokenizers")

pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists() or not (ROOT / "Makefile").exists(),
    reason="needs a checkout: the tests run outside of the repository",
)


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """A subprocess in a clean environment; its output is in the failure."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from it (so the sdist is shown to be complete)."""
    pytest.importorskip("build", reason="`build` is not installed: pip install -e .[dev]")
    pytest.importorskip("hatchling", reason="`hatchling` is not installed: pip install -e .[dev]")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new venv that has the wheel and borrows the dependencies of the running one."""
    (wheel,) = built.glob("*.whl")
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=os.name == "posix")
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        wheel,
    )
    # A path file in a borrowed folder is not read, so the editable install of this checkout stays out.
    own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(own) / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return scripts


def test_wheel_holds_both_packages_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    actual = {name.split("/")[0] for name in names if ".dist-info/" not in name}

    assert actual == {
        "corpus_teacher",
        "corpus_index",
    }  # a top-level `index` would clash with others' silently
    assert {"corpus_teacher/py.typed", "corpus_index/py.typed", "corpus_index/reference/engine.py"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_sdist_holds_what_the_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}

    assert {"pyproject.toml", "Makefile", "constraints.txt", "LICENSE", "tests/conftest.py"} <= names
    assert "index/corpus_index/reference/engine.py" in names


def test_installed_wheel_is_what_is_imported(installed: Path) -> None:
    code = "import corpus_index, corpus_teacher; print(corpus_index.__file__, corpus_teacher.__file__)"

    actual = run(installed / "python", "-c", code, cwd=installed).stdout.split()

    assert all(Path(file).is_relative_to(installed.parent) for file in actual), actual


def test_help_answers_and_loads_nothing_heavy(installed: Path) -> None:
    help_text = run(installed / "corpus-teacher", "--help", cwd=installed).stdout
    assert "index" in help_text
    assert "demo" in help_text

    code = f"import sys, corpus_teacher.cli.main; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    assert run(installed / "python", "-c", code, cwd=installed).stdout.strip() == ""
    code = "import sys, corpus_teacher.cli.main; print(len(sys.modules))"
    assert int(run(installed / "python", "-c", code, cwd=installed).stdout) < 300  # it is 180 in Python 3.11


def test_import_of_the_index_loads_no_torch(installed: Path) -> None:
    code = "import sys, corpus_index; print(*(m for m in ('torch', 'datasets', 'typer') if m in sys.modules))"

    assert run(installed / "python", "-c", code, cwd=installed).stdout.strip() == ""


def test_constraints_pin_every_direct_dependency() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)

    expected = {re.match(r"[A-Za-z0-9_.-]+", requirement)[0] for requirement in wanted}  # type: ignore[index]

    assert expected <= set(pins)


def test_make_help_lists_the_targets() -> None:
    listed = run("make", "--no-print-directory", "-C", ROOT, "help").stdout

    for target in ("test", "lint", "demo", "bench", "wheel", "boundscheck", "clean"):
        assert f"make {target} " in listed


def test_layers_hold() -> None:
    pytest.importorskip("importlinter", reason="`import-linter` is not installed: pip install -e .[dev]")
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"

    run(sys.executable, "-c", f"import sys; sys.path[:0] = ['index', '.']; {code}", cwd=ROOT)
