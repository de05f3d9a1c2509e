"""Results as Markdown."""

from __future__ import annotations

import pathlib
import statistics
from typing import Any

from suite import goals

Table = list[list[str]]


def markdown(table: Table) -> str:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    lines.insert(1, "|" + "|".join(["---"] + ["--:"] * (len(widths) - 1)) + "|")
    return "\n".join(lines)


def figure(value: Any) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 1000
        else f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"
    )


def rounds_table(result: dict[str, Any]) -> Table:
    rounds, base = result["rounds"], result.get("base")
    reference = statistics.median(rounds[base]) if base in rounds else None
    table = [["", result["unit"], "least", "greatest"] + ([f"/ {base}"] if reference else [])]
    for name, figures in rounds.items():
        median = statistics.median(figures)
        row = [name, figure(median), figure(min(figures)), figure(max(figures))]
        table.append(row + ([figure(median / reference)] if reference else []))
    return table


def rows_table(rows: list[dict[str, Any]]) -> Table:
    return [list(rows[0]), *([figure(value) for value in row.values()] for row in rows)]


def section(result: dict[str, Any], letters: str) -> str:
    parts = [f"### ({', '.join(letters)}) {result['title']}"]
    if result["rounds"]:
        parts.append(markdown(rounds_table(result)))
    if result.get("table"):
        parts.append(markdown(rows_table(result["table"])))
    notes = list(result.get("notes", []))
    notes += [f"{name} is left out: {reason}." for name, reason in result["failed"].items()]
    return "\n\n".join(parts + notes)


def goals_table(results: dict[str, Any]) -> str:
    table = [["", "goal", "wanted", "measured", ""]]
    for row in goals.rows(results):
        measured = "" if row["ratio"] is None else figure(float(row["ratio"]))
        table.append([row["letter"], row["goal"], row["bound"], measured, row["verdict"]])
    return markdown(table)


def break_even(results: dict[str, Any]) -> str:
    """(n), from what other scenarios measured."""
    try:
        again = statistics.median(results["second-run"]["rounds"]["tokcask"])
        size = results["files"]["bytes"]
        small = results["break-even"]["table"]
    except KeyError:
        return ""
    fixed = small[0]
    return (
        "### (n) When the cache does not pay\n\n"
        f"A second run over all {results['files']['files']:,} files, {size / 1e6:,.0f} MB, takes {again:.2f} s. "
        f"Tokenizing them again would have to go at {size / again / 1e9:,.2f} GB/s to be as fast, with reading and "
        f"starting at no cost. With {fixed['files']} files a second run takes {fixed['again']:.2f} s, and loading "
        f"a tokenizer and tokenizing them {fixed['tokenize']:.2f} s."
    )


def describe(results: dict[str, Any]) -> str:
    machine, files = results["machine"], results["files"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, kernel "
        f"{machine['kernel']}, {machine['file_system']}, Python {machine['python']}; {machine['date']}. Load average "
        f"before: {machine['load_before']}. Medians of {results['rounds']} interleaved rounds; seed {results['seed']}.",
        f"Corpus: {files['what']}, {files['bytes']:,} bytes; SHA-256 of content `{files['sha256']}`. "
        + " ".join(files["notes"]),
        ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + ".",
    ]
    lines += [
        f"Tokens at sequence length {length}: {about['records']:,} records, {about['tokens']:,} tokens, SHA-256 "
        f"`{about['sha256']}`; all rivals gave these."
        for length, about in sorted(results["corpora"].items(), key=lambda item: int(item[0]))
    ]
    lines += [f"Not available: {name}: {reason}." for name, reason in results["unavailable"].items()]
    return "\n\n".join(lines)


def report(results: dict[str, Any], scenarios: list[Any], plots: pathlib.Path) -> str:
    """With the pictures that are in `plots`, which lies beside it."""
    measured = results["scenarios"]
    parts = ["# Results", describe(results), "## Goals", goals_table(measured), "## Figures"]
    shown = set()
    for scenario in sorted(scenarios, key=lambda scenario: scenario.letters):
        if scenario.key not in measured:
            continue
        parts.append(section(measured[scenario.key], scenario.letters))
        picture = "workers" if scenario.key.startswith("workers-") else scenario.key
        if picture not in shown and (plots / f"{picture}.svg").is_file():
            parts.append(f"![{picture}](plots/{picture}.svg)")
        shown.add(picture)
    parts.append(break_even(measured | {"files": results["files"]}))
    failed = [f"- {key}: {reason}" for key, reason in results["failed"].items()]
    if failed:
        parts += ["## Not measured", "\n".join(failed)]
    return "\n\n".join(part for part in parts if part) + "\n"
