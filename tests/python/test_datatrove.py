"""tokcask.datatrove under datatrove's own executor: killed, resumed, tried twice, and equal to one process's work."""

from __future__ import annotations

import os
import pathlib
import pickle
import signal
from collections.abc import Callable
from typing import Any

import pytest
import tokcask
from datatrove.data import Document
from tokcask.datatrove import MergeParts, Pretokenize

from scaling import (
    LENGTH,
    SIZES,
    STALL,
    Logged,
    by_one_process,
    contents,
    make_corpus,
    names,
    run,
    stalled,
    started,
    texts_of,
    tokenized,
    wait_until,
)

PIPELINE = """
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from tokcask.datatrove import MergeParts, Pretokenize

if __name__ == "__main__":
    tokenize = LocalPipelineExecutor(
        [JsonlReader(str(here / "corpus")), Pretokenize(here / "store", tokenizer=tokenizer, sequence_len=LENGTH)],
        tasks=4, workers=2, logging_dir=str(here / "logs" / "tokenize"))
    LocalPipelineExecutor([MergeParts(here / "store")], logging_dir=str(here / "logs" / "merge"), depends=tokenize).run()
"""

MERGE = """
import tokcask._parts
from tokcask.datatrove import MergeParts
tokcask._parts._MERGED_AT_ONCE = 1
list(MergeParts(here / "store").run())
"""


@pytest.fixture
def here(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path


@pytest.fixture
def corpus(here: pathlib.Path, small_json: str) -> dict[str, list[str]]:
    return make_corpus(here, small_json)


@pytest.fixture
def step(here: pathlib.Path, corpus: Any) -> Callable[..., Pretokenize]:
    return lambda **options: Pretokenize(
        here / "store", tokenizer=Logged(here), sequence_len=LENGTH, **options
    )


def documents(texts: list[str]) -> list[Document]:
    return [Document(text=text, id=str(number)) for number, text in enumerate(texts)]


def completed(here: pathlib.Path) -> list[str]:
    folder = here / "logs" / "tokenize" / "completions"
    return names(folder) if folder.exists() else []


def test_killed_and_resumed(here: pathlib.Path, corpus: dict[str, list[str]]) -> None:
    parts = here / "store.parts"
    (here / "stall").touch()
    with started(PIPELINE, here) as executor:
        worker = stalled(here)
        wait_until(lambda: len(completed(here)) == len(SIZES) - 1, "the other tasks do not end")
        os.kill(worker, signal.SIGKILL)
        # It would wait for that task for ever.
        os.killpg(executor.pid, signal.SIGKILL)
    assert completed(here) == ["00000", "00002", "00003"]
    left = names(parts)
    assert [name.split(".")[:2] for name in left] == [
        ["", "00001-of-00004"],
        ["00000-of-00004", left[1].split(".")[1]],
        ["00002-of-00004", left[2].split(".")[1]],
        ["00003-of-00004", left[3].split(".")[1]],
    ]
    # Two batches of it were stored, and are no part.
    assert len(contents(parts / left[0] / "store")) == 2000
    assert not (here / "store").exists()

    run(PIPELINE, here)
    assert contents(here / "store") == by_one_process(here, corpus)
    assert names(parts) == []
    once = tokenized(here)
    own = set(corpus["1.jsonl"][10:])
    assert {once[text] for text in texts_of(corpus) if text not in own and "common" not in text} == {1}
    assert {once[text] for text in own} == {2}

    before = tokenized(here)
    run(PIPELINE, here)
    assert tokenized(here) == before


def test_attempts_at_the_same_time(
    here: pathlib.Path, corpus: dict[str, list[str]], step: Callable[..., Pretokenize]
) -> None:
    """Two that both come to their end, and one that does not."""
    texts = documents(texts_of(corpus))
    first, second, third = (step().run(texts, 0, 1) for _ in range(3))
    for _ in range(1500):
        assert next(first) is next(second) is next(third)
    assert len(names(here / "store.parts")) == 3
    third.close()
    assert len(names(here / "store.parts")) == 2
    assert len(list(first)) == len(list(second)) == len(texts) - 1500
    parts = sorted((here / "store.parts").iterdir())
    assert [part.name.split(".")[0] for part in parts] == ["00000-of-00001"] * 2
    assert names(parts[0]) == ["data.mdb"]
    truth = by_one_process(here, corpus)
    merge = MergeParts(here / "store")
    assert list(merge.run()) == []
    assert contents(here / "store") == truth
    assert names(here / "store.parts") == []
    assert merge.stats["parts"].total == 2
    assert merge.stats["entries"].total == 2 * merge.stats["merged"].total == 2 * len(truth)


def test_each_text_once(
    here: pathlib.Path, corpus: dict[str, list[str]], step: Callable[..., Pretokenize]
) -> None:
    """Also when it was killed when its part was there but datatrove did not know, and when it is in the store."""
    texts = documents(corpus["0.jsonl"] + corpus["0.jsonl"])
    for _ in range(2):
        list(step().run(texts, 0, 2))
        assert len(names(here / "store.parts")) == 1
    list(MergeParts(here / "store").run())
    list(step().run([*texts, Document(text="new", id="new")], 1, 2))
    (part,) = (here / "store.parts").iterdir()
    assert len(contents(part)) == 1
    assert tokenized(here) == {**dict.fromkeys(corpus["0.jsonl"], 1), "new": 1}


def test_each_text_once_while_others_are_tokenized(here: pathlib.Path, tokenizer: Any) -> None:
    """A tokenizer of transformers is at several batches at once."""
    texts = [f"text {number}" for number in range(1000)]
    step = Pretokenize(here / "store", tokenizer=tokenizer, sequence_len=LENGTH)
    assert len(list(step.run(documents(texts * 4), 0, 1))) == 4000
    assert step.stats["tokenized"].total == 1000


def test_an_error_leaves_no_part(here: pathlib.Path, step: Callable[..., Pretokenize]) -> None:
    def source() -> Any:
        yield from documents([f"text {n}" for n in range(1500)])
        raise OSError("the reader's")

    with pytest.raises(OSError, match="the reader's"):
        list(step().run(source(), 0, 1))
    assert names(here / "store.parts") == []
    assert len(tokenized(here)) == 1000


def test_a_merge_that_is_killed_goes_on(
    here: pathlib.Path, corpus: dict[str, list[str]], step: Callable[..., Pretokenize]
) -> None:
    for rank, texts in enumerate(corpus.values()):
        list(step().run(documents(texts), rank, len(SIZES)))
    with started(MERGE, here) as merge:
        wait_until(lambda: len(names(here / "store.parts")) < len(SIZES), "nothing is merged")
        os.killpg(merge.pid, signal.SIGKILL)
    list(MergeParts(here / "store").run())
    assert contents(here / "store") == by_one_process(here, corpus)
    assert names(here / "store.parts") == []


def test_parts_elsewhere(
    here: pathlib.Path,
    corpus: dict[str, list[str]],
    step: Callable[..., Pretokenize],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    shared = here / "shared"
    with pytest.raises(FileNotFoundError, match="so make it first"):
        list(step(parts=shared).run(documents(["a"]), 0, 1))
    shared.mkdir()
    for rank, texts in enumerate(corpus.values()):
        list(step(parts=shared).run(documents(texts), rank, len(SIZES)))
    assert len(names(shared)) == len(SIZES)
    assert names(here / "store.parts") == []
    list(MergeParts(here / "store", parts=shared).run())
    assert contents(here / "store") == by_one_process(here, corpus)
    assert names(shared) == names(here / "store.parts") == []


def test_another_machine_needs_shared_parts(here: pathlib.Path, step: Callable[..., Pretokenize]) -> None:
    sent = pickle.loads(pickle.dumps(step()))
    sent.parts._machine = "another"
    with pytest.raises(ValueError, match="given on another: with several machines, parts must be"):
        list(sent.run(documents(["a"]), 0, 1))


def test_what_does_not_fit_stays(
    here: pathlib.Path, corpus: dict[str, list[str]], step: Callable[..., Pretokenize]
) -> None:
    list(step().run(documents(texts_of(corpus)), 0, 1))
    with pytest.raises(
        RuntimeError, match=r"entries had no room \(give a larger max_bytes\)\. These parts stay"
    ):
        list(MergeParts(here / "store", max_bytes=300_000).run())
    assert len(names(here / "store.parts")) == 1
    list(MergeParts(here / "store", max_bytes=1 << 30).run())
    assert contents(here / "store") == by_one_process(here, corpus)


def test_conflicts_stay(here: pathlib.Path, step: Callable[..., Pretokenize]) -> None:
    list(step().run(documents(["a", "b"]), 0, 1))
    with tokcask.TokenizedCache.open(here / "store") as cache:
        key = tokcask.CacheKey(tokcask.section_id("b"), Logged(here).sha256, LENGTH)
        cache.put(key, tokcask.CachedTokens([7]))
    with pytest.raises(RuntimeError, match=r"1 entries have other tokens .* e\.g\. "):
        list(MergeParts(here / "store").run())
    assert len(names(here / "store.parts")) == 1


def test_merge_is_for_one_task(here: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="give it an executor of its own"):
        list(MergeParts(here / "store").run(None, 0, 2))


def test_documents_go_on(here: pathlib.Path, step: Callable[..., Pretokenize]) -> None:
    texts = documents(["a", STALL, "c"])
    pretokenize = step()
    assert list(pretokenize.run(texts, 0, 1)) == texts
    assert pretokenize.stats["tokenized"].total == 3
    assert list(step().run(None, 1, 2)) == []
