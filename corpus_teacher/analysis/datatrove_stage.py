"""A stage for pipelines of datatrove: documents get their scores under an index, and may be filtered by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from corpus_teacher.analysis.scoring import BUCKETS, ESTIMATOR, MAX_ORDER, DocumentScorer, Thresholds
from corpus_teacher.errors import ConfigError

try:
    from datatrove.pipeline.base import PipelineStep
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith("datatrove"):
        raise
    raise ConfigError("this stage needs datatrove: pip install corpus-teacher[datatrove]") from error

_AT_ONCE = 256


class CorpusScore(PipelineStep):
    """Adds nats_per_token, bits_per_byte, tokens_scored and bucket to each document's metadata.

    Parameters
    ----------
    index : str or path
        Opened where the stage runs.
    estimator, max_order, tokenizer
        See `corpus_teacher.analysis.scoring.DocumentScorer`.
    thresholds : pair of float, optional
        Nats per token where middle and tail begin, as `corpus-teacher teacher score` prints them.
    keep : sequence of {"head", "middle", "tail"}, optional
        Drop documents of other buckets.

    Raises
    ------
    ConfigError
        A bucket that there isn't, or `keep` without thresholds.
    """

    name = "📚 corpus-teacher"
    type = "🔢 - SCORER"

    def __init__(
        self,
        index: str | Path,
        *,
        estimator: str = ESTIMATOR,
        max_order: int | None = MAX_ORDER,
        tokenizer: str | None = None,
        thresholds: Thresholds | Sequence[float] | None = None,
        keep: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        for name in keep or ():
            if name not in BUCKETS:
                raise ConfigError(f"there is no bucket {name!r}: give head, middle or tail")
        if keep is not None and thresholds is None:
            raise ConfigError("buckets need thresholds: give the two numbers")
        self.index = str(index)
        self.keep = None if keep is None else tuple(keep)
        self.settings: dict[str, Any] = {
            "estimator": estimator,
            "max_order": max_order,
            "tokenizer": tokenizer,
            "thresholds": thresholds,
        }

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Score and pass on, as datatrove calls it."""
        del rank, world_size
        scorer = DocumentScorer(self.index, **self.settings)
        with scorer.index:
            stream = iter(data)
            while batch := list(islice(stream, _AT_ONCE)):
                with self.track_time():
                    said = scorer({"text": [document.text for document in batch]})
                said["tokens_scored"] = said.pop("tokens")
                for place, document in enumerate(batch):
                    document.metadata.update({name: values[place] for name, values in said.items()})
                    bucket = document.metadata.get("bucket")
                    self.stat_update("scored", *([bucket] if bucket else []))
                    if self.keep is None or bucket in self.keep:
                        yield document
                    else:
                        self.stat_update("dropped")
