"""The bench beside KenLM's `query`: what it makes of its turns."""

from __future__ import annotations

from bench.kenlm import in_turns, summary


def test_turns_alternate_and_the_first_is_not_told() -> None:
    done: list[str] = []

    def one(name: str, seconds: float) -> float:
        done.append(name)
        return seconds * len(done)

    told = in_turns(lambda: one("ours", 1.0), lambda: one("query", 2.0), 2)
    assert done == ["ours", "query"] * 3
    assert told == [(3.0, 8.0), (5.0, 12.0)]


def test_ratios_are_of_turns() -> None:
    told = summary(12, [(1.0, 2.0), (2.0, 2.0), (4.0, 2.0)])
    assert (told["ours_per_s"], told["query_per_s"]) == (6.0, 6.0)
    assert (told["ratio_low"], told["ratio"], told["ratio_high"]) == (0.5, 1.0, 2.0)
