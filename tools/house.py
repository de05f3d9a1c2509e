#!/usr/bin/env python3
"""Measures the library: lines, files, the largest file, function and class, and the kinds of locks.

    tools/house.py [DIRECTORY...]        default: lib include
    tools/house.py --arrows              only whether each room of lib/ includes rooms below it alone; status 1 if not

It reads the sources as the formatter leaves them: a function or a class begins in a line that ends with a brace, and ends
with a brace at the same indentation. So it counts what a reader sees, and needs no compiler.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMITS = {"file": 400, "function": 60, "class": 300}
NOT_A_FUNCTION = re.compile(
    r"^\s*(namespace|extern|enum|union|if|for|while|switch|else|do|try|catch)\b|^\s*\}"
)
CLASS = re.compile(
    r"^\s*(?:template\s*<.*>\s*)?(?:class|struct)\s+(?:\[\[.*?\]\]\s*|alignas\(\w+\)\s*|[A-Z_]+\s+)*([\w:]+)"
)
LOCK = re.compile(r"^\s*(?:mutable\s+|static\s+|inline\s+)*std::(?:shared_|recursive_|timed_)?mutex\s+(\w+)")


def blocks(lines):
    """Yields (kind, name, first, last) of each function and class."""
    for i, line in enumerate(lines):
        if not line.rstrip().endswith("{") or NOT_A_FUNCTION.match(line):
            continue
        indent = len(line) - len(line.lstrip())
        first = i
        # A signature of several lines: those before belong to it up to one that ends a statement or a block.
        while (
            first > 0
            and re.search(r"[^;{}:]$", lines[first - 1].rstrip() or ";")
            and not re.match(r"\s*(//|#|template)", lines[first - 1])
        ):
            first -= 1
        head = " ".join(part.strip() for part in lines[first : i + 1])
        indent = min(indent, len(lines[first]) - len(lines[first].lstrip()))
        if match := CLASS.match(head):
            kind, name = "class", match.group(1)
        elif (
            "(" in head
            and not NOT_A_FUNCTION.match(head)
            and indent <= 4
            and "] (" not in head
            and "[&" not in head
        ):
            kind, name = "function", re.split(r"\s|\*|&", head.split("(")[0].strip())[-1]
        else:
            continue
        close = " " * indent + "}"
        for last in range(i + 1, len(lines)):
            if lines[last].rstrip() in (close, close + ";") or lines[last].startswith(close + " catch"):
                yield kind, name, first, last
                break


INCLUDE = re.compile(r'^#include "(\w+)/')
# Which rooms a room may include.
BELOW = {
    "os": "",
    "record": "os",
    "lmdb": "os",
    "shm": "os record",
    "tables": "os record lmdb",
    "files": "os record lmdb shm tables",
    "write": "os record lmdb shm tables files",
    "engine": "os record lmdb shm tables files write",
    "api": "os record lmdb shm tables files write engine",
    "collate": "",
}


def wrong_arrows():
    """Yields what includes a room that its own room must not know."""
    for path in sorted((ROOT / "lib").glob("*/*")):
        room = path.parent.name
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if match and match[1] not in (room, *BELOW[room].split()):
                yield f"{path.relative_to(ROOT)}:{number}: {room} must not include {match[1]}"


def main():
    wrong = list(wrong_arrows())
    if wrong or sys.argv[1:] == ["--arrows"]:
        print("\n".join(wrong), file=sys.stderr)
        sys.exit(1 if wrong else 0)
    folders = [ROOT / name for name in sys.argv[1:] or ["lib", "include"]]
    sizes, largest, locks = {}, {"file": [], "function": [], "class": []}, {}
    for path in sorted(p for folder in folders for p in folder.rglob("*") if p.suffix in {".h", ".cc"}):
        lines = path.read_text().splitlines()
        name = str(path.relative_to(ROOT))
        room = str(path.parent.relative_to(ROOT))
        files, total = sizes.get(room, (0, 0))
        sizes[room] = (files + 1, total + len(lines))
        largest["file"].append((len(lines), name))
        for kind, what, first, last in blocks(lines):
            largest[kind].append((last - first + 1, f"{what} ({name}:{first + 1})"))
        for i, line in enumerate(lines):
            if match := LOCK.match(line):
                locks.setdefault(f"{path.stem}: {match.group(1)}", f"{name}:{i + 1}")
    for room, (files, total) in sorted(sizes.items()):
        print(f"{total:7,} lines {files:4} files  {room}")
    print(f"{sum(t for _, t in sizes.values()):7,} lines {sum(f for f, _ in sizes.values()):4} files  in all")
    for kind, found in largest.items():
        found.sort(reverse=True)
        over = sum(size > LIMITS[kind] for size, _ in found)
        print(f"\nlargest {kind}: " + "; ".join(f"{size} {what}" for size, what in found[:3]))
        print(f"  beyond {LIMITS[kind]} lines: {over}")
    print(f"\nlocks: {len(locks)}")
    for lock, where in sorted(locks.items()):
        print(f"  {lock:40} {where}")


if __name__ == "__main__":
    main()
