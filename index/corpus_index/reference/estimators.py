"""The naive twins of all estimators: probabilities of every token after a context, straight from the formulas.

Like `reference`, they are the oracle of the tests and share no code with the engine: plain Python, every count a scan
of the corpus. A *known context* is a tuple of symbols, oldest first, as `ReferenceIndex.known_symbols` gives it. Each
estimator walks the context's *chain*, its suffixes of order 0, 1, … up to the longest one that is still followed by
something, and returns a list of V probabilities that sums to 1.

Options that all share:

- `max_order` bounds the symbols of a suffix, the start symbol included.
- `leave_out` is None, ("self", token) or ("document", number). "self" takes one occurrence of (suffix, token) away at
  every order, where there is one, before the longest match is chosen; "document" takes away every position of one
  document. Parameters stay as they are given.

Every order passes a part of the mass that reaches it on to the shorter ones. Where less than LEAST_MASS is passed on,
the shorter orders are passed by, and it goes to the base distribution: a long chain would leave nothing at all in
floating point, and so 0 for tokens that no long context has seen. Nothing but such tiny masses depends on it.

Parameters that go by order are sequences indexed by order (entry 0 is order 0, the unigrams, even where an estimator
doesn't need it); the last entry goes on for all longer orders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from corpus_index.reference.counts import (
    LeaveOut,
    adjusted_counts,
    at_order,
    base,
    chain,
    followers,
    left_counts,
    longer_counts,
)
from corpus_index.reference.engine import ReferenceIndex

LEAST_MASS = 1e-15


def _interpolated(lowest: list[float], levels: list[tuple[list[float], float]]) -> list[float]:
    """p_n(w) = own_n(w) + back_n · p_{n−1}(w), levels = (own_1, back_1), … and p_0 = lowest; see LEAST_MASS."""
    mass, first = 1.0, len(levels)
    while first > 0 and mass >= LEAST_MASS:
        first -= 1
        mass *= levels[first][1]
    probabilities = lowest
    for own, back in levels[first:]:
        probabilities = [part + back * p for part, p in zip(own, probabilities, strict=True)]
    return probabilities


# estimators of one level


def mle(
    index: ReferenceIndex, known: Sequence[int], *, max_order: int | None = None, leave_out: LeaveOut = None
) -> list[float]:
    """p(w) = c(w) / c at the longest match: with no max_order, the ∞-gram (Liu et al. 2024).

    Not smoothed: tokens that don't follow the match have probability 0. Uniform if leaving out leaves nothing at all.
    """
    counts = left_counts(index, chain(index, known, max_order=max_order, leave_out=leave_out)[-1], leave_out)
    if not counts:
        return [1.0 / index.vocab_size] * index.vocab_size
    return [counts[w] / counts.total() for w in range(index.vocab_size)]


def add_k(
    index: ReferenceIndex, known: Sequence[int], *, k: float, max_order: int | None = None, leave_out: LeaveOut = None
) -> list[float]:
    """p(w) = (c(w) + k) / (c + k·V) at the longest match, k > 0 (Lidstone 1920; k = 1: Laplace)."""
    counts = left_counts(index, chain(index, known, max_order=max_order, leave_out=leave_out)[-1], leave_out)
    total = counts.total() + k * index.vocab_size
    return [(counts[w] + k) / total for w in range(index.vocab_size)]


# interpolation, from the base up


def jelinek_mercer(
    index: ReferenceIndex,
    known: Sequence[int],
    *,
    weights: Callable[[int, int], float] | Sequence[Sequence[float]],
    max_order: int | None = None,
    leave_out: LeaveOut = None,
) -> list[float]:
    """p_n(w) = λ · c(w) / c + (1 − λ) · p_{n−1}(w) (Jelinek & Mercer 1980), λ in [0, 1).

    λ = weights(order, c), or weights[order][floor(log2 c)], in both places the last entry going on.
    """
    levels = []
    for order, counts in longer_counts(index, known, max_order, leave_out):
        total = counts.total()
        if callable(weights):
            weight = weights(order, total)
        else:
            weight = at_order(at_order(weights, order), total.bit_length() - 1)
        levels.append(([weight * counts[w] / total for w in range(index.vocab_size)], 1 - weight))
    return _interpolated(base(index, leave_out), levels)


def absolute_discounting(
    index: ReferenceIndex,
    known: Sequence[int],
    *,
    discounts: Sequence[float],
    max_order: int | None = None,
    leave_out: LeaveOut = None,
) -> list[float]:
    """p_n(w) = max(c(w) − D, 0) / c + D · T / c · p_{n−1}(w), D = discounts[n] in (0, 1] (Ney, Essen & Kneser 1994).

    T is the number of distinct continuations.
    """
    levels = []
    for order, counts in longer_counts(index, known, max_order, leave_out):
        discount, total, distinct = at_order(discounts, order), counts.total(), len(counts)
        own = [max(counts[w] - discount, 0) / total for w in range(index.vocab_size)]
        levels.append((own, discount * distinct / total))
    return _interpolated(base(index, leave_out), levels)


def witten_bell(
    index: ReferenceIndex, known: Sequence[int], *, max_order: int | None = None, leave_out: LeaveOut = None
) -> list[float]:
    """p_n(w) = (c(w) + T · p_{n−1}(w)) / (c + T) (Bell, Cleary & Witten 1990; Witten & Bell 1991, method C)."""
    levels = []
    for _, counts in longer_counts(index, known, max_order, leave_out):
        total = counts.total() + len(counts)
        levels.append(([counts[w] / total for w in range(index.vocab_size)], len(counts) / total))
    return _interpolated(base(index, leave_out), levels)


def dirichlet(
    index: ReferenceIndex,
    known: Sequence[int],
    *,
    concentrations: Sequence[float],
    max_order: int | None = None,
    leave_out: LeaveOut = None,
) -> list[float]:
    """p_n(w) = (c(w) + a · p_{n−1}(w)) / (c + a), a = concentrations[n] > 0 (MacKay & Peto 1995)."""
    levels = []
    for order, counts in longer_counts(index, known, max_order, leave_out):
        a = at_order(concentrations, order)
        total = counts.total() + a
        levels.append(([counts[w] / total for w in range(index.vocab_size)], a / total))
    return _interpolated(base(index, leave_out), levels)


def pitman_yor(
    index: ReferenceIndex,
    known: Sequence[int],
    *,
    discounts: Sequence[float],
    concentrations: Sequence[float] = (0.0,),
    max_order: int | None = None,
    leave_out: LeaveOut = None,
) -> list[float]:
    """p_n(w) = (max(c(w) − d, 0) + (θ + d · T) · p_{n−1}(w)) / (c + θ), with d = discounts[n], θ = concentrations[n].

    A hierarchical Pitman–Yor process with one table a type (Teh 2006): a shorter context's customers are the tables of
    the longer ones, so it counts distinct left extensions; 0 < d ≤ 1, θ ≥ 0. Contexts that don't branch are passed
    over (Wood et al. 2009). See `_branching`; order 0 is `kneser_ney`'s.
    """
    lowest, longer = _branching(index, known, at_order([(d, d, d) for d in discounts], 0), max_order, leave_out)
    levels = []
    for order, counts in longer:
        discount, theta = at_order(discounts, order), at_order(concentrations, order)
        total = counts.total() + theta
        own = [max(counts[w] - discount, 0) / total for w in range(index.vocab_size)]
        levels.append((own, (theta + discount * len(counts)) / total))
    return _interpolated(lowest, levels)


def auto(
    index: ReferenceIndex,
    known: Sequence[int],
    *,
    parameters: Callable[[int, int, int], tuple[float, tuple[float, float, float]]],
    root: tuple[float, float, float],
    max_order: int | None = None,
    leave_out: LeaveOut = None,
) -> list[float]:
    """p_n(w) = λ · (c(w) − D) / Σ_v (c(v) − D) + (1 − λ) · p_{n−1}(w), the sum over the seen v; D by count, 1, 2, 3+.

    (λ, (D_1, D_2, D_3)) = parameters(order, c, T), 0 ≤ λ < 1, D_i < i: for each kind of context, by order, count and
    distinct continuations. Counts and contexts as in `_branching`; order 0 is modified Kneser–Ney's with root.
    """
    lowest, longer = _branching(index, known, root, max_order, leave_out)
    levels = []
    for order, counts in longer:
        weight, cuts = parameters(order, counts.total(), len(counts))
        left = [counts[w] - cuts[min(counts[w], 3) - 1] if counts[w] else 0.0 for w in range(index.vocab_size)]
        total = sum(left)
        levels.append(([weight * part / total for part in left], 1 - weight))
    return _interpolated(lowest, levels)


def _branching(
    index: ReferenceIndex,
    known: Sequence[int],
    root: tuple[float, float, float],
    max_order: int | None,
    leave_out: LeaveOut,
) -> tuple[list[float], list[tuple[int, Counter[int]]]]:
    """The distribution of order 0, and (order, counts) of the contexts that branch, from order 1 on.

    Counts are Kneser–Ney's, raw at max_order alone. A suffix counts where it is the longest match, or where two
    different symbols stand before it in the whole corpus, whatever is left out: else it only repeats a longer one.
    """
    longest = len(chain(index, known, max_order=max_order)) - 1
    levels = []
    for order, suffix in enumerate(chain(index, known, max_order=max_order, leave_out=leave_out)):
        before = known[len(known) - order - 1] if order < len(known) else None
        if 0 < order < longest and len({symbol for symbol, _ in followers(index, suffix)}) < 2:
            continue
        raw = order == max_order
        counts = left_counts(index, suffix, leave_out) if raw else adjusted_counts(index, suffix, leave_out, before)
        levels.append((order, counts))
    counts = levels[0][1]
    uniform = 1.0 / index.vocab_size
    if not counts:
        return [uniform] * index.vocab_size, levels[1:]
    cuts = {w: root[min(count, 3) - 1] for w, count in counts.items()}
    total, rest = counts.total(), sum(cuts.values()) * uniform
    return [(counts[w] - cuts.get(w, 0.0) + rest) / total for w in range(index.vocab_size)], levels[1:]


# a row's own past


def recall(
    probabilities: Sequence[float], past: Sequence[int], *, weights: Callable[[int, int, bool], float], orders: int
) -> list[float]:
    """p_k(w) = λ · c_k(w) / c_k + (1 − λ) · p_{k−1}(w), k = 0 … orders − 1, over the given p_{−1}.

    c_k(w): how often w follows the last k tokens of the row so far, within it. λ = weights(k, c_k, whether all that
    follows them is one token), where anything does.
    """
    answer = list(probabilities)
    for k in range(orders):
        context = list(past[len(past) - k :])
        counts = Counter(past[j] for j in range(max(1, k), len(past)) if list(past[j - k : j]) == context)
        if counts:
            weight = weights(k, counts.total(), len(counts) == 1)
            answer = [weight * counts[w] / counts.total() + (1 - weight) * p for w, p in enumerate(answer)]
    return answer


# Kneser–Ney


def _kneser_ney(
    index: ReferenceIndex,
    known: Sequence[int],
    discount_of: Callable[[int, int], float],
    uniform: list[float],
    max_order: int | None,
    leave_out: LeaveOut,
) -> list[float]:
    """p_n(w) = (a(w) − D(n, a(w))) / A + Σ_v D(n, a(v)) / A · p_{n−1}(w), below order 0 uniform."""
    suffixes = chain(index, known, max_order=max_order, leave_out=leave_out)
    highest = max(1, len(suffixes) - 1) if max_order is None else max_order  # the base is one for all contexts
    levels = []
    for order, suffix in enumerate(suffixes):
        if order == highest:
            counts = left_counts(index, suffix, leave_out)
        else:
            before = known[len(known) - order - 1] if order < len(known) else None
            counts = adjusted_counts(index, suffix, leave_out, before)
        total = counts.total()
        if total == 0:  # order 0, and leaving out leaves nothing
            break
        backoff = sum(discount_of(order, count) for count in counts.values()) / total
        own = [(counts[w] - discount_of(order, counts[w])) / total if counts[w] else 0.0 for w in range(len(uniform))]
        levels.append((own, backoff))
    return _interpolated(_interpolated(uniform, levels[:1]), levels[1:])


def kneser_ney(
    index: ReferenceIndex,
    known: Sequence[int],
    *,
    discounts: Sequence[float],
    max_order: int | None = None,
    leave_out: LeaveOut = None,
) -> list[float]:
    """Interpolated Kneser–Ney (Kneser & Ney 1995; Chen & Goodman 1999): absolute discounting of adjusted counts.

    p_n(w) = (a(w) − D) / A + D · T / A · p_{n−1}(w) for seen w, D = discounts[n] in (0, 1]. The highest order
    (max_order; with none, the longest match) counts occurrences, the others distinct preceding symbols
    (`adjusted_counts`); p_{−1} is 1/V.
    """
    uniform = [1.0 / index.vocab_size] * index.vocab_size
    return _kneser_ney(index, known, lambda order, _: at_order(discounts, order), uniform, max_order, leave_out)


def modified_kneser_ney(
    index: ReferenceIndex,
    known: Sequence[int],
    *,
    discounts: Sequence[tuple[float, float, float]],
    max_order: int | None = None,
    leave_out: LeaveOut = None,
    convention: str | None = None,
) -> list[float]:
    """Interpolated modified Kneser–Ney (Chen & Goodman 1999): `kneser_ney` with three discounts an order.

    p_n(w) = (a(w) − D_{min(a(w), 3)}) / A + (D_1·N_1 + D_2·N_2 + D_3·N_3+) / A · p_{n−1}(w), where N_i tokens have an
    adjusted count of i; (D_1, D_2, D_3) = discounts[n], 0 < D_i ≤ i.

    convention="kenlm": p_{−1} isn't 1/V but, as in KenLM (Heafield et al. 2013), 1/(S + 1) over the S distinct tokens
    of the corpus and <unk>, whose share the ids that the corpus lacks divide evenly. So the probability of each seen
    token is KenLM's, and of a single unseen id too. (If there are no unseen ids, p_{−1} is 1/V. 1/V is also what KenLM
    takes with --vocab_pad V.)
    """
    uniform = [1.0 / index.vocab_size] * index.vocab_size
    seen = set(index.tokens)
    unseen = index.vocab_size - len(seen)
    if convention == "kenlm" and unseen > 0:
        share = 1.0 / (len(seen) + 1)
        uniform = [share if w in seen else share / unseen for w in range(index.vocab_size)]

    def discount_of(order: int, count: int) -> float:
        return at_order(discounts, order)[min(count, 3) - 1]

    return _kneser_ney(index, known, discount_of, uniform, max_order, leave_out)


# backing off


def katz(
    index: ReferenceIndex,
    known: Sequence[int],
    *,
    ratios: Sequence[Sequence[float]],
    max_order: int | None = None,
    leave_out: LeaveOut = None,
) -> list[float]:
    """Katz's backoff (Katz 1987): p_n(w) = d_{c(w)} · c(w) / c for seen w, α · p_{n−1}(w) for unseen w.

    ratios[n] = d_1, …, d_k, see `good_turing_ratios`; larger counts aren't discounted. α makes it sum to 1. Where all
    seen tokens have d = 1, nothing would be left for the unseen: then c counts one more, as in SRILM (Doug Paul's way,
    by Roni Rosenfeld). Where every token of the vocabulary is seen, the seen ones share all mass.
    """
    levels = longer_counts(index, known, max_order, leave_out)
    probabilities = _backed_off(index, levels, ratios, leave_out)
    seen: set[int] = set()
    for place in reversed(range(len(levels))):
        seen |= set(levels[place][1])
        if sum(p for w, p in enumerate(probabilities) if w not in seen) < LEAST_MASS:
            return _backed_off(index, levels[place:], ratios, leave_out)
    return probabilities


def _backed_off(
    index: ReferenceIndex,
    levels: Sequence[tuple[int, Counter[int]]],
    ratios: Sequence[Sequence[float]],
    leave_out: LeaveOut,
) -> list[float]:
    """Katz's backoff through some levels."""
    probabilities = base(index, leave_out)
    for order, counts in levels:
        by_count = at_order(ratios, order)
        factors = {w: by_count[count - 1] if count <= len(by_count) else 1.0 for w, count in counts.items()}
        seen = {w: factors[w] * count for w, count in counts.items()}
        if len(counts) == index.vocab_size:
            total = sum(seen.values())
        else:
            total = float(counts.total() + all(factor == 1 for factor in factors.values()))
        left = 1 - sum(seen.values()) / total
        unseen = sum(p for w, p in enumerate(probabilities) if w not in seen)
        probabilities = [seen[w] / total if w in seen else left / unseen * p for w, p in enumerate(probabilities)]
    return probabilities


def stupid_backoff_scores(
    index: ReferenceIndex,
    known: Sequence[int],
    *,
    alpha: float = 0.4,
    max_order: int | None = None,
    leave_out: LeaveOut = None,
) -> list[float]:
    """S_n(w) = c(w) / c for seen w, α · S_{n−1}(w) for unseen w; S_0(w) = c(w) / N (Brants et al. 2007, equation 5).

    Scores, not probabilities: they don't sum to 1. From the longest match down: Brants et al. start at the full
    context, which multiplies all scores by α once for each longer suffix that the corpus lacks.
    """
    counts = left_counts(index, (), leave_out)
    scores = [counts[w] / max(1, counts.total()) for w in range(index.vocab_size)]
    for _, counts in longer_counts(index, known, max_order, leave_out):
        total = counts.total()
        scores = [counts[w] / total if w in counts else alpha * score for w, score in enumerate(scores)]
    return scores


def stupid_backoff(
    index: ReferenceIndex,
    known: Sequence[int],
    *,
    alpha: float = 0.4,
    max_order: int | None = None,
    leave_out: LeaveOut = None,
) -> list[float]:
    """`stupid_backoff_scores`, except that S_0 is the base p_0, so that no token has 0, divided by their sum."""
    scores = base(index, leave_out)
    levels, mass, first = longer_counts(index, known, max_order, leave_out), 1.0, 0
    for place in reversed(range(len(levels))):
        mass *= alpha
        if mass < LEAST_MASS:
            first = place
            break
    for _, counts in levels[first:]:
        total = counts.total()
        scores = [counts[w] / total if w in counts else alpha * score for w, score in enumerate(scores)]
    total_score = sum(scores)
    return [score / total_score for score in scores]


def ppm_c(
    index: ReferenceIndex, known: Sequence[int], *, max_order: int | None = None, leave_out: LeaveOut = None
) -> list[float]:
    """Prediction by partial matching, escape method C, with exclusion (Moffat 1990; Bell, Cleary & Witten 1990).

    From the longest match down to order 1: of the continuations that no longer order has seen, count c in all and T of
    them distinct, each gets c(w) / (c + T) of what mass is left, and T / (c + T) escapes to the next shorter order.
    What escapes from order 1 goes to the tokens that no order has seen, by the base p_0. An order with nothing new is
    passed by; there is no escape once every token of the vocabulary has been seen.
    """
    probabilities = [0.0] * index.vocab_size
    mass, excluded = 1.0, set[int]()
    for _, counts in reversed(longer_counts(index, known, max_order, leave_out)):
        new = {w: count for w, count in counts.items() if w not in excluded}
        excluded |= set(new)
        escape = len(new) if len(excluded) < index.vocab_size else 0
        total = sum(new.values()) + escape
        for w, count in new.items():
            probabilities[w] = mass * count / total
        if new:
            mass *= escape / total
        if mass < LEAST_MASS:
            break
    lowest = base(index, leave_out)
    total_lowest = sum(p for w, p in enumerate(lowest) if w not in excluded)
    return [probabilities[w] if w in excluded else mass * p / total_lowest for w, p in enumerate(lowest)]
