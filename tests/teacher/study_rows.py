"""Rows of a study that never ran: losses of a known law plus the chance of seeds and documents."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DOCUMENTS = 24
GAINS = {"hard": 0.0, "corpus": 0.12, "corpus self in": 0.06, "label smoothing": -0.05, "permuted": 0.0}
SIZES = {"small": 300_000, "base": 1_000_000}
BUDGETS = {"once": 1_000_000, "twice": 2_000_000, "4x": 4_000_000}
_COPIED = ("continues a repeat", "was seen before", "is new")


def make_settings(**changes: Any) -> dict[str, Any]:
    """As study.json has them."""
    made = {
        "name": "label-smoothing",
        "question": "Is it only label smoothing, or does <the corpus> know something?",
        "primary": "in.nats",
        "baseline": "hard",
        "seeds": 5,
        "tuning_seed": 1000,
        "learning_rates": [1e-3, 2e-3, 4e-3],
        "form": "standard",
        "arms": {arm: {} for arm in GAINS},
        "sizes": {size: {} for size in SIZES},
        "budgets": {budget: {} for budget in BUDGETS},
    }
    return {**made, **changes}


def make_rows(
    gains: Mapping[str, float] = GAINS,
    sizes: Mapping[str, int] = SIZES,
    budgets: Mapping[str, int] = BUDGETS,
    seeds: Sequence[int] = range(5),
    *,
    noise: float = 0.01,
    tuning: bool = True,
) -> list[dict[str, Any]]:
    """A row a training; the law is 4 + size − 0.25·log2(tokens) − the arm's gain, nats a token."""
    rng = np.random.default_rng(7)
    of_document, of_seed = rng.normal(0, 0.5, DOCUMENTS), {seed: rng.normal(0, 3 * noise) for seed in seeds}
    lengths = np.random.default_rng(8).integers(50, 400, DOCUMENTS)
    rows = []
    for arm, gain in gains.items():
        for size, parameters in sizes.items():
            for budget, tokens in budgets.items():
                if tuning:
                    rows += [_tuning(arm, size, budget, rate, gain) for rate in (1e-3, 2e-3, 4e-3)]
                for seed in seeds:
                    level = (
                        4 - 0.1 * math.log2(parameters / 3e5) - 0.25 * math.log2(tokens / 1e6) - gain + of_seed[seed]
                    )
                    level += rng.normal(0, noise)
                    nats = lengths * (level + of_document + rng.normal(0, noise, DOCUMENTS))
                    rows.append(_row(arm, size, budget, seed, tokens, parameters, nats, lengths, gain))
    return rows


def write_study(folder: Path, rows: Sequence[Mapping[str, Any]], **changes: Any) -> Path:
    """A folder as `corpus-teacher study run` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(make_settings(**changes)), encoding="utf-8")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def _tuning(arm: str, size: str, budget: str, rate: float, gain: float) -> dict[str, Any]:
    loss = 4.2 - gain + abs(math.log2(rate / (4e-3 if arm == "corpus" else 2e-3))) * 0.05
    metrics = {"tune": {"nats": loss}}
    return _place(arm, size, budget, 1000, rate) | {"role": "tune", "metrics": metrics, "seconds": 10.0}


def _place(arm: str, size: str, budget: str, seed: int, rate: float) -> dict[str, Any]:
    return {
        "study": "label-smoothing",
        "form": "standard",
        "arm": arm,
        "size": size,
        "budget": budget,
        "seed": seed,
        "learning_rate": rate,
        "started": f"2030-01-01T00:00:{seed % 60:02}+00:00",
    }


def _row(
    arm: str,
    size: str,
    budget: str,
    seed: int,
    tokens: int,
    parameters: int,
    nats: np.ndarray,
    lengths: np.ndarray,
    gain: float,
) -> dict[str, Any]:
    loss, total = float(nats.sum() / lengths.sum()), int(lengths.sum())
    dearer = 1.0 if arm == "hard" else 1.2
    shares = [(k + 1) / 10 for k in range(10)]
    counts = ("0", "1", "2–4", "5–16", "17–64", "65–256", "257+")
    domain = {
        "nats": loss,
        "bits_per_byte": loss / math.log(2) / 3,
        "tokens": total,
        "ece": 0.03 - 0.1 * gain,
        "adaptive_ece": 0.031 - 0.1 * gain,
        "brier": 0.7 - 0.2 * gain,
        "top1": 0.3 + 0.2 * gain,
        "reliability": [{"confidence": x, "accuracy": x - 0.1 * gain, "tokens": 400} for x in shares],
        "documents": [[float(one), int(count)] for one, count in zip(nats, lengths, strict=True)],
        "buckets": {
            "context_count": [
                {"label": label, "tokens": 2000 >> k, "nats": loss + 1 - 0.3 * k - gain * k / 3}
                for k, label in enumerate(counts)
            ],
            "match_len": [
                {"label": f"{k}", "tokens": 1000, "nats": loss + 0.5 - 0.1 * k - gain / (k + 1)} for k in range(5)
            ]
            + [{"label": "5+", "tokens": 0, "nats": None}],
            "copied": [{"label": label, "tokens": 500, "nats": loss + k} for k, label in enumerate(_COPIED)],
        },
    }
    prose = {**domain, "nats": loss + 1, "documents": [[a + b, b] for a, b in domain["documents"]]}
    return _place(arm, size, budget, seed, 4e-3 if arm == "corpus" else 2e-3) | {
        "role": "run",
        "fingerprint": f"{arm}/{size}/{budget}/{seed}",
        "config": {"seed": seed, "data": {"train_tokens": 1_000_000}, "arm": arm},
        "versions": {"torch": "2.9", "numpy": "2.3"},
        "commit": "0" * 40,
        "machine": {"system": "somewhere", "cores": 2, "device": "cpu"},
        "seconds": tokens / 1e4 * dearer,
        "cpu_s": tokens / 5e3 * dearer,
        "teacher_s": tokens / 1e5 * (dearer - 1),
        "loader_s": 1.0,
        "peak_memory_bytes": 2**30,
        "tokens": tokens,
        "steps": tokens // 1000,
        "parameters": parameters,
        "history": [
            {"step": k, "tokens": tokens * k // 20, "nats": loss + 2.5 * (1 / k - 1 / 20)} for k in range(1, 21)
        ],
        "metrics": {
            "in": domain,
            "prose": prose,
            "fidelity": {"kl_nats": 1.4 - gain, "top1": 0.5 + gain},
            "induction": {"nats_first": 7.0, "nats_second": 5.0, "accuracy": 0.2 + gain},
            "extraction": {"rate": 0.01, "tokens_right": 0.2, "length": 16},
            "novelty": {"2": 0.1, "4": 0.5, "13": 0.9},
        },
        "checks": {
            "overlap_13gram": 0.25,
            "overlap_13gram_mean_share": 0.01,
            "max_overlap": 0.3,
            "dropped_for_overlap": 3,
            "leave_out_label_invariance": True,
            "leave_out_largest_difference": 0.0,
        },
    }
