"""The quick form of the data loader's stress test: tests/stress/loader_stress.py."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

PROGRAM = pathlib.Path(__file__).resolve().parent.parent / "stress" / "loader_stress.py"


def test_quick_form(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, str(PROGRAM), "--quick", "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    said = f"{done.stdout}\n{done.stderr}"  # the seed is in its first line
    assert done.returncode == 0, said
    last = re.fullmatch(
        r"(\d+) reads, 0 wrong, 0 hangs, 0 leaked reader slots", done.stdout.rstrip().rpartition("\n")[2]
    )
    assert last is not None, said
    assert int(last[1]) > 10_000, said
