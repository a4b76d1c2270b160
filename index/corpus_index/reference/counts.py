"""The counts that the naive estimators of `reference_estimators` stand on, and the parameters fitted from them.

Plain Python, every count a scan of the corpus; see `reference_estimators` for the words and the options.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from corpus_index.reference.engine import START, ReferenceIndex

LeaveOut = tuple[str, int] | None
"""None, ("self", token) or ("document", number)."""

Parameter = TypeVar("Parameter")


def at_order(parameters: Sequence[Parameter], order: int) -> Parameter:
    """The parameter of an order: the last one goes on."""
    return parameters[min(order, len(parameters) - 1)]


def followers(
    index: ReferenceIndex, symbols: Sequence[int], leave_out: LeaveOut = None
) -> list[tuple[int | None, int]]:
    """Every occurrence of a context, as (the symbol before it, the token after it), without a left-out document.

    The symbol before a context that begins with the start of its document is None.
    """
    wanted = tuple(symbols)
    size = len(wanted)
    left_out = range(0)
    if leave_out is not None and leave_out[0] == "document":
        first = sum(len(document) for document in index.documents[: leave_out[1]])
        left_out = range(first, first + len(index.documents[leave_out[1]]))
    return [
        (context[-size - 1] if len(context) > size else None, token)
        for position, (context, token) in enumerate(zip(index.contexts, index.tokens, strict=True))
        if context[len(context) - size :] == wanted and position not in left_out
    ]


def left_counts(index: ReferenceIndex, symbols: Sequence[int], leave_out: LeaveOut = None) -> Counter[int]:
    """The continuation counts of a context after leaving out; tokens with a count of 0 aren't in it."""
    counts = Counter(token for _, token in followers(index, symbols, leave_out))
    if leave_out is not None and leave_out[0] == "self" and counts[leave_out[1]] > 0:
        counts[leave_out[1]] -= 1
    return +counts


def adjusted_counts(
    index: ReferenceIndex, symbols: Sequence[int], leave_out: LeaveOut = None, before: int | None = None
) -> Counter[int]:
    """Kneser–Ney's counts N1+(•hw): how many distinct symbols v are such that v·h is followed by w after leaving out.

    Raw counts where h begins with the start of a document, which nothing can precede (Heafield et al. 2013).

    `before` is the symbol that stands before h in the known context: the occurrence that ("self", w) leaves out is one
    of before·h·w. If it was the only one, `before` is no longer counted. Where before·h·w never occurs,
    in a text that the corpus doesn't hold, only this is done: there aren't more distinct v than occurrences left.

    Where `before` is None, h being all that is known, it can't be known which v loses an occurrence, and any number of
    distinct v would tell something about w: exchange the v of two occurrences of h and relabel the own one, and all
    that is the same before and after are the raw counts without it. So with ("self", w) these are taken: h is
    the longest context there is, and counts as the highest order does.
    """
    raw = left_counts(index, symbols, leave_out)
    oneself = leave_out is not None and leave_out[0] == "self"
    if (symbols and symbols[0] == START) or (oneself and before is None and symbols):
        return raw
    pairs = Counter(followers(index, symbols, leave_out))
    if leave_out is not None and oneself and before is not None and pairs[before, leave_out[1]] > 0:
        pairs[before, leave_out[1]] -= 1
    types = Counter(token for _, token in +pairs)
    return +Counter({token: min(number, raw[token]) for token, number in types.items()})


def chain(
    index: ReferenceIndex, known: Sequence[int], *, max_order: int | None = None, leave_out: LeaveOut = None
) -> list[tuple[int, ...]]:
    """The suffixes of the known context that something follows after leaving out: order 0 (always), 1, 2, …"""
    longest = len(known) if max_order is None else min(len(known), max_order)
    suffixes: list[tuple[int, ...]] = [()]
    for order in range(1, longest + 1):
        suffix = tuple(known[len(known) - order :])
        if not left_counts(index, suffix, leave_out):
            break
        suffixes.append(suffix)
    return suffixes


def base(index: ReferenceIndex, leave_out: LeaveOut = None) -> list[float]:
    """p_0(w) = (c(w) + T_0 / V) / (N + T_0): Witten–Bell unigrams, what all estimators but Kneser–Ney's end in.

    c and N are counted after leaving out; T_0, the number of distinct tokens of the whole corpus, is a constant.
    """
    distinct = len(set(index.tokens))
    counts = left_counts(index, (), leave_out)
    uniform = 1.0 / index.vocab_size
    if distinct == 0:
        return [uniform] * index.vocab_size
    return [(counts[w] + distinct * uniform) / (counts.total() + distinct) for w in range(index.vocab_size)]


def longer_counts(
    index: ReferenceIndex, known: Sequence[int], max_order: int | None, leave_out: LeaveOut
) -> list[tuple[int, Counter[int]]]:
    """(order, counts) along the chain, from order 1 on."""
    suffixes = chain(index, known, max_order=max_order, leave_out=leave_out)
    return [(len(suffix), left_counts(index, suffix, leave_out)) for suffix in suffixes[1:]]


# parameters


def _ngram_counts(index: ReferenceIndex, order: int, adjusted: bool) -> Counter[tuple[int, ...]]:
    """The count, or adjusted count, of every n-gram of order + 1 symbols whose last is a token, (h, w) → h·w."""
    ngrams = [(*context, token) for context, token in zip(index.contexts, index.tokens, strict=True)]
    size = order + 1
    raw = Counter(ngram[-size:] for ngram in ngrams if len(ngram) >= size)
    if not adjusted:
        return raw
    longer = {ngram[-size - 1 :] for ngram in ngrams if len(ngram) > size}
    counts = Counter(ngram[1:] for ngram in longer)
    return counts + Counter({ngram: count for ngram, count in raw.items() if ngram[0] == START})


def counts_of_counts(index: ReferenceIndex, order: int, *, adjusted: bool, highest: int = 4) -> list[int]:
    """n_1, …, n_highest: how many (h, w), h a context of `order` symbols, have a (or an adjusted) count of 1, 2, …"""
    histogram = Counter(_ngram_counts(index, order, adjusted).values())
    return [histogram[count] for count in range(1, highest + 1)]


def kenlm_counts_of_counts(index: ReferenceIndex, order: int, *, adjusted: bool) -> list[int]:
    """`counts_of_counts` as KenLM's lmplz has them, which differ where the counts are adjusted, by one n-gram.

    Its pass over the n-grams, sorted by their last symbol, then the one before, and so on, counts the last one of each
    adjusted order by its raw count (lm/builder/adjust_counts.cc, the loop that outputs the last n-grams), if it is the
    end of the last n-gram of the highest order. Symbols are sorted by their first appearance in the text, after <s> and
    </s>.
    """
    histogram = Counter(_ngram_counts(index, order, adjusted).values())
    if adjusted:
        first = [START, index.end_of_document, *index.tokens]
        ngrams = [(*context, token) for context, token in zip(index.contexts, index.tokens, strict=True)]
        last = max(ngrams, key=lambda ngram: [first.index(symbol) for symbol in ngram[::-1]])[-order - 1 :]
        if len(last) == order + 1:
            histogram[_ngram_counts(index, order, True)[last]] -= 1
            histogram[_ngram_counts(index, order, False)[last]] += 1
    return [histogram[count] for count in range(1, 5)]


FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""What KenLM's --discount_fallback takes where the closed form fails."""


def absolute_discount(counts: Sequence[int]) -> float:
    """D = n_1 / (n_1 + 2·n_2) (Ney, Essen & Kneser 1994), in (0, 1]; 0.5 where there are no singletons."""
    return counts[0] / (counts[0] + 2 * counts[1]) if counts[0] > 0 else 0.5


def modified_discounts(
    counts: Sequence[int],
    *,
    fallback: tuple[float, float, float] | None = FALLBACK_DISCOUNTS,
    convention: str | None = None,
) -> tuple[float, float, float]:
    """D_i = i − (i + 1) · Y · n_{i+1} / n_i, i = 1, 2, 3, Y = n_1 / (n_1 + 2·n_2) (Chen & Goodman 1999, equation 26).

    All three are `fallback` where n_1, n_2 or n_3 is 0 or a D_i isn't in (0, i] (KenLM, convention="kenlm": [0, i]);
    with no fallback, that raises ValueError.
    """
    if 0 not in counts[:3]:
        y = counts[0] / (counts[0] + 2 * counts[1])
        one, two, three = (i - (i + 1) * y * counts[i] / counts[i - 1] for i in (1, 2, 3))
        least = min(one, two, three)
        if one <= 1 and two <= 2 and three <= 3 and (least > 0 or (least == 0 and convention == "kenlm")):
            return one, two, three
    if fallback is None:
        raise ValueError(f"counts of counts {list(counts)} give no discounts: name a fallback")
    return fallback


def kneser_ney_discounts(
    index: ReferenceIndex,
    max_order: int,
    *,
    fallback: tuple[float, float, float] | None = FALLBACK_DISCOUNTS,
    convention: str | None = None,
) -> list[tuple[float, float, float]]:
    """(D_1, D_2, D_3) for orders 0 … max_order: of adjusted counts, and of raw ones at max_order."""
    count = kenlm_counts_of_counts if convention == "kenlm" else counts_of_counts
    return [
        modified_discounts(count(index, order, adjusted=order < max_order), fallback=fallback, convention=convention)
        for order in range(max_order + 1)
    ]


def good_turing_ratios(index: ReferenceIndex, order: int, k: int = 5) -> list[float]:
    """d_1, …, d_k of Katz 1987: d_r = (r*/r − m) / (1 − m), r* = (r + 1)·n_{r+1} / n_r, m = (k + 1)·n_{k+1} / n_1.

    1 (no discount) where that isn't in (0, 1] or divides by 0.
    """
    counts = [0, *counts_of_counts(index, order, adjusted=False, highest=k + 1)]
    ratios = []
    for r in range(1, k + 1):
        ratio = 0.0
        if counts[1] > 0 and counts[r] > 0:
            common = (k + 1) * counts[k + 1] / counts[1]
            if common != 1:
                ratio = ((r + 1) * counts[r + 1] / counts[r] / r - common) / (1 - common)
        ratios.append(ratio if 0 < ratio <= 1 else 1.0)
    return ratios
