"""The page on what scale takes says what its script computes, and the script computes what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import scale_plan

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "what-scale-takes.md"


def test_the_page_has_the_figures_of_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert scale_plan.table() in text
    assert scale_plan.inputs() in text
    assert len(re.findall(r"^\|---", text, flags=re.MULTILINE)) == 2  # and no other table
    scale_plan.main()
    assert capsys.readouterr().out == f"{scale_plan.inputs()}\n\n{scale_plan.table()}\n"


def test_assumptions_of_the_page_are_those_of_the_script() -> None:
    text, said = PAGE.read_text(encoding="utf-8"), scale_plan.ASSUMED
    assert f"Shards of {said.shard_tokens / 1e9:.0f} billion tokens" in text
    assert f"{said.cores} cores and {said.memory_bytes / 2**30:.0f} GiB at {said.machine_per_hour:.0f} dollars" in text
    assert said.memory_share == 0.8
    assert f"{said.disk_per_gb_month} dollars per GB and month" in text
    assert f"{said.text_bytes_per_token:.0f} bytes of text per token" in text
    assert f"A batch is {said.batch:,} positions" in text
    assert f"{said.network_bytes_per_s * 8 / 1e9:.0f} Gbit/s" in text
    assert said.rounds == 3
    assert f"three rounds of questions waits {said.round_s * 1e3:.0f} ms" in text


def test_a_plan_by_hand() -> None:
    found = scale_plan.Measured(
        build_s=scale_plan.Curve(10.0, 1.0),
        build_bytes=20.0,
        disk_bytes=10.0,
        hot_bytes=5.0,
        sharded_tokens=1e8,
        tokenize_s_per_byte=1e-6,
        match_us=scale_plan.Curve(1.0, 0.0),
        shard_us=lambda shards: 2.0 * shards,
        together_us=lambda shards: 3.0 * shards,
        travelled_bytes=lambda shards: 100.0 * shards,
    )
    said = scale_plan.Assumed(
        shard_tokens=1e8,
        cores=2,
        memory_bytes=5e9,
        memory_share=0.5,
        machine_per_hour=1.0,
        disk_per_gb_month=0.1,
        text_bytes_per_token=4.0,
        batch=1000,
        rounds=2,
        round_s=0.5,
        network_bytes_per_s=1e6,
    )
    plan = scale_plan.plan(1e9, found, said)
    assert (plan.shards, plan.machines) == (10, 2)  # 5 GB of hot files, 2.5 GB of memory each
    assert (plan.hot_bytes, plan.disk_bytes) == (5e9, 1e10)
    assert plan.tokenize_core_hours == pytest.approx(4000 / 3600)
    assert plan.build_core_hours == pytest.approx(100 / 3600)
    # 1000 s of tokenising on 4 cores; one shard of 2 GB at a time on each machine, so 5 rounds of 10 s
    assert plan.build_hours == pytest.approx((1000 + 50) / 3600)
    assert plan.build_dollars == pytest.approx(2 * (1000 + 50) / 3600)
    # 5 shards a machine: 10 us on 2 cores; 30 us together; 2 rounds of 0.5 s; 1,000 bytes of each position
    assert plan.latency_s == pytest.approx(1000 * (5 + 30) / 1e6 + 1.0 + 1.0)
    assert plan.positions_per_s == pytest.approx(2 / 10e-6)
    assert plan.asking_cores == pytest.approx(200_000 * 30e-6)
    documents = scale_plan.plan(1e9, found._replace(document=(40.0, 6.0, 50.0)), said)
    # 40 us spread over 4 cores, 6 us more together, 50 bytes more
    assert documents.latency_s == pytest.approx(1000 * (5 + 10 + 36) / 1e6 + 1.0 + 1.05)
    assert documents.positions_per_s == pytest.approx(2 / 30e-6)
    assert (plan.serve_dollars_per_hour, plan.disk_dollars_per_month) == (2.0, 1.0)
