"""A data set of Ray Data into one store: each write task fills one of its own, and they are merged at the end.

    python examples/ray_pretokenize.py /data/tokens

Without the address of a cluster (RAY_ADDRESS) Ray starts one on this machine. Kill it and start it again: what tasks had
completed is not tokenized again.
"""

from __future__ import annotations

import argparse

import ray
import tiny
from tokcask import TokenizedCache
from tokcask.ray import TokcaskDatasink


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    arguments = parser.parse_args()

    ray.init(include_dashboard=False, log_to_driver=False)
    rows = ray.data.from_items([{"text": text} for text in tiny.texts()], override_num_blocks=4)
    rows.write_datasink(TokcaskDatasink(arguments.store, tokenizer=tiny.tokenizer(), sequence_len=256))
    ray.shutdown()

    with TokenizedCache.open(arguments.store, read_only=True) as cache:
        print("entries", cache.entry_count)
    print("texts", len(set(tiny.texts())))


if __name__ == "__main__":
    main()
