"""Indexes behind URLs that are used while they come: what waits for what, and what is said where it can't come."""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import pickle
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import corpus_index
import numpy as np
import pytest
from corpus_index import CorpusIndex
from corpus_index.manifest import MANIFEST, seal
from corpus_index.names import NAMES_FILE

from corpus_teacher.errors import IndexFormatError, InputError
from corpus_teacher.storage import UrlPath, fetching, local_index, open_index
from corpus_teacher.teacher import CorpusTeacher

_T = TypeVar("_T")

TOKENS = np.random.default_rng(0).integers(1, 5, 400).astype(np.uint16)
STARTS = [0, 90, 170, 300, 400]
URL = "memory://bucket/index"
ROWS = TOKENS[:60].astype(np.int64).reshape(3, 20)
NEXT = TOKENS[1:61].astype(np.int64).reshape(3, 20)

Kind = tuple[bool, str]
KINDS = [(False, "full"), (True, "full"), (False, "compact")]


class Held:
    """A storage that gives some files only when it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[str] = []
        self.names: tuple[str, ...] = ()
        self.free = threading.Event()
        read_range = UrlPath.read_range

        def held(path: UrlPath, begin: int, end: int) -> bytes:
            self.begun.append(str(path))
            if str(path).endswith(self.names or "\0"):
                assert self.free.wait(600)
            return read_range(path, begin, end)

        monkeypatch.setattr(UrlPath, "read_range", held)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    made = Held(monkeypatch)
    yield made
    made.free.set()


def put(memory: Any, path: Path, kind: Kind) -> CorpusIndex:
    """Build an index, put it behind the URL, and open the one that was built."""
    shards, layout = kind
    corpus_index.build_index(
        TOKENS, path, doc_starts=STARTS, vocab_size=5, shard_tokens=130 if shards else None, layout=layout,
        attachments={"tokenizer.json": b"{}"}, document_names=["a", "b", "c", "d"], progress=False,
    ).close()  # fmt: skip
    memory.put(str(path), "/bucket/index", recursive=True)
    return corpus_index.open_index(path)


def last_shard(index: CorpusIndex) -> str:
    """How the URL of the folder ends that comes last."""
    return f"{index.entries[-1].name}/" if hasattr(index, "entries") else "index/"


def asked(question: Callable[[], _T]) -> Future[_T]:
    """The answer to come of a question in a thread."""
    answer: Future[_T] = Future()

    def work() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return answer


def is_waiting(answer: Future[Any]) -> bool:
    time.sleep(0.05)
    return not answer.done()


def same_targets(one: CorpusIndex, other: CorpusIndex) -> None:
    answers = [index.smoothed_targets(ROWS, leave_out="self", next_ids=NEXT) for index in (one, other)]
    for actual, expected in zip(*answers, strict=True):
        np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_names_come_last_and_targets_do_not_wait_for_them(memory: Any, tmp_path: Path, held: Held, kind: Kind) -> None:
    with put(memory, tmp_path / "built", kind) as built:
        held.names = (last_shard(built) + NAMES_FILE,)
        with open_index(URL) as index:
            assert index.fingerprint == built.fingerprint
            if kind[1] == "full":
                same_targets(index, built)
            assert index.count([1, 2]) == built.count([1, 2])
            np.testing.assert_array_equal(index.positions([1, 2]), built.positions([1, 2]))
            answer = asked(lambda: index.document(3))
            assert is_waiting(answer)
            held.free.set()
            assert answer.result(30) == built.document(3)
            assert answer.result().name == "d"


@pytest.mark.parametrize("layout", ["full", "compact"])
def test_an_index_with_removed_documents_is_used_while_it_comes(
    memory: Any, tmp_path: Path, held: Held, layout: str
) -> None:
    put(memory, tmp_path / "built", (True, layout)).close()
    corpus_index.remove_documents(tmp_path / "built", [0, 3]).close()
    memory.rm("/bucket/index", recursive=True)
    memory.put(str(tmp_path / "built"), "/bucket/index", recursive=True)
    with corpus_index.open_index(tmp_path / "built") as built:
        held.names = (last_shard(built) + "common.bin",)
        with open_index(URL) as index:
            known = index.num_tokens, index.num_documents, index.size_bytes, index.fingerprint
            assert known == (built.num_tokens, built.num_documents, built.size_bytes, built.fingerprint)
            assert index.document(0) == built.document(0)
            if layout == "full":
                np.testing.assert_array_equal(index.tokens[:60], built.tokens[:60])
            counted, pickled = asked(lambda: index.count([1, 2])), asked(lambda: pickle.dumps(index))
            assert is_waiting(counted)
            assert is_waiting(pickled)
            held.free.set()
            assert counted.result(30) == built.count([1, 2])
            same_targets(index, built)
            with pickle.loads(pickled.result(30)) as again:
                same_targets(again, built)


@pytest.mark.parametrize("kind", KINDS)
def test_what_counts_waits_for_all_of_the_corpus(memory: Any, tmp_path: Path, held: Held, kind: Kind) -> None:
    with put(memory, tmp_path / "built", kind) as built:
        held.names = (last_shard(built) + "common.bin",)
        with open_index(URL) as index:
            assert (index.num_tokens, index.vocab_size, index.metadata) == (400, 5, built.metadata)
            assert index.size_bytes == built.size_bytes
            assert index.attachment("tokenizer.json") == b"{}"
            if kind[1] == "full":
                np.testing.assert_array_equal(index.tokens[:], TOKENS)
            if kind[0]:
                assert index.document(0) == built.document(0)
            counted = asked(lambda: index.count([1, 2]))
            teacher = asked(lambda: CorpusTeacher(index, leave_out="self").index.next_tokens([1, 2]).counts.tolist())
            assert is_waiting(counted)
            assert is_waiting(teacher)
            held.free.set()
            assert counted.result(30) == built.count([1, 2])
            assert teacher.result(30) == built.next_tokens([1, 2]).counts.tolist()


def test_a_fetch_that_fails_says_so_at_every_question(memory: Any, tmp_path: Path) -> None:
    with put(memory, tmp_path / "built", (True, "full")) as built:
        place = f"/bucket/index/{last_shard(built)}common.bin"
    whole = memory.cat_file(place)
    memory.pipe(place, b"\xff" + whole[1:])
    with open_index(URL) as index:
        for _ in range(2):
            with pytest.raises(IndexFormatError, match=r"common\.bin doesn't have the checksum that its manifest tell"):
                index.count([1, 2])
    memory.rm(place)
    with open_index(URL) as index, pytest.raises(InputError, match=r"there is no file or folder .*common\.bin"):
        index.count([1, 2])
    memory.pipe(place, whole)
    with open_index(URL) as index, corpus_index.open_index(tmp_path / "built") as built:
        assert index.count([1, 2]) == built.count([1, 2])


def test_arrays_that_lead_astray_are_refused_before_a_kernel_follows_them(memory: Any, tmp_path: Path) -> None:
    path = tmp_path / "built"
    put(memory, path, (False, "full")).close()
    manifest = json.loads((path / MANIFEST).read_text())
    wrong = np.fromfile(path / "row_directory.bin", np.uint32) + 99
    entry = manifest["arrays"]["row_directory"]
    entry["sha256"], entry["crc32"] = hashlib.sha256(wrong).hexdigest(), f"{zlib.crc32(wrong):08x}"
    manifest["fingerprint"] = seal(manifest)
    memory.pipe("/bucket/index/row_directory.bin", wrong.tobytes())
    memory.pipe(f"/bucket/index/{MANIFEST}", json.dumps(manifest).encode())
    with open_index(URL) as index:
        np.testing.assert_array_equal(index.tokens[:], TOKENS)
        for _ in range(2):
            with pytest.raises(IndexFormatError, match="row_directory doesn't lead to the stored rows"):
                index.count([1, 2])


@pytest.mark.parametrize("forgotten", [False, True])
def test_an_index_that_is_closed_ends_its_fetch(
    memory: Any, tmp_path: Path, held: Held, monkeypatch: pytest.MonkeyPatch, forgotten: bool
) -> None:
    monkeypatch.setattr(fetching, "_THREADS", 1)
    put(memory, tmp_path / "built", (False, "full")).close()
    held.names = ("tokens.bin",)
    index = open_index(URL)
    while not held.begun[-1].endswith("tokens.bin"):
        time.sleep(0.001)
    if forgotten:
        del index
        gc.collect()
    else:
        index.close()
    held.free.set()
    with fetching.turn(next((tmp_path / "cache" / "indexes").glob("[0-9a-f]*"))):  # the fetch has ended
        assert held.begun[-1].endswith("tokens.bin")
    assert not list((tmp_path / "cache" / "indexes").glob(f"*/{MANIFEST}"))
    assert (local_index(URL) / MANIFEST).is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_it_pickles_when_it_is_whole(memory: Any, tmp_path: Path, held: Held, kind: Kind) -> None:
    with put(memory, tmp_path / "built", kind) as built:
        held.names = (last_shard(built) + NAMES_FILE,)
    with open_index(URL) as index:
        content, tokens = asked(lambda: pickle.dumps(index)), asked(lambda: pickle.dumps(index.tokens))
        assert is_waiting(content)
        if kind[1] == "compact":
            assert is_waiting(tokens)
        else:
            tokens.result(30)  # while the names are held
        held.free.set()
        with pickle.loads(content.result(30)) as again:
            assert again.path == index.path
            assert again.document(3).name == "d"
        np.testing.assert_array_equal(np.asarray(pickle.loads(tokens.result(30))), TOKENS)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("fails", [False, True])
def test_a_forked_process_waits_for_the_whole(memory: Any, tmp_path: Path, held: Held, fails: bool) -> None:
    put(memory, tmp_path / "built", (True, "full")).close()
    held.names = ("common.bin",)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def child() -> None:
        try:
            there.send(index.tokens[:].tolist())
        except InputError as error:
            there.send(str(error))

    with open_index(URL) as index:
        process = context.Process(target=child)
        process.start()
        assert not here.poll(0.1)
        if fails:
            index.close()
        held.free.set()
        expected = f"{URL} wasn't fetched to its end by the process that opened it: open it again"
        assert here.poll(30)
        assert here.recv() == (expected if fails else TOKENS.tolist())
        process.join(30)


def test_threads_that_ask_at_once(memory: Any, tmp_path: Path, held: Held) -> None:
    with put(memory, tmp_path / "built", (True, "full")) as built, ThreadPoolExecutor(8) as pool:
        held.names = ("common.bin",)
        with open_index(URL) as index:
            answers = [pool.submit(index.count, [token, other]) for token in range(1, 5) for other in range(1, 5)]
            held.free.set()
            expected = [built.count([token, other]) for token in range(1, 5) for other in range(1, 5)]
            assert [answer.result(30) for answer in answers] == expected
