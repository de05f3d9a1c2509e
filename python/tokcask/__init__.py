"""A memory-mapped, embedded store for tokenized text: each text is tokenized once.

Start at TokenizedCache.open(). pretokenize_rows() does a whole data set.

Importing the package imports nothing else: each name is loaded when it is first used, so that the `tokcask`
command starts fast.
"""

from __future__ import annotations

# typing.TYPE_CHECKING without importing typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from tokcask._core import (
        CachedTokens,
        CacheKey,
        Damage,
        Explanation,
        MergeReport,
        TokenizedCache,
        VerifyReport,
        merge,
        section_id,
    )
    from tokcask._cached import cached
    from tokcask._encoding import BatchTokenizer
    from tokcask._errors import (
        BusyError,
        DamagedError,
        MissingEntryError,
        ReadOnlyError,
        UnsupportedError,
    )
    from tokcask._exchange._export import ExportReport, export_tokens
    from tokcask._exchange._import import ImportReport, import_tokens
    from tokcask._identity import tokenizer_sha256
    from tokcask._pretokenize import LazyRows, TokenizedRows, pretokenize_rows
    from tokcask._rows import TokenizationStats, key_for

    __version__: str

__all__ = [
    "BatchTokenizer",
    "BusyError",
    "CacheKey",
    "CachedTokens",
    "Damage",
    "DamagedError",
    "Explanation",
    "ExportReport",
    "ImportReport",
    "LazyRows",
    "MergeReport",
    "MissingEntryError",
    "ReadOnlyError",
    "TokenizationStats",
    "TokenizedCache",
    "TokenizedRows",
    "UnsupportedError",
    "VerifyReport",
    "__version__",
    "cached",
    "export_tokens",
    "import_tokens",
    "key_for",
    "merge",
    "pretokenize_rows",
    "section_id",
    "tokenizer_sha256",
]

_HOMES = {
    "tokcask._core": (
        "CacheKey",
        "CachedTokens",
        "Damage",
        "Explanation",
        "MergeReport",
        "TokenizedCache",
        "VerifyReport",
        "__version__",
        "merge",
        "section_id",
    ),
    "tokcask._cached": ("cached",),
    "tokcask._encoding": ("BatchTokenizer",),
    "tokcask._errors": (
        "BusyError",
        "DamagedError",
        "MissingEntryError",
        "ReadOnlyError",
        "UnsupportedError",
    ),
    "tokcask._exchange._export": ("ExportReport", "export_tokens"),
    "tokcask._exchange._import": ("ImportReport", "import_tokens"),
    "tokcask._identity": ("tokenizer_sha256",),
    "tokcask._pretokenize": ("LazyRows", "TokenizedRows", "pretokenize_rows"),
    "tokcask._rows": ("TokenizationStats", "key_for"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            import importlib

            module = importlib.import_module(home)
            globals().update({public: getattr(module, public) for public in names})
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
