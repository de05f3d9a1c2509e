"""The pre-tokenization pass of a trainer: rows get input_ids and attention_mask before the trainer sees them.

    python examples/pretokenize.py /data/tokens
    TOKENIZED_CACHE=off python examples/pretokenize.py /data/tokens      # this run without the cache

What comes out is the same with and without the cache, and in the first run and in all later ones. `tokcask runs`
tells afterwards what each run found.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from typing import Any

import tiny
from tokcask import TokenizationStats, TokenizedCache, pretokenize_rows


def pretokenize(
    rows: list[dict[str, Any]], tokenizer: Any, store: str
) -> tuple[list[dict[str, Any]], TokenizationStats]:
    """What stands between the making of a data set and the trainer."""
    if os.environ.get("TOKENIZED_CACHE", "on").lower() in ("off", "0", "false", "no"):
        return pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=256)
    with TokenizedCache.open(store, max_bytes=1024**3) as cache:
        return pretokenize_rows(rows, tokenizer=tokenizer, sequence_len=256, cache=cache)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    arguments = parser.parse_args()

    rows: list[dict[str, Any]] = [{"text": text} for text in tiny.texts()]
    rows.append({"messages": [{"role": "user", "content": "Hello."}]})
    rows.append({"prompt": "1 + 1?", "chosen": "2", "rejected": "3"})  # left as it is
    rows, stats = pretokenize(rows, tiny.tokenizer(), arguments.store)

    ids = b"".join(row["input_ids"].tobytes() for row in rows if "input_ids" in row)
    print("sections", stats.total_sections, "hits", stats.cache_hits, "misses", stats.cache_misses)
    print("ids", hashlib.sha256(ids).hexdigest()[:16])


if __name__ == "__main__":
    main()
