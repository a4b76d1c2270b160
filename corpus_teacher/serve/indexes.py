"""The indexes of a server, each under its name: opened once, with their tokenizers and the teachers that were asked."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from corpus_index import ESTIMATORS, CorpusIndex, ShardedIndex

from corpus_teacher.data.opening import index_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, TokenizerError
from corpus_teacher.serve.limits import RefusedRequest, ServeOptions
from corpus_teacher.settings import nearest
from corpus_teacher.storage import open_index
from corpus_teacher.teacher import LEAVE_OUT, CorpusTeacher

if TYPE_CHECKING:
    from corpus_teacher.neural import NeuralTeacher

_MOST_TEACHERS = 32
_RAY = "ray:"


class ServedIndex:
    """An open index under a name.

    Parameters
    ----------
    name : str
    index : CorpusIndex
        Of one part or of shards.
    options : ServeOptions
    tokenizer : str, optional
        For an index that was built without one.

    Attributes
    ----------
    tokenizer : Tokenizer or None
        None where the index was built from ready tokens.
    neural : NeuralTeacher or None
        The model that teaches beside the corpus.
    """

    def __init__(self, name: str, index: CorpusIndex, options: ServeOptions, tokenizer: str | None = None) -> None:
        self.name = name
        self.index = index
        self.options = options
        self.tokenizer: Tokenizer | None = None
        if tokenizer is not None or index.metadata.get("tokenizer"):
            self.tokenizer = index_tokenizer(index, tokenizer)
        self.neural: NeuralTeacher | None = None
        if options.neural is not None:  # imported here: a server of indexes alone starts without transformers
            from corpus_teacher.neural import NeuralTeacher, TargetFormat

            self.neural = NeuralTeacher(
                options.neural,
                vocab_size=int(index.vocab_size),
                student_tokenizer=self.tokenizer,
                kept=TargetFormat("all"),
            )
        self._teachers: OrderedDict[tuple[Any, ...], CorpusTeacher] = OrderedDict()
        self._making: dict[tuple[Any, ...], threading.Lock] = {}
        self._lock = threading.Lock()
        self._texts: dict[int, str] = {}

    @property
    def neural_name(self) -> str | None:
        """What the neural teacher is called, without the folders that it lies in."""
        return None if self.neural is None else Path(self.neural.name).name

    @property
    def is_here(self) -> bool:
        """Whether one index in this process answers: of shards, or Ray's actors, each takes its time."""
        return not isinstance(self.index, ShardedIndex)

    def teacher(self, settings: Mapping[str, Any] | None = None) -> CorpusTeacher:
        """The teacher of some settings, made at its first use; may take the seconds of a fit.

        Parameters
        ----------
        settings : mapping
            Any of estimator, max_order, leave_out, top_k and top_p; the server's own where one is left out.

        Raises
        ------
        RefusedRequest
            Unknown settings, or an estimator that isn't one of the names.
        ConfigError
            Settings out of range.
        """
        options = self.options
        mine: dict[str, Any] = {
            "estimator": options.estimator,
            "max_order": options.max_order,
            "leave_out": options.leave_out,
            "top_k": options.top_k,
            "top_p": 1.0,
        }
        for name, value in (settings or {}).items():
            if name not in mine:
                raise RefusedRequest(f"there is no setting {name!r}: {nearest(name, mine)}")
            mine[name] = value
        _check(mine, options)
        mine["top_k"] = min(mine["top_k"], self.index.vocab_size)
        key = tuple(mine.values())
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:  # one fits, and whoever wants the same waits; others don't
            with self._lock:
                made = self._teachers.get(key)
            if made is None:
                made = CorpusTeacher(self.index, **mine)
            with self._lock:
                self._teachers[key] = made
                self._teachers.move_to_end(key)
                if len(self._teachers) > _MOST_TEACHERS:
                    self._making.pop(self._teachers.popitem(last=False)[0], None)
        return made

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Token ids of a text.

        Raises
        ------
        RefusedRequest
            Where the index has no tokenizer.
        """
        if self.tokenizer is None:
            raise RefusedRequest(f"the index {self.name!r} has no tokenizer: send token ids")
        try:
            return self.tokenizer.encode(text).astype(np.int64)
        except TokenizerError as error:
            raise RefusedRequest(str(error)) from error

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of token ids; the ids with blanks between where there is no tokenizer."""
        ids = np.asarray(ids)
        if self.tokenizer is None:
            return " ".join(map(str, ids.tolist()))
        return self.tokenizer.decode(ids[ids < self.tokenizer.vocab_size])

    def token_text(self, token: int) -> str:
        """One token for a person to read; kept, since few tokens are asked for again and again."""
        text = self._texts.get(token)
        if text is None:
            known = self.tokenizer is not None and token < self.tokenizer.vocab_size
            text = self.tokenizer.token_text(token) if known and self.tokenizer is not None else f"<{token}>"
            if len(self._texts) < 1 << 20:
                self._texts[token] = text
        return text

    def ids_of(self, given: object, what: str) -> npt.NDArray[np.int64]:
        """A list of token ids as an array.

        Raises
        ------
        RefusedRequest
            What is no list of whole numbers, or an id outside of the vocabulary.
        """
        if not isinstance(given, (list, np.ndarray)) or any(
            not isinstance(one, (int, np.integer)) or isinstance(one, bool) for one in given
        ):
            raise RefusedRequest(f"{what} is not a list of token ids: give whole numbers")
        wrong = next((one for one in given if not 0 <= one < self.index.vocab_size), None)
        if wrong is not None:
            raise RefusedRequest(
                f"{what} has the token id {wrong}, and the vocabulary of {self.name!r} ends at "
                f"{self.index.vocab_size - 1}: is this the index's tokenizer?"
            )
        return np.array(given, np.int64)

    def describe(self) -> dict[str, Any]:
        """What the index is, for lists of models and pages."""
        described = self.index.metadata.get("tokenizer") or {}
        return {
            "name": self.name,
            "num_tokens": int(self.index.num_tokens),
            "num_documents": int(self.index.num_documents),
            "vocab_size": int(self.index.vocab_size),
            "end_of_document": self.index.end_of_document,
            "tokenizer": None if self.tokenizer is None else described.get("spec", self.tokenizer.spec),
            "fingerprint": self.index.fingerprint,
            "neural": self.neural_name,
        }

    def warm(self) -> None:
        """Ask for one of everything, so that the kernels are compiled and the default estimator is fitted."""
        size = int(self.index.num_tokens)
        if size == 0:
            return
        ids = np.asarray(self.index.tokens[: min(size, 8)]).astype(np.int64)
        if isinstance(self.index, ShardedIndex):  # numba's tables are filled at the first compilation: not in threads
            self.index.shards[0].match(ids[None])
        for leave_out in dict.fromkeys((self.options.leave_out, None, "self", "auto")):
            for top_k in (self.options.top_k, int(self.index.vocab_size)):
                self.teacher({"leave_out": leave_out, "top_k": top_k})(ids[None], starts_document=True, positions=[0])
        self.index.next_tokens(ids[:2])
        self.index.count(ids[:2])
        self.index.documents_of(ids[:1], limit=1)


def _check(settings: Mapping[str, Any], options: ServeOptions) -> None:
    """Refuse what a request may not say: a path above all, which would be read."""
    estimator = settings["estimator"]
    if estimator != options.estimator and estimator not in ESTIMATORS:
        raise RefusedRequest(f"there is no estimator {estimator!r}: {nearest(estimator, ESTIMATORS)}")
    for name, least in (("max_order", 0), ("top_k", 1)):
        value = settings[name]
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not whole and not (name == "max_order" and value is None):
            raise RefusedRequest(f"{name} is {value!r}: give a whole number from {least} on")
    if settings["leave_out"] not in LEAVE_OUT:
        raise RefusedRequest(f"leave_out is {settings['leave_out']!r}: give 'auto', 'self', 'document' or null")
    if not isinstance(settings["top_p"], (int, float)) or isinstance(settings["top_p"], bool):
        raise RefusedRequest(f"top_p is {settings['top_p']!r}: give a number above 0 and at most 1")


class Served(Mapping[str, ServedIndex]):
    """The indexes of a server by their names, in the order in which they were given."""

    def __init__(self, indexes: Sequence[ServedIndex]) -> None:
        self._by_name = {one.name: one for one in indexes}

    def __getitem__(self, name: str) -> ServedIndex:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def named(self, name: object) -> ServedIndex:
        """An index by its name; the only one there is where none is named.

        Raises
        ------
        RefusedRequest
        """
        if name is None and len(self) == 1:
            return next(iter(self.values()))
        if not isinstance(name, str) or name not in self:
            raise RefusedRequest(f"there is no index {name!r}: {nearest(name, self)}", status=404)
        return self[name]

    def close(self) -> None:
        """Let go of the files."""
        for one in self.values():
            one.index.close()


def open_indexes(places: Sequence[str | Path], options: ServeOptions, tokenizer: str | None = None) -> Served:
    """Open indexes of any kind.

    Parameters
    ----------
    places : sequence of str or path
        ``DIR``, whose name is the folder's, or ``NAME=DIR``; ``ray:DIR`` where Ray's actors hold its shards.
    options : ServeOptions
    tokenizer : str, optional
        For indexes that were built without one.

    Raises
    ------
    ConfigError
        None, or two of one name.
    IndexFormatError, TokenizerError
    """
    if not places:
        raise ConfigError("there is no index to serve: name the folder of one")
    made: list[ServedIndex] = []
    try:
        for place in places:
            name, path = _named(str(place))
            if any(one.name == name for one in made):
                raise ConfigError(f"two indexes are called {name!r}: call one of them otherwise, with NAME={path}")
            made.append(ServedIndex(name, _opened(path), options, tokenizer))
    except BaseException:
        for one in made:
            one.index.close()
        raise
    return Served(made)


def _opened(path: str) -> CorpusIndex:
    """The index of a folder; after ``ray:`` one whose shards are in actors, in the cluster that RAY_ADDRESS names."""
    if not path.startswith(_RAY) or Path(path).exists():
        return open_index(path)
    from corpus_teacher.distributed import RayIndex

    return RayIndex(path.removeprefix(_RAY))


def _named(place: str) -> tuple[str, str]:
    """The name and the path of an index."""
    name, equals, path = place.partition("=")
    if equals and name and path and "/" not in name and not Path(place).exists():
        return name, path
    return Path(place if Path(place).exists() else place.removeprefix(_RAY)).resolve().name, place
