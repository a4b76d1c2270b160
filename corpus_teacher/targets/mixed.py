"""Soft targets in mixed form: exact, with the rows of heavy contexts shared instead of copied.

The flat form (`targets`) writes the likeliest tokens of every position out, and moves what it cuts to the base.
Nothing has to be cut: contexts with many continuations are few, and what a position makes of one is linear in the
row's counts. So a position is a short list of references to rows of one table::

    p(w | q) = pairs_q(w) + Σ_f (s_f · x_f(w) − k_f(x_f(w))) + rest[q] · base[w]

with x_f(w) the count of w in the row that reference f names, s_f and k_f (by a count of 1, 2, 3 and more) its four
coefficients. The table is made once for all batches, and stays where the losses need it.

Shape letters: Q positions, V vocabulary, R rows of the table, F references in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import torch
from corpus_index.targets.references import References
from torch import Tensor

from corpus_teacher.errors import TargetError
from corpus_teacher.targets.dense import DenseTargets
from corpus_teacher.targets.soft import SoftTargets, take_entries

_DENSE_ELEMENTS = 1 << 22  # probabilities written out at once


@dataclass(frozen=True, eq=False)
class RowTable:
    """The continuation rows of heavy contexts.

    Parameters
    ----------
    offsets : Tensor of shape (R + 1,), int64
        Row r's entries are ``offsets[r] : offsets[r + 1]`` of the next tensors.
    token_ids : Tensor of shape (entries,), int32
    counts : Tensor of shape (entries,), float32
    left_extensions : Tensor of shape (entries,), float32, or of shape (0,)
        For the Kneser–Ney family: after how many distinct symbols each token stands.
    """

    offsets: Tensor
    token_ids: Tensor
    counts: Tensor
    left_extensions: Tensor

    @classmethod
    def from_arrays(cls, offsets: Any, token_ids: Any, counts: Any, left_extensions: Any = None) -> RowTable:
        """Copy the arrays of an index's `row_table`: 8 bytes an entry, 12 with left extensions."""
        lefts = np.empty(0) if left_extensions is None else left_extensions
        return cls(
            torch.from_numpy(np.array(offsets, np.int64)),
            torch.from_numpy(np.array(token_ids, np.int32)),
            torch.from_numpy(np.array(counts, np.float32)),
            torch.from_numpy(np.array(lefts, np.float32)),
        )

    @property
    def num_rows(self) -> int:
        """R."""
        return self.offsets.shape[0] - 1

    def places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Where the entries of some rows stand, one row after the other: (which of the rows, place)."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        entries = int(lengths.sum())
        of_rows = torch.arange(rows.shape[0], device=rows.device).repeat_interleave(lengths, output_size=entries)
        shifts = self.offsets[rows] - torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])[:-1]
        return of_rows, torch.arange(entries, device=rows.device) + shifts[of_rows]

    def to(self, device: torch.device | str) -> RowTable:
        """The table on a device."""
        return RowTable(*(getattr(self, field.name).to(device) for field in fields(self)))


class TableSource:
    """Where targets find the table that they refer to: made when a loss first asks, once for each device.

    Parameters
    ----------
    key : str
        Equal for equal tables; `of` gives one source for each key of a process.
    make : callable
        () → the table, on the CPU.

    Notes
    -----
    Targets carry their source with them inside of a process, and its key from a loader's worker to the process that
    made the worker, where the teacher, and so the source, is as well.
    """

    _known: ClassVar[WeakValueDictionary[str, TableSource]] = WeakValueDictionary()

    def __init__(self, key: str, make: Callable[[], RowTable]) -> None:
        self.key = key
        self.make = make
        self._tables: dict[torch.device, RowTable] = {}

    @classmethod
    def of(cls, key: str, make: Callable[[], RowTable]) -> TableSource:
        """The source of a key: the one that this process has, else a new one."""
        known = cls._known.get(key)
        if known is None:
            known = cls._known[key] = cls(key, make)
        return known

    @classmethod
    def find(cls, key: str | None) -> TableSource | None:
        """The source that this process has of a key."""
        return None if key is None else cls._known.get(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return TableSource.of, (self.key, self.make)

    def on(self, device: torch.device) -> RowTable:
        """The table on a device."""
        if device not in self._tables:
            self._tables[device] = self.make() if device.type == "cpu" else self.on(torch.device("cpu")).to(device)
        return self._tables[device]


@dataclass(frozen=True, eq=False)
class MixedTargets:
    """One distribution over the vocabulary at each of Q positions, in mixed form.

    Parameters
    ----------
    pairs : SoftTargets
        The explicit pairs, rest, base and evidence. Alone they don't sum to 1.
    row_offsets : Tensor of shape (Q + 1,), int64
        Position q's references are ``row_offsets[q] : row_offsets[q + 1]`` of the next two.
    rows : Tensor of shape (F,), int64
        A row of the table; from R on, row − R with its left extensions for counts; from 2 R on the batch's own.
    coefficients : Tensor of shape (F, 4), float32
        s, and k for a count of 1, of 2, and of 3 and more.
    own : RowTable
        Rows of the batch itself: what leaving documents out changes.
    num_rows : int
        R.
    table : RowTable, optional
        Given by `with_table`, in place of the source's; isn't pickled or moved with the rest.
    source : TableSource, optional
        The teacher's: gives the table where the targets are.

    Raises
    ------
    TargetError
        Shapes that don't fit together.
    """

    pairs: SoftTargets
    row_offsets: Tensor
    rows: Tensor
    coefficients: Tensor
    own: RowTable
    num_rows: int
    table: RowTable | None = None
    source: TableSource | None = None

    def __post_init__(self) -> None:
        if self.row_offsets.shape != (self.num_positions + 1,):
            raise TargetError(
                f"row_offsets has shape {tuple(self.row_offsets.shape)} for {self.num_positions} positions: "
                f"give {self.num_positions + 1} offsets"
            )
        if self.coefficients.shape != (self.rows.shape[0], 4):
            raise TargetError(
                f"coefficients has shape {tuple(self.coefficients.shape)} for {self.rows.shape[0]} references: "
                "give four a reference"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "table": None, "source": None if self.source is None else self.source.key}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "source": TableSource.find(state["source"])})

    @property
    def num_positions(self) -> int:
        """Q."""
        return self.pairs.num_positions

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.pairs.vocab_size

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.pairs.device

    @property
    def valid(self) -> Tensor:
        """Whether each position has a target, (Q,) bool."""
        return self.pairs.valid

    @property
    def base(self) -> Tensor:
        """The shared distribution, (V,)."""
        return self.pairs.base

    @property
    def match_len(self) -> Tensor:
        """Evidence, (Q,): tokens of the context that the corpus holds."""
        return self.pairs.match_len

    @property
    def context_count(self) -> Tensor:
        """Evidence, (Q,): occurrences of that context."""
        return self.pairs.context_count

    def __len__(self) -> int:
        return self.num_positions

    def __repr__(self) -> str:
        return (
            f"MixedTargets(Q={self.num_positions}, V={self.vocab_size}, pairs={self.pairs.token_ids.shape[0]}, "
            f"references={self.rows.shape[0]}, device={self.device})"
        )

    def with_table(self, table: RowTable) -> MixedTargets:
        """The same targets with the table that they refer to, on their device."""
        return replace(self, table=table)

    def entries(self, begin: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """What the pairs and rows of the positions begin … end − 1 give: (position − begin, token, probability).

        A token may stand several times at a position: its probabilities add up, and rest · base to them.

        Raises
        ------
        TargetError
            With another teacher's table, or without one: the targets were pickled, and their teacher isn't here.

        Notes
        -----
        O(entries of the rows): ask for as many positions as fit in memory.
        """
        pairs = self.pairs
        where = torch.arange(end - begin, device=self.device)
        first, last = int(pairs.offsets[begin]), int(pairs.offsets[end])
        positions = [where.repeat_interleave(pairs.offsets[begin : end + 1].diff(), output_size=last - first)]
        tokens, values = [pairs.token_ids[first:last].long()], [pairs.probs[first:last]]
        first, last = int(self.row_offsets[begin]), int(self.row_offsets[end])
        of_refs = where.repeat_interleave(self.row_offsets[begin : end + 1].diff(), output_size=last - first)
        rows, coefficients = self.rows[first:last], self.coefficients[first:last]
        if first < last:
            table = self._checked_table()
            for source, counts, blocks, chosen in self._kinds(table, rows):
                if chosen.device.type == "cpu" and not (torch.compiler.is_compiling() or bool(chosen.any())):
                    continue
                refs, places = source.places(rows[chosen] - blocks * self.num_rows)
                x = counts[places]
                factors = coefficients[chosen]
                cuts = factors.view(-1).index_select(0, x.clamp_max(3).long().add_(refs, alpha=4))
                positions.append(of_refs[chosen][refs])
                tokens.append(source.token_ids[places].long())
                values.append(factors[:, 0].index_select(0, refs).mul_(x).sub_(cuts))
        return torch.cat(positions), torch.cat(tokens), torch.cat(values)

    def _kinds(self, table: RowTable, rows: Tensor) -> tuple[tuple[RowTable, Tensor, int, Tensor], ...]:
        """Where rows stand: (table, its numbers, blocks of R rows before it, which of the rows)."""
        return (
            (table, table.counts, 0, rows < self.num_rows),
            (table, table.left_extensions, 1, (rows >= self.num_rows) & (rows < 2 * self.num_rows)),
            (self.own, self.own.counts, 2, rows >= 2 * self.num_rows),
        )

    def references(self) -> list[References]:
        """The references to rows, for each table that they are to; on the CPU. O(F)."""
        if not self.rows.shape[0]:
            return []
        positions = torch.arange(self.num_positions).repeat_interleave(
            self.row_offsets.diff(), output_size=self.rows.shape[0]
        )
        found = []
        for source, counts, blocks, chosen in self._kinds(self._checked_table(), self.rows):
            rows = self.rows[chosen] - blocks * self.num_rows
            if rows.shape[0]:
                entries = source.token_ids, counts, source.offsets[rows], source.offsets[rows + 1]
                parts = *entries, self.coefficients[chosen], positions[chosen]
                found.append(References(*(part.numpy() for part in parts)))
        return found

    def dense(self, begin: int = 0, end: int | None = None) -> Tensor:
        """All probabilities of the positions begin … end − 1: shape (end − begin, V), float32; see `entries`."""
        end = self.num_positions if end is None else end
        dense = self.pairs.rest[begin:end, None] * self.pairs.base
        positions, tokens, values = self.entries(begin, end)
        return dense.index_put((positions, tokens), values, accumulate=True)

    def probability_of(self, tokens: Tensor) -> Tensor:
        """Probability that each target gives to one token; tokens are (Q,) or (B, T). O(entries of the rows).

        Raises
        ------
        TargetError
            Another number of tokens than of positions.
        """
        tokens = tokens.reshape(-1).long()
        if tokens.shape[0] != self.num_positions:
            raise TargetError(f"{tokens.shape[0]} tokens for {self.num_positions} targets: give one a position")
        found = self.pairs.rest * self.base[tokens]
        step = max(1, _DENSE_ELEMENTS // self.vocab_size)
        for begin in range(0, self.num_positions, step):
            end = min(self.num_positions, begin + step)
            positions, entries, values = self.entries(begin, end)
            found[begin:end].index_add_(0, positions, torch.where(entries == tokens[begin:end][positions], values, 0))
        return found

    def entropy(self) -> Tensor:
        """Entropy of every target, (Q,) float32, in nats; 0 where it isn't valid. O(Q · V) time."""
        step = max(1, _DENSE_ELEMENTS // self.vocab_size)
        parts = [self.pairs.rest[:0].double()]
        for begin in range(0, self.num_positions, step):
            dense = self.dense(begin, min(self.num_positions, begin + step)).double().clamp_min(0)
            parts.append(-torch.special.xlogy(dense, dense).sum(1))
        return torch.where(self.valid, torch.cat(parts), 0).float()

    def _checked_table(self) -> RowTable:
        table = self.table
        if table is None and self.source is not None:
            table = self.source.on(self.device)
        if table is None:
            raise TargetError(
                "these targets came without their row table, and no teacher of this process has it: give it with "
                "targets.with_table(teacher.row_table())"
            )
        if table.num_rows != self.num_rows:
            raise TargetError(f"a table of {table.num_rows} rows for targets over {self.num_rows}: another teacher's")
        return table

    def select(self, mask: Tensor) -> MixedTargets:
        """Keep the positions where the mask, (Q,) bool, is True, in their order."""
        pairs = self.pairs.select(mask)
        lengths = self.row_offsets.diff()
        kept = mask.repeat_interleave(lengths, output_size=self.rows.shape[0])
        offsets = torch.cat([lengths.new_zeros(1), lengths[mask].cumsum(0)])
        return replace(
            self, pairs=pairs, row_offsets=offsets, rows=self.rows[kept], coefficients=self.coefficients[kept]
        )

    def take(self, positions: Tensor) -> MixedTargets:
        """Positions by number, (P,) int64, in any order and any number of times."""
        offsets, kept = take_entries(self.row_offsets, positions)
        return replace(
            self,
            pairs=self.pairs.take(positions),
            row_offsets=offsets,
            rows=self.rows[kept],
            coefficients=self.coefficients[kept],
        )

    def silent(self) -> MixedTargets:
        """One position without a target, in the form of these targets."""
        none = self.row_offsets[:1] * 0
        return replace(
            self,
            pairs=self.pairs.silent(),
            row_offsets=torch.cat([none, none]),
            rows=self.rows[:0],
            coefficients=self.coefficients[:0],
            own=RowTable(self.own.offsets[:1], *(getattr(self.own, f.name)[:0] for f in fields(self.own)[1:])),
        )

    @staticmethod
    def concatenate(parts: Sequence[MixedTargets]) -> MixedTargets:
        """Join the positions of several targets of one teacher, at least one.

        Raises
        ------
        TargetError
            Parts of different teachers.
        """
        whole, num_rows = SoftTargets.concatenate([part.pairs for part in parts]), parts[0].num_rows
        if any(part.num_rows != num_rows for part in parts):
            raise TargetError("the parts refer to different row tables: concatenate one teacher's only")
        rows, own_before = [], 0
        for part in parts:  # a batch's own rows are numbered anew
            rows.append(torch.where(part.rows >= 2 * num_rows, part.rows + own_before, part.rows))
            own_before += part.own.num_rows
        own = [torch.cat([getattr(part.own, field.name) for part in parts]) for field in fields(RowTable)[1:]]
        return replace(
            parts[0],
            pairs=whole,
            row_offsets=_joined_offsets([part.row_offsets for part in parts]),
            rows=torch.cat(rows),
            coefficients=torch.cat([part.coefficients for part in parts]),
            own=RowTable(_joined_offsets([part.own.offsets for part in parts]), *own),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MixedTargets:
        """Copy to a device; the table is there once for all batches (one given by `with_table` stays where it is)."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> MixedTargets:
        """Copy to page-locked memory; the table stays where it is."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> MixedTargets:
        return replace(
            self,
            pairs=self.pairs._map(change),
            row_offsets=change(self.row_offsets),
            rows=change(self.rows),
            coefficients=change(self.coefficients),
            own=RowTable(*(change(getattr(self.own, field.name)) for field in fields(self.own))),
        )


def _joined_offsets(parts: Sequence[Tensor]) -> Tensor:
    lengths = torch.cat([part.diff() for part in parts])
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


AnyTargets: TypeAlias = SoftTargets | MixedTargets | DenseTargets
"""Targets in any form, as the losses take them."""
