"""For datatrove: steps that tokenize a corpus with many tasks, on one machine or several, into one store.

    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from tokcask.datatrove import MergeParts, Pretokenize

    tokenize = LocalPipelineExecutor(
        [JsonlReader("corpus"), Pretokenize("/data/tokens", tokenizer=tokenizer, sequence_len=2048)],
        tasks=1000, workers=16, logging_dir="logs/tokenize",
    )
    merge = LocalPipelineExecutor([MergeParts("/data/tokens")], logging_dir="logs/merge", depends=tokenize)
    merge.run()

Each attempt at a task fills a store of its own, which becomes a part, in /data/tokens.parts, when the task is
complete. So a task may be killed, tried again, or run twice at the same time. Start the program again after a
kill: datatrove leaves out the tasks that it has marked as completed, and the merge goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from tokcask._filling import chunks
from tokcask._parts import Parts, Tokenization

try:
    from datatrove.data import Document
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise ImportError(
        f"tokcask.datatrove needs the package datatrove: pip install 'tokcask[datatrove]' ({error})"
    ) from error

__all__ = ["MergeParts", "Pretokenize"]


class Pretokenize(PipelineStep):
    """Tokenizes the text of each document, as pretokenize_rows() does, and hands the document on.

    What it made counts when all documents were taken, so no later step may stop before the last one.

    store         the directory of the store, on a local disk. A text that it has already is not tokenized again
    tokenizer     as for pretokenize_rows(), and picklable
    sequence_len  likewise
    parts         needed with several machines: a directory that all of them see, where parts go instead of STORE.parts.
                  It must be there. What a task is at lies in STORE.parts of its own machine until it is whole
    """

    type = "🔢 - TOKENIZER"
    name = "🗃 tokcask"

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        tokenizer: Any,
        sequence_len: int,
        parts: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.parts = Parts(store, parts)
        self.tokenization = Tokenization(tokenizer, sequence_len)

    def run(self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """One task's documents, a thousand at a time."""
        batches = (
            (documents, ({"text": document.text} for document in documents))
            for documents in chunks(data or ())
        )
        with self.parts.attempt(f"{rank:05d}-of-{world_size:05d}", self.tokenization) as attempt:
            for documents in attempt.fill(batches):
                self.stat_update("documents", value=len(documents), unit="batch")
                yield from documents
            self.stat_update("tokenized", value=attempt.tokenized, unit="task")
            self.stat_update("tokens", value=attempt.tokens, unit="task")


class MergeParts(PipelineStep):
    """Merges what Pretokenize made into the store, and removes the parts. For one task, after all others.

    store      as for Pretokenize, and so is parts
    max_bytes  hard cap on the size of the store; None: what it was last given, 10 GiB for a new one

    RuntimeError if there are entries that do not fit, are damaged, or contradict each other; their parts stay.
    """

    type = "🔢 - TOKENIZER"
    name = "🗃 tokcask merge"

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        parts: str | os.PathLike[str] | None = None,
        max_bytes: int | None = None,
    ) -> None:
        super().__init__()
        self.parts = Parts(store, parts)
        self.max_bytes = max_bytes

    def run(
        self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Merges, after the documents of the step before, if there is one."""
        if world_size != 1:
            raise ValueError(f"MergeParts is for one task, not {world_size}: give it an executor of its own")
        yield from data or ()
        with self.track_time("merge"):
            merged = self.parts.merge(self.max_bytes)
        for label, value in merged._asdict().items():
            self.stat_update(label, value=value, unit="merge")
