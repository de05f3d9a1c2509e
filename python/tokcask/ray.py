"""For Ray Data: a data sink that tokenizes a data set on all of a cluster's cores into one store.

    import ray
    from tokcask.ray import TokcaskDatasink

    rows = ray.data.read_json("corpus")        # with text, messages or preference columns
    rows.write_datasink(TokcaskDatasink("/data/tokens", tokenizer=tokenizer, sequence_len=2048))

Each attempt at a write task fills a store of its own, which becomes a part, in /data/tokens.parts, when the task is
complete; Ray tries tasks again whose worker died. At the end the parts are merged. After a kill of the driver the next
write merges what is there first, and tokenizes the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tokcask._filling import chunks
from tokcask._parts import Parts, Tokenization

try:
    from ray.data.block import Block, BlockAccessor
    from ray.data.datasource import Datasink
except ImportError as error:
    raise ImportError(f"tokcask.ray needs Ray Data: pip install 'tokcask[ray]' ({error})") from error

__all__ = ["TokcaskDatasink"]


class TokcaskDatasink(Datasink):
    """For Dataset.write_datasink(): rows as pretokenize_rows() takes them.

    Messages are what Arrow keeps of them: where only some have a field, the others have it too, as None, which is another
    content.

    store         the directory of the store, on a local disk of the driver's machine. A text that it has already is not
                  tokenized again
    tokenizer     as for pretokenize_rows(), and picklable
    sequence_len  likewise
    parts         needed with several machines: a directory that all of them see, where parts go instead of STORE.parts.
                  It must be there. What a task is at lies in STORE.parts of its own machine until it is whole
    max_bytes     hard cap on the size of the store; None: what it was last given, 10 GiB for a new one

    The write raises RuntimeError if there are entries that do not fit, are damaged, or contradict each other; their
    parts stay.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        tokenizer: Any,
        sequence_len: int,
        parts: str | os.PathLike[str] | None = None,
        max_bytes: int | None = None,
    ) -> None:
        super().__init__()
        self._parts = Parts(store, parts)
        self._tokenization = Tokenization(tokenizer, sequence_len)
        self._max_bytes = max_bytes

    def on_write_start(self, schema: Any = None) -> None:
        """On the driver: merges what a run left that was killed, so that nobody tokenizes it again."""
        self._parts.merge(self._max_bytes)

    def write(self, blocks: Iterable[Block], ctx: Any) -> int:
        """One task: a part. Returns how many texts were tokenized."""
        batches = ((None, rows) for rows in chunks(_rows(blocks)))
        with self._parts.attempt(f"{ctx.task_idx:06d}", self._tokenization) as attempt:
            for _ in attempt.fill(batches):
                pass
        return attempt.tokenized

    def on_write_complete(self, write_result: Any) -> None:
        """On the driver: merges the parts."""
        self._parts.merge(self._max_bytes)

    def get_name(self) -> str:
        """What Ray shows."""
        return "tokcask"


def _rows(blocks: Iterable[Block]) -> Iterator[Mapping[str, Any]]:
    for block in blocks:
        yield from BlockAccessor.for_block(block).iter_rows(public_row_format=True)
