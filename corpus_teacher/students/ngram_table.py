"""A hashed table of n-grams beside a student's token embedding: what the last two or three tokens mean together.

As in DeepSeek's Engram ("Conditional Memory via Scalable Lookup", 2026) and the bigram embeddings of speedruns: the
last n tokens are hashed to a row of a table, once for each head, and the rows are added to the embedding of the last
token. A look-up costs no product of matrices, however large the table is; the optimizer's step still visits every row.
Naively, for one position with the tokens …, a, b, c:

    embedding(c) + gate_2 · concatenated(table_2,h[hash_2,h(b, c)] for each head h) + gate_3 · (the same of (a, b, c))

Contexts stay inside of their segment: an n-gram that would reach beyond its start has no row. Departures from Engram:
the rows are added at the embedding and not inside of the layers, the gates are one learnt number for each n, and tokens
aren't normalised before they are hashed. All rows begin as 0, so a student begins as the one without the table.
Shape letters: B rows, T positions, W ≥ T tokens that are known, O orders, H hidden size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corpus_teacher.errors import ConfigError
from corpus_teacher.settings import check_whole, make_from, within

_PRIME = 2**31 - 1
_MOST_ORDER = 8


@dataclass(frozen=True)
class NgramTableSettings:
    """How large a table of n-grams is.

    Parameters
    ----------
    orders : tuple of int
        The n of the n-grams, 2 or more: (2, 3) are bigrams and trigrams.
    heads : int
        Hashes of each n-gram, each into rows of its own; hidden_size has to be a multiple. Two n-grams that share a row
        of one head hardly ever share those of the others.
    rows : int, optional
        Rows of each head of each order; as many as the vocabulary by default. A row has hidden_size / heads numbers, so
        the table has ``len(orders) · rows · hidden_size`` parameters.
    parameters : int, optional
        In place of rows: about so many parameters in all.

    Raises
    ------
    ConfigError
        A setting out of range, or both rows and parameters.
    """

    orders: tuple[int, ...] = (2, 3)
    heads: int = 2
    rows: int | None = None
    parameters: int | None = None

    def __post_init__(self) -> None:
        orders = self.orders
        whole = isinstance(orders, Sequence) and all(isinstance(n, int) and 2 <= n <= _MOST_ORDER for n in orders)
        if not whole or not orders or len(set(orders)) < len(orders):
            raise ConfigError(f"orders is {orders!r}: give different whole numbers from 2 to {_MOST_ORDER}")
        object.__setattr__(self, "orders", tuple(sorted(orders)))
        check_whole(self.heads, "heads", 1)
        for name in ("rows", "parameters"):
            if getattr(self, name) is not None:
                check_whole(getattr(self, name), name, 1)
        if self.rows is not None and self.parameters is not None:
            raise ConfigError("rows and parameters both say how large the table is: give one of them")

    def rows_for(self, hidden_size: int, vocab_size: int) -> int:
        """Rows of each head of each order, in a student of this size.

        Raises
        ------
        ConfigError
            A hidden size that isn't a multiple of the heads, or fewer parameters than one row of each order takes.
        """
        if hidden_size % self.heads:
            raise ConfigError(f"heads is {self.heads} and hidden_size {hidden_size}, not a multiple: give a divisor")
        if self.rows is not None:
            return self.rows
        if self.parameters is None:
            return vocab_size
        rows = self.parameters // (len(self.orders) * hidden_size)
        if rows < 1:
            least = len(self.orders) * hidden_size
            raise ConfigError(f"parameters is {self.parameters}: one row of each order takes {least} already")
        return rows

    def to_dict(self) -> dict[str, Any]:
        """The table that `make_ngram_table` reads, without what isn't set."""
        made = {name: value for name, value in asdict(self).items() if value is not None}
        return {**made, "orders": list(self.orders)}


def make_ngram_table(said: Any, where: str = "ngram_table") -> NgramTableSettings | None:
    """Settings of a table, or of true for all defaults; of false none.

    Raises
    ------
    ConfigError
        Anything else, an unknown key or a value out of range.

    Examples
    --------
    >>> make_ngram_table({"rows": 1000}).rows_for(hidden_size=96, vocab_size=4096)
    1000
    """
    if isinstance(said, bool):
        return NgramTableSettings() if said else None
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where} is {said!r}: give true, or a table such as {{ rows = 4096, heads = 2 }}")
    with within(where):
        return make_from(NgramTableSettings, said, where)


class NgramTable(nn.Module):
    """The table.

    Parameters
    ----------
    settings : NgramTableSettings
    hidden_size, vocab_size : int
        Of the student.

    Attributes
    ----------
    weight : Parameter of shape (O · heads · rows, H / heads)
    gate : Parameter of shape (O,)
    multipliers : Tensor of shape (O, max order, heads), int64
        Of the hash ``(Σ_j multiplier_j · token_j mod 2³¹ − 1) mod rows``; saved, though only orders and heads decide
        them.
    """

    multipliers: Tensor

    def __init__(self, settings: NgramTableSettings, hidden_size: int, vocab_size: int) -> None:
        super().__init__()
        self.orders, self.heads = settings.orders, settings.heads
        self.rows = settings.rows_for(hidden_size, vocab_size)
        size = len(self.orders) * self.heads * self.rows
        self.weight = nn.Parameter(torch.empty(size, hidden_size // self.heads))
        self.gate = nn.Parameter(torch.empty(len(self.orders)))
        longest = self.orders[-1]
        drawn = [
            [[_multiplier(n, j, head) if j < n else 0 for head in range(self.heads)] for j in range(longest)]
            for n in self.orders
        ]
        self.register_buffer("multipliers", torch.tensor(drawn, dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As at the beginning: rows of 0, gates of 1."""
        nn.init.zeros_(self.weight)
        nn.init.ones_(self.gate)

    @property
    def reach(self) -> int:
        """Tokens before a position that its rows depend on."""
        return self.orders[-1] - 1

    def forward(self, ids: Tensor, segments: Tensor, length: int) -> Tensor:
        """What is added to the embeddings of the last `length` tokens.

        Parameters
        ----------
        ids : Tensor of shape (B, W), int64
            The tokens that are known; negative ones are padding.
        segments : Tensor of shape (B, W), int64
            Positive numbers that ascend where segments begin (`segments_of`).
        length : int
            T.

        Returns
        -------
        Tensor of shape (B, T, H)
        """
        ids = nn.functional.pad(ids, (self.reach, 0), value=-1)
        segments = nn.functional.pad(segments, (self.reach, 0), value=0)
        stop = ids.shape[1]
        tokens = torch.stack([ids[:, stop - length - j : stop - j] for j in range(self.reach + 1)], -1).clamp_min(0)
        own = segments[:, stop - length :]
        places, known = [], []
        for place, order in enumerate(self.orders):
            hashed = (tokens[..., None] * self.multipliers[place]).sum(-2) % _PRIME % self.rows  # (B, T, heads)
            first = (place * self.heads + torch.arange(self.heads, device=ids.device)) * self.rows
            places.append(hashed + first)
            back = order - 1
            known.append(segments[:, stop - length - back : stop - back] == own)
        there = torch.stack(known, -1) & (ids[:, stop - length :] >= 0)[..., None]  # (B, T, O)
        vectors = nn.functional.embedding(torch.stack(places, -2), self.weight).flatten(-2)  # (B, T, O, H)
        return (vectors * (self.gate * there.to(self.gate.dtype))[..., None]).sum(-2)

    def extra_repr(self) -> str:
        """For `print`."""
        return f"orders={self.orders}, heads={self.heads}, rows={self.rows}"


def _multiplier(order: int, place: int, head: int) -> int:
    """A number from 1 to 2³¹ − 2 that only the arguments decide."""
    digest = hashlib.blake2b(f"ngram-table/{order}/{place}/{head}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % (_PRIME - 1) + 1


def segments_of(
    ids: Tensor,
    *,
    position_ids: Tensor | None = None,
    documents: Tensor | None = None,
    edges: Tensor | None = None,
    end_token: int | None = None,
) -> Tensor:
    """Numbers of the segments of rows, which ascend where a segment begins, as `corpus_teacher.segments` has them.

    Parameters
    ----------
    ids : Tensor of shape (B, W), int64
        Negative ones are padding, which ends a segment.
    position_ids : Tensor of shape (B, T) or (1, T), optional
        Of the last T tokens: a segment begins where they don't ascend.
    documents : Tensor of shape (B, T), optional
        Of the last T tokens: a segment begins where the numbers change.
    edges : Tensor of shape (S + 1,), optional
        Cumulative lengths of the segments of a flattened batch, (1, W).
    end_token : int, optional
        A segment begins after it.

    Returns
    -------
    Tensor of shape (B, W), int64
        From 1.

    Examples
    --------
    >>> segments_of(torch.tensor([[-1, 5, 0, 7, 8]]), end_token=0).tolist()
    [[1, 2, 2, 3, 3]]
    """
    begins = torch.zeros_like(ids, dtype=torch.bool)
    begins[:, :1] = True
    begins[:, 1:] |= (ids[:, 1:] < 0) != (ids[:, :-1] < 0)
    if end_token is not None:
        begins[:, 1:] |= ids[:, :-1] == end_token
    for column, changes in ((position_ids, torch.le), (documents, torch.ne)):
        if column is not None and column.shape[-1] > 1:
            begins[:, ids.shape[1] - column.shape[-1] + 1 :] |= changes(column[..., 1:], column[..., :-1])
    if edges is not None:
        begins |= torch.isin(torch.arange(ids.shape[1], device=ids.device), edges.to(ids.device))
    return begins.long().cumsum(1)
