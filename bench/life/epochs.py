"""Hit rates of repeated epochs over a corpus that is larger than the budget, run by run.

A store that evicts what was used least lately has no hit at all when the same order comes again: each entry is
evicted just before it is wanted. Ours protects what the run uses and declines what does not fit. Beside it
stands a plain LRU of the same budget, simulated. Nothing is timed. See bench/README.md.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import tokcask
from tokcask import CachedTokens, CacheKey, TokenizedCache

PAGE = 4096
RECORD_HEADER = 48
PAGE_HEADER = 16
KEY = 88
NODE_HEADER = 8
INLINE = 2030  # largest key and value together that LMDB keeps inside a leaf, at this page size
ROWS = 256
SHA = "c" * 64


def occupied(length: int) -> int:
    """Bytes of pages that an entry of this many ids takes, about as the store counts them."""
    value = (RECORD_HEADER + 4 * length + 7) // 8 * 8
    if KEY + NODE_HEADER + value <= INLINE:
        return KEY + NODE_HEADER + value
    return -(-(value + PAGE_HEADER) // PAGE) * PAGE + KEY + NODE_HEADER + 8


class Corpus:
    """Sections of log-normal length, cut at 2,048 ids, until they occupy `total` bytes."""

    def __init__(self, total: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.lengths: list[int] = []
        self.bytes = 0
        while self.bytes < total:
            length = int(np.clip(rng.lognormal(7.1, 1.0), 1, 2048))
            self.lengths.append(length)
            self.bytes += occupied(length)
        self.keys = [CacheKey(f"{number:016x}", SHA, 2048) for number in rng.permutation(len(self.lengths))]
        self.ids = rng.integers(0, 129_000, 1 << 18, dtype=np.int32)

    def tokens(self, section: int) -> CachedTokens:
        begin = section * 97 % (len(self.ids) - 2048)
        return CachedTokens(self.ids[begin : begin + self.lengths[section]])


class Lru:
    """A plain LRU by bytes, which admits everything."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self.sizes: collections.OrderedDict[int, int] = collections.OrderedDict()

    def epoch(self, order: list[int], lengths: list[int]) -> float:
        hits = 0
        for section in order:
            if section in self.sizes:
                self.sizes.move_to_end(section)
                hits += 1
                continue
            self.sizes[section] = occupied(lengths[section])
            self.bytes += self.sizes[section]
            while self.bytes > self.budget:
                self.bytes -= self.sizes.popitem(last=False)[1]
        return hits / len(order)


def one_by_one(cache: TokenizedCache, corpus: Corpus, order: list[int]) -> None:
    for section in order:
        if cache.get(corpus.keys[section]) is None:
            cache.put(corpus.keys[section], corpus.tokens(section))


def in_batches(cache: TokenizedCache, corpus: Corpus, order: list[int]) -> None:
    """As pretokenize_rows does it: look a batch up, then store what was not there."""
    for begin in range(0, len(order), ROWS):
        batch = order[begin : begin + ROWS]
        found = cache.get_many(corpus.keys[section] for section in batch)
        cache.put_many(
            (corpus.keys[section], corpus.tokens(section))
            for section, tokens in zip(batch, found, strict=True)
            if tokens is None
        )


def orders(name: str, sections: int, runs: int, seed: int) -> Iterator[list[int]]:
    for run in range(runs):
        if name == "same":
            yield list(range(sections))
        else:
            yield np.random.default_rng((seed, run)).permutation(sections).tolist()


def hit_rates(
    root: pathlib.Path,
    corpus: Corpus,
    budget: int,
    epochs: Iterator[list[int]],
    act: Callable[[TokenizedCache, Corpus, list[int]], None],
) -> Iterator[dict[str, float]]:
    """One run, which is one handle, per epoch."""
    # A small corpus in one commit would be put in key order as a whole, whatever the epoch's order.
    batch = min(64 << 20, budget // 8)
    for order in epochs:
        with TokenizedCache.open(root, max_bytes=budget, batch_bytes=batch) as cache:
            act(cache, corpus, order)
            cache.flush()
            run = cache.stats()["run"]
            if cache.file_bytes > budget:
                raise RuntimeError(f"the file has {cache.file_bytes} bytes, and the budget is {budget}")
            yield {"hit_rate": run["hit_rate"], "declined": run["declined"], "evicted": run["evicted"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget-mib", type=int, default=512)
    parser.add_argument("--factor", type=float, default=2.0, help="of the budget: bytes of the corpus")
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path, help="a file for the figures")
    arguments = parser.parse_args()
    logging.getLogger("tokcask").setLevel(logging.ERROR)  # what is declined is counted, and in the file
    budget = arguments.budget_mib << 20
    corpus = Corpus(int(budget * arguments.factor), arguments.seed)
    print(
        f"tokcask {tokcask.__version__}: {len(corpus.keys):,} sections, {corpus.bytes / (1 << 20):,.0f} MiB of pages, "
        f"budget {arguments.budget_mib} MiB, seed {arguments.seed}",
        file=sys.stderr,
    )
    rows: list[tuple[str, str, list[float], list[dict[str, float]]]] = []
    for order in ("same", "shuffled"):
        for name, act in (("one by one", one_by_one), (f"batches of {ROWS}", in_batches)):
            with tempfile.TemporaryDirectory(prefix="tokcask-epochs-") as directory:
                epochs = orders(order, len(corpus.keys), arguments.runs, arguments.seed)
                runs = list(hit_rates(pathlib.Path(directory) / "store", corpus, budget, epochs, act))
            rows.append((order, name, [run["hit_rate"] for run in runs], runs))
        lru = Lru(budget)
        epochs = orders(order, len(corpus.keys), arguments.runs, arguments.seed)
        rows.append((order, "plain LRU", [lru.epoch(epoch, corpus.lengths) for epoch in epochs], []))
    print(table(rows, arguments.runs, budget / corpus.bytes))
    if arguments.json:
        figures = [
            {"order": order, "way": name, "hit_rates": rates, "runs": runs}
            for order, name, rates, runs in rows
        ]
        document = {
            "seed": arguments.seed,
            "budget": budget,
            "corpus_bytes": corpus.bytes,
            "sections": len(corpus.keys),
            "rows": figures,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def table(rows: list[tuple[str, str, list[float], list[dict[str, float]]]], runs: int, share: float) -> str:
    lines = [
        "| order | | " + " | ".join(f"run {run}" for run in range(1, runs + 1)) + " | budget / corpus |",
        "|---|---|" + "--:|" * (runs + 1),
    ]
    for order, name, rates, _ in rows:
        cells = " | ".join(f"{rate:.3f}" for rate in rates)
        lines.append(f"| {order} | {name} | {cells} | {share:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
