#!/usr/bin/env python3
"""Exports a store in every format and compares all records as the format's own package reads them."""

from __future__ import annotations

import argparse
import pathlib
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tokcask import CachedTokens, CacheKey, TokenizedCache, export_tokens, section_id

SHA = "ab" * 32
Row = tuple[str | None, list[int]]


def make_store(path: pathlib.Path, records: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    with TokenizedCache.open(path) as cache:
        for n in range(records):
            length = int(draw.choice([1, 7, 300, 2048]))
            ids = draw.integers(0, 50_000, length, dtype=np.int32)
            cache.put(CacheKey(section_id(f"{seed} {n}"), SHA, 2048), CachedTokens(ids))


def entries_of(store: pathlib.Path) -> dict[str, list[int]]:
    """By section; the store must be of one tokenizer and one length."""
    with TokenizedCache.open(store, read_only=True) as cache:
        keys = cache.keys()
        found = cache.get_many(keys)
    return {
        key.section_id: tokens.input_ids.tolist() for key, tokens in zip(keys, found, strict=True) if tokens
    }


def read_megatron(out: pathlib.Path, dtype: str) -> Iterator[Row]:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(out))
    assert len(dataset.document_indices) == len(dataset) + 1
    for row in range(len(dataset)):
        ids = dataset[row]
        assert ids.dtype == np.dtype(dtype)
        yield None, ids.tolist()


def read_parquet(out: pathlib.Path, dtype: str) -> Iterator[Row]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(out).iter_batches():
        yield from zip(batch["section_id"].to_pylist(), batch["input_ids"].to_pylist(), strict=True)


def read_mds(out: pathlib.Path, dtype: str) -> Iterator[Row]:
    from streaming import LocalDataset

    dataset = LocalDataset(local=str(out))
    for row in range(len(dataset)):
        sample = dataset[row]
        assert sample["tokens"].dtype == np.dtype(dtype)
        assert sample["sequence_len"] == 2048
        yield sample["section_id"], sample["tokens"].tolist()


def read_datatrove(out: pathlib.Path, dtype: str) -> Iterator[Row]:
    """In windows of one token; the index, whose positions begin anew with each document, cuts them."""
    from datatrove.pipeline.tokens.merger import load_doc_ends
    from datatrove.utils.dataset import DatatroveFileDataset

    name = f"{out}.ds"
    windows = DatatroveFileDataset(name, seq_len=0, token_size=np.dtype(dtype).itemsize)
    with open(f"{name}.index", "rb") as index:
        ends = [int(end) for end in load_doc_ends(index)]
    assert ends[-1] == len(windows)
    start = 0
    for end in ends:
        yield None, [int(windows[n]["input_ids"][0]) for n in range(start, end)]
        start = end


Reader = Callable[[pathlib.Path, str], Iterator[Row]]
READERS: dict[str, tuple[Reader, tuple[str | None, ...]]] = {
    "megatron": (read_megatron, (None, "int32")),
    "parquet": (read_parquet, (None,)),
    "mds": (read_mds, (None, "uint16")),
    "datatrove": (read_datatrove, (None, "uint32")),
}


def compare(store: pathlib.Path, format: str, directory: pathlib.Path) -> None:
    entries = entries_of(store)
    read, dtypes = READERS[format]
    for order in ("key", "path", "shuffle"):
        # The reader without sections is compared by their order, which the Parquet export of the same order tells.
        sections_file = directory / f"sections-{order}"
        export_tokens(store, sections_file, format="parquet", order=order, seed=5, overwrite=True)  # type: ignore[arg-type]
        sections = [section for section, _ in read_parquet(sections_file, "int32")]
        for dtype in dtypes:
            for eod in (None, 49_999):
                options: Any = {"format": format, "order": order, "seed": 5, "dtype": dtype, "eod": eod}
                out = directory / f"{format}-{order}-{dtype}-{eod}"
                report = export_tokens(store, out, **options)
                end = [] if eod is None else [eod]
                count = 0
                for section, (told, ids) in zip(sections, read(out, report.dtype), strict=True):
                    assert told in (None, section), (told, section)
                    assert ids == entries[section or ""] + end, section
                    count += 1
                assert count == len(entries) == report.records
                print(
                    f"{format:10} order {order:8} {report.dtype:7} eod {eod!s:6} {count} records, "
                    f"{report.tokens} tokens: equal",
                    flush=True,
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megatron", metavar="DIR", help="where the package megatron lies, if not installed")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument(
        "--store", type=pathlib.Path, help="of one tokenizer and length, without empty entries"
    )
    parser.add_argument("--formats", nargs="+", choices=READERS, default=list(READERS))
    arguments = parser.parse_args()
    if arguments.megatron:
        sys.path.insert(0, arguments.megatron)
    warnings.filterwarnings("ignore")
    missing = []
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        store = arguments.store or directory / "store"
        if arguments.store is None:
            print(f"seed {arguments.seed}")
            make_store(store, arguments.records, arguments.seed)
        for format in arguments.formats:
            try:
                compare(store, format, directory)
            except ImportError as error:
                print(f"{format:10} not compared: {error}")
                missing.append(format)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
