"""A scorer: an estimator's probability of every n-gram, made once, and then two reads a token of any text.

`next_probabilities` weighs each position's whole chain of contexts anew, which any estimator allows, with anything left
out. Kneser–Ney with a bound and nothing left out is a model of n-grams as KenLM's are: what it says of an n-gram that
the corpus holds is one number, and of one that it lacks that of a shorter one, times backoff weights. So those are
written down, and a text of any length is cut into pieces that step together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import mixed, ngram_tables, scoring, walk
from corpus_index._kernels.ngram_tables import BACKOFF, CONTEXT, FIELDS, PROB, NgramTables
from corpus_index.core.checks import as_array, as_starts
from corpus_index.core.matching import Matcher
from corpus_index.errors import QueryError
from corpus_index.estimators.estimator import Estimator
from corpus_index.estimators.resolving import EstimatorLike, fitted
from corpus_index.targets.request import prepare

LANES = 32  # pieces of text that step together
_PIECE = 512  # tokens of a piece, at most
_TOGETHER = 4 * LANES  # pieces of a call
_LINE = 16  # 32-bit numbers of a line of the cache
_AHEAD = 8


class Scorer:
    """The probabilities that an estimator gives to the tokens of texts, from tables of all n-grams.

    Attributes
    ----------
    estimator : Estimator
        kneser-ney or modified-kneser-ney, fitted on the index.
    size_bytes : int
        Of the tables, in this process's memory.
    ngrams : tuple of int
        How many of each length, 1 .. max_order + 1, the tables tell; those that only end documents aren't among them.

    Raises
    ------
    QueryError
        If the estimator is another one, or has no bound.

    Notes
    -----
    Making one: O(N) time for each order, and 9 bytes of memory a token while it lasts. The tables take 12 bytes for
    each n-gram that is a context, 4 for each of the longest, and one or two for each token; of a compact index the
    lists of ranks that a full one stores are made as well, 2 to 3 bytes a token.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from corpus_index import build_index
    >>> index = build_index(np.array([1, 2, 1, 2, 3]), tempfile.mkdtemp() + "/index")
    >>> scorer = index.scorer("kneser-ney", 1)
    >>> scorer.probabilities([1, 2, 3]).round(3).tolist()
    [0.469, 0.766, 0.331]
    """

    def __init__(self, index: Matcher, estimator: EstimatorLike = "modified-kneser-ney", max_order: int = 4) -> None:
        self.index = index
        self.estimator = fitted(index, estimator, max_order)
        check_scores(self.estimator)
        self._max_order = int(self.estimator.max_order or 0)
        self._base = prepare(index, self.estimator)
        self._ending = np.zeros((index.num_symbols >> 6) + 1, np.uint64)  # a bit for each symbol that ends documents
        ending = np.minimum(index.array("endings") >> np.uint64(32), np.uint64(index.num_symbols - 1))
        np.bitwise_or.at(self._ending, ending >> np.uint64(6), np.uint64(1) << (ending & np.uint64(63)))
        self._arrays = index.listed_arrays()
        with index.following_arrays():
            self._tables = _tables(index, self.estimator, self._max_order, self._base.base.probs)
        self.size_bytes = sum(part.nbytes for part in (self._tables.lines, self._tables.contexts, self._tables.probs))
        ends = np.append(self._tables.places[2:-1], self._tables.contexts.size // CONTEXT)
        self.ngrams = (*(ends - self._tables.places[1:-1] - 1).tolist(), self._tables.probs.size)

    def __repr__(self) -> str:
        return f"<Scorer {self.estimator.name} {self._max_order}: {sum(self.ngrams):,} n-grams>"

    def probabilities(self, token_ids: ArrayLike, *, starts_document: bool | ArrayLike = False) -> np.ndarray:
        """The probability of every token of some texts after those before it.

        Parameters
        ----------
        token_ids : array_like of shape (B, T) or (T,), integer
            Token ids below V. A context starts anew after the end-of-document token.
        starts_document : bool or array_like of shape (B,), bool
            Which texts begin where a document begins; of others the first token follows the empty context.

        Returns
        -------
        ndarray of the shape of token_ids, float64
            What `next_probabilities` gives each token, to seven digits: the tables hold float32.

        Raises
        ------
        QueryError
            If an id is out of range, or the shape is wrong.

        Notes
        -----
        A few random reads a token; a text is cut into pieces that step together, so one long text is as fast as many
        short ones. Releases the GIL.
        """
        ids = self.index._batch(token_ids)
        starts = as_starts(starts_document, ids.shape[0])
        out = np.empty(ids.size, np.float64)
        offsets = np.arange(ids.shape[0] + 1) * ids.shape[1]
        self._score(np.ascontiguousarray(ids).reshape(-1), _pieces(offsets, starts, self._max_order), out)
        return out.reshape(np.shape(token_ids))

    def document_probabilities(self, token_ids: ArrayLike, offsets: ArrayLike) -> np.ndarray:
        """The probability of every token of documents of any lengths, each after those before it in its document.

        Parameters
        ----------
        token_ids : array_like of shape (N,), integer
            The documents' token ids below V, one document after the other.
        offsets : array_like of shape (D + 1,), integer
            Document d is token_ids[offsets[d] : offsets[d + 1]].

        Returns
        -------
        ndarray of shape (N,), float64
            As `probabilities` with `starts_document`.

        Raises
        ------
        QueryError
            If an id is out of range, a shape is wrong, or the offsets don't ascend from 0 to N.
        """
        ids = self.index._batch(token_ids).reshape(-1)
        bounds = as_array(offsets, "offsets")
        if np.ndim(token_ids) != 1 or bounds.ndim != 1 or bounds.dtype.kind not in "ui" or bounds.size == 0:
            raise QueryError(
                f"token_ids must have one dimension, and so must offsets, of integers: these are {np.shape(token_ids)} "
                f"and {bounds.shape}, {bounds.dtype}"
            )
        bounds = bounds.astype(np.int64)
        if bounds[0] != 0 or bounds[-1] != ids.size or (bounds[1:] < bounds[:-1]).any():
            raise QueryError(f"offsets must ascend from 0 to the {ids.size:,} tokens")
        out = np.empty(ids.size, np.float64)
        self._score(ids, _pieces(bounds, np.ones(bounds.size - 1, bool), self._max_order), out)
        return out

    def _score(self, ids: np.ndarray, pieces: tuple[np.ndarray, ...], out: np.ndarray) -> None:
        index, end = self.index, self.index._end_symbol()
        scorers = scoring.Scorers.empty(LANES)
        odd = np.empty((min(ids.size, _TOGETHER * _PIECE), scoring.ODD), np.int64)
        for part in range(0, pieces[0].size, _TOGETHER):
            size = scoring.score_texts(
                self._arrays,
                self._tables,
                self._base.base.probs,
                index.array("endings"),
                self._ending,
                self._max_order,
                end,
                ids,
                *(array[part : part + _TOGETHER] for array in pieces),
                scorers,
                out,
                odd,
            )
            if size:
                self._weigh(odd[:size], out)

    def _weigh(self, odd: np.ndarray, out: np.ndarray) -> None:
        """Positions whose n-gram may stand at ends of documents only: from the counts of their contexts."""
        index, prepared = self.index, self._base
        q, lo, hi, depths, started, labels = (np.ascontiguousarray(column) for column in odd.T)
        memory, heavy = index.thread_memory, index.heavy_nodes(True)
        done = 0
        while done < q.size:
            part = slice(done, min(q.size, done + 4096))
            made = memory.mixed_of(part.stop - part.start, 0, 0)
            mixed.mixed_targets(
                index.kernel_arrays(),
                index.array("next_tokens"),
                index.array("endings"),
                prepared.arrays,
                prepared.base,
                heavy,
                lo[part],
                hi[part],
                depths[part].astype(np.int32),
                started[part].astype(np.int32),
                labels[part],
                False,
                None,
                memory.scratch_of(index.num_symbols),
                None,
                True,
                _AHEAD,
                made,
            )
            out[q[part]] = made.rest[: part.stop - part.start]
            done = part.stop


def is_ngram_model(estimator: Estimator) -> bool:
    """Whether what an estimator says can be written down n-gram by n-gram."""
    return "convention" in estimator.row.parameters


def check_scores(estimator: Estimator) -> None:
    """Refuse an estimator that isn't a model of n-grams, or has no bound.

    Raises
    ------
    QueryError
    """
    if not is_ngram_model(estimator):
        raise QueryError(
            f"a scorer can't hold {estimator.name}: choose kneser-ney or modified-kneser-ney, or ask next_probabilities"
        )
    if not estimator.max_order:
        raise QueryError(f"a scorer needs a max_order of at least 1, not {estimator.max_order}")


def _tables(index: Matcher, estimator: Estimator, max_order: int, base: np.ndarray) -> NgramTables:
    next_tokens, common = index.array("next_tokens"), index.array("common")
    longest = max_order + 1
    stride = -(-FIELDS * longest // _LINE) * _LINE
    size = ((index.num_tokens >> 6) + 1) * stride
    room = np.zeros(size + _LINE, np.uint32)
    skip = (-room.ctypes.data // 4) % _LINE
    lines, counts = room[skip : skip + size], np.zeros(longest + 1, np.int64)
    ngram_tables.fill_lines(common, stride, longest, lines, counts)
    places = np.zeros(longest + 1, np.int64)
    places[2:longest] = np.cumsum(counts[1:max_order] + 1)
    contexts = np.zeros(CONTEXT * int((counts[1:longest] + 1).sum()), np.uint32)
    tables = NgramTables(
        lines=lines,
        stride=stride,
        places=places,
        contexts=contexts,
        weights=contexts.view(np.float32),
        probs=np.zeros(int(counts[longest]), np.float32),
    )
    tables.weights[BACKOFF::CONTEXT] = 1.0
    ngram_tables.fill_firsts(common, max_order, places, contexts)
    known = np.full(index.num_tokens, 255, np.uint8)
    walk.mark_short_contexts(index.kernel_arrays(), next_tokens, min(longest, 254), known)
    first = index.array("symbols")[:, 0].astype(np.int64)
    followed = np.flatnonzero(first[1:] > first[:-1])
    begins = first[:-1][followed]
    ranks = contexts[: CONTEXT * counts[1] : CONTEXT]
    tables.weights[CONTEXT * np.searchsorted(ranks, begins) + PROB] = base[followed]
    probabilities = base[np.minimum(next_tokens, index.num_symbols)]
    endings, symbols = index.array("endings"), np.arange(index.num_symbols, dtype=np.uint64)
    ending_of = np.searchsorted(endings, symbols << np.uint64(32))
    discounts = np.array(estimator.discounts, np.float64)
    scratch = (
        np.zeros(index.num_symbols, np.int64),
        np.full(index.num_symbols, -1, np.int64),
        np.full(index.num_symbols, -1, np.int64),
        np.zeros(index.num_symbols, np.float64),
        np.zeros(index.num_symbols, np.int64),
    )
    for order in range(1, max_order + 1):
        ngram_tables.fill_order(
            next_tokens,
            common,
            known,
            discounts,
            order,
            max_order,
            endings,
            ending_of.copy(),
            first[:-1].copy(),
            probabilities,
            *scratch,
            tables,
        )
    return tables


def _pieces(
    offsets: np.ndarray, starts: np.ndarray, max_order: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where pieces of texts begin, where what is scored of them does, where they end, and which begin a document.

    Parameters
    ----------
    offsets : ndarray of shape (D + 1,), int64
        Text d is offsets[d] : offsets[d + 1].
    starts : ndarray of shape (D,), bool
        Which begin a document.
    max_order : int
        A piece begins that many tokens early: no context that counts is longer.
    """
    lengths = np.diff(offsets)
    parts = -(-lengths // _PIECE)
    row = np.repeat(np.arange(lengths.size), parts)
    number = np.arange(row.size) - np.repeat(np.cumsum(parts) - parts, parts)
    text, length, of = offsets[row], lengths[row], parts[row]
    firsts, ends = number * length // of, (number + 1) * length // of
    begins = np.maximum(firsts - max_order, 0)
    return text + begins, text + firsts, text + ends, starts[row] & (begins == 0)
