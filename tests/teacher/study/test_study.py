"""A study that runs: pairing, tuning, killed and resumed, in processes, students that learn from students; its data."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_index import build_index, open_index
from typer.testing import CliRunner

from corpus_teacher.cli.main import app
from corpus_teacher.data import Document
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.study import data as study_data_module
from corpus_teacher.study import join_studies, make_study, read_rows, run_study, running, step_costs
from corpus_teacher.study.data import split_documents, study_data
from corpus_teacher.study.leaks import label_invariance, overlap_shares
from corpus_teacher.study.measuring import measure
from corpus_teacher.study.row_file import RowWriter
from corpus_teacher.study.settings import Cell
from corpus_teacher.study.written import _log_likelihood, written_text
from corpus_teacher.training import load_student
from corpus_teacher.training.settings import merged

pytestmark = pytest.mark.slow

STUDENT = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
TIMES = ("started", "seconds", "cpu_s", "total_s", "teacher_s", "loader_s", "written_s", "peak_memory_bytes", "logs")
WORDS = ["to be", " or not", " that is", " the", " question", " whether", " it", " is nobler", " in", " mind"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty short documents of a few words, and a text of another kind."""
    folder = tmp_path_factory.mktemp("texts")
    generator = np.random.default_rng(0)
    with open(folder / "texts.jsonl", "w") as file:
        for _ in range(60):
            chosen = generator.integers(0, len(WORDS), 60)
            file.write(json.dumps({"text": "".join(WORDS[word] for word in chosen)}) + "\n")
    (folder / "other.txt").write_text("the quick brown fox jumps over the lazy dog " * 4)
    return folder


def table(texts: Path, **changes: Any) -> dict[str, Any]:
    made = {
        "name": "try",
        "question": "Does it help?",
        "baseline": "hard",
        "seeds": 2,
        "learning_rates": [1e-2, 1e-3],
        "grow_rates": 0,
        "data": {
            "sources": [str(texts / "texts.jsonl")], "tokenizer": "train:280", "held_out_share": 0.2, "tune_share": 0.1,
            "max_overlap": 1.0, "indexes": {"train": 2000, "larger": "all"},
        },
        "domains": {"fox": [str(texts / "other.txt")]},
        "metrics": {
            "fidelity_tokens": 64, "induction_rows": 2, "extraction_prompts": 4, "extraction_length": 4, "samples": 2,
        },
        "base": {
            "student": STUDENT,
            "data": {"length": 16},
            "training": {"max_steps": 4, "per_device_train_batch_size": 4, "use_cpu": True},
        },
        "arms": {"hard": {}, "corpus": {"corpus": {"index": "larger", "leave_out": "document"}}},
    }  # fmt: skip
    return merged(made, changes)


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what no two runs have in common, in a fixed order."""
    kept = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    return sorted(kept, key=lambda row: row["fingerprint"])


@pytest.fixture(scope="module")
def finished(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("study") / "out"
    return out, run_study(make_study(table(texts)), out)


def test_rows_tell_everything(texts: Path, finished: tuple[Path, list[dict[str, Any]]]) -> None:
    out, rows = finished
    assert rows == read_rows(out)
    assert len(rows) == 2 * 2 + 2 * 2  # two rates and two seeds of two arms
    assert json.loads((out / "study.json").read_text())["primary"] == "in.nats"
    for row in rows:
        assert {"study", "arm", "size", "budget", "config", "versions", "machine", "commit", "history"} <= row.keys()
        assert str(out) not in json.dumps(row["config"])  # the folder may be moved
        assert row["tokens"] == 4 * 4 * 16
        assert row["checks"]["leave_out_label_invariance"] is True
        assert [point["step"] for point in row["history"]] == [1, 2, 3, 4]
        assert (row["teacher_s"] > 0) == (row["arm"] == "corpus")
    tuned = [row for row in rows if row["role"] == "tune"]
    assert {(row["arm"], row["learning_rate"], row["seed"]) for row in tuned} == {
        (arm, rate, 1000) for arm in ("hard", "corpus") for rate in (1e-2, 1e-3)
    }
    assert all(list(row["metrics"]) == ["tune"] for row in tuned)  # what is reported wasn't looked at
    for arm in ("hard", "corpus"):
        best = min((row for row in tuned if row["arm"] == arm), key=lambda row: row["metrics"]["tune"]["nats"])
        runs = [row for row in rows if row["role"] == "run" and row["arm"] == arm]
        assert [row["seed"] for row in runs] == [0, 1]
        assert all(row["learning_rate"] == best["learning_rate"] for row in runs)
        assert all(row["at_end_of_grid"] for row in runs)
        assert all(
            list(row["metrics"])
            == ["in", "fox", "in+counts", "fox+counts", "fidelity", "induction", "extraction", "novelty"]
            for row in runs
        )
    documents = [[tokens for _, tokens in row["metrics"]["in"]["documents"]] for row in rows if row["role"] == "run"]
    assert all(one == documents[0] for one in documents)


def test_seeds_are_paired(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[tuple[str, int], list[Any]] = {}

    def train(settings: Any, parts: Any) -> Any:
        weights = [weight.detach().clone() for weight in parts.student.parameters()]
        batches: list[Any] = []
        parts.student.register_forward_pre_hook(
            lambda module, args, options: batches.append(options["input_ids"].tolist()) if module.training else None,
            with_kwargs=True,
        )
        arm = "corpus" if settings.corpus else "hard"
        seen[arm, settings.seed] = [[weight.tolist() for weight in weights], batches]
        return trained(settings, parts)

    from corpus_teacher.study import measuring

    trained = measuring.train_parts
    monkeypatch.setattr(measuring, "train_parts", train)
    run_study(make_study(table(texts, learning_rates=[1e-2])), tmp_path)
    assert len(seen["hard", 0][1]) == 4
    for seed in (0, 1):
        assert seen["hard", seed] == seen["corpus", seed]
    assert seen["hard", 0][0] != seen["hard", 1][0]
    assert seen["hard", 0][1] != seen["hard", 1][1]


def test_killed_and_resumed_is_uninterrupted(
    texts: Path, tmp_path: Path, finished: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = finished
    study = make_study(table(texts))
    told: list[running.StudyProgress] = []

    def kill(progress: running.StudyProgress) -> None:
        told.append(progress)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path, progress=kill)
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write('{"arm": "hard", "si')  # a row that was being written
    assert len(read_rows(tmp_path)) == 3
    done: list[running.StudyProgress] = []
    resumed = run_study(study, tmp_path, progress=done.append)
    assert untimed(resumed) == untimed(whole)
    assert [one.done for one in told + done] == list(range(1, 9))
    assert {one.total for one in done} == {8}
    assert done[-1].left_s == 0 < done[0].left_s
    monkeypatch.setattr(running, "measure", lambda job: pytest.fail("nothing is missing"))
    assert run_study(study, tmp_path) == resumed
    monkeypatch.undo()
    wider = run_study(make_study(table(texts, seeds=3)), tmp_path)  # more seeds: only they are run
    assert len(wider) == 10
    assert len(read_rows(tmp_path)) == 10
    with pytest.raises(ConfigError, match="holds the study 'try', not 'other'"):
        run_study(make_study(table(texts, name="other")), tmp_path)


def test_processes_give_the_same_rows(texts: Path, tmp_path: Path) -> None:
    study = make_study(table(texts, learning_rates=[1e-2], seeds=1))
    alone, together = run_study(study, tmp_path / "alone"), run_study(study, tmp_path / "together", jobs=2)
    assert len(together) == 2
    for one, other in zip(untimed(alone), untimed(together), strict=True):
        assert one["fingerprint"] == other["fingerprint"]
        assert other["metrics"]["in"]["nats"] == pytest.approx(one["metrics"]["in"]["nats"], rel=1e-4)
    with pytest.raises(ConfigError, match="jobs is 0"):
        run_study(study, tmp_path / "none", jobs=0)


_ASKS_A_PROCESS = """
from concurrent.futures import ProcessPoolExecutor
from corpus_teacher.study import running

with ProcessPoolExecutor(1, mp_context=running._context()) as pool:
    print(pool.submit(eval, "__import__('logging').getLogger('torchao').filters != []").result())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux only")
def test_processes_begin_without_the_noise_of_what_they_import() -> None:
    # In a Python of its own: a process has one server that forks for it, and other tests may have begun this one's.
    asked = subprocess.run([sys.executable, "-c", _ASKS_A_PROCESS], capture_output=True, text=True, check=True)
    assert asked.stdout == "True\n"


def _wait_long(job: Any) -> dict[str, Any]:
    time.sleep(600)
    return {}


def test_an_interruption_leaves_no_process() -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt), running._workers(2) as submit:  # noqa: PT012
        waiting = submit.__self__.pool.submit(_wait_long, None)
        while not waiting.running():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert set(multiprocessing.active_children()) == before


def test_students_learn_from_students(texts: Path, tmp_path: Path) -> None:
    arms = {
        "text": {"data": {"train": "arm:hard"}},
        "again": {"self": {"checkpoint": "arm:hard"}},
        "logits": {"neural": {"model": "arm:again"}},
        "onwards": {"student": {"checkpoint": "arm:hard"}, "training": {"max_steps": 2}},
        "corpus": "remove",
    }
    rows = run_study(make_study(table(texts, arms=arms, seeds=1)), tmp_path)
    assert len(rows) == 5 * 3
    runs = {row["arm"]: row for row in rows if row["role"] == "run"}
    assert runs["text"]["written_s"] > 0 == runs["hard"]["written_s"]
    assert runs["logits"]["teacher_s"] > 0
    assert runs["onwards"]["history"][0]["nats"] < runs["hard"]["history"][0]["nats"]
    kept = tmp_path / "students" / runs["hard"]["fingerprint"]
    written = np.load(next(kept.glob("text-*.npy")))
    assert written.shape == (4 * 4 * 16,)
    assert (written.reshape(-1, 16)[:, 0] == 0).all()  # each window begins a document
    assert len(np.unique(written)) > 20


def test_a_text_begins_as_real_windows_do(texts: Path, tmp_path: Path) -> None:
    arms = {
        "plain": {"data": {"train": "arm:hard"}},
        "begun": {"data": {"train": "arm:hard"}, "text": {"prompt_tokens": 5, "temperature": 0.5}},
        "best": {"data": {"train": "arm:hard"}, "text": {"prompt_tokens": 5, "temperature": 0.5, "best_of": 4}},
        "mixed": {"data": {"train": "arm:hard"}, "text": {"prompt_tokens": 5, "real_share": 0.25}},
        "corpus": "remove",
    }
    study = make_study(table(texts, arms=arms, seeds=1, learning_rates=[1e-3]))
    rows = {row["arm"]: row for row in run_study(study, tmp_path)}
    assert len({row["fingerprint"] for row in rows.values()}) == 5
    assert rows["best"]["config"]["text"]["best_of"] == 4
    assert "text" not in rows["plain"]["config"]  # as before: rows of older studies stay theirs

    (data,) = (tmp_path / "data").iterdir()
    tokens = open_index(data / "index-train").tokens
    real = {tuple(window) for window in tokens[: len(tokens) // 16 * 16].reshape(-1, 16).tolist()}
    begins = {window[:5] for window in real}
    kept = tmp_path / "students" / rows["hard"]["fingerprint"]
    made, written = study_data(study, tmp_path), {}
    for arm in ("begun", "best", "mixed"):
        settings = study.training(
            Cell(arm, "base", "base"), seed=0, learning_rate=1e-3, folder=made.folder,
            students={("data", "train"): kept}, tuning=False,
        )  # fmt: skip
        before = set(kept.glob("text-*"))
        path, _ = written_text(kept, settings, made, study.text(arm))
        assert set(kept.glob("text-*")) == before  # it was kept
        written[arm] = np.load(path).reshape(-1, 16)
    for windows in written.values():
        assert {tuple(window[:5]) for window in windows.tolist()} <= begins
    is_real = [tuple(window) in real for window in written["mixed"].tolist()]
    assert is_real[:4] == [True] * 4
    assert not any(is_real[4:])

    student = load_student(kept, vocab_size=280).eval()
    likelihood = {
        arm: _log_likelihood(student, torch.as_tensor(windows.astype(np.int64)), 5, 280).mean()
        for arm, windows in written.items()
    }
    assert likelihood["best"] > likelihood["begun"]


def test_the_same_training_is_done_once(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (
        table(texts, name=name, seeds=1, arms={"corpus": "remove", **arms})
        for name, arms in (
            ("first", {"again": {"self": {"checkpoint": "arm:hard"}}}),
            ("second", {"plain": {}, "other": {"self": {"checkpoint": "arm:plain"}, "training": {"alpha": 0.9}}}),
        )
    )
    second["baseline"] = "plain"
    second["arms"].pop("hard")
    run_study(make_study(first), tmp_path / "first")
    done: list[str] = []
    monkeypatch.setattr(running, "measure", lambda job: done.append(job.cell.arm) or measure(job))
    alone = untimed(run_study(make_study(second), tmp_path / "alone"))
    assert done == ["plain"] * 3 + ["other"] * 3
    done.clear()
    told: list[Any] = []
    rows = run_study(make_study(second), tmp_path / "second", reuse=[tmp_path / "first"], progress=told.append)
    assert done == ["other"] * 3
    assert len(told) == len(rows) == 6
    taken = {row["arm"]: row.pop("taken_from", None) for row in rows}
    assert taken == {"plain": "first", "other": None}
    assert untimed(rows) == alone
    with pytest.raises(InputError, match=r"has no rows.jsonl: give folders of `study run`"):
        run_study(make_study(second), tmp_path / "third", reuse=[texts])


def test_documents_are_split_by_their_texts() -> None:
    documents = [Document(f"text {number % 90}", str(number)) for number in range(100)]
    parts = split_documents(documents, 0.3, 0.2)
    texts = [document.text for part in parts for document in part]
    assert sorted(texts) == sorted({document.text for document in documents})  # none twice
    again = split_documents(documents[::-1], 0.3, 0.2)
    assert [[one.text for one in part] for part in again] == [[one.text for one in part] for part in parts]
    assert 10 < len(parts[2]) < 45
    with pytest.raises(ConfigError, match="of 1 documents none is left to"):
        split_documents(documents[:1], 0.3, 0.2)


def test_smaller_indexes_begin_larger_ones(texts: Path, finished: tuple[Path, list[dict[str, Any]]]) -> None:
    out, _ = finished
    made = study_data(make_study(table(texts)), out)  # found, not made
    arrays = [np.fromfile(made.folder / f"index-{name}" / "tokens.bin", np.uint16) for name in ("train", "larger")]
    assert 2000 <= len(arrays[0]) < len(arrays[1])
    assert (arrays[1][: len(arrays[0])] == arrays[0]).all()
    held_out, size_bytes = made.held_out("in")
    assert held_out.num_predicted == len(held_out.corpus.tokens)
    assert len(size_bytes) == held_out.corpus.num_documents == made.manifest["domains"]["in"]["documents"]
    assert made.manifest["checks"]["overlap_13gram"] <= 1


def test_overlap_is_the_naive_one(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    corpus = generator.integers(1, 3, 400)
    index = build_index(corpus, tmp_path / "index", vocab_size=3, end_of_document=0)
    documents = [
        corpus[30:80],
        generator.integers(1, 3, 40),
        corpus[:5],
        np.concatenate([corpus[:20], [1, 2, 1, 2, 2, 1] * 3]),
    ]
    tokens, starts = np.concatenate(documents), np.cumsum([0, *map(len, documents)])
    grams = {tuple(corpus[i : i + 13].tolist()) for i in range(400 - 13)}  # the last has no token after it
    expected = [
        np.mean([tuple(one[i : i + 13].tolist()) in grams for i in range(len(one) - 12)]) if len(one) > 12 else 0
        for one in documents
    ]
    actual = overlap_shares(index, tokens, starts)
    np.testing.assert_allclose(actual, expected)
    assert actual[0] == 1 > actual[3] > 0 == actual[2]


@pytest.mark.parametrize("leave_out", ["self", "document", None])
def test_the_invariance_check_can_fail(tmp_path: Path, leave_out: str | None) -> None:
    tokens = np.random.default_rng(0).integers(1, 60, 600)
    index = build_index(tokens, tmp_path / "index", vocab_size=60, end_of_document=0, doc_starts=np.arange(0, 601, 100))
    told = label_invariance(index, tmp_path, leave_out=leave_out)
    assert told["changed"] == 2
    assert told["ok"] is (leave_out == "self")
    bound = {"self": 1e-6, "document": 0.01, None: 1}[leave_out]
    assert told["largest_difference"] < bound
    assert told["largest_difference_as_taught"] < max(bound, 0.01)
    assert leave_out or told["largest_difference"] > 0.5


def test_what_the_data_refuse(texts: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"indexes": {"train": 10**9}}, "indexes.train is 1000000000, and there are only"),
        ({"sources": ["stdlib:cod"]}, "'stdlib:cod' is no part"),
        ({"max_overlap": 0.0}, "overlaps with the index as little as max_overlap = 0.0"),
    ):
        with pytest.raises((ConfigError, InputError), match=message):
            study_data(make_study(table(texts, data=changes)), tmp_path)
    assert not list((tmp_path / "data").iterdir())  # nothing is left behind


def test_parts_of_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    library = [Document("import this", "this.py"), Document("The with statement", "help/with")]
    monkeypatch.setattr(study_data_module, "read_standard_library", lambda: library)
    asked = {
        spec: [d.origin for d in study_data_module._documents((spec,), "text")]
        for spec in ("stdlib:code", "stdlib:help")
    }
    assert asked == {"stdlib:code": ["this.py"], "stdlib:help": ["help/with"]}
    assert len(list(study_data_module._documents(("stdlib",), "text"))) == 2


def test_rows_are_whole(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path)
    writer.append({"nats": float("nan"), "more": [1.0, float("inf")], "a": {"b": "ü"}})
    assert read_rows(tmp_path) == [{"nats": None, "more": [1.0, None], "a": {"b": "ü"}}]
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write('{"cut')
    RowWriter(tmp_path).append({"nats": 1})
    assert [row["nats"] for row in read_rows(tmp_path)] == [None, 1]
    (tmp_path / "rows.jsonl").write_text('{"cut\n{"nats": 1}\n')
    with pytest.raises(InputError, match="line 1, is not valid JSON"):
        read_rows(tmp_path)
    assert read_rows(tmp_path / "none") == []


def test_the_command(texts: Path, tmp_path: Path) -> None:
    said, file = table(texts), tmp_path / "study.toml"
    lines = [f"{key} = {json.dumps(said[key])}" for key in ("name", "question", "baseline")]
    lines += [
        "seeds = 1",
        "learning_rates = [0.01]",
        f"domains.fox = {json.dumps(said['domains']['fox'])}",
        "arms.hard = {}",
    ]
    for name in ("data", "metrics"):
        lines += [f"{name}.{key} = {json.dumps(one)}" for key, one in said[name].items() if key != "indexes"]
    for name in ("student", "data", "training"):
        lines += [f"base.{name}.{key} = {json.dumps(one)}" for key, one in said["base"][name].items()]
    file.write_text("\n".join(lines) + "\n")
    runner = CliRunner()
    checked = runner.invoke(app, ["study", "run", str(file), "--check"])
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["data"]["tokenizer"] == "train:280"
    refused = runner.invoke(app, ["study", "run", str(file)])
    assert refused.exit_code == 2
    assert "--out isn't given" in refused.stderr
    ran = runner.invoke(app, ["study", "run", str(file), "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    assert "1/1 run hard · base · base, seed 0, rate 0.01" in " ".join(ran.stderr.split())
    assert "in.nats" in ran.stdout
    again = runner.invoke(app, ["study", "run", str(file), "--out", str(tmp_path / "out"), "--json"])
    assert json.loads(again.stdout) == {"out": str(tmp_path / "out"), "rows": 1}


def test_a_grid_grows_where_its_best_is_at_an_end(texts: Path, tmp_path: Path) -> None:
    study = make_study(table(texts, learning_rates=[1e-5, 2e-5], grow_rates=2, tuning_seeds=2, seeds=1))
    rows = run_study(study, tmp_path)
    for arm in ("hard", "corpus"):
        tuned = [row for row in rows if row["arm"] == arm and row["role"] == "tune"]
        rates = sorted({row["learning_rate"] for row in tuned})
        assert rates == [1e-5, 2e-5, 4e-5, 8e-5]  # so few steps learn the more, the higher the rate
        assert {row["seed"] for row in tuned} == {1000, 1001}
        (run,) = [row for row in rows if row["arm"] == arm and row["role"] == "run"]
        assert (run["learning_rate"], run["at_end_of_grid"]) == (8e-5, True)
    assert run_study(study, tmp_path) == rows  # nothing is missing


def test_other_settings_are_tuned_too(texts: Path, tmp_path: Path) -> None:
    changes = {"tune": {"training.weight_decay": [0.0, 0.5]}, "learning_rates": [1e-2], "seeds": 1}
    rows = run_study(make_study(table(texts, **changes)), tmp_path)
    tuned = [row for row in rows if row["role"] == "tune" and row["arm"] == "hard"]
    assert [row["tuned"] for row in tuned] == [{"training.weight_decay": 0.0}, {"training.weight_decay": 0.5}]
    best = min(tuned, key=lambda row: row["metrics"]["tune"]["nats"])
    (run,) = [row for row in rows if row["role"] == "run" and row["arm"] == "hard"]
    assert run["tuned"] == best["tuned"]
    assert run["config"]["training"]["weight_decay"] == best["tuned"]["training.weight_decay"]


def test_shares_join_to_the_whole(texts: Path, tmp_path: Path, finished: tuple[Path, list[dict[str, Any]]]) -> None:
    study = make_study(table(texts))
    for number in (1, 2):
        assert len(run_study(study, tmp_path / str(number), share=(number, 2))) == 4
    assert join_studies(tmp_path / "whole", [tmp_path / "1", tmp_path / "2"]) == 8
    assert join_studies(tmp_path / "whole", [tmp_path / "1"]) == 0
    assert untimed(read_rows(tmp_path / "whole")) == untimed(finished[1])
    other = make_study(table(texts, name="another", seeds=1, learning_rates=[1e-2]))
    run_study(other, tmp_path / "other", share=(1, 2))
    with pytest.raises(ConfigError, match="join the shares of one study"):
        join_studies(tmp_path / "whole", [tmp_path / "other"])
    with pytest.raises(InputError, match=r"no readable study\.json"):
        join_studies(tmp_path / "whole", [tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="share is 3/2"):
        run_study(study, tmp_path / "3", share=(3, 2))


def test_steps_are_timed_in_turns_and_kept_with_rows(texts: Path, tmp_path: Path) -> None:
    study = make_study(table(texts, seeds=1, learning_rates=[1e-2]))
    costs = step_costs(study, tmp_path, steps=2, rounds=3)
    assert [cost.arm for cost in costs] == ["hard", "corpus"]
    assert all(len(cost.cost_s_per_step) == len(cost.baseline_s_per_step) == 3 for cost in costs)
    assert all(min(cost.cost_s_per_step) > 0 and cost.ratio > 0 for cost in costs)
    for row in run_study(study, tmp_path):
        assert row["cost_s_per_step"] == list(next(cost for cost in costs if cost.arm == row["arm"]).cost_s_per_step)
    (tmp_path / "costs.json").write_text("[1]")
    with pytest.raises(InputError, match="time the steps again"):
        run_study(study, tmp_path)


def test_data_are_known_by_their_text(texts: Path, tmp_path: Path) -> None:
    """The same texts in another file are the same data; another text of the same length is other data."""
    sources = tmp_path / "again.jsonl"
    content = (texts / "texts.jsonl").read_text()
    sources.write_text(content)

    def data_of(file: Path) -> str:
        changed = table(texts)
        changed["data"]["sources"] = [str(texts / "texts.jsonl")]
        return str(study_data_module._hash(study_data_module._documents((str(file),), ReadOptions())))

    assert data_of(sources) == data_of(texts / "texts.jsonl")
    first = json.loads(content.splitlines()[0])["text"]
    swapped = first.swapcase()
    assert swapped != first
    sources.write_text(content.replace(json.dumps(first)[1:-1], json.dumps(swapped)[1:-1], 1))
    assert data_of(sources) != data_of(texts / "texts.jsonl")


def test_pieces_are_documents_of_the_index(texts: Path, tmp_path: Path) -> None:
    changed = table(texts, seeds=1, learning_rates=[1e-2])
    whole = study_data_module.study_data(make_study(changed), tmp_path / "whole")
    changed["data"]["piece_characters"] = 40
    cut = study_data_module.study_data(make_study(changed), tmp_path / "cut")
    assert cut.manifest["documents"]["train"] > whole.manifest["documents"]["train"]
    assert cut.manifest["domains"]["in"] == whole.manifest["domains"]["in"] | {
        key: cut.manifest["domains"]["in"][key] for key in ("with_overlap", "mean_overlap")
    }
