"""A corpus through datatrove: four tasks, two at a time, each into a store of its own, then one store of them all.

    python examples/datatrove_pretokenize.py /data/tokens /data/logs

Kill it and start it again: tasks that were completed are not done again, and of the others nothing half-done is used.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import tempfile

import tiny
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from tokcask import TokenizedCache
from tokcask.datatrove import MergeParts, Pretokenize


def write_corpus(directory: pathlib.Path) -> None:
    texts = tiny.texts()
    for task in range(4):
        lines = (json.dumps({"text": text}) + "\n" for text in texts[task::4])
        (directory / f"{task}.jsonl").write_text("".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("logs")
    arguments = parser.parse_args()

    # The tasks are what keeps the cores busy.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as directory:
        write_corpus(pathlib.Path(directory))
        tokenize = LocalPipelineExecutor(
            [
                JsonlReader(directory),
                Pretokenize(arguments.store, tokenizer=tiny.tokenizer(), sequence_len=256),
            ],
            tasks=4,
            workers=2,
            logging_dir=f"{arguments.logs}/tokenize",
        )
        merge = LocalPipelineExecutor(
            [MergeParts(arguments.store)], logging_dir=f"{arguments.logs}/merge", depends=tokenize
        )
        merge.run()

    with TokenizedCache.open(arguments.store, read_only=True) as cache:
        print("entries", cache.entry_count)
    print("texts", len(set(tiny.texts())))


if __name__ == "__main__":
    main()
