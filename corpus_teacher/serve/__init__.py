"""Indexes over HTTP: in vLLM's shape, in infini-gram's, as targets for training hosts, and as a page for people."""

from corpus_teacher.serve.app import create_app
from corpus_teacher.serve.indexes import ServedIndex, open_indexes
from corpus_teacher.serve.limits import Limits, ServeOptions
from corpus_teacher.serve.server import serve

__all__ = ["Limits", "ServeOptions", "ServedIndex", "create_app", "open_indexes", "serve"]
