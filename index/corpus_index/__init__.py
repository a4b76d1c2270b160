"""An exact n-gram index over a tokenised corpus: what follows any context, for whole batches."""

from corpus_index._kernels.jit import compiling_s, working_s
from corpus_index.build import build_index
from corpus_index.core.answers import DocumentInfo, DocumentVotes, Match, NextTokens, NextTokensBatch
from corpus_index.core.duplicates import NearDuplicates, near_duplicates
from corpus_index.errors import (
    CorpusError,
    CorpusIndexError,
    IndexExistsError,
    IndexFormatError,
    IndexWriteError,
    InsufficientMemoryError,
    QueryError,
)
from corpus_index.estimators.estimator import Estimator, load_estimator, make_estimator
from corpus_index.estimators.fits import fit_file
from corpus_index.estimators.registry import ESTIMATORS
from corpus_index.estimators.resolving import EstimatorLike, resolve_estimator
from corpus_index.index import CorpusIndex
from corpus_index.names import DocumentNames
from corpus_index.shard_arpa import write_arpa
from corpus_index.shard_changes import append_documents, convert_index, find_documents, merge_shards, remove_documents
from corpus_index.sharded import ShardedIndex, open_index
from corpus_index.targets.drawing import Drawn, SortedBase, draw_from, draw_tokens, sorted_base
from corpus_index.targets.explain import Explanation, OrderShare
from corpus_index.targets.interpolated import next_probabilities, smoothed_targets
from corpus_index.targets.measures import Measures, measure
from corpus_index.targets.recall import Recall, fit_recall
from corpus_index.targets.scorer import Scorer
from corpus_index.targets.types import MixedTargets, RowTable, SparseTargets
from corpus_index.verify import verify_index
from corpus_index.warming import Warmed, warm_up

__all__ = [
    "ESTIMATORS",
    "CorpusError",
    "CorpusIndex",
    "CorpusIndexError",
    "DocumentInfo",
    "DocumentNames",
    "DocumentVotes",
    "Drawn",
    "Estimator",
    "EstimatorLike",
    "Explanation",
    "IndexExistsError",
    "IndexFormatError",
    "IndexWriteError",
    "InsufficientMemoryError",
    "Match",
    "Measures",
    "MixedTargets",
    "NearDuplicates",
    "NextTokens",
    "NextTokensBatch",
    "OrderShare",
    "QueryError",
    "Recall",
    "RowTable",
    "Scorer",
    "ShardedIndex",
    "SortedBase",
    "SparseTargets",
    "Warmed",
    "append_documents",
    "build_index",
    "compiling_s",
    "convert_index",
    "draw_from",
    "draw_tokens",
    "find_documents",
    "fit_file",
    "fit_recall",
    "load_estimator",
    "make_estimator",
    "measure",
    "merge_shards",
    "near_duplicates",
    "next_probabilities",
    "open_index",
    "remove_documents",
    "resolve_estimator",
    "smoothed_targets",
    "sorted_base",
    "verify_index",
    "warm_up",
    "working_s",
    "write_arpa",
]
