"""Each program in examples/ runs, and shows what it says."""

from __future__ import annotations

import pathlib
import runpy
import sys
from collections.abc import Callable

import pytest
import torch

EXAMPLES = pathlib.Path(__file__).parent.parent.parent / "examples"
Run = Callable[..., dict[str, list[str]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an example in this process, because imports take longer than it; tells what it prints: words by the
    first of their line."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    torch.set_num_threads(1)  # threads of torch wait long for each other on a busy machine

    def run(name: str, *arguments: object) -> dict[str, list[str]]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        printed = capsys.readouterr().out
        return {words[0]: words[1:] for line in printed.splitlines() if (words := line.split())}

    return run


def learns(losses: list[str]) -> bool:
    # By halves: one batch may be harder than another, and they are of the pages that change most.
    values = [float(loss) for loss in losses]
    return len(values) == 10 and sum(values[5:]) < sum(values[:5])


def test_trl_sft(tmp_path: pathlib.Path, run: Run) -> None:
    plain = run("trl_sft", tmp_path / "store", "--plain")["losses"]
    assert learns(plain)
    assert run("trl_sft", tmp_path / "store")["losses"] == plain


def test_trl_dpo(tmp_path: pathlib.Path, run: Run) -> None:
    plain = run("trl_dpo", tmp_path / "store", "--plain")["losses"]
    assert len(plain) == 10
    assert run("trl_dpo", tmp_path / "store")["losses"] == plain
    assert run("trl_dpo", tmp_path / "store")["losses"] == plain


def test_transformers_trainer(tmp_path: pathlib.Path, run: Run) -> None:
    first = run("transformers_trainer", tmp_path / "store")
    again = run("transformers_trainer", tmp_path / "store", "--native")
    assert int(first["tokenized"][0]) > 0
    assert again["tokenized"] == ["0"]
    assert learns(first["losses"])
    assert again["losses"] == first["losses"]


def test_torch_loop(tmp_path: pathlib.Path, run: Run) -> None:
    assert learns(run("torch_loop", tmp_path / "store")["losses"])


def test_pretokenize(tmp_path: pathlib.Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZED_CACHE", "off")
    without = run("pretokenize", tmp_path / "store")
    monkeypatch.delenv("TOKENIZED_CACHE")
    assert not (tmp_path / "store").exists()
    first = run("pretokenize", tmp_path / "store")
    again = run("pretokenize", tmp_path / "store")
    assert without["ids"] == first["ids"] == again["ids"]
    count = first["sections"][0]
    assert first["sections"] == without["sections"] == [count, "hits", "0", "misses", count]
    assert again["sections"] == [count, "hits", count, "misses", "0"]


def test_datatrove_pretokenize(tmp_path: pathlib.Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")  # so that what the example sets is undone
    first = run("datatrove_pretokenize", tmp_path / "store", tmp_path / "logs")
    assert first["entries"] == [first["texts"][0]]
    assert run("datatrove_pretokenize", tmp_path / "store", tmp_path / "logs") == first


def test_ray_pretokenize(tmp_path: pathlib.Path, run: Run) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")
    first = run("ray_pretokenize", tmp_path / "store")
    assert first["entries"] == [first["texts"][0]]
    assert run("ray_pretokenize", tmp_path / "store") == first


def test_every_example_is_run() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {file.stem for file in EXAMPLES.glob("*.py")} <= tested | {"tiny"}
