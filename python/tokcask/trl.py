"""For TRL's SFTTrainer: the data set it would make of your rows, out of a store, without tokenizing twice.

    from tokcask.trl import sft_dataset

    config = SFTConfig(..., max_length=1024, dataset_kwargs={"skip_prepare_dataset": True})
    train = sft_dataset("tokens", rows, tokenizer=tokenizer, args=config)
    trainer = SFTTrainer(model, args=config, train_dataset=train.to_hf(), processing_class=tokenizer)

An SFTDataset is a torch dataset, which transformers' Trainer and any loop take as it is. SFTTrainer insists on
a datasets.Dataset: to_hf() is one with the same rows. Needs torch, and to_hf() the package datasets. TRL itself is
needed for assistant_only_loss alone.
"""

from __future__ import annotations

import atexit
import copy
import hashlib
import logging
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from tokcask._adapters import adapted
from tokcask._core import CachedTokens, TokenizedCache
from tokcask._encoding import NO_LENGTH, Recipe
from tokcask._filling import chunks
from tokcask._progress import Progress
from tokcask._rows import (
    Filler,
    RowMaker,
    RowReader,
    filled,
    indexable,
    length_of,
)
from tokcask.torch._dataset import TokenDataset

__all__ = ["SFTDataset", "sft_dataset", "trainer_args"]

_ROWS_PER_WRITE = 1000
_UNSET: Any = object()
# Settings of SFTConfig that change the rows, and what to do instead.
_NOT_PREPARED = {
    "packing": "give SFTTrainer dataset.to_hf() without skip_prepare_dataset, or use tokcask.torch's pack()",
    "shuffle_dataset": "shuffle the rows before, or dataset.to_hf().shuffle(seed=args.seed)",
    "chat_template_path": "set tokenizer.chat_template first",
}
_REFUSED = {
    "prompt": "leave rows of prompt and completion to SFTTrainer",
    "chosen": "rows of preferences are DPOTrainer's or RewardTrainer's",
    "input_ids": "it is tokenized already: give it to SFTTrainer as it is",
    "labels": "leave rows with labels of their own to SFTTrainer",
    "assistant_masks": "leave rows with masks of their own to SFTTrainer",
    "completion_mask": "leave rows with masks of their own to SFTTrainer",
    "image": "leave rows with images to SFTTrainer",
    "images": "leave rows with images to SFTTrainer",
    "conversations": "rename it to messages, with role and content in each, as TRL does",
}
_log = logging.getLogger("tokcask")


def sft_dataset(
    root: str | os.PathLike[str],
    rows: Iterable[Mapping[str, Any]],
    *,
    tokenizer: Any,
    args: Any = None,
    max_length: int | None = _UNSET,
    truncation_mode: Literal["keep_start", "keep_end"] = _UNSET,
    assistant_only_loss: bool = _UNSET,
    text_field: str = _UNSET,
    formatting_func: Callable[[Any], str] | None = None,
    max_bytes: int | None = None,
    progress: Progress = None,
    allow_empty: bool = False,
) -> SFTDataset:
    """The rows as SFTTrainer would tokenize them, from the store in root, which gets what it lacks.

    The ids and labels are those of TRL's own preparation, to the bit; so are the rows that it leaves out because
    nothing of them would be learned.

    rows       a list, a Dataset of the library datasets, or any iterable of rows, with `messages` (and perhaps
               `tools` and `chat_template_kwargs`) or text. They are read once, and again where tokens are missing
    tokenizer  what SFTTrainer gets as its processing_class, with the eos_token that it shall have
    args       the trainer's SFTConfig, with dataset_kwargs={"skip_prepare_dataset": True}. max_length, truncation_mode,
               assistant_only_loss and dataset_text_field are taken from it. What would change the rows and is not
               prepared here is a ValueError: packing, shuffle_dataset, chat_template_path, an eos_token that is not the
               tokenizer's, and another value for an argument below
    max_length, truncation_mode, assistant_only_loss, text_field
               the same by hand, without args: 1024, "keep_start", False and "text" as in SFTConfig. The trainer does not
               prepare the rows again, so its own settings have no effect on them
    formatting_func  as SFTTrainer takes it: makes the text of a row
    max_bytes  of the store; see TokenizedCache.open()
    progress   see pretokenize_rows()
    allow_empty  whether a data set without items is no error

    With assistant_only_loss=True the labels hold what is to be learned, and SFTConfig(assistant_only_loss=True) would
    ask for conversations: give the trainer a copy of args without it, as trainer_args() makes one.

    Of all tokens no copy is made: an item is read out of the store when it is asked for. One that the store has no
    room for is tokenized when it is asked for. Processes that do the same at the same time, as the ranks of a
    launcher, share the work as in pretokenize_rows(). The tokenizer is not changed.

    Raises ValueError or TypeError, which name the row, for a row of another kind; and where only the assistant's tokens
    are to be learned, for a text and for a conversation without any.
    """
    given = {
        "max_length": max_length,
        "truncation_mode": truncation_mode,
        "assistant_only_loss": assistant_only_loss,
        "text_field": text_field,
    }
    settings = _settings(
        args, tokenizer, {name: value for name, value in given.items() if value is not _UNSET}
    )
    if settings.truncation_mode not in ("keep_start", "keep_end"):
        raise ValueError(
            f"truncation_mode must be 'keep_start' or 'keep_end', not {settings.truncation_mode!r}"
        )
    tokenizer = adapted(tokenizer)
    masked = settings.assistant_only_loss
    # Whole sequences are stored and cut when they are read: one entry serves all lengths and both sides.
    recipe = Recipe(NO_LENGTH, assistant_mask=masked)
    cut = None
    if settings.max_length is not None:
        cut = (length_of(settings.max_length), settings.truncation_mode == "keep_end")
    template = _training_template(tokenizer) if masked else None
    given_rows = indexable(rows)
    if formatting_func is not None:
        given_rows = _Formatted(given_rows, formatting_func)
    reader = RowReader(
        tokenizer, recipe, text_field=settings.text_field, chat_template=template, refused=_REFUSED
    )
    maker = RowMaker(given_rows, tokenizer, recipe, reader)
    learned: dict[str, bool] = {}

    def took(part: Mapping[str, CachedTokens]) -> None:
        for section, tokens in part.items():
            learned[section] = _learns(tokens, masked, cut)

    with TokenizedCache.open(root, max_bytes=max_bytes) as cache:
        filler = Filler(tokenizer, recipe, cache)
        ids, stats = filled(filler, given_rows, reader, progress, took)
        kept = [place for place, section in enumerate(ids) if settings.max_length is None or learned[section]]
        maker.places = np.array(kept, np.int64)
        keys = (filler.key(ids[place]) for place in kept)
        # While the cache is open, so that nothing is evicted in between.
        dataset = SFTDataset(root, keys, missing=maker, allow_empty=allow_empty, _masked=masked)
        dataset._cut = cut
    dataset.stats = stats
    _log.info(
        "%s: %d rows, %d of them from the store; %d have nothing to learn and are left out",
        os.fspath(root),
        len(ids),
        stats.cache_hits,
        len(ids) - len(kept),
    )
    return dataset


@dataclass(frozen=True)
class _Settings:
    """What of an SFTConfig changes rows and is prepared here."""

    max_length: int | None = 1024
    truncation_mode: Any = "keep_start"
    assistant_only_loss: bool = False
    text_field: str = "text"


def _settings(args: Any, tokenizer: Any, given: dict[str, Any]) -> _Settings:
    if args is None:
        return _Settings(**given)
    try:
        of_args = {
            name: getattr(args, "dataset_text_field" if name == "text_field" else name)
            for name in ("max_length", "truncation_mode", "assistant_only_loss", "text_field")
        }
    except AttributeError as error:
        raise TypeError(
            f"args must be a trl.SFTConfig of TRL 1.16 or newer; this {type(args).__name__} has no {error.name}"
        ) from error
    problems = [
        f"{name} is {value!r} here and {of_args[name]!r} in args"
        for name, value in given.items()
        if value != of_args[name]
    ]
    if not (getattr(args, "dataset_kwargs", None) or {}).get("skip_prepare_dataset"):
        problems.append(
            'dataset_kwargs lacks {"skip_prepare_dataset": True}, so the trainer would prepare them again'
        )
    for name, remedy in _NOT_PREPARED.items():
        if getattr(args, name, None):
            problems.append(f"{name} is not prepared here: {remedy}")
    eos_token = getattr(args, "eos_token", None)
    if eos_token is not None and eos_token != getattr(tokenizer, "eos_token", None):
        problems.append(f"eos_token is {eos_token!r} in args: set tokenizer.eos_token first")
    if problems:
        raise ValueError(f"these settings of the trainer are not those of the rows: {'; '.join(problems)}")
    return _Settings(**of_args)


def trainer_args(args: Any) -> Any:
    """A copy of an SFTConfig for the trainer of prepared rows: without assistant_only_loss, which is in the labels, and
    for which SFTTrainer would ask for conversations."""
    made = copy.copy(args)
    made.assistant_only_loss = False
    return made


def _taken(length: int, cut: tuple[int, bool] | None) -> slice:
    """What of so many tokens is left when they are cut to a length, from the beginning or (True) from the end."""
    if cut is None or length <= cut[0]:
        return slice(0, length)
    return slice(length - cut[0], length) if cut[1] else slice(0, cut[0])


def _learns(tokens: CachedTokens, masked: bool, cut: tuple[int, bool] | None) -> bool:
    """Whether anything is learned of them."""
    taken = _taken(len(tokens.input_ids), cut)
    if not masked:
        return bool(taken.stop > taken.start)
    spans = tokens.spans["assistant"]
    return bool(((spans[:, 0] < taken.stop) & (spans[:, 1] > taken.start)).any())


def _training_template(tokenizer: Any) -> str | None:
    """The template that TRL puts in the place of one that does not mark what the assistant says."""
    try:
        from trl.chat_template_utils import get_training_chat_template, has_generation_markers
    except ImportError as error:
        raise ImportError(f"assistant_only_loss needs the package trl, 1.16 or newer ({error})") from error
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "assistant_only_loss needs a tokenizer with a chat template; set tokenizer.chat_template, or leave it out"
        )
    if has_generation_markers(tokenizer.chat_template):
        return None
    template: str | None = get_training_chat_template(tokenizer)
    return template


class _Formatted:
    """Rows whose text a function of the caller's makes, with all their fields, as in TRL. Picklable if both are."""

    def __init__(self, rows: Any, function: Callable[[Any], str]) -> None:
        self._rows = rows
        self._function = function

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row = self._rows[place]
        return {**row, "text": self._function(row)}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[place] for place in range(len(self)))


class SFTDataset(TokenDataset):
    """What sft_dataset() returns: a TokenDataset whose items are a trainer's rows.

    dataset[i] is a dict of input_ids and labels, int64 arrays of NumPy made for this call. Labels are the ids, or
    -100 where they are not to be learned. For the collators of TRL and transformers, which pad by themselves.
    """

    column_names = ("input_ids", "labels")  # what TRL looks at
    _cut: tuple[int, bool] | None = None

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each item, as it is cut; 0 for one without an entry. A new array."""
        lengths = super().lengths
        return lengths if self._cut is None else np.minimum(lengths, self._cut[0]).astype(lengths.dtype)

    def lengths_with_made(self) -> NDArray[np.int32]:
        """`lengths`, with those of items that have no entry and are made again. Makes each of them once."""
        lengths = super().lengths_with_made()
        return lengths if self._cut is None else np.minimum(lengths, self._cut[0]).astype(lengths.dtype)

    @property
    def fingerprint(self) -> str:
        """Of the keys in their order and of how items are cut, 32 hexadecimal digits."""
        return hashlib.sha256(f"{super().fingerprint} {self._cut} {self._masked}".encode()).hexdigest()[:32]

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (super().__reduce__(), self._cut)

    def __getitem__(self, index: SupportsIndex) -> Any:
        return self._row(super().__getitem__(index))

    def __getitems__(self, indices: Iterable[SupportsIndex]) -> list[Any]:
        """The items at these indices, from one snapshot."""
        return [self._row(tokens) for tokens in super().__getitems__(indices)]

    def _row(self, tokens: CachedTokens) -> dict[str, NDArray[np.int64]]:
        taken = _taken(len(tokens.input_ids), self._cut)
        input_ids = tokens.input_ids[taken].astype(np.int64)
        if not self._masked:
            return {"input_ids": input_ids, "labels": input_ids.copy()}
        labels = np.full_like(input_ids, -100)
        for begin, end in np.clip(tokens.spans["assistant"] - taken.start, 0, len(input_ids)).tolist():
            labels[begin:end] = input_ids[begin:end]
        return {"input_ids": input_ids, "labels": labels}

    def to_hf(self, directory: str | os.PathLike[str] | None = None) -> Any:
        """The same rows as a datasets.Dataset, with columns input_ids (int32) and labels (int64).

        It is a Dataset like any other: all its methods work, in other processes too. The rows are copied into an Arrow
        file, 12 bytes a token, a thousand rows at a time, and mapped from there. Without `directory` the file is
        temporary, and is removed when this process ends. In a directory, which is made if it is not there, the file stays:
        the same rows are not written again, and what datasets makes of them (map(), and so TRL's packing) is found
        again, because the fingerprint is that of the rows.
        """
        import datasets

        if directory is None:
            directory = tempfile.mkdtemp(prefix="tokcask-")
            atexit.register(_remove, directory, os.getpid())
        identity = self.fingerprint
        file = pathlib.Path(directory) / f"tokcask-{identity}.arrow"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._write_arrow(file)
        made = datasets.Dataset.from_file(str(file))
        return datasets.Dataset(made.data, made.info, made.split, fingerprint=identity)

    to_arrow = to_hf

    def _write_arrow(self, file: pathlib.Path) -> None:
        import datasets
        import pyarrow as pa

        features = datasets.Features(
            input_ids=datasets.List(datasets.Value("int32")), labels=datasets.List(datasets.Value("int64"))
        )
        unfinished = file.with_suffix(f".{secrets.token_hex(4)}.unfinished")
        with pa.OSFile(str(unfinished), "wb") as sink:
            with pa.ipc.new_stream(sink, features.arrow_schema) as writer:
                for part in chunks(range(len(self)), _ROWS_PER_WRITE):
                    rows = self.__getitems__(part)
                    columns = [
                        _list_array([row[name] for row in rows], kind)
                        for name, kind in (("input_ids", np.int32), ("labels", np.int64))
                    ]
                    writer.write_batch(pa.record_batch(columns, schema=features.arrow_schema))
        unfinished.replace(file)

    def __repr__(self) -> str:
        return f"<tokcask.trl.SFTDataset {self.root!r}: {len(self)} items>"


def _reopened(made: tuple[Any, tuple[Any, ...]], cut: tuple[int, bool] | None) -> SFTDataset:
    function, arguments = made
    dataset: SFTDataset = function(*arguments)
    dataset._cut = cut
    return dataset


def _list_array(rows: list[NDArray[Any]], kind: Any) -> Any:
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    values = np.concatenate(rows).astype(kind) if rows else np.zeros(0, kind)
    return pa.ListArray.from_arrays(offsets, values)


def _remove(directory: str, process: int) -> None:
    # A forked worker ends with its parent's objects, whose files are not its own to remove.
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)
