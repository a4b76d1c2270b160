"""Recipes: the example trainings with all that they read, made in one step."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from corpus_teacher.cli.main import app
from corpus_teacher.demo.recipe import RECIPES, RecipeSize, prepare_recipe, recipe_text, written_commands
from corpus_teacher.errors import ConfigError

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[3] / "examples" / "train"
TINY = RecipeSize(vocab_size=300, index_bytes=60_000, large_bytes=200_000, held_out_bytes=4_000, teacher_steps=2)


def test_there_is_a_recipe_for_every_example() -> None:
    assert set(RECIPES) == {path.stem for path in EXAMPLES.glob("*.toml")}
    for name in RECIPES:
        assert recipe_text(name) == (EXAMPLES / f"{name}.toml").read_text(encoding="utf-8")


def test_an_unknown_one_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'classic'"):
        recipe_text("clasic")


def test_texts_of_a_model_have_their_command() -> None:
    for name in RECIPES:
        assert len(written_commands(recipe_text(name))) == (name in ("own-samples", "sequence-level"))


@pytest.mark.parametrize("name", ["classic", "larger-index"])
def test_what_is_made_is_what_the_file_reads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare_recipe(name, tmp_path, size=TINY)
    things = {"classic": ["held-out", "my-index", "teacher"], "larger-index": ["held-out", "my-index", "large-index"]}
    assert [path.name for path in made] == [*things[name], f"{name}.toml"]
    assert prepare_recipe(name, tmp_path, size=TINY) == []  # all of it is there
    monkeypatch.chdir(tmp_path)
    checked = CliRunner().invoke(app, ["train", f"{name}.toml", "--check"])
    assert checked.exit_code == 0, checked.output


def test_the_command_lists_and_prints() -> None:
    listed = CliRunner().invoke(app, ["recipe"])
    assert listed.output.split() == list(RECIPES)
    assert CliRunner().invoke(app, ["recipe", "blend"]).output == recipe_text("blend")
    refused = CliRunner().invoke(app, ["recipe", "blnd"])
    assert refused.exit_code == 2
