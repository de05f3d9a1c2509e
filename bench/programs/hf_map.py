"""Tokenizes the files of a directory by load_dataset("text") and map(), which keep what they made: run again, they
find it.

    hf_map.py CORPUS CACHE TOKENIZER SEQUENCE_LEN
"""

from __future__ import annotations

import json
import pathlib
import sys

import datasets
import transformers
from corpus_files import files_of


def main() -> None:
    corpus, cache, tokenizer_file, sequence_len = sys.argv[1:]
    datasets.disable_progress_bars()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=tokenizer_file)
    length = int(sequence_len)

    def tokenize(rows: dict) -> dict:
        return tokenizer(rows["text"], truncation=True, max_length=length)

    rows = datasets.load_dataset(
        "text",
        data_files=[str(path) for path in files_of(pathlib.Path(corpus))],
        sample_by="document",
        cache_dir=cache,
        split="train",
    )
    made = rows.map(tokenize, batched=True, remove_columns="text")
    print(json.dumps({"rows": len(made), "first": len(made[0]["input_ids"])}))


if __name__ == "__main__":
    main()
