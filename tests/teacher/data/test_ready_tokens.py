"""Ready tokens: every convention read as its writers wrote it, and refused where it is not what it says."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from corpus_index import DocumentNames

from corpus_teacher.data.ready_tokens import join_ready_tokens, open_ready_tokens, split_after
from corpus_teacher.errors import InputError

TOKENS = np.array([5, 6, 0, 7, 0, 0, 9, 8], dtype=np.uint16)


def write_megatron(
    prefix: Path,
    documents: list[list[list[int]]],
    *,
    code: int = 8,
    dtype: str = "<u2",
    version: int = 1,
    magic: bytes = b"MMIDIDX\x00\x00",
) -> None:
    """The pair as Megatron's IndexedDatasetBuilder writes it: documents are lists of sequences."""
    sequences = [sequence for document in documents for sequence in document]
    lengths = np.array([len(sequence) for sequence in sequences], dtype="<i4")
    item = np.dtype(dtype).itemsize
    pointers = np.concatenate([[0], np.cumsum(lengths.astype(np.int64) * item)[:-1]]).astype("<i8")
    boundaries = np.cumsum([0, *map(len, documents)]).astype("<i8")
    prefix.with_suffix(".bin").write_bytes(np.concatenate([np.array(s, dtype=dtype) for s in sequences]).tobytes())
    prefix.with_suffix(".idx").write_bytes(
        magic
        + struct.pack("<QBQQ", version, code, len(sequences), len(boundaries))
        + lengths.tobytes()
        + pointers.tobytes()
        + boundaries.tobytes()
    )


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_raw_bin(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "train.bin"
    TOKENS.astype(dtype).tofile(path)
    ready = open_ready_tokens(path, dtype=dtype)
    np.testing.assert_array_equal(ready.tokens, TOKENS)
    assert ready.tokens.dtype == dtype
    assert ready.doc_starts is None
    named = path.rename(tmp_path / f"train.u{dtype[4:]}")
    np.testing.assert_array_equal(open_ready_tokens(named).tokens, TOKENS)


@pytest.mark.parametrize("vocab_size", [300, 5_000, 60_000, 150_000])
def test_the_width_of_raw_tokens_is_recognised_or_doubted(tmp_path: Path, vocab_size: int) -> None:
    rng = np.random.default_rng(vocab_size)
    tokens = np.minimum(rng.zipf(1.2, 4_000), vocab_size) - 1
    for kind in ("uint16", "uint32"):
        if kind == "uint16" and vocab_size > 1 << 16:
            continue
        path = tmp_path / f"{kind}.bin"
        tokens.astype(kind).tofile(path)
        ready = open_ready_tokens(path)
        np.testing.assert_array_equal(ready.tokens, tokens)
        assert ready.doubt is None
        assert ("recognised" in ready.convention) == (kind == "uint32")
        assert open_ready_tokens(path, dtype=kind).doubt is None
    notes: list[str] = []
    wrong = open_ready_tokens(tmp_path / "uint32.bin", dtype="uint16")
    join_ready_tokens([wrong], vocab_size=None, end_of_document=1, folder=tmp_path, notes=notes)
    assert "is read as uint16, but looks like uint32: every second 16-bit number is next to nothing" in notes[0]
    if vocab_size == 60_000:  # pairs of ids of a smaller vocabulary make smaller numbers
        wide = open_ready_tokens(tmp_path / "uint16.bin", dtype="uint32")
        assert wide.doubt is None or "looks like uint16" in wide.doubt


def test_two_halves_of_one_distribution_are_doubted(tmp_path: Path) -> None:
    np.random.default_rng(0).integers(0, 50_000, 4_000).astype("<u2").tofile(tmp_path / "a.u32")
    doubt = open_ready_tokens(tmp_path / "a.u32").doubt
    assert doubt is not None
    assert "looks like uint16: the upper halves" in doubt


def test_a_wide_vocabulary_has_wide_tokens(tmp_path: Path) -> None:
    TOKENS.astype("<u4").tofile(tmp_path / "a.bin")
    assert open_ready_tokens(tmp_path / "a.bin", vocab_size=100_000).tokens.tolist() == TOKENS.tolist()
    for name, dtype in (("a.bin", "uint16"), ("a.u16", "auto")):
        (tmp_path / name).write_bytes((tmp_path / "a.bin").read_bytes())
        with pytest.raises(InputError, match="can't hold tokens of a vocabulary of 100,000 in 16 bits"):
            open_ready_tokens(tmp_path / name, dtype=dtype, vocab_size=100_000)
    with pytest.raises(InputError, match="uint16 or uint32, not 'int8'"):
        open_ready_tokens(tmp_path / "a.bin", dtype="int8")
    os.mkfifo(tmp_path / "pipe.bin")
    with pytest.raises(InputError, match="is a pipe, not a file"):
        open_ready_tokens(tmp_path / "pipe.bin")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint16"])
def test_npy(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", TOKENS.astype(dtype))
    np.testing.assert_array_equal(open_ready_tokens(tmp_path / "a.npy").tokens, TOKENS)


@pytest.mark.parametrize(("magic", "version", "dtype"), [(20240520, 1, np.uint16), (20240801, 7, np.uint32)])
def test_llm_c_header(tmp_path: Path, magic: int, version: int, dtype: type) -> None:
    header = np.zeros(256, dtype=np.int32)
    header[:3] = magic, version, len(TOKENS)
    path = tmp_path / "a.bin"
    path.write_bytes(header.tobytes() + TOKENS.astype(dtype).tobytes())
    np.testing.assert_array_equal(open_ready_tokens(path).tokens, TOKENS)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match="its header promises 8 tokens"):
        open_ready_tokens(path)


@pytest.mark.parametrize(("code", "dtype"), [(8, "<u2"), (4, "<i4"), (5, "<i8")])
@pytest.mark.parametrize("named", ["bin", "idx"])
def test_megatron(tmp_path: Path, code: int, dtype: str, named: str) -> None:
    write_megatron(tmp_path / "corpus", [[[1, 2], [3]], [[4, 5]], []], code=code, dtype=dtype)
    ready = open_ready_tokens(tmp_path / f"corpus.{named}")
    np.testing.assert_array_equal(ready.tokens, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(ready.doc_starts, [0, 3, 5, 5])


def test_broken_megatron(tmp_path: Path) -> None:
    prefix, documents = tmp_path / "c", [[[1, 2]], [[3]]]
    write_megatron(prefix, documents, magic=b"SOMETHING")
    with pytest.raises(InputError, match="is not a Megatron index"):
        open_ready_tokens(prefix.with_suffix(".bin"))
    write_megatron(prefix, documents, version=2)
    with pytest.raises(InputError, match="version 2"):
        open_ready_tokens(prefix.with_suffix(".bin"))
    write_megatron(prefix, documents, code=6)
    with pytest.raises(InputError, match="type code 6"):
        open_ready_tokens(prefix.with_suffix(".bin"))
    write_megatron(prefix, documents)
    whole = prefix.with_suffix(".idx").read_bytes()
    prefix.with_suffix(".idx").write_bytes(whole[:-9])
    with pytest.raises(InputError, match="is cut short"):
        open_ready_tokens(prefix.with_suffix(".bin"))
    prefix.with_suffix(".idx").write_bytes(whole)
    prefix.with_suffix(".bin").write_bytes(b"\x01\x00")
    with pytest.raises(InputError, match=r"has 2 bytes, but c\.idx tells of 6"):
        open_ready_tokens(prefix.with_suffix(".bin"))
    prefix.with_suffix(".bin").unlink()
    with pytest.raises(InputError, match="can't be read: No such file"):
        open_ready_tokens(prefix.with_suffix(".idx"))


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("kind", ["npy", "raw"])
def test_doc_offsets(tmp_path: Path, final: bool, kind: str) -> None:
    TOKENS.tofile(tmp_path / "a.bin")
    starts = np.array([0, 3, 3, 8] if final else [0, 3, 3], dtype=np.int64)
    path = tmp_path / f"offsets.{kind}"
    if kind == "npy":
        np.save(path, starts)
    else:
        starts.tofile(path)
    ready = open_ready_tokens(tmp_path / "a.bin", doc_offsets=path)
    np.testing.assert_array_equal(ready.doc_starts, [0, 3, 3, 8])


@pytest.mark.parametrize(
    ("starts", "sentence"),
    [
        ([1, 8], "must ascend from 0"),
        ([0, 5, 3, 8], "must ascend"),
        ([0, 16], "they count tokens, not bytes"),
        ([[0, 8]], "not document offsets"),
        ([0.5], "not document offsets"),
    ],
)
def test_wrong_doc_offsets(tmp_path: Path, starts: list, sentence: str) -> None:
    TOKENS.tofile(tmp_path / "a.bin")
    np.save(tmp_path / "offsets.npy", np.array(starts))
    with pytest.raises(InputError, match=sentence):
        open_ready_tokens(tmp_path / "a.bin", doc_offsets=tmp_path / "offsets.npy")


def test_wrong_files(tmp_path: Path) -> None:
    (tmp_path / "odd.bin").write_bytes(b"123")
    with pytest.raises(InputError, match="3 bytes, which is no whole number of uint16"):
        open_ready_tokens(tmp_path / "odd.bin")
    for name, write in (
        ("a.bin", lambda path: path.write_bytes(b"")),
        ("a.npy", lambda path: np.save(path, [])),
    ):
        write(tmp_path / name)
        with pytest.raises(InputError, match=r"is empty|holds float64"):
            open_ready_tokens(tmp_path / name)
    (tmp_path / "b.npy").write_bytes(b"no numpy")
    with pytest.raises(InputError, match=r"is not a \.npy array"):
        open_ready_tokens(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(InputError, match=r"int64 of shape \(2, 3\)"):
        open_ready_tokens(tmp_path / "c.npy")
    with pytest.raises(InputError, match="No such file"):
        open_ready_tokens(tmp_path / "nowhere.bin")


def test_one_file_is_mapped_in_place(tmp_path: Path) -> None:
    TOKENS.tofile(tmp_path / "a.bin")
    notes: list[str] = []
    corpus, largest = join_ready_tokens(
        [open_ready_tokens(tmp_path / "a.bin")],
        vocab_size=None,
        end_of_document=0,
        folder=tmp_path,
        notes=notes,
    )
    assert (largest, notes) == (9, [])
    assert isinstance(corpus.tokens, np.memmap)
    assert corpus.tokens.filename == tmp_path / "a.bin"
    np.testing.assert_array_equal(corpus.doc_starts, [0, 3, 5, 6, 8])


def test_files_are_joined_and_a_file_ends_a_document(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", TOKENS.astype(np.int64))
    np.save(tmp_path / "b.npy", np.array([1, 2]))
    files = [open_ready_tokens(tmp_path / name) for name in ("a.npy", "b.npy")]
    corpus, _ = join_ready_tokens(files, vocab_size=10, end_of_document=0, folder=tmp_path, notes=[])
    np.testing.assert_array_equal(corpus.tokens, [*TOKENS, 1, 2])
    assert corpus.tokens.dtype == np.uint16
    np.testing.assert_array_equal(corpus.doc_starts, [0, 3, 5, 6, 8, 10])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]
    assert corpus.names is not None
    names = [name for name, _ in DocumentNames(corpus.names)]
    assert names == [f"{tmp_path}/a.npy, document {k}" for k in range(4)] + [f"{tmp_path}/b.npy, document 0"]
    for end, sentence in ((None, "neither doc_offsets nor"), (4, "no token is the end-of-document id 4")):
        notes: list[str] = []
        corpus, _ = join_ready_tokens(files, vocab_size=10, end_of_document=end, folder=tmp_path, notes=notes)
        np.testing.assert_array_equal(corpus.doc_starts, [0, 8, 10])
        assert sentence in notes[0]
        assert "each file is taken for one document" in notes[0]


def test_an_end_inside_a_known_document_splits_it(tmp_path: Path) -> None:
    write_megatron(tmp_path / "c", [[[5, 0]], [[6, 0, 7]], []])
    notes: list[str] = []
    corpus, _ = join_ready_tokens(
        [open_ready_tokens(tmp_path / "c.bin")], vocab_size=10, end_of_document=0, folder=tmp_path, notes=notes
    )
    np.testing.assert_array_equal(corpus.doc_starts, [0, 2, 4, 5, 5])
    assert "1 end-of-document ids (0) stand inside documents" in notes[0]


@pytest.mark.parametrize(("wrong", "vocab_size"), [(10, 10), (-1, None), (1 << 31, None)])
def test_an_id_outside_of_the_vocabulary_is_named(tmp_path: Path, wrong: int, vocab_size: int | None) -> None:
    np.save(tmp_path / "a.npy", np.array([1, 2, wrong]))
    with pytest.raises(InputError, match=f"token 2 is {wrong}, which is outside of the .*vocab_size"):
        list(open_ready_tokens(tmp_path / "a.npy").chunks(vocab_size))


def test_split_after() -> None:
    np.testing.assert_array_equal(split_after(TOKENS, 0), [3, 5, 6])
    assert split_after(TOKENS, 1).size == 0


def write_ds(path: Path, documents: list[list[int]], *, dtype: str = "<u2", metadata: bool = True) -> None:
    """A file of datatrove's DocumentTokenizer with its index of document ends, and its metadata."""
    path.write_bytes(np.concatenate([np.array(document, dtype) for document in documents]).tobytes())
    ends = np.cumsum([len(document) for document in documents], dtype="<u8")
    path.with_name(f"{path.name}.index").write_bytes(ends.tobytes())
    if metadata:
        size = np.dtype(dtype).itemsize
        path.with_name(f"{path.name}.metadata").write_text(f"a/tokenizer|{size}\n{int(ends[-1])}\n{int(ends[-1])} T")


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_datatrove(tmp_path: Path, dtype: str, metadata: bool) -> None:
    write_ds(tmp_path / "a.ds", [[1, 2], [3], [70, 4, 5]], dtype=dtype, metadata=metadata)
    ready = open_ready_tokens(tmp_path / "a.ds")
    assert ready.tokens.tolist() == [1, 2, 3, 70, 4, 5]
    assert ready.doc_starts is not None
    assert ready.doc_starts.tolist() == [0, 2, 3, 6]
    assert ready.convention == f"datatrove {'uint16' if dtype == '<u2' else 'uint32'}"


def test_datatrove_cut_inside_of_a_document_or_without_index(tmp_path: Path) -> None:
    write_ds(tmp_path / "a.ds", [[1, 2], [3], [70, 4, 5]])
    index = tmp_path / "a.ds.index"
    index.write_bytes(index.read_bytes()[:16])
    ready = open_ready_tokens(tmp_path / "a.ds")
    assert ready.doc_starts is not None
    assert ready.doc_starts.tolist() == [0, 2, 3, 6]
    index.unlink()
    assert open_ready_tokens(tmp_path / "a.ds").doc_starts is None
    assert open_ready_tokens(tmp_path / "a.ds", dtype="uint32").tokens.dtype == np.uint32


def test_damaged_datatrove(tmp_path: Path) -> None:
    write_ds(tmp_path / "a.ds", [[1, 2], [3]])
    index, metadata = tmp_path / "a.ds.index", tmp_path / "a.ds.metadata"
    for content, sentence in (
        (struct.pack("<2Q", 3, 2), "document 1 ends at 2; ends must ascend up to the 3 tokens"),
        (struct.pack("<2Q", 2, 2**63), "document 1 ends at 9,223,372,036,854,775,808; ends must ascend"),
        (b"1234567", "is cut short: it has 7 bytes"),
    ):
        index.write_bytes(content)
        with pytest.raises(InputError, match=sentence):
            open_ready_tokens(tmp_path / "a.ds")
    metadata.write_bytes(b"tokenizer|8\n")
    with pytest.raises(InputError, match=r"doesn't end in \|2 or \|4"):
        open_ready_tokens(tmp_path / "a.ds")


def test_datatrove_itself_writes_what_is_read(tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    tokenizing = pytest.importorskip("datatrove.pipeline.tokens.tokenizer", exc_type=ImportError)
    written = tokenizing.TokenizedFile(str(tmp_path), "a.ds", save_final_metadata=True, token_size=4)
    for document in ([1, 2], [3], [70000, 4, 5]):
        written.write(document, None)
    written.close()
    ready = open_ready_tokens(tmp_path / "a.ds")
    assert ready.tokens.tolist() == [1, 2, 3, 70000, 4, 5]
    assert ready.doc_starts is not None
    assert ready.doc_starts.tolist() == [0, 2, 3, 6]


def test_a_damaged_megatron_index_with_negative_lengths(tmp_path: Path) -> None:
    write_megatron(tmp_path / "a", [[[1, 2]], [[3]]])
    index = tmp_path / "a.idx"
    damaged = bytearray(index.read_bytes())
    damaged[34:38] = struct.pack("<i", -2)
    index.write_bytes(damaged)
    with pytest.raises(InputError, match="don't lie one after the other"):
        open_ready_tokens(tmp_path / "a.bin")
