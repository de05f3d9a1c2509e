"""Tokenizer files (tokenizer.json) for `tokcask warm`, by the library `tokenizers`."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

import tokcask

from tokcask._identity import sha256_of_file_tokenizer, truncation_traits


class FileTokenizer:
    """The tokenizer of a file, as `tokenizer(text, truncation=True, padding=False, max_length=n)`."""

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
        content = pathlib.Path(file).read_bytes()
        self._tokenizer: Any = tokenizers.Tokenizer.from_buffer(content)
        self._tokenizer.no_padding()
        self._direction: str = (self._tokenizer.truncation or {}).get("direction", "right").lower()
        self._max_length: int | None = None
        self._changing = threading.Lock()
        # What the identity follows from.
        self.origin = (
            f"{hashlib.sha256(content).hexdigest()} "
            f"tokenizers {tokenizers.__version__} tokcask {tokcask.__version__}"
        )
        # Without offsets, which nobody asks for here.
        self._encode_batch = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)

    @functools.cached_property
    def sha256(self) -> str:
        """Its identity, of the file as it was when it was loaded. Half a second for 130,000 tokens."""
        return sha256_of_file_tokenizer(self._tokenizer, self._direction)

    @property
    def traits(self) -> tuple[bool, bool]:
        """How it truncates; see truncation_traits()."""
        return truncation_traits(self._tokenizer, self._direction)

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Any]:
        """One encoding per text, whose `ids` has at most max_length token ids. Several threads may tokenize at
        once, to the same max_length: the library cannot change it meanwhile."""
        with self._changing:
            if max_length != self._max_length:
                self._tokenizer.enable_truncation(max_length, direction=self._direction)
                self._max_length = max_length
        encodings: list[Any] = self._encode_batch(texts)
        return encodings
