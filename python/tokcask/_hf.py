"""Tokenizer files (tokenizer.json) for `tokcask warm`, by the library `tokenizers`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tokcask._identity import sha256_of_file_tokenizer, truncation_traits


class FileTokenizer:
    """The tokenizer of a file, as `tokenizer(text, truncation=True, padding=False, max_length=n)`.

    Called by one thread at a time.
    """

    def __init__(self, file: str, jobs: int) -> None:
        """Loads `file` to run on `jobs` threads, 0 for as many as there are cores."""
        # The library reads these when it starts its threads.
        os.environ["TOKENIZERS_PARALLELISM"] = "false" if jobs == 1 else "true"
        if jobs > 0:
            os.environ["RAYON_NUM_THREADS"] = str(jobs)
        try:
            import tokenizers
        except ImportError as error:
            raise ImportError(
                "tokenizer files need the package tokenizers: pip install tokenizers"
            ) from error
        self._tokenizer: Any = tokenizers.Tokenizer.from_file(file)
        self._tokenizer.no_padding()
        self._direction: str = (self._tokenizer.truncation or {}).get("direction", "right").lower()
        self._max_length: int | None = None
        self.sha256 = sha256_of_file_tokenizer(self._tokenizer, self._direction)
        # Without offsets, which nobody asks for here.
        self._encode_batch = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)

    @property
    def traits(self) -> tuple[bool, bool]:
        """How it truncates; see truncation_traits()."""
        return truncation_traits(self._tokenizer, self._direction)

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Any]:
        """One encoding per text, whose `ids` has at most max_length token ids."""
        if max_length != self._max_length:
            self._tokenizer.enable_truncation(max_length, direction=self._direction)
            self._max_length = max_length
        encodings: list[Any] = self._encode_batch(texts)
        return encodings
