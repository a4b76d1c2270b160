"""Policies from TOML: what is made of a table, the round trip, and what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus_teacher.blend import (
    BlendReport,
    CosineSchedule,
    EarlyOnlySchedule,
    Evidence,
    LinearSchedule,
    Policy,
    Routing,
    Share,
    apply_policy,
    make_policy,
)
from corpus_teacher.errors import ConfigError
from corpus_teacher.losses import shift_labels
from corpus_teacher.targets.soft import SoftTargets

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest itself needs it there
    import tomli as tomllib

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "policies.md"

EVERYTHING = """
remainder = "hard"
fallbacks = ["shorter", "neural", "base", "hard"]
min_match_len = 2
min_count = 3
shorter_match_len = 1
complementary = 0.25

[corpus]
weight = 0.5
schedule = { kind = "cosine", first = 1.0, last = 0.2, begin_step = 10, end_step = 1_000 }
evidence = [{ by = "match_len", low = 0, high = 4 }, { by = "top1_agreement", of = "self", half = 1 }]

[neural]
weight = 0.25
schedule = { kind = "linear", end_step = 50 }

[self]
weight = 0.125
schedule = { kind = "early-only", until_step = 7, decay_steps = 3 }

[routing]
share = 0.15
by = "neural"
"""


def test_toml_makes_what_code_makes() -> None:
    expected = Policy(
        {
            "corpus": Share(
                0.5,
                CosineSchedule(first=1.0, last=0.2, begin_step=10, end_step=1000),
                (Evidence("match_len", low=0, high=4), Evidence("top1_agreement", of="self", half=1)),
            ),
            "neural": Share(0.25, LinearSchedule(end_step=50)),
            "self": Share(0.125, EarlyOnlySchedule(7, 3)),
        },
        fallbacks=("shorter", "neural", "base", "hard"),
        min_match_len=2,
        min_count=3,
        complementary=0.25,
        routing=Routing(0.15, "neural"),
    )
    actual = make_policy(tomllib.loads(EVERYTHING))
    assert actual == expected
    assert make_policy(actual.to_dict()) == actual
    assert actual.needs == {"hard", "corpus", "neural", "self"}


def test_defaults_and_short_weights() -> None:
    policy = make_policy({"corpus": 0.5})
    assert policy == Policy({"corpus": 0.5}) == Policy({"corpus": Share(0.5)})
    assert make_policy({}).asked(0) == {"hard": 1.0}
    table = policy.to_dict()
    assert table["fallbacks"] == ["corpus", "shorter", "neural", "base", "hard"]
    assert "routing" not in table
    assert make_policy(table) == policy


def test_asked_sums_to_one_at_every_step() -> None:
    policy = make_policy(tomllib.loads(EVERYTHING))
    for step in range(0, 1100, 7):
        assert sum(policy.asked(step).values()) == pytest.approx(1)
    assert Policy({"corpus": 0.2, "neural": 0.7, "self": 0.1}).asked(0).keys() == {"corpus", "neural", "self"}


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_one_teacher_hands_over_to_another(kind: str) -> None:
    falls = {"kind": kind, "end_step": 4_000}
    rises = {**falls, "first": 0.0, "last": 1.0}
    policy = make_policy({"corpus": {"weight": 0.75, "schedule": falls}, "neural": {"weight": 0.75, "schedule": rises}})
    for step in range(0, 5_000, 7):
        asked = policy.asked(step)
        assert asked["hard"] == pytest.approx(0.25)
        assert asked.get("corpus", 0) + asked.get("neural", 0) == pytest.approx(0.75)
    assert policy.asked(0) == {"hard": 0.25, "corpus": 0.75}
    assert policy.asked(4_000) == {"hard": 0.25, "neural": 0.75}
    early = {"kind": "early-only", "until_step": 10, "decay_steps": 10}
    after = {"kind": "linear", "first": 0.0, "last": 1.0, "begin_step": 10, "end_step": 20}
    made = make_policy({"corpus": {"weight": 1, "schedule": early}, "neural": {"weight": 1, "schedule": after}})
    assert made.asked(15) == {"corpus": 0.5, "neural": 0.5}


def test_weights_that_sum_to_too_much_for_a_while_are_refused() -> None:
    rises = {"kind": "linear", "first": 0.0, "last": 1.0, "end_step": 50}
    at_once = {"kind": "early-only", "until_step": 40}
    for_a_while = {"corpus": {"weight": 0.75, "schedule": at_once}, "neural": {"weight": 0.75, "schedule": rises}}
    with pytest.raises(ConfigError, match=r"the weights sum to 1\.335 at step 39: give at most 1"):
        make_policy(for_a_while)
    unlike = {
        "corpus": {"weight": 0.75, "schedule": {"kind": "cosine", "end_step": 50}},
        "neural": for_a_while["neural"],
    }
    with pytest.raises(ConfigError, match=r"the weights sum to .* at step"):  # above 0.75 in the middle, at most 0.83
        make_policy({**unlike, "self": 0.24})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"corpsu": 0.5}, r"policy has no key 'corpsu': did you mean 'corpus'\?"),
        ({"xyzzy": 1}, r"policy has no key 'xyzzy': give one of remainder, fallbacks"),
        ({"corpus": {"wieght": 1}}, r"policy\.corpus has no key 'wieght': did you mean 'weight'\?"),
        ({"corpus": {}}, r"policy\.corpus has no weight: give it"),
        ({"corpus": "half"}, r"policy\.corpus is 'half': give a table"),
        ({"corpus": True}, r"policy\.corpus is True: give a table"),
        ({"corpus": 1.5}, r"policy\.corpus: weight is 1\.5: give a number from 0 to 1"),
        ({"corpus": -0.1}, r"weight is -0\.1"),
        ({"corpus": {"weight": float("nan")}}, r"weight is nan"),
        ({"corpus": 0.7, "neural": 0.4}, r"policy: the weights sum to 1\.1: give at most 1, what is left goes to"),
        ({"hard": 0.7}, r"'hard' is the remainder and has a weight"),
        ({"remainder": "nueral"}, r"remainder is 'nueral', which is unknown: did you mean 'neural'\?"),
        ({"fallbacks": "neural"}, r"fallbacks is 'neural': give a list of corpus, shorter"),
        ({"fallbacks": ["shortest"]}, r"fallbacks\[0\] is 'shortest', which is unknown: did you mean 'shorter'\?"),
        ({"fallbacks": ["base", "base"]}, r"names 'base' twice"),
        ({"fallbacks": ["hard", "base"]}, r"'base' after 'hard'"),
        ({"min_match_len": 1.5}, r"min_match_len is 1\.5: give a whole number of at least 0"),
        ({"min_count": -1}, r"min_count is -1"),
        ({"shorter_match_len": True}, r"shorter_match_len is True"),
        ({"complementary": 2}, r"complementary is 2: give a number from 0 to 1"),
        ({"routing": 0.15}, r"policy\.routing is 0\.15: give a table"),
        ({"routing": {"quantile": 0.1}}, r"policy\.routing has no key 'quantile'"),
        ({"routing": {"share": 15}}, r"policy\.routing: share is 15"),
        ({"routing": {"by": "base"}}, r"policy\.routing: by is 'base', which is unknown"),
    ],
)  # fmt: skip
def test_wrong_policies_are_refused_by_name(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy(table)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("linear", r"policy\.corpus\.schedule is 'linear': give a table whose kind is one of linear, cosine"),
        ({"end_step": 5}, r"whose kind is one of"),
        ({"kind": "cosin", "end_step": 5}, r"schedule\.kind is 'cosin', which is unknown: did you mean 'cosine'\?"),
        ({"kind": "linear"}, r"policy\.corpus\.schedule has no end_step: give it"),
        ({"kind": "linear", "until_step": 5}, r"schedule has no key 'until_step': did you mean 'end_step'"),
        ({"kind": "linear", "end_step": 0}, r"end_step is 0: give a whole number of at least 1"),
        ({"kind": "linear", "end_step": 5, "begin_step": 5}, r"end_step is 5: give a whole number of at least 6"),
        ({"kind": "cosine", "end_step": 5, "last": -1}, r"last is -1: give a number from 0 to 1"),
        ({"kind": "early-only", "until_step": "5"}, r"until_step is '5'"),
        ({"kind": "early-only", "until_step": 5, "decay_steps": -1}, r"decay_steps is -1"),
    ],
)  # fmt: skip
def test_wrong_schedules_are_refused_by_name(schedule: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy({"corpus": {"weight": 0.5, "schedule": schedule}})


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ({"by": "count", "half": 1}, r"policy\.corpus\.evidence is \{.*\}: give a list of tables"),
        (["count"], r"policy\.corpus\.evidence\[0\] is 'count': give a table"),
        ([{"half": 1}], r"policy\.corpus\.evidence\[0\] has no by: give it"),
        ([{"by": "count", "half": 1}, {"by": "counts", "half": 1}],
         r"evidence\[1\]: by is 'counts', which is unknown: did you mean 'count'\?"),
        ([{"by": "entropy", "of": "base", "half": 1}], r"of is 'base', which is unknown: give one of corpus, neural"),
        ([{"by": "overlap", "of": "corpus", "half": 1}], r"of is 'corpus', which is unknown"),
        ([{"by": "count", "of": "neural", "half": 1}], r"of is 'neural', but count is always the corpus'"),
        ([{"by": "count"}], r"give either low and high, or half"),
        ([{"by": "count", "low": 1}], r"give either low and high, or half"),
        ([{"by": "count", "low": 1, "high": 2, "half": 3}], r"give either low and high, or half"),
        ([{"by": "count", "low": 1, "high": 1}], r"low and high are both 1"),
        ([{"by": "count", "half": 0}], r"half is 0: give a positive number"),
        ([{"by": "count", "half": "3"}], r"half is '3': give a number"),
    ],
)  # fmt: skip
def test_wrong_evidence_is_refused_by_name(evidence: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy({"corpus": {"weight": 0.5, "evidence": evidence}})


def test_the_documented_policy_runs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    (table,) = (one for one in re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL) if "fallbacks" in one)
    policy = make_policy(tomllib.loads(table))
    assert policy.fallbacks == ("shorter", "neural", "base", "hard")
    assert policy.asked(0) == pytest.approx({"corpus": 0.5, "neural": 0.3, "hard": 0.2})
    assert policy.asked(10_000) == pytest.approx({"corpus": 0.1, "neural": 0.3, "hard": 0.6})

    targets = SoftTargets.from_arrays(
        [0] * 5, [], [], [1.0] * 4, [0.25] * 4, match_len=[0, 1, 2, 3], context_count=[9, 9, 2, 2]
    )
    logits, report = torch.zeros(1, 4, 4, requires_grad=True), BlendReport()
    labels = shift_labels(torch.tensor([[0, 1, 2, 3]]))
    taught = apply_policy(policy, 0, logits, labels, corpus=targets, neural=torch.randn(1, 4, 4))
    taught.loss.backward()
    report.add(taught.blend)
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0
    expected = {"share_neural-fallback": 1 / 3, "share_corpus-shorter": 1 / 3, "share_neural": 1 / 3}
    assert {k: v for k, v in report.logs().items() if k.startswith("share")} == pytest.approx(expected)
