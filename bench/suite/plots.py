"""Results as pictures: bars with their spread, on a logarithmic axis where they span decades."""

from __future__ import annotations

import pathlib
import statistics
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib import ticker  # noqa: E402

from suite.report import figure  # noqa: E402

OURS, THEIRS, FLOOR = "#1f6f8b", "#b8bfc6", "#d9a441"
plt.rcParams |= {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "tokcask",
    "svg.fonttype": "none",
}


def colour(name: str) -> str:
    if name.startswith(
        (
            "tokcask",
            "get_prepared",
            "get_many",
            "get_unprepared",
            "collate",
            "sum_prepared",
            "sum_many",
            "store_tok",
        )
    ):
        return FLOOR if name == "collate_memcpy" else OURS
    floors = ("bare walk", "one contiguous", "data.mdb", "tokenize alone", "that file", "sum_flat")
    return FLOOR if name.startswith(floors) else THEIRS


def bars(axes: Any, rounds: dict[str, list[float]], unit: str, title: str) -> None:
    medians = {name: statistics.median(figures) for name, figures in rounds.items()}
    names = sorted(medians, key=medians.__getitem__, reverse=not unit.endswith("/s"))
    values = [medians[name] for name in names]
    spread = [
        [value - min(rounds[name]) for name, value in zip(names, values, strict=True)],
        [max(rounds[name]) - value for name, value in zip(names, values, strict=True)],
    ]
    axes.barh(names, values, color=[colour(name) for name in names], height=0.7)
    axes.errorbar(values, names, xerr=spread, fmt="none", ecolor="#444444", elinewidth=0.8, capsize=2)
    logarithmic = max(values) > 30 * min(values)
    if logarithmic:
        axes.set_xscale("log")
        decades(axes.xaxis)
        axes.set_xlim(min(values) / 2, max(values) * 6)
    else:
        axes.set_xlim(0, max(max(figures) for figures in rounds.values()) * 1.2)
    for place, name in enumerate(names):
        axes.annotate(
            figure(float(medians[name])),
            (max(rounds[name]), place),
            (5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_title(title, loc="left", fontsize=10)
    better = "more is better" if unit.endswith("/s") else "less is better"
    axes.set_xlabel(f"{unit}, {better}" + (", logarithmic" if logarithmic else ""))
    axes.tick_params(axis="y", length=0)


def plain_ticks(axis: Any) -> None:
    """Numbers as people write them on a logarithmic axis: 1, 2, 5, 10, ..."""
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=30))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def decades(axis: Any) -> None:
    axis.set_major_locator(ticker.LogLocator(numticks=20))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def save(figure_: Any, directory: pathlib.Path, name: str) -> None:
    for suffix in ("svg", "png"):
        metadata = {"Date": None} if suffix == "svg" else {}
        figure_.savefig(directory / f"{name}.{suffix}", bbox_inches="tight", dpi=110, metadata=metadata)
    plt.close(figure_)


def plot_rounds(result: dict[str, Any], directory: pathlib.Path, name: str) -> None:
    rounds = result["rounds"]
    figure_, axes = plt.subplots(figsize=(8, 0.9 + 0.3 * len(rounds)))
    bars(axes, rounds, result["unit"], result["title"])
    save(figure_, directory, name)


def plot_micro(result: dict[str, Any], directory: pathlib.Path, name: str) -> None:
    """Each beside its floor: a panel per unit."""
    groups = {"get_": "ns", "sum_": "GB/s", "collate": "GB/s", "store_": "GB/s"}
    titles = {
        "get_": "A random get",
        "sum_": "Every token summed",
        "collate": "64 rows padded",
        "store_": "Puts, durable",
    }
    figure_, panels = plt.subplots(2, 2, figsize=(10, 4))
    for axes, (prefix, unit) in zip(panels.flat, groups.items(), strict=True):
        rounds = {key: figures for key, figures in result["rounds"].items() if key.startswith(prefix)}
        if rounds:
            bars(axes, rounds, unit, titles[prefix])
    figure_.suptitle(result["title"], x=0.01, ha="left", fontsize=10)
    figure_.tight_layout()
    save(figure_, directory, name)


def plot_workers(results: dict[str, Any], directory: pathlib.Path) -> None:
    counts = sorted(int(key.split("-")[1]) for key in results if key.startswith("workers-"))
    if len(counts) < 2:
        return
    figure_, axes = plt.subplots(figsize=(8, 4.2))
    names = results[f"workers-{counts[0]}"]["rounds"]
    for name in names:
        found = {count: results[f"workers-{count}"]["rounds"].get(name) for count in counts}
        found = {count: statistics.median(figures) for count, figures in found.items() if figures}
        ours = name.startswith("tokcask")
        style = (
            {"color": OURS, "lw": 2.2, "zorder": 3, "ls": "-" if name == "tokcask" else "--"}
            if ours
            else {"lw": 1}
        )
        axes.plot(list(found), list(found.values()), marker="o", ms=4, label=name, **style)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    axes.set_xlabel("worker processes")
    axes.set_ylabel("batches of 64 per second, logarithmic")
    axes.set_title("DataLoader, fork, padded int64", loc="left", fontsize=10)
    axes.grid(axis="y", color="#e5e5e5", lw=0.6)
    axes.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")
    save(figure_, directory, "workers")


def plot_break_even(results: dict[str, Any], files: dict[str, Any], directory: pathlib.Path) -> None:
    rows = results["break-even"]["table"]
    counts = [row["files"] for row in rows]
    again, tokenize = [row["again"] for row in rows], [row["tokenize"] for row in rows]
    if "second-run" in results:
        counts_again = [*counts, files["files"]]
        again = [*again, statistics.median(results["second-run"]["rounds"]["tokcask"])]
    else:
        counts_again = counts
    figure_, axes = plt.subplots(figsize=(8, 4))
    axes.plot(counts_again, again, marker="o", ms=4, color=OURS, lw=2, label="tokcask, second run")
    axes.plot(
        counts,
        tokenize,
        marker="o",
        ms=4,
        color="#8a5a00",
        label="tokenizing again, HF tokenizers, both cores",
    )
    mean = files["bytes"] / files["files"]
    for rate in (1e8, 1e9):
        label = f"a tokenizer of {rate / 1e9:g} GB/s that starts at once"
        axes.plot(counts_again, [count * mean / rate for count in counts_again], ls=":", lw=1.2, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    decades(axes.xaxis)
    decades(axes.yaxis)
    axes.set_xlabel("files")
    axes.set_ylabel("seconds of the whole process")
    axes.set_title("Where the cache stops paying", loc="left", fontsize=10)
    axes.grid(color="#e5e5e5", lw=0.6)
    axes.legend(frameon=False)
    save(figure_, directory, "break-even")


def plot_entries(result: dict[str, Any], directory: pathlib.Path) -> None:
    rows = result["table"]
    counts = [row["entries"] for row in rows]
    figure_, axes = plt.subplots(figsize=(8, 3.6))
    series = {
        "prepared get": ("prepared ns", 1, OURS),
        "get by key": ("get us", 1000, "#7fb3c4"),
        "floor: two cache misses": ("floor ns", 1, FLOOR),
    }
    for label, (key, scale, shade) in series.items():
        axes.plot(
            counts, [row[key] * scale for row in rows], marker="o", ms=4, label=label, color=shade, lw=2
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    decades(axes.yaxis)
    axes.set_xlabel("entries")
    axes.set_ylabel("ns per random get")
    axes.set_title("Many entries", loc="left", fontsize=10)
    axes.grid(color="#e5e5e5", lw=0.6)
    axes.legend(frameon=False)
    save(figure_, directory, "entries")


def plot(results: dict[str, Any], directory: pathlib.Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    measured = results["scenarios"]
    for key, result in measured.items():
        if key.startswith("micro-"):
            plot_micro(result, directory, key)
        elif result["rounds"] and not key.startswith("workers-"):
            plot_rounds(result, directory, key)
    plot_workers(measured, directory)
    if "break-even" in measured:
        plot_break_even(measured, results["files"], directory)
    if "entries" in measured:
        plot_entries(measured["entries"], directory)
