"""Every form of row, two lengths, both cuts, threads, and processes with other versions of the libraries, in one store: each
row is compared with the tokenizer called plainly in the process that asks."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

WORKER = pathlib.Path(__file__).with_name("matrix_worker.py")
ROWS = 40
# Where tools/test puts other versions of transformers and tokenizers.
OTHER = os.environ.get("TOKCASK_OTHER_VERSIONS")


def work(store: pathlib.Path, file: pathlib.Path, seed: int, site: str | None) -> dict[str, Any]:
    path = [site] if site else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, str(WORKER), str(store), str(file), str(seed), str(ROWS)],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("ending", [False, True])
def test_no_row_differs(tmp_path: pathlib.Path, small_json: str, ending: bool) -> None:
    file = tmp_path / "tokenizer.json"
    content = json.loads(small_json)
    if ending:  # the tokenizer's own cut keeps its last token, so a shorter text is no prefix of a longer one
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "end", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"end": {"id": "end", "ids": [7], "tokens": ["&"]}},
        }
    file.write_text(json.dumps(content))
    sites = [None, OTHER, None] if OTHER else [None, None]
    results = [work(tmp_path / "store", file, 1, site) for site in sites]
    for result in results:
        print({name: value for name, value in result.items() if name != "rendered"})
        assert result["different"] == []
        assert result["rows"] > 1000
    first, last = results[0], results[-1]
    assert (last["hits"], last["misses"]) == (last["hits"] + last["misses"], 0)
    if OTHER:
        other = results[1]
        assert other["transformers"] != first["transformers"]
        assert other["tokenizers"] != first["tokenizers"]
        # They do not render the same text, so one must not be served what the other stored.
        assert other["rendered"] != first["rendered"]
        assert other["misses"] >= ROWS
