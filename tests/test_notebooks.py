"""Every notebook under examples/notebooks runs from its first cell to its last, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.warm import run_warm

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))


def code_of(notebook: Path) -> str:
    """The code cells as one program, with fewer steps."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return code.replace("STEPS = 100", "STEPS = 3")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook: Path, tmp_path: Path) -> None:
    done = run_warm("-c", "import warnings\nwarnings.simplefilter('ignore')\n" + code_of(notebook), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()


def test_notebooks_hold_no_output() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"explore", "teach"}
    for notebook in NOTEBOOKS:
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            assert cell.get("outputs", []) == []
