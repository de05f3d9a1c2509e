"""What is made once, below build/: the files, their tokens at each sequence length, and everybody's copy of
them. Each step leaves a mark when it is complete, and the next run goes on behind it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shutil
import sys
from typing import Any

from rivals import rival_named
from rivals.base import Rival

from suite.corpus import Corpus, make, take
from suite.processes import BENCH, ROOT, Failure, last_json, run, say, timed_run

sys.path.append(str(ROOT / "tools"))
import quickstart  # noqa: E402

SEED = 20261125
QUICK_FILES = 5_000


@dataclasses.dataclass(frozen=True)
class Files:
    """A directory of texts, which may be edited."""

    path: pathlib.Path
    about: dict[str, Any]


def full_files() -> Files:
    corpus = quickstart.linux_corpus()
    return described(corpus.path, corpus.name, corpus.notes)


def quick_files() -> Files:
    """Some of Boost's headers, by the rule that chooses the kernel's files."""
    package = quickstart.CORPORA / "boost-package"
    path = quickstart.CORPORA / "boost-5k"
    versions = quickstart.unpack([quickstart.BOOST], package)
    if not path.is_dir():
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for name in chosen(package, QUICK_FILES):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(package / name, partial / name)
        partial.rename(path)
    return described(
        path, f"{QUICK_FILES:,} files of {versions[0]}", [f"chosen with seed '{quickstart.LINUX_SEED}'"]
    )


def chosen(tree: pathlib.Path, count: int) -> list[str]:
    names = list(quickstart.files_that_count(tree))
    names.sort(key=lambda name: hashlib.sha256(f"{quickstart.LINUX_SEED}\0{name}".encode()).digest())
    return names[:count]


def described(path: pathlib.Path, name: str, notes: list[str]) -> Files:
    """The checksum is of all content, in the order of names. Made once: what is edited is put back."""
    record = path.with_name(path.name + ".bench.json")
    if not record.is_file():
        digest = hashlib.sha256()
        names = sorted(quickstart.files_that_count(path))
        size = 0
        for file in names:
            content = (path / file).read_bytes()
            size += len(content)
            digest.update(file.encode() + b"\0" + hashlib.sha256(content).digest())
        about = {
            "what": name,
            "notes": notes,
            "files": len(names),
            "bytes": size,
            "sha256": digest.hexdigest(),
        }
        record.write_text(json.dumps(about) + "\n")
    return Files(path, json.loads(record.read_text()))


def part_of(files: Files, directory: pathlib.Path, count: int) -> pathlib.Path:
    """A directory of `count` of the files, seeded too. Links, so that it costs nothing; nobody edits them."""
    if not directory.is_dir():
        partial = directory.with_name(directory.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for name in chosen(files.path, count):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(files.path / name, partial / name)
        partial.rename(directory)
    return directory


def tokcask_command() -> pathlib.Path:
    return pathlib.Path(sys.prefix) / "bin" / "tokcask"


def warm_command(
    store: pathlib.Path, corpus: pathlib.Path, sequence_len: int, include: str | None = None
) -> list[Any]:
    words = [tokcask_command(), "warm", store, corpus, "--tokenizer", quickstart.tokenizer_file()]
    words += ["--include", include] if include is not None else []
    return [*words, "--seq-len", sequence_len, "--max-bytes", "20G", "--json"]


def warmed(files: Files, data: pathlib.Path, sequence_len: int) -> pathlib.Path:
    """A store with all files' tokens. `tokcask warm` itself goes on where it was interrupted."""
    store = data / f"warm-{sequence_len}"
    mark = data / f"warm-{sequence_len}.json"
    if not mark.is_file():
        say(f"tokenizing {files.about['files']:,} files to {sequence_len} tokens at most")
        seconds, output = timed_run(warm_command(store, files.path, sequence_len))
        for _ in range(2):  # the first again settles what is remembered of the files
            run(warm_command(store, files.path, sequence_len))
        mark.write_text(json.dumps(last_json(output) | {"process_seconds": seconds}) + "\n")
    return store


def corpus_at(files: Files, data: pathlib.Path, sequence_len: int) -> Corpus:
    store = warmed(files, data, sequence_len)
    return find_corpus(data / f"corpus-{sequence_len}", lambda path: take(path, store, SEED))


def short_corpus(data: pathlib.Path, records: int) -> Corpus:
    return find_corpus(data / f"short-{records}", lambda path: make(path, records, SEED, short=True))


def find_corpus(path: pathlib.Path, fill: Any) -> Corpus:
    if not (path / "about.json").is_file():
        shutil.rmtree(path, ignore_errors=True)
        say(f"making {path.name}")
        fill(path)
    return Corpus(path)


def prepared(corpus: Corpus, rival: Rival) -> pathlib.Path:
    """The rival's files. Made by a process of its own; the folder gets its name when it is complete."""
    directory = corpus.directory / rival.layout
    if not directory.is_dir():
        partial = directory.with_name(rival.layout + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        say(f"{corpus.directory.name}: {len(corpus):,} records for {rival.name}")
        command = [sys.executable, "-m", "suite.prepare", rival.name, corpus.directory, partial]
        run(command, cwd=BENCH, timeout=1800)
        partial.rename(directory)
    return directory


def hf_mapped(files: Files, data: pathlib.Path, sequence_len: int) -> list[Any]:
    """The command whose second run finds the whole map in its cache; runs it a first time."""
    cache = data / f"hf-map-{sequence_len}"
    command = [sys.executable, BENCH / "programs" / "hf_map.py", files.path, cache]
    command += [quickstart.tokenizer_file(), sequence_len]
    if not (cache / "complete").is_file():
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
        say("HF datasets: the first map, which tokenizes all files")
        run(command, timeout=3600)
        (cache / "complete").touch()
    return command


def main() -> None:
    name, corpus, directory = sys.argv[1:]
    rival = rival_named(name)
    if (reason := rival.unavailable()) is not None:
        raise Failure(reason)
    rival.prepare(Corpus(pathlib.Path(corpus)), pathlib.Path(directory))


if __name__ == "__main__":
    main()
