"""The settings of a study: what is wrong is named before anything starts, and arms differ in what they say alone."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import tomllib

from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.study import Cell, Study, make_study, read_study
from corpus_teacher.training.settings import merged

STUDIES = Path(__file__).parents[3] / "studies"
STUDENT = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip

WRITTEN = {"data": {"train": "arm:hard"}}


def table(**changes: Any) -> dict[str, Any]:
    made = {
        "name": "try",
        "question": "Does it help?",
        "baseline": "hard",
        "seeds": 2,
        "learning_rates": [1e-2, 1e-3],
        "domains": {"help": ["stdlib:help"]},
        "data": {"indexes": {"train": 1000, "larger": "all"}},
        "base": {"student": STUDENT, "data": {"length": 16}, "training": {"max_steps": 4, "use_cpu": True}},
        "arms": {
            "hard": {},
            "corpus": {"corpus": {"max_order": 2}, "training": {"alpha": 0.5}},
            "larger": {"corpus": {"index": "larger", "leave_out": "document"}},
            "again": {"self": {"checkpoint": "arm:corpus"}, "training": {"alpha": 0.5}},
        },
        "forms": {"quick": {"seeds": 1, "base": {"training": {"max_steps": 2}}}},
    }
    return merged(made, changes)


def settings_of(study: Study, cell: Cell, **options: Any) -> Any:
    given = {"seed": 0, "learning_rate": 1e-3, "folder": Path("D"), "students": {}, "tuning": False, **options}
    return study.training(cell, **given)


def test_sizes_and_budgets_may_name_their_arms() -> None:
    budgets = {"short": {}, "long": {"arms": ["hard", "corpus"], "training": {"max_steps": 9}}}
    study = make_study(table(budgets=budgets))
    assert [cell.arm for cell in study.cells() if cell.budget == "long"] == ["hard", "corpus"]
    assert [cell.arm for cell in study.cells() if cell.budget == "short"] == ["hard", "corpus", "larger", "again"]
    assert settings_of(study, Cell("hard", "base", "long")).training["max_steps"] == 9
    with pytest.raises(ConfigError, match=r"budgets.long.arms lacks 'hard', the baseline"):
        make_study(table(budgets={"long": {"arms": ["corpus"]}}))
    with pytest.raises(ConfigError, match=r"hrad.*hard"):
        make_study(table(budgets={"long": {"arms": ["hrad"]}}))
    with pytest.raises(ConfigError, match="give a list of arms"):
        make_study(table(budgets={"long": {"arms": "hard"}}))
    with pytest.raises(ConfigError, match="arm again learns from corpus · base · long, which"):
        make_study(table(budgets={"short": {}, "long": {"arms": ["hard", "again"]}}))


def test_tables_are_laid_over_each_other_and_names_become_paths() -> None:
    sizes = {"small": {}, "wide": {"student": {"hidden_size": 32}, "training": {"max_steps": 7}}}
    budgets = {"short": {"training": {"max_steps": 5}}, "larger": {"data": {"index": "larger"}}}
    study = make_study(table(sizes=sizes, budgets=budgets))
    assert len(list(study.cells())) == 4 * 2 * 2
    one = settings_of(study, Cell("larger", "wide", "short"), seed=3)
    assert (one.seed, one.student["hidden_size"], one.training["max_steps"]) == (3, 32, 5)
    assert (one.data.index, one.data.held_out, one.corpus.index) == ("D/index-train", ("D/in.npy",), "D/index-larger")
    assert one.training["learning_rate"] == 1e-3
    two = settings_of(study, Cell("hard", "wide", "larger"), tuning=True)
    assert (two.training["max_steps"], two.data.index, two.data.held_out) == (7, "D/index-larger", ("D/tune.npy",))
    assert two.corpus is None


def test_students_of_other_arms() -> None:
    study = make_study(table())
    assert study.references(Cell("again", "base", "base")) == {("self", "checkpoint"): Cell("corpus", "base", "base")}
    assert [study.level(arm) for arm in study.arms] == [0, 0, 0, 1]
    place = {("self", "checkpoint"): Path("there")}
    assert settings_of(study, Cell("again", "base", "base"), students=place).self_.checkpoint == "there"
    onwards = make_study(table(arms={"onwards": {"student": {"checkpoint": "arm:again"}}}))
    assert onwards.level("onwards") == 2
    assert settings_of(onwards, Cell("onwards", "base", "base")).student == {"checkpoint": "D/student"}


def test_forms() -> None:
    assert make_study(table()).form == "standard"
    quick = make_study(table(), "quick")
    assert (quick.form, quick.seeds, quick.tables(Cell("hard", "base", "base"))["training"]["max_steps"]) == (
        "quick",
        1,
        2,
    )
    with pytest.raises(ConfigError, match="form is 'quik', which is unknown: did you mean 'quick'"):
        make_study(table(), "quik")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sede": 1}, "the study has no key 'sede'"),
        ({"baseline": "hrad"}, "baseline is 'hrad', which is unknown: did you mean 'hard'"),
        ({"primary": "out.nats"}, "the domain of primary is 'out'"),
        ({"primary": "in.nat"}, "did you mean 'nats'"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": "two"}, "seeds is 'two'"),
        ({"seeds": 2000}, "tuning_seed is 1000, one of the 2000 seeds"),
        ({"learning_rates": []}, "learning_rates is"),
        ({"learning_rates": [0.1, -1]}, "learning_rates is"),
        ({"arms": {"bad": {"corpus": {"max_ordr": 2}}}}, "arm bad, size base, budget base: corpus has no key"),
        ({"arms": {"bad": {"training": {"alpha": 2}}}}, "arm bad, .* alpha is 2"),
        ({"tune": {"training.warmup_ratio": [0.0]}}, "arm hard, .* no key 'warmup_ratio': did you mean 'warmup_steps'"),
        ({"tune": {"training.alpha": [0.5, 2]}}, "arm hard, .* alpha is 2"),
        ({"arms": {"bad": 3}}, "arms.bad is 3"),
        ({"arms": {"bad": {"training": {"learning_rate": 0.1}}}}, "arms.bad has training.learning_rate: the study"),
        ({"arms": {"bad": {"seed": 3}}}, "arms.bad has seed"),
        ({"base": {"data": {"held_out": "x"}}}, "base has data.held_out: the study holds out documents"),
        ({"base": {"out": "x"}}, "base has out"),
        ({"sizes": {}}, "sizes is {}: give at least one table"),
        ({"arms": {"bad": {"data": {"index": "none"}}}}, "data.index is 'none', which is unknown"),
        ({"arms": {"bad": {"corpus": {"index": "none"}}}}, "corpus.index is 'none'"),
        ({"arms": {"bad": {"corpus": {"index": "larger"}}}}, "leave_out isn't given"),
        ({"arms": {"bad": {"self": {"checkpoint": "arm:none"}}}}, "the arm of self.checkpoint is 'none'"),
        ({"arms": {"bad": {"self": {"checkpoint": "arm:hard@none"}}}}, "the size of self.checkpoint is 'none'"),
        ({"arms": {"bad": {"self": {"checkpoint": "arm:bad"}}}}, "arms.bad learns, through others, from itself"),
        ({"arms": {"bad": {"text": {"best_of": 2}}}}, "text says how another arm writes, and data.train names none"),
        ({"arms": {"bad": WRITTEN | {"text": {"best": 2}}}}, "arms.bad.text has no key 'best': did you mean 'best_of'"),
        ({"arms": {"bad": WRITTEN | {"text": {"real_share": 2}}}}, "arms.bad.text: real_share is 2"),
        ({"arms": {"bad": WRITTEN | {"text": {"temperature": 0}}}}, "arms.bad.text: temperature is 0"),
        ({"arms": {"bad": WRITTEN | {"text": {"prompt_tokens": 16}}}}, "text.prompt_tokens is 16: give fewer than"),
        ({"arms": {"bad": WRITTEN | {"text": 3}}}, "arms.bad.text is 3"),
        ({"sizes": {"base": {"text": {}}}}, "sizes.base has text: an arm says it"),
        ({"base": {"text": {}}}, "base has text: an arm says it"),
        ({"data": {"held_out_shar": 1}}, "did you mean 'held_out_share'"),
        ({"data": {"held_out_share": 0.6, "tune_share": 0.5}}, "leave documents"),
        ({"data": {"max_overlap": 2}}, "max_overlap is 2"),
        ({"data": {"indexes": {"train": "some"}}}, "indexes.train is 'some'"),
        ({"data": {"sources": 3}}, "sources is 3"),
        ({"domains": {"in": ["x"]}}, "domains has 'in', which is the study's own"),
        ({"domains": {"help": []}}, "domains.help is"),
        ({"metrics": {"sample": 3}}, "did you mean 'samples'"),
        ({"metrics": {"teacher": {"leave_out": "self"}}}, "teacher has no key 'leave_out'"),
        ({"metrics": {"samples": -1}}, "samples is -1"),
        ({"headline": {"size": "none"}}, "headline.size is 'none'"),
        ({"forms": {"quick": {"arm": {}}}}, "forms.quick has no key 'arm'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_study(table(**changes))


def test_what_only_the_file_knows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_study(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(InputError, match="is no TOML"):
        read_study(tmp_path / "broken.toml")
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(ConfigError, match="the study has no name: give it"):
        read_study(tmp_path / "empty.toml")


def test_contrasts_are_named_in_full() -> None:
    sizes = {"small": {}, "wide": {}}
    budgets = {"short": {}, "long": {"arms": ["hard"]}}
    said = [{"arm": "corpus", "against": "larger"}, {"arm": "corpus", "against": "corpus", "against_size": "wide"}]
    study = make_study(table(sizes=sizes, budgets=budgets, headline={"budget": "short"}, contrasts=said))
    whole = {"size": "small", "budget": "short", "against_budget": "short"}
    assert study.contrasts[0] == {"arm": "corpus", "against": "larger", "against_size": "small", **whole}
    assert study.contrasts[1] == {"arm": "corpus", "against": "corpus", "against_size": "wide", **whole}
    moved = make_study(table(sizes=sizes, contrasts=[{"arm": "corpus", "against": "hard", "size": "wide"}]))
    assert moved.contrasts[0]["against_size"] == "wide"  # as the first one's
    for wrong, message in (
        ({"arm": "corpus"}, "has no against: name two arms"),
        ({"arm": "corpus", "against": "lager"}, "the arm of a contrast is 'lager'"),
        ({"arm": "corpus", "against": "hard", "sizes": "wide"}, "contrasts has no key 'sizes'"),
        ({"arm": "corpus", "against": "hard", "budget": "long"}, "corpus · small · long, which its size or budget"),
        ("corpus", "contrasts has 'corpus'"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_study(table(sizes=sizes, budgets=budgets, headline={"budget": "short"}, contrasts=[wrong]))


def test_a_file_may_extend_another(tmp_path: Path) -> None:
    common = 'question = "Why?"\nbaseline = "hard"\nseeds = 3\ndomains.help = ["stdlib:help"]\narms.hard = {}\n'
    common += "[base.training]\nmax_steps = 3\n"
    (tmp_path / "common.toml").write_text(common)
    mine = (
        'extends = "common.toml"\nname = "mine"\nseeds = 2\ndomains = "remove"\n[arms.soft.training]\nmax_steps = 5\n'
    )
    (tmp_path / "mine.toml").write_text(mine)
    study = read_study(tmp_path / "mine.toml")
    assert (study.name, study.question, study.seeds, study.domains) == ("mine", "Why?", 2, {})
    assert list(study.arms) == ["hard", "soft"]
    (tmp_path / "common.toml").write_text('extends = "mine.toml"\n')
    with pytest.raises(ConfigError, match="extends, through others, itself"):
        read_study(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text("extends = 3\n")
    with pytest.raises(ConfigError, match=r"extends is 3: name one \.toml file"):
        read_study(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text('extends = "absent.toml"\n')
    with pytest.raises(InputError, match=r"absent.toml can't be read"):
        read_study(tmp_path / "mine.toml")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("[0-9]*.toml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("form", ["quick", "standard", "full"])
def test_the_studies_are_sound(path: Path, form: str) -> None:
    study = read_study(path, form)
    assert study.form == form
    assert study.baseline in study.arms
    if form == "standard":
        assert study.seeds >= 5  # intervals over fewer paired seeds say little
        assert len(study.learning_rates) >= 3


@pytest.mark.parametrize("path", sorted(STUDIES.glob("prose-*.toml")), ids=lambda path: path.stem)
def test_the_studies_on_prose_are_sound(path: Path, tmp_path: Path) -> None:
    """Each says before it runs what is expected, what would refute it and what it costs, and all its trainings are."""
    said = " ".join(line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines())
    assert "Expected before the run" in said
    assert "What would refute" in said
    for form, seeds in (("quick", 2), ("first", 3), ("standard", 5)):
        study = read_study(path, form)
        assert (study.seeds, study.form, study.primary) == (seeds, form, "authors.nats")
        assert study.core_hours is not None
        for cell in study.cells():
            students = dict.fromkeys(study.references(cell), tmp_path)
            run = study.training(cell, seed=0, learning_rate=1e-3, folder=tmp_path, students=students, tuning=False)
            assert run.seed == 0
    for form in tomllib.loads(path.read_text(encoding="utf-8"))["forms"]:  # those that were added later, too
        assert read_study(path, form).core_hours is not None


def test_the_table_of_the_studies_counts_their_trainings() -> None:
    """docs/studies.md: trainings of the standard form, where no grid grows, and its core-hours."""
    page = (STUDIES.parent / "docs" / "studies.md").read_text(encoding="utf-8")
    table = {row[0]: row[1:] for row in re.findall(r"^\| (prose-\S+) \| .* \| (\d+) \| (\d+) \|$", page, re.MULTILINE)}
    files = {path.stem: read_study(path) for path in STUDIES.glob("prose-*.toml")}
    assert table.keys() == files.keys()
    for name, study in files.items():
        points = len(study.learning_rates) * math.prod(map(len, study.tune.values()))
        each = study.seeds + (study.tuning_seeds * points if points > 1 else 0)
        assert table[name] == (str(each * len(list(study.cells()))), f"{study.core_hours:g}"), name
