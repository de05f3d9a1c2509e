"""export_tokens() and import_tokens(), and the command's verbs for them.

Each format is read back with a reader that is not tokcask's: Parquet by PyArrow, the flat ones by the few lines that
their layout takes. tests/formats has the formats' own readers.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokcask
from tokcask import CachedTokens, CacheKey, DamagedError, TokenizedCache, export_tokens, import_tokens

from conftest import COMMAND, run_python

SHA = "ab" * 32
OTHER = "cd" * 32
FLAT = ("megatron", "datatrove")
Entries = dict[CacheKey, list[int]]


def put(store: pathlib.Path, entries: Entries) -> None:
    with TokenizedCache.open(store) as cache:
        cache.put_many((key, CachedTokens(ids)) for key, ids in entries.items())


def entries_of(store: pathlib.Path) -> Entries:
    with TokenizedCache.open(store, read_only=True) as cache:
        keys = cache.keys()
        found = cache.get_many(keys)
        return {key: tokens.input_ids.tolist() for key, tokens in zip(keys, found, strict=True) if tokens}


def some_entries(seed: int, count: int = 300, largest: int = 50_000) -> Entries:
    draw = random.Random(seed)
    entries = {}
    for n in range(count):
        section = f"section {n}" if n % 10 == 0 else tokcask.section_id(f"{seed} {n}")
        length = draw.choice([0, 1, 7, 100, 2000])
        entries[CacheKey(section, SHA, 2048)] = [draw.randrange(largest) for _ in range(length)]
    return entries


def in_key_order(entries: Entries) -> list[list[int]]:
    return [entries[key] for key in sorted(entries, key=str)]


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("TOKCASK_TEST_SEED", random.randrange(2**32)))
    print(f"TOKCASK_TEST_SEED={chosen}")
    return chosen


@pytest.fixture
def store(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "store"
    put(path, some_entries(7))
    return path


def read_megatron(out: pathlib.Path) -> tuple[str, list[list[int]]]:
    """By the layout of Megatron's _IndexWriter."""
    index = out.with_name(out.name + ".idx").read_bytes()
    assert index[:9] == b"MMIDIDX\0\0"
    version, code, sequences, documents = struct.unpack_from("<QBQQ", index, 9)
    assert (version, documents) == (1, sequences + 1)
    dtype = {4: "<i4", 8: "<u2"}[code]
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    ends = np.frombuffer(index, "<i8", documents, 34 + 12 * sequences)
    assert len(index) == 34 + 12 * sequences + 8 * documents
    assert ends.tolist() == list(range(documents))
    data = out.with_name(out.name + ".bin").read_bytes()
    assert len(data) == int(lengths.sum()) * np.dtype(dtype).itemsize
    rows = [
        np.frombuffer(data, dtype, n, at).tolist() if n else []
        for n, at in zip(lengths, pointers, strict=True)
    ]
    return np.dtype(dtype).name, rows


def read_datatrove(out: pathlib.Path) -> tuple[str, list[list[int]]]:
    """By the layout of datatrove's TokenizedFile."""
    name, size = out.with_name(out.name + ".ds.metadata").read_text().split("\n")[0].split("|")
    assert name == SHA
    dtype = {"2": "<u2", "4": "<u4"}[size]
    ids = np.fromfile(out.with_name(out.name + ".ds"), dtype)
    ends = np.fromfile(out.with_name(out.name + ".ds.index"), "<u8").astype(np.int64)
    assert ends[-1] == len(ids)
    return np.dtype(dtype).name, [part.tolist() for part in np.split(ids, ends[:-1])]


def read_parquet(out: pathlib.Path) -> tuple[str, list[list[int]]]:
    table = pq.read_table(out)
    assert table.schema.field("input_ids").type == pa.list_(pa.int32())
    return "int32", table["input_ids"].to_pylist()


READERS: dict[str, Callable[[pathlib.Path], tuple[str, list[list[int]]]]] = {
    "megatron": read_megatron,
    "datatrove": read_datatrove,
    "parquet": read_parquet,
}


def names_in(directory: pathlib.Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def command(*arguments: object, code: int = 0) -> Any:
    process = subprocess.run(
        [str(COMMAND), *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert process.returncode == code, process.stderr
    return json.loads(process.stdout) if "--json" in arguments else process


@pytest.mark.parametrize("format", READERS)
def test_all_records_are_read_back(tmp_path: pathlib.Path, format: Any, seed: int) -> None:
    entries = some_entries(seed)
    put(tmp_path / "store", entries)
    before = (tmp_path / "store" / "data.mdb").read_bytes()
    report = export_tokens(tmp_path / "store", tmp_path / "out", format=format)
    dtype, rows = READERS[format](tmp_path / "out")
    assert rows == in_key_order(entries)
    assert report.dtype == dtype == ("int32" if format == "parquet" else "uint16")
    assert (report.records, report.tokens) == (len(rows), sum(map(len, rows)))
    assert report.bytes == sum(pathlib.Path(file).stat().st_size for file in report.files)
    assert {pathlib.Path(file).name for file in report.files} | {"store"} == names_in(tmp_path)
    assert (tmp_path / "store" / "data.mdb").read_bytes() == before


@pytest.mark.parametrize("format", READERS)
def test_a_token_is_appended_to_each_document(
    tmp_path: pathlib.Path, store: pathlib.Path, format: Any
) -> None:
    report = export_tokens(store, tmp_path / "out", format=format, eod=49_999)
    wanted = [[*ids, 49_999] for ids in in_key_order(some_entries(7))]
    assert READERS[format](tmp_path / "out")[1] == wanted
    assert report.tokens == sum(map(len, wanted))


@pytest.mark.parametrize(("format", "wide"), [("megatron", "int32"), ("datatrove", "uint32")])
def test_ids_become_wide_when_one_does_not_fit(
    tmp_path: pathlib.Path, format: Any, wide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when what was written before was narrow, and when only the end-of-document token is large."""
    monkeypatch.setattr("tokcask._exchange._tokenfile._WIDEN_BYTES", 1000)
    entries = {CacheKey(f"{n:016x}", SHA, 2048): [n] * 100 for n in range(3000)}
    entries[CacheKey("f" * 16, SHA, 2048)] = [65_535]
    put(tmp_path / "store", entries)
    assert export_tokens(tmp_path / "store", tmp_path / "a", format=format).dtype == "uint16"
    assert export_tokens(tmp_path / "store", tmp_path / "b", format=format, eod=65_536).dtype == wide
    put(tmp_path / "store", {CacheKey("f" * 16, SHA, 2048): [65_536]})
    entries[CacheKey("f" * 16, SHA, 2048)] = [65_536]
    export_tokens(tmp_path / "store", tmp_path / "c", format=format)
    assert READERS[format](tmp_path / "c") == (wide, in_key_order(entries))
    export_tokens(tmp_path / "store", tmp_path / "d", format=format, dtype=wide)
    assert READERS[format](tmp_path / "d") == (wide, in_key_order(entries))
    before = names_in(tmp_path)
    with pytest.raises(ValueError, match="65536 does not fit into uint16"):
        export_tokens(tmp_path / "store", tmp_path / "e", format=format, dtype="uint16")
    assert names_in(tmp_path) == before


def test_negative_ids(tmp_path: pathlib.Path) -> None:
    put(tmp_path / "store", {CacheKey("a", SHA, 8): [1, -100]})
    export_tokens(tmp_path / "store", tmp_path / "out", format="megatron")
    assert read_megatron(tmp_path / "out") == ("int32", [[1, -100]])
    with pytest.raises(ValueError, match="-100 does not fit into uint32"):
        export_tokens(tmp_path / "store", tmp_path / "out", format="datatrove")


def test_a_shuffle_is_a_function_of_seed_and_key(tmp_path: pathlib.Path, store: pathlib.Path) -> None:
    def rows(name: str, seed: int) -> list[str]:
        export_tokens(store, tmp_path / name, format="parquet", order="shuffle", seed=seed)
        return pq.read_table(tmp_path / name)["section_id"].to_pylist()

    first = rows("a", 1)
    assert rows("b", 1) == first
    sections = sorted(key.section_id for key in some_entries(7))
    assert sorted(first) == sections != first
    other = rows("c", 2)
    assert sorted(other) == sections
    assert sum(a == b for a, b in zip(first, other, strict=True)) < 20
    # What comes later falls between, and changes the order of nothing else.
    put(store, {CacheKey(f"{n:016x}", SHA, 2048): [n] for n in range(50)})
    new = {f"{n:016x}" for n in range(50)}
    assert [section for section in rows("d", 1) if section not in new] == first


def test_a_shuffle_is_the_same_everywhere(tmp_path: pathlib.Path) -> None:
    """Fixed arithmetic, no library's random numbers."""
    put(
        tmp_path / "store",
        {
            CacheKey(section, SHA, 8): [1]
            for section in (*map("{:016x}".format, range(8)), "x", "0" * 31 + "8")
        },
    )
    export_tokens(tmp_path / "store", tmp_path / "out", format="parquet", order="shuffle", seed=2**64 - 1)
    order = [section[-1] for section in pq.read_table(tmp_path / "out")["section_id"].to_pylist()]
    assert "".join(order) == "68x3572104"


def test_the_order_of_paths(tmp_path: pathlib.Path) -> None:
    """Directory by directory; a text once, where it is first; what no file has behind."""
    corpus = tmp_path / "corpus"
    texts = {"b/2": "bb", "b/1": "zz", "a/x": "same", "a": None, "c": "same", "a/y/z": "deep", "0": "top"}
    for name, text in texts.items():
        if text is not None:
            (corpus / name).parent.mkdir(parents=True, exist_ok=True)
            (corpus / name).write_text(text)
    store = tmp_path / "store"
    command("warm", store, corpus, "--tokenizer", "bytes", "--seq-len", 64, "--json")
    (sha,) = {key.tokenizer_sha for key in entries_of(store)}
    put(store, {CacheKey("by hand", sha, 64): [1], CacheKey("0" * 16, sha, 64): [2]})
    export_tokens(store, tmp_path / "out", format="parquet", order="path")
    wanted = [tokcask.section_id(text, "file") for text in ("top", "same", "deep", "zz", "bb")]
    assert pq.read_table(tmp_path / "out")["section_id"].to_pylist() == [*wanted, "0" * 16, "by hand"]


@pytest.mark.parametrize("format", ["megatron", "datatrove", "parquet"])
def test_what_is_learned_is_not_lost_in_silence(tmp_path: pathlib.Path, format: Any) -> None:
    put(tmp_path / "store", {CacheKey("plain", SHA, 2048): [1, 2]})
    with TokenizedCache.open(tmp_path / "store") as cache:
        cache.put(
            CacheKey("weights", SHA, 2048), CachedTokens([3], arrays={"weights": np.ones(1, np.float32)})
        )
    export_tokens(tmp_path / "store", tmp_path / "out", format=format)
    with TokenizedCache.open(tmp_path / "store") as cache:
        cache.put(CacheKey("talk", SHA, 2048), CachedTokens([1, 2, 3], spans={"assistant": [(1, 2)]}))
    with pytest.raises(
        ValueError, match='talk.* has "assistant", which says what is learned and would be lost'
    ):
        export_tokens(tmp_path / "store", tmp_path / "other", format=format)


def test_tokenizers_are_not_mixed(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = {CacheKey("a", SHA, 8): [1], CacheKey("a", SHA, 16): [1, 2], CacheKey("a", OTHER, 8): [3]}
    put(tmp_path / "store", entries)
    with pytest.raises(ValueError, match=f"2 tokenizers.*{SHA} \\(2 entries\\), {OTHER} \\(1 entries\\)"):
        export_tokens(tmp_path / "store", tmp_path / "out", format="parquet")

    def rows(name: str, **options: Any) -> list[list[int]]:
        export_tokens(tmp_path / "store", tmp_path / name, format="parquet", **options)
        return read_parquet(tmp_path / name)[1]

    for order in ("key", "path", "shuffle"):
        assert rows(f"a{order}", tokenizer=OTHER, order=order) == [[3]]
        assert rows(f"b{order}", sequence_len=16, order=order) == [[1, 2]]
        assert rows(f"c{order}", tokenizer="ab", sequence_len=8, order=order) == [[1]]
    assert not caplog.records
    assert sorted(rows("d", tokenizer="a")) == [[1], [1, 2]]
    assert "2 sequence lengths" in caplog.text
    for options, message in (
        ({"tokenizer": "x"}, "no tokenizer begins with x"),
        ({"tokenizer": ""}, "2 tokenizers of the store begin"),
        ({"tokenizer": SHA, "sequence_len": 4}, "no such entry"),
    ):
        with pytest.raises(ValueError, match=message):
            rows("e", **options)


def test_a_tokenizer_may_be_named_by_its_file(tmp_path: pathlib.Path, small_json: str) -> None:
    import tokenizers

    (tmp_path / "tokenizer.json").write_text(small_json)
    sha = tokcask.tokenizer_sha256(tokenizers.Tokenizer.from_str(small_json))
    put(tmp_path / "store", {CacheKey("a", SHA, 8): [1], CacheKey("a", sha, 8): [2]})
    name = str(tmp_path / "tokenizer.json")
    export_tokens(tmp_path / "store", tmp_path / "out", format="megatron", tokenizer=name)
    assert read_megatron(tmp_path / "out")[1] == [[2]]
    import_tokens(
        tmp_path / "out", tmp_path / "new", format="megatron", tokenizer=name, sequence_len=8, section="index"
    )
    assert entries_of(tmp_path / "new") == {CacheKey("out-000000000000", sha, 8): [2]}


def test_masks_that_are_not_all_ones(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    with TokenizedCache.open(tmp_path / "store") as cache:
        cache.put(CacheKey("a", SHA, 8), CachedTokens([1, 2]))
        cache.put(CacheKey("b", SHA, 8), CachedTokens([3, 4, 5], [0, 1, 1]))
    for format in FLAT:
        with pytest.raises(ValueError, match=f"b\\|{SHA}\\|8 has an attention mask"):
            export_tokens(tmp_path / "store", tmp_path / "out", format=format)  # type: ignore[arg-type]
    assert names_in(tmp_path) == {"store"}
    report = export_tokens(tmp_path / "store", tmp_path / "out", format="megatron", drop_masks=True)
    assert report.masks_dropped == 1
    assert "1 attention masks" in caplog.text
    export_tokens(tmp_path / "store", tmp_path / "a", format="parquet")
    assert pq.read_table(tmp_path / "a")["attention_mask"].to_pylist() == [None, [0, 1, 1]]
    export_tokens(tmp_path / "store", tmp_path / "b", format="parquet", order="shuffle", eod=9)
    table = pq.read_table(tmp_path / "b").sort_by("section_id")
    assert table["attention_mask"].to_pylist() == [None, [0, 1, 1, 1]]
    for name, eod in (("a", None), ("b", 9)):
        import_tokens(tmp_path / name, tmp_path / f"store {name}", format="parquet", eod=eod)
        with TokenizedCache.open(tmp_path / f"store {name}", read_only=True) as cache:
            assert cache.get(CacheKey("b", SHA, 8)) == CachedTokens([3, 4, 5], [0, 1, 1])
            assert cache.get(CacheKey("a", SHA, 8)) == CachedTokens([1, 2])


def test_a_large_export_has_several_row_groups(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {CacheKey(f"{n:016x}", SHA, 64): [n] * (n % 50) for n in range(5000)}
    put(tmp_path / "store", entries)
    monkeypatch.setattr("tokcask._exchange._writers.ParquetWriter._GROUP_TOKENS", 60_000)
    export_tokens(tmp_path / "store", tmp_path / "out", format="parquet")
    assert pq.ParquetFile(tmp_path / "out").num_row_groups == 3
    assert read_parquet(tmp_path / "out")[1] == in_key_order(entries)


@pytest.mark.parametrize("format", READERS)
def test_what_is_there_is_not_replaced_unless_told(
    tmp_path: pathlib.Path, store: pathlib.Path, format: Any
) -> None:
    report = export_tokens(store, tmp_path / "out", format=format)
    for file in map(pathlib.Path, report.files):
        for other in map(pathlib.Path, report.files):
            other.unlink(missing_ok=True)
        file.write_text("mine")
        with pytest.raises(FileExistsError, match=f"{file.name} is there already"):
            export_tokens(store, tmp_path / "out", format=format)
        assert file.read_text() == "mine"
    assert export_tokens(store, tmp_path / "out", format=format, overwrite=True) == report
    assert READERS[format](tmp_path / "out")[1] == in_key_order(some_entries(7))
    assert not [name for name in names_in(tmp_path) if name.endswith(".tmp")]


def test_old_and_new_files_never_make_a_pair(
    tmp_path: pathlib.Path, store: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if killed between the two renames."""
    export_tokens(store, tmp_path / "out", format="megatron")
    rename = pathlib.Path.rename

    def fail_at_index(self: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        if target.name == "out.idx":
            raise OSError("no more")
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", fail_at_index)
    with pytest.raises(OSError, match="no more"):
        export_tokens(store, tmp_path / "out", format="megatron", order="shuffle", overwrite=True)
    assert names_in(tmp_path) == {"store", "out.bin"}


def test_places_that_cannot_be_written_to(tmp_path: pathlib.Path, store: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        export_tokens(store, tmp_path / "nowhere" / "out", format="parquet")
    with pytest.raises(IsADirectoryError):
        export_tokens(store, tmp_path, format="parquet", overwrite=True)
    for out in (store / "data.mdb", store / "new", store):
        with pytest.raises(ValueError, match="in the store itself"):
            export_tokens(store, out, format="parquet", overwrite=True)
    with pytest.raises(FileNotFoundError):
        export_tokens(tmp_path / "no store", tmp_path / "out", format="parquet")
    with TokenizedCache.open(tmp_path / "empty"):
        pass
    with pytest.raises(ValueError, match="nothing to export"):
        export_tokens(tmp_path / "empty", tmp_path / "out", format="parquet")
    assert names_in(tmp_path) == {"store", "empty"}


def test_what_on_progress_raises_leaves_nothing(tmp_path: pathlib.Path, store: pathlib.Path) -> None:
    def stop(done: int, total: int) -> None:
        assert 0 < done <= total == 300
        raise KeyboardInterrupt

    for format in READERS:
        with pytest.raises(KeyboardInterrupt):
            export_tokens(store, tmp_path / "out", format=format, on_progress=stop)  # type: ignore[arg-type]
    assert names_in(tmp_path) == {"store"}


@pytest.fixture(scope="module")
def larger_store(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    store = tmp_path_factory.mktemp("larger") / "store"
    put(store, {CacheKey(f"{n:016x}", SHA, 2048): [n] * 1024 for n in range(8000)})
    return store


@pytest.mark.parametrize("format", READERS)
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_export_leaves_nothing_that_looks_finished(
    tmp_path: pathlib.Path, larger_store: pathlib.Path, format: str, sent: signal.Signals
) -> None:
    arguments = ["export", larger_store, tmp_path / "out", "--format", format, "--order", "shuffle"]
    process = subprocess.Popen([str(COMMAND), *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    while not names_in(tmp_path) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(sent)
    _, messages = process.communicate(timeout=60)
    left = names_in(tmp_path)
    if sent == signal.SIGINT:
        assert process.returncode == 130, messages
        assert "interrupted; nothing was exported" in messages
        assert not left
    else:
        assert process.returncode == -signal.SIGKILL
        assert left
        assert all(name.startswith(".") and name.endswith(".tmp") for name in left)
    export_tokens(larger_store, tmp_path / "out", format=format, order="shuffle")  # type: ignore[arg-type]
    assert len(READERS[format](tmp_path / "out")[1]) == 8000


def test_damaged_records_are_left_out_and_told(tmp_path: pathlib.Path, store: pathlib.Path) -> None:
    data = bytearray((store / "data.mdb").read_bytes())
    victim = next(ids for ids in some_entries(7).values() if len(ids) == 2000)
    at = data.index(np.array(victim, "<i4").tobytes())
    data[at] ^= 1
    (store / "data.mdb").write_bytes(data)
    rows = in_key_order(some_entries(7))
    rows.remove(victim)
    for order, field in (("key", "damaged"), ("path", "gone")):
        done = command(
            "export", store, tmp_path / order, "--format", "megatron", "--order", order, "--json", code=1
        )
        assert (done["records"], done[field]) == (299, 1)
        assert read_megatron(tmp_path / order)[1] == rows


def test_a_package_that_is_missing_is_named(tmp_path: pathlib.Path, store: pathlib.Path) -> None:
    for format, module in (("mds", "streaming"), ("parquet", "pyarrow")):
        process = run_python(
            """
import sys
sys.modules[sys.argv[1]] = None
from tokcask._cli import main
sys.exit(main(["export", sys.argv[2], sys.argv[3], "--format", sys.argv[4]]))
""",
            *(module, store, tmp_path / "out", format),
        )
        assert process.returncode == 2
        assert f"pip install 'tokcask[{format}]'" in process.stderr
    assert names_in(tmp_path) == {"store"}


def test_the_verbs(tmp_path: pathlib.Path, store: pathlib.Path) -> None:
    done = command("export", store, tmp_path / "out", "--format", "megatron", "--eod", 3, "--json")
    assert done["schema_version"] == 1
    assert done["command"] == "export"
    assert (done["path"], done["format"], done["order"]) == (str(store), "megatron", "key")
    assert (done["records"], done["dtype"]) == (300, "uint16")
    assert [pathlib.Path(file).name for file in done["files"]] == ["out.bin", "out.idx"]
    assert done["bytes"] == sum(pathlib.Path(file).stat().st_size for file in done["files"])
    new = tmp_path / "new"
    arguments = [
        "import",
        tmp_path / "out",
        new,
        "--format",
        "megatron",
        "--tokenizer",
        SHA,
        "--seq-len",
        2048,
    ]
    arguments += ["--eod", 3]
    first = command(*arguments, "--json")
    assert (first["schema_version"], first["command"], first["records"]) == (1, "import", 300)
    assert first["imported"] == len(set(map(tuple, some_entries(7).values())))
    assert first["tokens"] == done["tokens"] - 300
    assert command(*arguments, "--json")["already_there"] == 300
    shown = command("show", new, "--json")
    assert (shown["entry_count"], shown["last_run"]["misses"]) == (first["imported"], 0)
    assert "imported" in command(*arguments).stdout

    for wrong, code in (
        (["export", store, tmp_path / "out", "--format", "megatron"], 2),  # it is there
        (["export", store, tmp_path / "x", "--format", "csv"], 2),
        (["export", tmp_path / "no", tmp_path / "x", "--format", "megatron"], 66),
        (["import", tmp_path / "no", tmp_path / "x", "--format", "parquet"], 66),
        (["import", tmp_path / "out", tmp_path / "x", "--format", "megatron"], 2),
        (["import", tmp_path / "out.bin", tmp_path / "x", "--format", "parquet"], 65),
    ):
        assert command(*wrong, "--json", code=code)["error"]["exit_code"] == code
    assert not (tmp_path / "x").exists()


def test_round_trip_of_parquet(tmp_path: pathlib.Path, seed: int) -> None:
    entries = some_entries(seed, largest=2**31)
    put(tmp_path / "store", entries)
    export_tokens(tmp_path / "store", tmp_path / "out", format="parquet", order="shuffle", seed=seed, eod=5)
    report = import_tokens(tmp_path / "out", tmp_path / "new", format="parquet", eod=5)
    assert entries_of(tmp_path / "new") == entries
    assert (report.records, report.imported) == (300, 300)
    assert report.bytes_after > 0
    again = import_tokens(tmp_path / "out", tmp_path / "new", format="parquet", eod=5)
    assert (again.already_there, again.imported) == (300, 0)


def test_round_trip_of_megatron(tmp_path: pathlib.Path, seed: int) -> None:
    entries = some_entries(seed, largest=2**31)
    put(tmp_path / "store", entries)
    export_tokens(tmp_path / "store", tmp_path / "out", format="megatron", eod=0)

    def imported(name: str, **options: Any) -> Entries:
        store = tmp_path / name
        import_tokens(
            *(tmp_path / "out.bin", store),
            format="megatron",
            tokenizer=SHA,
            sequence_len=2048,
            eod=0,
            **options,
        )
        return entries_of(store)

    by_index = imported("index", section="index")
    assert [by_index[CacheKey(f"out-{n:012d}", SHA, 2048)] for n in range(300)] == in_key_order(entries)
    assert len(by_index) == 300
    by_content = imported("content")
    assert set(map(tuple, by_content.values())) == set(map(tuple, entries.values()))
    import hashlib

    for key, ids in by_content.items():
        digest = hashlib.sha256(b"tokens\0" + struct.pack(f"<{len(ids)}i", *ids)).hexdigest()
        assert key.section_id == digest[:32]
    # A second export of what was imported by number is the first.
    export_tokens(tmp_path / "index", tmp_path / "again", format="megatron", eod=0)
    for ending in (".bin", ".idx"):
        assert (tmp_path / f"again{ending}").read_bytes() == (tmp_path / f"out{ending}").read_bytes()


def test_equal_documents_are_one_entry_also_in_other_batches(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokcask._exchange._import._BATCH_DOCUMENTS", 3)
    write_megatron(tmp_path / "in", [[[n % 4]] for n in range(20)])
    seen = []
    report = import_tokens(
        *(tmp_path / "in", tmp_path / "store"),
        format="megatron",
        tokenizer=SHA,
        sequence_len=8,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert (report.records, report.imported, report.already_there) == (20, 4, 16)
    assert seen == [(done, 20) for done in (3, 6, 9, 12, 15, 18, 20)]
    assert sorted(entries_of(tmp_path / "store").values()) == [[0], [1], [2], [3]]


def test_conflicts_stay_unless_replaced(tmp_path: pathlib.Path) -> None:
    key = CacheKey("a", SHA, 8)
    put(tmp_path / "one", {key: [1], CacheKey("b", SHA, 8): [2]})
    put(tmp_path / "two", {key: [9]})
    export_tokens(tmp_path / "two", tmp_path / "out", format="parquet")
    arguments = ["import", tmp_path / "out", tmp_path / "one", "--format", "parquet", "--json"]
    done = command(*arguments, code=1)
    assert (done["conflicts"], done["conflicting_keys"]) == (1, [str(key)])
    assert entries_of(tmp_path / "one")[key] == [1]
    assert command(*arguments, "--replace")["replaced"] == 1
    assert entries_of(tmp_path / "one") == {key: [9], CacheKey("b", SHA, 8): [2]}


def write_megatron(
    out: pathlib.Path,
    documents: list[list[list[int]]] | None,
    *,
    code: int = 4,
    lengths: list[int] | None = None,
    pointers: list[int] | None = None,
    ends: list[int] | None = None,
    rows: list[list[int]] | None = None,
    version: int = 1,
    cut: int = 0,
    count: int | None = None,
) -> None:
    """A .bin and .idx as Megatron's builder writes them, with parts of it replaced by others."""
    dtype = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 7: "<f4", 8: "<u2"}[code]
    sequences = rows if documents is None else [row for document in documents for row in document]
    assert sequences is not None
    lengths = [len(row) for row in sequences] if lengths is None else lengths
    starts = np.cumsum([0, *map(len, sequences)])[:-1] * np.dtype(dtype).itemsize
    pointers = starts.tolist() if pointers is None else pointers
    if ends is None:
        ends = [0] if documents is None else np.cumsum([0, *map(len, documents)]).tolist()
    flat = [token for row in sequences for token in row]
    out.with_name(out.name + ".bin").write_bytes(np.array(flat, dtype).tobytes())
    header = b"MMIDIDX\0\0" + struct.pack("<QBQQ", version, code, count or len(lengths), len(ends))
    body = (
        np.array(lengths, "<i4").tobytes()
        + np.array(pointers, "<i8").tobytes()
        + np.array(ends, "<i8").tobytes()
    )
    index = header + body
    out.with_name(out.name + ".idx").write_bytes(index[: len(index) - cut])


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 8])
def test_megatron_files_of_all_integer_types_and_several_sequences(tmp_path: pathlib.Path, code: int) -> None:
    documents = [[[1, 2], [3]], [], [[4, 5, 6]], [[], [7]]]
    write_megatron(tmp_path / "in", documents, code=code)
    options: Any = {"format": "megatron", "tokenizer": SHA, "sequence_len": 8, "section": "index"}
    import_tokens(tmp_path / "in", tmp_path / "store", **options)
    assert list(entries_of(tmp_path / "store").values()) == [[1, 2, 3], [], [4, 5, 6], [7]]
    # Without document ends each sequence is one.
    write_megatron(tmp_path / "in", None, rows=[[1, 2], [3]], code=code)
    import_tokens(tmp_path / "in", tmp_path / "other", **options)
    assert list(entries_of(tmp_path / "other").values()) == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lengths": [2, -1, 3]}, "sequence 1 has a negative length"),
        ({"pointers": [0, -4, 12]}, "sequence 1 has a negative offset"),
        ({"pointers": [0, 9, 12]}, "sequence 1 has an offset inside a token"),
        ({"pointers": [0, 8, 16]}, "sequence 2 has tokens behind the end"),
        ({"pointers": [0, 8, 2**62]}, "sequence 2 has tokens behind the end"),
        ({"lengths": [2, 1, 2**31 - 1]}, "sequence 2 has tokens behind the end"),
        ({"ends": [0, 2, 1, 3]}, "not in order"),
        ({"ends": [0, 2, 4]}, "behind the last sequence"),
        ({"ends": [1, 2, 3]}, "does not begin at sequence 0"),
        ({"ends": [0, -1, 3]}, "not in order"),
        ({"ends": [0, 2]}, "belong to no document"),
        ({"code": 7}, "type code 7"),
        ({"version": 2}, "version is 2"),
        ({"cut": 1}, "bytes, but 3 sequences"),
        ({"cut": 70}, "not an index"),
        ({"count": 2**60}, "bytes, but"),
    ],
)
def test_megatron_files_that_are_wrong(tmp_path: pathlib.Path, wrong: dict[str, Any], message: str) -> None:
    write_megatron(tmp_path / "in", [[[1, 2], [3]], [[4, 5, 6]]], **wrong)
    with pytest.raises(DamagedError, match=message):
        import_tokens(tmp_path / "in", tmp_path / "store", format="megatron", tokenizer=SHA, sequence_len=8)
    assert not (tmp_path / "store").exists()


def test_arguments_of_an_import_that_are_wrong(tmp_path: pathlib.Path) -> None:
    write_megatron(tmp_path / "in", [[[1, 2], [3]], [[4, 5, 6]]], code=5)

    def wrong(message: str, error: type[Exception] = ValueError, **options: Any) -> None:
        arguments: Any = {"format": "megatron", "tokenizer": SHA, "sequence_len": 8, **options}
        with pytest.raises(error, match=message):
            import_tokens(tmp_path / "in", tmp_path / "store", **arguments)

    wrong("does not tell tokenizer", tokenizer=None)
    wrong("does not tell tokenizer", sequence_len=None)
    wrong("neither a file nor a sha", tokenizer="tokenizer.jsn")
    wrong("section must be", section="x")
    wrong("eod must be", eod=-1)
    wrong("format must be", format="mds")
    assert not (tmp_path / "store").exists()
    wrong("document 0 has 3 tokens or more, and the sequence length is 2", sequence_len=2)
    write_megatron(tmp_path / "in", [[[2**40]]], code=5)
    wrong("document 0 holds 1099511627776", DamagedError)
    (tmp_path / "in.bin").unlink()
    wrong("in.bin is not there", FileNotFoundError)


def write_parquet(path: pathlib.Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def test_parquet_files_of_others(tmp_path: pathlib.Path) -> None:
    """Any list of integers will do, also in large or fixed lists, with keys by the rule; other columns are ignored."""
    options: Any = {"format": "parquet", "tokenizer": SHA, "sequence_len": 8, "section": "index"}
    for n, kind in enumerate([pa.list_(pa.int64()), pa.large_list(pa.uint16()), pa.list_(pa.int32(), 2)]):
        write_parquet(tmp_path / f"{n}.parquet", input_ids=pa.array([[1, 2], [3, 4]], kind), text=["a", "b"])
        import_tokens(tmp_path / f"{n}.parquet", tmp_path / f"store{n}", **options)
        assert entries_of(tmp_path / f"store{n}") == {
            CacheKey(f"{n}.parquet-000000000000", SHA, 8): [1, 2],
            CacheKey(f"{n}.parquet-000000000001", SHA, 8): [3, 4],
        }
    write_parquet(
        tmp_path / "named", input_ids=[[1]], section_id=["s"], tokenizer_sha=[OTHER], sequence_len=[4]
    )
    with pytest.raises(ValueError, match=f"document 0 is of tokenizer_sha {OTHER}, not {SHA}"):
        import_tokens(tmp_path / "named", tmp_path / "store", format="parquet", tokenizer=SHA)
    import_tokens(tmp_path / "named", tmp_path / "store", format="parquet", tokenizer=OTHER)
    assert entries_of(tmp_path / "store") == {CacheKey("s", OTHER, 4): [1]}


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"ids": [[1]]}, DamagedError, "no column input_ids; it has ids"),
        ({"input_ids": [1]}, DamagedError, "holds int64, not lists of integers"),
        ({"input_ids": [[1.5]]}, DamagedError, "not lists of integers"),
        ({"input_ids": [[1], None]}, DamagedError, "row 1: input_ids is null"),
        ({"input_ids": [[1, None]]}, DamagedError, "row 0: input_ids holds a null"),
        ({"input_ids": [[2**31]]}, DamagedError, "holds 2147483648"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, DamagedError, "has 1 elements, input_ids 2"),
        ({"input_ids": [[1]], "section_id": ["a|b"]}, DamagedError, "document 0: "),
        ({"input_ids": [[1] * 9]}, ValueError, "9 tokens"),
        ({"input_ids": [[1]], "sequence_len": [16]}, ValueError, "sequence_len 16, not 8"),
        ({"input_ids": [[1]], "sequence_len": ["8"]}, DamagedError, "not integers"),
    ],
)
def test_parquet_files_that_are_wrong(
    tmp_path: pathlib.Path, columns: dict[str, Any], error: type[Exception], message: str
) -> None:
    write_parquet(tmp_path / "in", **columns)
    with pytest.raises(error, match=message):
        import_tokens(tmp_path / "in", tmp_path / "store", format="parquet", tokenizer=SHA, sequence_len=8)


def test_parquet_files_with_damaged_bytes(tmp_path: pathlib.Path, store: pathlib.Path, seed: int) -> None:
    """Every one is an error of ours or entries; which, only the file's own checks can tell."""
    export_tokens(store, tmp_path / "out", format="parquet")
    whole = (tmp_path / "out").read_bytes()
    draw = random.Random(seed)
    for n in range(60):
        data = bytearray(whole)
        if n % 2:
            del data[draw.randrange(len(data)) :]
        else:
            for _ in range(8):
                data[draw.randrange(len(data))] = draw.randrange(256)
        (tmp_path / "bad").write_bytes(data)
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        try:
            import_tokens(tmp_path / "bad", tmp_path / "new", format="parquet")
        except (DamagedError, ValueError) as error:
            assert "bad" in str(error)


def test_memory_does_not_grow_with_the_store(tmp_path: pathlib.Path) -> None:
    """210 MB of tokens; what is mapped is not counted."""
    with TokenizedCache.open(tmp_path / "store") as cache:
        for n in range(3500):
            cache.put(
                CacheKey(f"{n:016x}", SHA, 2**20), CachedTokens(np.arange(n, n + 15_000, dtype=np.int32))
            )
    process = run_python(
        """
import sys, tokcask
def allocated():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) // 1024
import numpy, pyarrow.parquet
for format, order in (("megatron", "key"), ("parquet", "shuffle")):
    seen = [allocated()]
    tokcask.export_tokens(sys.argv[1], sys.argv[2], format=format, order=order,
                          on_progress=lambda done, total: seen.append(allocated()))
    print(max(seen) - seen[0])
""",
        *(tmp_path / "store", tmp_path / "out"),
    )
    assert process.returncode == 0, process.stderr
    flat, parquet = map(int, process.stdout.split())
    print(flat, parquet)
    assert flat < 120
    assert parquet < 200
