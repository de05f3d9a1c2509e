"""Tokenizes the files of a directory (or one file) with HF tokenizers on all cores, and stores nothing, or with
Megatron's builder or the seed's cache:

    tokenize_alone.py CORPUS TOKENIZER SEQUENCE_LEN [megatron|seed DIRECTORY]
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np
from corpus_files import batches_of_texts


def no_store() -> tuple[Callable, Callable]:
    return lambda text, ids: None, lambda: None


def megatron_store(directory: str) -> tuple[Callable, Callable]:
    import torch
    from rivals.megatron import Megatron

    Megatron().load()
    from megatron.core.datasets import indexed_dataset

    builder = indexed_dataset.IndexedDatasetBuilder(directory + ".bin", dtype=np.int32)

    def add(text: str, ids: np.ndarray) -> None:
        builder.add_item(torch.from_numpy(ids))
        builder.end_document()

    return add, lambda: builder.finalize(directory + ".idx")


def seed_store(directory: str) -> tuple[Callable, Callable]:
    import tokcask
    from rivals.seed_store import SeedCache

    cache = SeedCache(pathlib.Path(directory))

    def add(text: str, ids: np.ndarray) -> None:
        cache.put(f"{tokcask.section_id(text, 'file')}|{'be' * 32}|2048", ids, np.ones(len(ids), np.int32))

    return add, cache.save_manifest


def main() -> None:
    corpus, tokenizer_file, sequence_len, *way = sys.argv[1:]
    add, finish = {"megatron": megatron_store, "seed": seed_store}[way[0]](way[1]) if way else no_store()
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(tokenizer_file)
    tokenizer.no_padding()
    tokenizer.enable_truncation(int(sequence_len))
    tokens = size = 0
    seconds = 0.0
    for texts in batches_of_texts(pathlib.Path(corpus)):
        begin = time.perf_counter()
        encodings = tokenizer.encode_batch_fast(texts)
        seconds += time.perf_counter() - begin
        for text, encoding in zip(texts, encodings, strict=True):
            ids = np.array(encoding.ids, dtype=np.int32)
            tokens += len(ids)
            size += len(text)
            add(text, ids)
    finish()
    print(json.dumps({"tokens": tokens, "characters": size, "tokenize_seconds": seconds}))


if __name__ == "__main__":
    main()
