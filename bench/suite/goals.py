"""The goals, each computed from the results alone."""

from __future__ import annotations

import dataclasses
import operator
import statistics
from collections.abc import Callable
from typing import Any

from suite.scenarios import FLAT_NATIVE, OURS_NATIVE

Results = dict[str, Any]
AT_MOST, AT_LEAST = "at most", "at least"
_HOLDS = {AT_MOST: operator.le, AT_LEAST: operator.ge}


@dataclasses.dataclass(frozen=True)
class Goal:
    letter: str
    text: str
    bound: str
    limit: float
    ratio: Callable[[Results], float]
    unit: str = ""

    def row(self, results: Results) -> dict[str, Any]:
        try:
            ratio = self.ratio(results)
        except (KeyError, IndexError, ZeroDivisionError, statistics.StatisticsError):
            ratio = None
        verdict = (
            "not measured" if ratio is None else "met" if _HOLDS[self.bound](ratio, self.limit) else "missed"
        )
        return {
            "letter": self.letter,
            "goal": self.text,
            "bound": f"{self.bound} {self.limit:g}{self.unit}",
            "ratio": ratio,
            "verdict": verdict,
        }


def median(results: Results, key: str, name: str) -> float:
    return statistics.median(results[key]["rounds"][name])


def over(key: str, above: str, below: str) -> Callable[[Results], float]:
    return lambda results: median(results, key, above) / median(results, key, below)


def _edited(results: Results) -> float:
    key = "one-file-edited"
    parts = ("tokcask, nothing edited", "that file alone, tokenizer loaded")
    return median(results, key, "tokcask, one file edited") / sum(
        median(results, key, part) for part in parts
    )


def _fill_alone(results: Results) -> float:
    def without_one(name: str) -> float:
        return median(results, "fill", name) - median(results, "fill", f"{name}, one file")

    return without_one("tokcask") / without_one("tokenize alone")


def _growth(results: Results) -> float:
    rows = results["entries"]["table"]
    return rows[-1]["prepared ns"] / rows[0]["prepared ns"]


def _further_worker(results: Results) -> float:
    rows = [row for row in results["memory"]["table"] if row["rival"] == "tokcask"]
    return max(row["a further worker"] for row in rows) * 2**20 / 1e6


def goals(lengths: tuple[int, ...] = (2048, 8192)) -> list[Goal]:
    found = [
        Goal(
            "a",
            "second run / bare walk and stat",
            AT_MOST,
            3,
            over("second-run", "tokcask", "bare walk and stat (C++)"),
        ),
        Goal("a", "the seed's way / second run", AT_LEAST, 50, over("second-run", "seed (npz)", "tokcask")),
        Goal(
            "a",
            "HF datasets' cached map / second run",
            AT_LEAST,
            10,
            over("second-run", "HF datasets, cached map", "tokcask"),
        ),
    ]
    for length in lengths:
        at = f", {length}"
        passed, summed, micro = f"first-{length}", f"sum-{length}", f"micro-{length}"
        found += [
            Goal("b", f"seed / resolve all + first token{at}", AT_LEAST, 1000, over(passed, "seed (npz)", OURS_NATIVE)),
            Goal("c", f"seed / every token summed{at}", AT_LEAST, 300, over(summed, "seed (npz)", OURS_NATIVE)),
            Goal("c", f"rate of the sum, warm / one contiguous array's{at}", AT_LEAST, 0.8, over(micro, "sum_prepared", "sum_flat")),
            Goal("c", f"the same, 64 items at a time{at}", AT_LEAST, 0.8, over(micro, "sum_many_prepared", "sum_flat")),
            Goal("c", f"one contiguous array mapped / whole pass, opening included{at}", AT_LEAST, 0.8, over(summed, FLAT_NATIVE, OURS_NATIVE)),
            Goal("d", f"random get, prepared / mdb_get{at}", AT_MOST, 0.1, over(micro, "get_prepared", "get_lmdb")),
            Goal("d", f"random get, prepared, 64 at a time / mdb_get{at}", AT_MOST, 0.1, over(micro, "get_many_prepared", "get_lmdb")),
            Goal("d", f"random get, unprepared / mdb_get{at}", AT_MOST, 1.2, over(micro, "get_unprepared", "get_lmdb")),
            Goal("d", f"random item in Python / Megatron's{at}", AT_MOST, 0.5, over(f"items-{length}", "tokcask", "Megatron")),
            Goal("e", f"Megatron + pad_sequence / batch{at}", AT_LEAST, 5, over(f"batches-{length}", "Megatron, pad_sequence", "tokcask")),
            Goal("e", f"HF + its collator / batch{at}", AT_LEAST, 50, over(f"batches-{length}", "HF datasets, collator", "tokcask")),
            Goal("e", f"bytes written per second / memcpy's{at}", AT_LEAST, 0.6, over(micro, "collate", "collate_memcpy")),
            Goal("e", f"batch in C++ / the same without look-ups and checks{at}", AT_MOST, 1.05, over(micro, "collate_bare", "collate")),
            Goal("h", f"store alone, rate / raw LMDB's{at}", AT_LEAST, 0.8, over(micro, "store_tokcask", "store_lmdb")),
        ]  # fmt: skip
    return [
        *found,
        Goal("g", "data.mdb read in order / cold pass", AT_LEAST, 0.8, over("cold", "data.mdb read from begin to end (C++)", "tokcask, populate (C++)")),
        Goal("h", "fill / tokenizing alone", AT_MOST, 1.03, over("fill", "tokcask", "tokenize alone")),
        Goal("h", "the same without what one file costs", AT_MOST, 1.03, _fill_alone),
        Goal("i", "one file edited / (a) + tokenizer + that file", AT_MOST, 1, _edited),
        Goal("k", "prepared get, most entries / fewest", AT_MOST, 3, _growth),
        Goal("m", "a further worker", AT_MOST, 5, _further_worker, " MB"),
    ]  # fmt: skip


def rows(results: Results) -> list[dict[str, Any]]:
    found = [goal.row(results) for goal in goals()]
    return sorted(found, key=lambda row: row["letter"])
