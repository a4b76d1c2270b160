"""Every option of what a training loop calls is given what it isn't made for: an answer, or one sentence of ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus_index import CorpusIndex, CorpusIndexError, open_index

from corpus_teacher import CorpusTeacher, TeacherCollator, blended_cross_entropy, make_policy, open_corpus, trace
from corpus_teacher.blend import apply_policy
from corpus_teacher.data import BuildOptions, TokenWindows, build_index_from_sources
from corpus_teacher.errors import CorpusTeacherError
from corpus_teacher.losses import soft_cross_entropy
from corpus_teacher.training import DistillationConfig, make_student

from ..index.test_odd_options import ODD

ROWS = torch.tensor([[1, 2, 3], [2, 3, 1]])
Call = tuple[Callable[..., Any], Mapping[str, Any]]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "text.txt").write_text("the cat sat on the mat. " * 9, encoding="utf-8")
    build_index_from_sources([str(folder / "text.txt")], folder / "index", BuildOptions(tokenizer="bytes"))
    return open_index(folder / "index")


def asked(index: CorpusIndex) -> dict[str, Call]:
    """Calls that are right."""
    teacher = CorpusTeacher(index)
    corpus = open_corpus(index.path)
    targets, logits, labels = teacher(ROWS, positions=[0, 1]), torch.zeros(2, 3, index.vocab_size), ROWS
    part = {"weight": 0.5, "schedule": {"kind": "linear", "last": 0.2, "end_step": 5}}
    window = {"input_ids": [1, 2, 3], "position": 0}
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return {
        "CorpusTeacher": (
            CorpusTeacher,
            {"index": index, "estimator": "witten-bell", "max_order": 2, "leave_out": "auto", "top_k": 4, "top_p": 1.0,
             "strict": False, "recall": False, "check": "first"},
        ),
        "teacher": (teacher, {"input_ids": ROWS, "positions": [0, 1], "starts_document": False}),
        "mixed": (teacher.mixed, {"input_ids": ROWS, "positions": [0, 1], "starts_document": False}),
        "TeacherCollator": (lambda windows, **given: TeacherCollator(teacher, **given)(windows), {"windows": [window]}),
        "TokenWindows": (
            lambda **given: next(iter(TokenWindows(**given))),
            {"tokens": index.tokens, "length": 4, "seed": 0, "doc_starts": index.doc_starts, "shuffle": True,
             "limit": 2},
        ),
        "soft_cross_entropy": (
            soft_cross_entropy,
            {"logits": logits, "targets": targets, "weights": None, "reduction": "mean", "temperature": 1.0},
        ),
        "blended_cross_entropy": (
            blended_cross_entropy,
            {"logits": logits, "labels": labels, "targets": targets, "corpus_weight": 0.5, "temperature": 1.0,
             "reduction": "mean"},
        ),
        "make_policy": (make_policy, {"table": {"corpus": part}}),
        "make_policy of a part": (
            lambda **given: make_policy({"corpus": given}), {**part, "evidence": [{"by": "count", "half": 2}]},
        ),
        "make_policy of a schedule": (
            lambda **given: make_policy({"corpus": {"weight": 0.5, "schedule": given}}), part["schedule"],
        ),
        "apply_policy": (
            lambda **given: apply_policy(logits=logits, labels=labels, corpus=targets, **given),
            {"policy": make_policy({"corpus": 0.5}), "step": 0, "temperature": 1.0, "reduction": "mean"},
        ),
        "make_student": (make_student, {"config": sizes, "vocab_size": 9, "seed": 0, "end_token": None}),
        "DistillationConfig": (
            lambda **given: DistillationConfig("out", use_cpu=True, **given),
            {"alpha": 0.5, "beta": 0.0, "temperature": 1.0, "policy": None, "control": None, "smooth_with": "uniform",
             "fused": False, "muon": False},
        ),
        "trace": (
            trace,
            {"index": index, "ids": [1, 2, 3], "min_length": 2, "max_count": None, "snippets": 1, "held_out": None,
             "baseline": False},
        ),
        "open_corpus": (open_corpus, {"path": index.path}),
        "document": (corpus.document, {"number": 0}),
    }  # fmt: skip


def slips(calls: Mapping[str, Call]) -> list[str]:
    """What ended in another exception than ours, or in more than a line."""
    found = []
    for name, (function, options) in calls.items():
        function(**options)  # as it is meant
        for option, value in itertools.product(options, ODD):
            try:
                function(**{**options, option: value})
            except (CorpusTeacherError, CorpusIndexError) as error:
                if "\n" in str(error) or not str(error):
                    found.append(f"{name}({option}={value!r}): more than a line")
            except Exception as error:
                found.append(f"{name}({option}={value!r}): {type(error).__name__}: {error}")
    return found


@pytest.mark.filterwarnings("ignore")
def test_an_answer_or_one_sentence(index: CorpusIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an odd path may be a name of a file
    found = slips(asked(index))
    assert not found, f"{len(found)}\n" + "\n".join(found)
