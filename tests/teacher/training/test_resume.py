"""A training that was killed, wherever that was, goes on as if it hadn't been, or says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from corpus_index import build_index

from corpus_teacher.errors import ConfigError, FolderInUseError
from corpus_teacher.files import held_folder
from corpus_teacher.training import TrainingResult, checkpoints
from corpus_teacher.training.command import run_training
from corpus_teacher.training.settings import make_run, merged
from tests.warm import run_ranks

from ...faults import run_faults

VOCAB, LENGTH = 24, 16
STUDENT = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index and held-out tokens."""
    folder = tmp_path_factory.mktemp("resume")
    tokens = np.random.default_rng(0).integers(0, VOCAB, 900).astype(np.uint16)
    build_index(tokens[:700], folder / "index", vocab_size=VOCAB, doc_starts=np.arange(0, 701, 100)).close()
    np.save(folder / "held.npy", tokens[700:])
    return folder


class Killed(Exception):
    """What ends a training in these tests like a kill: nothing is written after it."""


class Kill(transformers.TrainerCallback):
    """Ends a training after a step, or in the middle of writing its checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Killed


def settings_of(place: Path, out: Path, **changes: Any) -> Any:
    table = {
        "out": str(out),
        "data": {"index": str(place / "index"), "held_out": str(place / "held.npy"), "length": LENGTH},
        "student": STUDENT,
        "corpus": {"max_order": 2, "leave_out": "self"},
        "training": {"max_steps": 6, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 2,
                     "use_cpu": True},
    }  # fmt: skip
    return make_run(merged(table, changes))


class Trained:
    """A training, its notices and its steps."""

    def __init__(self, settings: Any, kill_after: int | None = None, resume: bool = False) -> None:
        self.notices: list[str] = []
        self.steps: list[int] = []
        self.result: TrainingResult | None = None
        callbacks: list[transformers.TrainerCallback] = [] if kill_after is None else [Kill(kill_after)]
        try:
            self.result = run_training(
                settings, resume=resume, callbacks=callbacks, notices=self.notices.append,
                progress=lambda step, _: self.steps.append(step),
            )  # fmt: skip
        except Killed:
            assert kill_after is not None


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training that nothing ever happened to."""
    return Trained(settings_of(place, tmp_path_factory.mktemp("whole") / "run"))


@pytest.fixture
def killed(place: Path, tmp_path: Path) -> Any:
    """The settings of a training that was killed after step 5, with checkpoints of the steps 2 and 4."""
    settings = settings_of(place, tmp_path / "run")
    Trained(settings, kill_after=5)
    assert [one.name for one in checkpoints.checkpoints_in(tmp_path / "run")] == ["checkpoint-2", "checkpoint-4"]
    return settings


def same(one: Trained, other: Trained) -> None:
    assert one.result is not None
    assert other.result is not None
    assert one.result.history == other.result.history
    assert one.result.held_out_nats == other.result.held_out_nats


def test_a_finished_training_stays_as_it_is(place: Path, tmp_path: Path, whole: Trained) -> None:
    settings = settings_of(place, tmp_path / "run")
    first = Trained(settings)
    same(first, whole)
    weights = (tmp_path / "run/student/model.safetensors").stat()
    again = Trained(settings, resume=True)
    assert again.steps == []
    assert again.notices == [f"the training in {tmp_path / 'run'} is finished: nothing was done"]
    assert again.result == first.result
    assert (tmp_path / "run/student/model.safetensors").stat() == weights
    shutil.rmtree(tmp_path / "run/student")  # killed between the last checkpoint and the result
    (tmp_path / "run/result.json").unlink()
    later = Trained(settings, resume=True)
    assert later.steps == []
    same(later, whole)
    assert (tmp_path / "run/student/model.safetensors").is_file()


def test_a_checkpoint_cut_short_is_passed_over(killed: Any, whole: Trained) -> None:
    out = Path(killed.out)
    (out / "checkpoint-99").mkdir()
    checkpoints.unseal(out / "checkpoint-4")
    resumed = Trained(killed, resume=True)
    assert resumed.steps == [3, 4, 5, 6]
    assert [notice.partition(" is passed over, ")[0] for notice in resumed.notices] == [
        str(out / "checkpoint-99"), str(out / "checkpoint-4")
    ]  # fmt: skip
    assert "it was cut short before it was whole: the training goes on from checkpoint-2" in resumed.notices[0]
    same(resumed, whole)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("change", ["missing", "changed"])
def test_a_damaged_checkpoint_is_never_gone_on_from(killed: Any, whole: Trained, name: str, change: str) -> None:
    out = Path(killed.out)
    for number in (4, 2) if name == "optimizer.pt" else (4,):
        path = out / f"checkpoint-{number}" / name
        if change == "missing":
            path.unlink()
        else:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    if name == "optimizer.pt":  # no other one is left
        with pytest.raises(ConfigError, match=r"checkpoint-4 can't be gone on from, its optimizer.pt (is|isn't)"):
            Trained(killed, resume=True)
        return
    if name != "model.safetensors" or change == "missing":
        fault = checkpoints.fault_of(out / "checkpoint-4")
        assert fault is not None
        assert name in fault
        return
    resumed = Trained(killed, resume=True)
    assert "its model.safetensors isn't what was written" in resumed.notices[0]
    assert resumed.steps == [3, 4, 5, 6]
    same(resumed, whole)


def test_before_the_first_checkpoint(place: Path, tmp_path: Path, whole: Trained) -> None:
    settings = settings_of(place, tmp_path / "run")
    Trained(settings, kill_after=1)
    assert (tmp_path / "run/run.json").is_file()
    resumed = Trained(settings, resume=True)
    assert resumed.steps == [1, 2, 3, 4, 5, 6]
    same(resumed, whole)
    other = settings_of(place, tmp_path / "other", seed=1)
    Trained(other, kill_after=1)
    same(Trained(settings_of(place, tmp_path / "other")), whole)  # there was nothing to lose


def test_a_start_that_failed_leaves_nothing(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="windows to train on and a batch takes 4"):
        Trained(settings_of(place, tmp_path / "run", data={"train_tokens": 32}))
    assert not (tmp_path / "run").exists()


def test_one_training_at_a_time(place: Path, tmp_path: Path) -> None:
    settings = settings_of(place, tmp_path / "run")
    with held_folder(tmp_path / "run", "being trained in"), pytest.raises(FolderInUseError, match="being trained in"):
        Trained(settings)
    assert Trained(settings_of(place, tmp_path / "run", training={"max_steps": 1})).steps == [1]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
@pytest.mark.parametrize("num_workers", [0, 2])
def test_killed_in_the_second_epoch(place: Path, tmp_path: Path, num_workers: int) -> None:
    changes = {
        "data": {"train_tokens": 20 * LENGTH},
        "training": {"max_steps": "remove", "num_train_epochs": 2, "save_steps": 7, "logging_steps": 1,
                     "dataloader_num_workers": num_workers, "gradient_accumulation_steps": 1},
    }  # fmt: skip
    whole = Trained(settings_of(place, tmp_path / "whole", **changes))
    assert whole.steps == list(range(1, 11))
    settings = settings_of(place, tmp_path / "run", **changes)
    Trained(settings, kill_after=8)
    resumed = Trained(settings, resume=True)
    assert resumed.steps == [8, 9, 10]
    same(resumed, whole)
    assert whole.result is not None
    assert resumed.result is not None
    assert resumed.result.logs[-1]["loss"] == whole.result.logs[-1]["loss"]
    assert json.loads((tmp_path / "run/result.json").read_text())["steps"] == 10


def test_another_index_at_the_same_place_is_refused(killed: Any, place: Path, tmp_path: Path) -> None:
    begun = json.loads((Path(killed.out) / "run.json").read_text())
    assert begun["index_fingerprint"] == begun["teachers"]["corpus"]["index_fingerprint"]
    begun["teachers"]["corpus"]["index_fingerprint"] = "another"
    (Path(killed.out) / "run.json").write_text(json.dumps(begun))
    with pytest.raises(ConfigError, match="the corpus teacher has other contents than when the training in"):
        Trained(killed, resume=True)
    begun["index_fingerprint"] = "another"
    (Path(killed.out) / "run.json").write_text(json.dumps(begun))
    with pytest.raises(ConfigError, match=r"data\.index has other contents"):
        Trained(killed, resume=True)


def test_old_checkpoints_go_only_when_a_new_one_is_whole(place: Path, tmp_path: Path) -> None:
    settings = settings_of(place, tmp_path / "run", training={"save_total_limit": 1})
    Trained(settings, kill_after=5)
    assert [one.name for one in checkpoints.checkpoints_in(tmp_path / "run")] == ["checkpoint-4"]
    assert checkpoints.fault_of(tmp_path / "run/checkpoint-4") is None
    for number in (6, 8):
        (tmp_path / f"run/checkpoint-{number}").mkdir()
        (tmp_path / f"run/checkpoint-{number}/a").write_text("a")
    checkpoints.seal(tmp_path / "run/checkpoint-6")
    checkpoints.remove_oldest(tmp_path / "run", 1, str(tmp_path / "run/checkpoint-4"))
    assert [one.name for one in checkpoints.checkpoints_in(tmp_path / "run")] == [
        "checkpoint-4", "checkpoint-6", "checkpoint-8"
    ]  # fmt: skip
    checkpoints.seal(tmp_path / "run/checkpoint-8")
    checkpoints.remove_oldest(tmp_path / "run", 2, None)
    assert [one.name for one in checkpoints.checkpoints_in(tmp_path / "run")] == ["checkpoint-6", "checkpoint-8"]


def test_what_a_kill_after_the_last_checkpoint_left_goes_at_the_rerun(place: Path, tmp_path: Path) -> None:
    """Killed between the last checkpoint's manifest and the removal of older ones: found by a kill."""
    settings = settings_of(place, tmp_path / "run", training={"save_total_limit": 1})
    Trained(settings, kill_after=5)
    shutil.copytree(tmp_path / "run/checkpoint-4", tmp_path / "old")
    Trained(settings, resume=True)
    shutil.move(tmp_path / "old", tmp_path / "run/checkpoint-4")
    (tmp_path / "run/result.json").unlink()
    assert Trained(settings, resume=True).steps == []
    assert [one.name for one in checkpoints.checkpoints_in(tmp_path / "run")] == ["checkpoint-6"]


def test_what_a_killed_seal_has_written_is_no_file_of_the_checkpoint(tmp_path: Path) -> None:
    """The next manifest takes its place, so it must not tell of it."""
    (tmp_path / "weights").write_text("w")
    (tmp_path / f".{checkpoints.MANIFEST}.partial").write_text("cut sh")
    checkpoints.seal(tmp_path)
    assert checkpoints.fault_of(tmp_path) is None


def test_killed_anywhere_in_a_checkpoint_one_is_whole(tmp_path: Path) -> None:
    """Before each call that changes files, and with a full disk: the newest whole one is the old or the new."""
    count = run_faults(
        tmp_path / "out",
        """
        from corpus_teacher.training import checkpoints
        from corpus_teacher.errors import OutputError

        FILES = ("model.safetensors", "optimizer.pt", "trainer_state.json")

        def write(folder, what):
            folder.mkdir(exist_ok=True)
            checkpoints.unseal(folder)
            for name in FILES:
                (folder / name).write_bytes(what * 3000)

        def prepare(out):
            write(out / "checkpoint-2", b"2")
            checkpoints.seal(out / "checkpoint-2")
            write(out / "checkpoint-4", b"5")  # what an earlier kill left

        def operate(out):
            write(out / "checkpoint-4", b"4")
            checkpoints.seal(out / "checkpoint-4")
            checkpoints.remove_oldest(out, 1, None)

        def check(out, finished):
            notices = []
            folder = checkpoints.newest_whole(out, notices.append)
            assert folder is not None
            assert not list(out.glob(".*removed"))
            assert [one.name for one in out.iterdir() if not checkpoints.is_sealed(one)] in ([], ["checkpoint-4"])
            assert {(folder / name).read_bytes()[:1] for name in FILES} == {folder.name[-1:].encode()}
            assert not finished or (folder.name == "checkpoint-4" and not notices)
            assert not finished or not (out / "checkpoint-2").exists()
        """,
        arguments="sizes=(0, 100, 2999, 3000, 3500)",
        warm=True,
    )
    assert count > 15


_TWO_PROCESSES = """
import json, os, sys
import transformers
from corpus_teacher.training.command import run_training
from corpus_teacher.training.settings import make_run

class Killed(Exception):
    pass

class Kill(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4:
            raise Killed

table, out = json.loads(sys.argv[1]), sys.argv[2]
whole = run_training(make_run({**table, "out": out + "/whole"}))
settings, steps, notices = make_run({**table, "out": out + "/run"}), [], []
try:
    run_training(settings, callbacks=[Kill()])
except Killed:
    pass
if os.environ["RANK"] == "0":
    os.mkdir(out + "/run/checkpoint-99")
resumed = run_training(
    settings, resume=True, progress=lambda step, _: steps.append(step), notices=notices.append
)
assert resumed.history == whole.history, (resumed.history, whole.history)
assert resumed.logs[-1]["loss"] == whole.logs[-1]["loss"]
assert steps == [4, 5, 6], steps
assert len(notices) == (os.environ["RANK"] == "0"), notices
again = run_training(settings, resume=True, progress=lambda step, _: steps.append(step), notices=notices.append)
assert again.history == whole.history and len(steps) == 3
import torch
torch.distributed.barrier()
torch.distributed.destroy_process_group()
print("equal")
"""


@pytest.mark.slow
def test_two_processes_killed_in_the_second_epoch(place: Path, tmp_path: Path) -> None:
    settings = settings_of(
        place, tmp_path, data={"train_tokens": 24 * LENGTH},
        training={"max_steps": "remove", "num_train_epochs": 2, "save_steps": 3, "logging_steps": 1},
    )  # fmt: skip
    (tmp_path / "script.py").write_text(_TWO_PROCESSES)
    table = json.dumps({name: value for name, value in settings.to_dict().items() if value is not None})
    for rank in run_ranks(2, tmp_path / "script.py", table, tmp_path):
        assert rank.returncode == 0, rank.stderr[-4000:]
        assert rank.stdout.count("equal") == 1


def test_adaptive_weights_go_on(place: Path, tmp_path: Path) -> None:
    """They are a checkpoint's, are told at every step, and hold what was read."""
    changes: dict[str, Any] = {"policy": {"adaptive": {"memory": 500}}, "training": {"logging_steps": 1}}
    straight = Trained(settings_of(place, tmp_path / "whole", **changes))
    settings = settings_of(place, tmp_path / "run", **changes)
    Trained(settings, kill_after=5)
    resumed = Trained(settings, resume=True)
    same(resumed, straight)
    assert straight.result is not None
    told = [one["student_weight"] for one in straight.result.logs if "student_weight" in one]
    assert len(set(told)) == 6
    assert resumed.result is not None
    assert [one["student_weight"] for one in resumed.result.logs if "student_weight" in one] == told
    states = [torch.load(tmp_path / run / "checkpoint-6/adaptive.pt", weights_only=True) for run in ("whole", "run")]
    torch.testing.assert_close(states[0]["sums"], states[1]["sums"], rtol=0, atol=0)
    assert 0 < float(states[0]["sums"][1].sum()) <= 6 * 4 * (LENGTH - 1)
