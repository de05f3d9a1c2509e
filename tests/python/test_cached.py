"""A cached tokenizer returns what the plain one returns, in every form of its calls, and asks it once for each text."""

from __future__ import annotations

import copy
import os
import pathlib
import pickle
import signal
import subprocess
import sys
from random import Random
from typing import Any

import datasets
import numpy as np
import pytest
import tokcask
import tokenizers
import torch
import transformers
from datasets.fingerprint import Hasher
from tokcask import TokenizedCache
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from trl import (
    DPOConfig,
    DPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

from conftest import EOS, texts_of
from test_trl import MARKED_TEMPLATE, losses, model_for, options_for

PAIRS = [("one two", "three"), ("four", "")]


def with_pad(tokenizer: Any) -> Any:
    tokenizer.pad_token = EOS
    return tokenizer


def bert() -> Any:
    """One that adds special tokens on both sides, with types for pairs, and whose own cut keeps the last."""
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    backend.train_from_iterator([pathlib.Path(__file__).read_text()], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def typed() -> Any:
    """One whose special token has a type of its own in single texts too, as XLNet's."""
    made = bert()
    backend = made.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [CLS]:2", special_tokens=[(n, backend.token_to_id(n)) for n in ("[CLS]", "[SEP]")]
    )
    return made


def left(tokenizer: Any) -> Any:
    tokenizer.truncation_side = tokenizer.padding_side = "left"
    return tokenizer


def of_kind(kind: str, tokenizer: Any) -> Any:
    made = {"bert": bert, "bert-left": bert, "typed": typed}.get(kind, lambda: with_pad(tokenizer))()
    return left(made) if kind.endswith("left") else made


def values_of(result: Any) -> Any:
    """What was returned, with its types and the order of its keys, comparable."""
    if isinstance(result, (transformers.BatchEncoding, dict)):
        return type(result).__name__, [(name, values_of(value)) for name, value in result.items()]
    if isinstance(result, (torch.Tensor, np.ndarray)):
        return type(result).__name__, str(result.dtype), values_of(result.tolist())
    if isinstance(result, list):
        return [values_of(value) for value in result]
    return result


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("__call__", {}),
    ("__call__", {"add_special_tokens": False}),
    ("__call__", {"truncation": True, "max_length": 7}),
    ("__call__", {"truncation": True, "max_length": 3}),
    ("__call__", {"truncation": True, "max_length": 7, "add_special_tokens": False}),
    ("__call__", {"truncation": True, "max_length": 7, "padding": "max_length"}),
    ("__call__", {"padding": True}),
    ("__call__", {"padding": True, "pad_to_multiple_of": 8}),
    ("__call__", {"padding": True, "return_tensors": "pt"}),
    ("__call__", {"padding": "max_length", "max_length": 300, "truncation": True, "return_tensors": "np"}),
    ("__call__", {"return_offsets_mapping": True}),
    (
        "__call__",
        {"return_offsets_mapping": True, "truncation": True, "max_length": 7, "padding": "max_length"},
    ),
    ("__call__", {"return_special_tokens_mask": True, "return_length": True}),
    ("__call__", {"return_token_type_ids": True, "return_attention_mask": False}),
    ("__call__", {"return_overflowing_tokens": True, "truncation": True, "max_length": 7}),
    ("__call__", {"return_overflowing_tokens": True, "truncation": True, "max_length": 7, "stride": 2}),
    ("__call__", {"split_special_tokens": True}),
    ("encode", {}),
    ("encode", {"add_special_tokens": False}),
    ("encode", {"truncation": True, "max_length": 5}),
    ("tokenize", {}),
]


@pytest.mark.parametrize("kind", ["bpe", "bpe-left", "bert", "bert-left", "typed"])
def test_every_call_returns_the_same(tmp_path: pathlib.Path, tokenizer: Any, kind: str) -> None:
    plain = of_kind(kind, tokenizer)
    before = plain.backend_tokenizer.to_str()
    cached = tokcask.cached(plain, tmp_path / "store")
    assert type(cached) is type(plain)
    texts = [*texts_of(Random(3), 5), "", EOS, f"in{EOS}side", "é🙂🙂", " "]
    for again in range(2):
        for name, options in CALLS:
            given: list[Any] = (
                texts if name == "encode" or name == "tokenize" else [*texts, texts, ["", "a"], PAIRS[0][0]]
            )
            for text in given:
                wanted = values_of(getattr(plain, name)(text, **options))
                found = values_of(getattr(cached, name)(text, **options))
                assert found == wanted, (again, name, options, text)
            if name == "__call__" and "stride" not in options:
                pair: Any = ([one for one, _ in PAIRS], [other for _, other in PAIRS])
                assert values_of(cached(*pair, **options)) == values_of(plain(*pair, **options))
        words = [["one", "two"], ["three"]]
        assert values_of(cached(words, is_split_into_words=True)) == values_of(
            plain(words, is_split_into_words=True)
        )
    # The caller's own is as it was, whatever was asked of it by its caller.
    plain.backend_tokenizer.no_truncation()
    plain.backend_tokenizer.no_padding()
    plain.backend_tokenizer.encode_special_tokens = False
    assert plain.backend_tokenizer.to_str() == before


def test_a_text_is_tokenized_once(tmp_path: pathlib.Path, tokenizer: Any, monkeypatch: Any) -> None:
    cached = tokcask.cached(with_pad(tokenizer), tmp_path / "store")
    texts = texts_of(Random(4), 50)
    cached(texts)
    with TokenizedCache.open(tmp_path / "store", read_only=True) as store:
        stored = store.entry_count
        misses = store.misses
    assert stored == len(set(texts))
    other = tokcask.cached(with_pad(tokenizer), tmp_path / "store")
    for length in (5, 50, 5000):
        other(texts, truncation=True, max_length=length, padding=True)
    other(texts, return_attention_mask=False)
    with TokenizedCache.open(tmp_path / "store", read_only=True) as store:
        assert store.entry_count == stored
        assert store.misses == misses


def test_encodings_answer_as_the_librarys(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    plain = with_pad(tokenizer)
    cached = tokcask.cached(plain, tmp_path / "store")
    text = "naïve 🙂🙂 漢字 (quick)  brown"
    for options in ({}, {"padding": "max_length", "max_length": 60}, {"truncation": True, "max_length": 9}):
        for _ in range(2):
            wanted, found = plain(text, **options), cached(text, **options)
            assert found.is_fast
            assert found.tokens() == wanted.tokens()
            assert found.word_ids() == wanted.word_ids()
            assert found.sequence_ids() == wanted.sequence_ids()
            for place in range(len(text) + 2):
                assert found.char_to_token(place) == wanted.char_to_token(place)
            for place in range(len(found["input_ids"])):
                assert found.token_to_chars(place) == wanted.token_to_chars(place)


def test_conversations_with_masks(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    plain = with_pad(tokenizer)
    plain.chat_template = MARKED_TEMPLATE
    cached = tokcask.cached(plain, tmp_path / "store")
    texts = texts_of(Random(6), 20)
    chats = [
        [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
        for ask, answer in zip(texts[::2], texts[1::2], strict=True)
    ]
    forms: list[dict[str, Any]] = [
        {"return_dict": True, "return_assistant_tokens_mask": True},
        {"return_dict": True, "return_assistant_tokens_mask": True, "truncation": True, "max_length": 30},
        {"return_dict": False},
        {"tokenize": False},
        {"return_dict": True, "padding": True, "return_tensors": "pt"},
    ]
    for _ in range(2):
        for form in forms:
            wanted = values_of(plain.apply_chat_template(chats, **form))
            assert values_of(cached.apply_chat_template(chats, **form)) == wanted
            if "return_tensors" not in form:
                wanted = values_of(plain.apply_chat_template(chats[0], **form))
                assert values_of(cached.apply_chat_template(chats[0], **form)) == wanted


def test_the_template_of_another_tokenizer(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    """A change of the tokenizer is a miss, however it was made."""
    plain = with_pad(tokenizer)
    text = f"The Quick BROWN{EOS} fox"
    cached = tokcask.cached(plain, tmp_path / "store")
    assert cached(text) == plain(text)
    for change in (
        lambda one: setattr(one.backend_tokenizer, "normalizer", normalizers.Lowercase()),
        lambda one: one.add_tokens(["Quick"]),
        lambda one: one.add_special_tokens({"additional_special_tokens": ["fox"]}),
        lambda one: setattr(one.backend_tokenizer, "pre_tokenizer", pre_tokenizers.Whitespace()),
        lambda one: setattr(one.backend_tokenizer.model, "unk_token", None),
        lambda one: setattr(
            one.backend_tokenizer,
            "post_processor",
            processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, one.eos_token_id)]),
        ),
        lambda one: setattr(one, "split_special_tokens", True),
    ):
        change(cached)
        change(plain)
        for _ in range(2):
            assert values_of(cached(text)) == values_of(plain(text))
            assert values_of(cached([text], truncation=True, max_length=6)) == values_of(
                plain([text], truncation=True, max_length=6)
            )


def test_what_cannot_be_identified_is_not_stored(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    cached = tokcask.cached(tokenizer, tmp_path / "store")
    cached.backend_tokenizer.model.dropout = 0.5
    assert len({tuple(cached("some words to be merged by chance")["input_ids"]) for _ in range(20)}) > 1
    cached.backend_tokenizer.model.dropout = None
    assert cached("some words") == tokenizer("some words")


def test_is_pickled_copied_and_saved(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    plain = with_pad(tokenizer)
    cached = tokcask.cached(plain, tmp_path / "store")
    wanted = values_of(plain("some words", truncation=True, max_length=2))
    for made in (
        pickle.loads(pickle.dumps(cached)),
        copy.deepcopy(cached),
        tokcask.cached(cached, tmp_path / "other"),
    ):
        assert values_of(made("some words", truncation=True, max_length=2)) == wanted
        assert type(made._tokenizer) is type(cached._tokenizer)
    assert pickle.loads(pickle.dumps(cached("some words"))) == plain("some words")
    fresh = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(plain.backend_tokenizer.to_str()),
        eos_token=EOS,
        pad_token=EOS,
    )
    one = tokcask.cached(fresh, tmp_path / "store")
    fresh.save_pretrained(tmp_path / "plain")
    one.save_pretrained(tmp_path / "cached")
    for file in sorted((tmp_path / "plain").iterdir()):
        assert (tmp_path / "cached" / file.name).read_bytes() == file.read_bytes()
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "cached")
    assert isinstance(loaded.backend_tokenizer, tokenizers.Tokenizer)


def test_a_fingerprint_that_no_call_changes(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    cached = tokcask.cached(with_pad(tokenizer), tmp_path / "store")
    before = Hasher.hash(cached)
    cached(["some words", "more"], truncation=True, max_length=2, padding=True)
    assert Hasher.hash(cached) == before
    assert Hasher.hash(tokcask.cached(with_pad(tokenizer), tmp_path / "store")) == before
    cached.add_tokens(["another"])
    assert Hasher.hash(cached) != before


@pytest.mark.parametrize("workers", [None, 2])
def test_in_a_map_of_datasets(tmp_path: pathlib.Path, tokenizer: Any, workers: int | None) -> None:
    plain = with_pad(tokenizer)
    cached = tokcask.cached(plain, tmp_path / "store")
    texts = texts_of(Random(9), 400)
    rows = datasets.Dataset.from_dict({"text": texts})

    def made_by(one: Any) -> list[list[int]]:
        made = rows.map(
            lambda batch: one(batch["text"], truncation=True, max_length=50),
            batched=True,
            batch_size=50,
            num_proc=workers,
            load_from_cache_file=False,
        )
        return [list(ids) for ids in made["input_ids"]]

    assert made_by(cached) == made_by(plain)
    # Workers are ended by a signal as soon as they have returned what they made.
    with TokenizedCache.open(tmp_path / "store", read_only=True) as store:
        assert store.entry_count == len(set(texts))
    assert made_by(cached) == made_by(plain)


def test_a_killed_worker_loses_little(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    tokenizer.save_pretrained(tmp_path / "model")
    program = """
import sys, time, transformers, tokcask
cached = tokcask.cached(transformers.AutoTokenizer.from_pretrained(sys.argv[1]), sys.argv[2])
for number in range(200):
    cached.encode(f"text {number}")
time.sleep(1)
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "model", tmp_path / "store"],
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        worker.send_signal(signal.SIGTERM)
    with TokenizedCache.open(tmp_path / "store", read_only=True) as store:
        assert store.entry_count == 200


def test_after_fork(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    cached = tokcask.cached(tokenizer, tmp_path / "store")
    wanted = tokenizer("before and after")
    assert cached("before and after") == wanted
    child = os.fork()
    if child == 0:
        os._exit(0 if cached("before and after") == wanted and cached("new") == tokenizer("new") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cached("new") == tokenizer("new")


def test_refuses_other_tokenizers(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    for other in (tokenizer.backend_tokenizer, None, "gpt2"):
        with pytest.raises(TypeError, match="cached\\(\\) takes a fast tokenizer of transformers, not a"):
            tokcask.cached(other, tmp_path / "store")


# ---- Real trainers ----


def preference_rows(conversational: bool) -> list[dict[str, Any]]:
    texts = [" ".join(text.split(" ")[:6]) for text in texts_of(Random(8), 72)]
    rows = []
    for prompt, chosen, rejected in zip(texts[::3], texts[1::3], texts[2::3], strict=True):
        if conversational:
            rows.append(
                {
                    "prompt": [{"role": "user", "content": prompt}],
                    "chosen": [{"role": "assistant", "content": chosen}],
                    "rejected": [{"role": "assistant", "content": rejected}],
                }
            )
        else:
            rows.append({"prompt": prompt, "chosen": " " + chosen, "rejected": " " + rejected})
    return rows


def trained_by(case: str, tmp_path: pathlib.Path, tokenizer: Any) -> list[float]:
    conversational = case.endswith("chats")
    rows = preference_rows(conversational)
    common: dict[str, Any] = {"model": model_for(tokenizer), "processing_class": tokenizer}
    options = options_for(tmp_path, max_steps=6, max_length=64)
    if case.startswith(("dpo", "kto")):
        common["ref_model"] = model_for(tokenizer)
    if case.startswith("dpo"):
        args = DPOConfig(**options)
        return losses(DPOTrainer(args=args, train_dataset=datasets.Dataset.from_list(rows), **common))
    if case.startswith("kto"):
        single = [
            {"prompt": row["prompt"], "completion": row["chosen" if good else "rejected"], "label": good}
            for row in rows
            for good in (True, False)
        ]
        return losses(
            KTOTrainer(args=KTOConfig(**options), train_dataset=datasets.Dataset.from_list(single), **common)
        )
    if case.startswith("reward"):
        kind = transformers.LlamaForSequenceClassification
        common["model"] = model_for(tokenizer, kind, pad_token_id=tokenizer.pad_token_id, num_labels=1)
        args = RewardConfig(**options)
        return losses(RewardTrainer(args=args, train_dataset=datasets.Dataset.from_list(rows), **common))
    completions = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    given: dict[str, Any] = {"packing": True, "packing_strategy": "bfd"} if "packed" in case else {}
    args = SFTConfig(**options, **given)
    return losses(SFTTrainer(args=args, train_dataset=datasets.Dataset.from_list(completions), **common))


@pytest.mark.parametrize(
    "case",
    ["dpo", "dpo-chats", "kto", "kto-chats", "reward", "reward-chats", "sft", "sft-chats", "sft-packed"],
)
def test_trainers_train_alike(tmp_path: pathlib.Path, tokenizer: Any, case: str) -> None:
    plain = with_pad(tokenizer)
    wanted = trained_by(case, tmp_path, copy.deepcopy(plain))
    assert len(wanted) == 6
    for _ in range(2):
        cached = tokcask.cached(plain, tmp_path / "store")
        assert trained_by(case, tmp_path, cached) == wanted
    with TokenizedCache.open(tmp_path / "store", read_only=True) as store:
        assert store.entry_count > 0
