"""What tokcask.trl gives SFTTrainer is what SFTTrainer makes itself, to the bit."""

from __future__ import annotations

import json
import pathlib
import pickle
from random import Random
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from tokcask import TokenizedCache, pretokenize_rows
from tokcask.torch import collate
from tokcask.trl import SFTDataset, sft_dataset
from trl import SFTConfig, SFTTrainer

from conftest import CHAT_TEMPLATE, EOS, run_python, texts_of

MARKED_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
)
TOOL_TEMPLATE = "{{ tools | tojson if tools else '' }}{{ mood }}" + CHAT_TEMPLATE


def model_for(tokenizer: Any, kind: Any = transformers.LlamaForCausalLM, **more: Any) -> Any:
    torch.set_num_threads(1)  # busy machines make torch threads wait for each other
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        **more,
    )
    return kind(config)


def options_for(tmp_path: pathlib.Path, **more: Any) -> dict[str, Any]:
    """Arguments of any trainer's config: a few steps on a CPU that come out the same each time."""
    return {
        "output_dir": str(tmp_path / "out"),
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "max_steps": 8,
        "per_device_train_batch_size": 4,
        "gradient_checkpointing": False,
        "seed": 11,
        **more,
    }


def trainer(tmp_path: pathlib.Path, tokenizer: Any, train: Any, *, prepared: bool, **options: Any) -> Any:
    kwargs = {"skip_prepare_dataset": True} if prepared else None
    config = SFTConfig(**options_for(tmp_path, dataset_kwargs=kwargs, **options))
    return SFTTrainer(model_for(tokenizer), args=config, train_dataset=train, processing_class=tokenizer)


def rows_of(dataset: Any) -> list[tuple[list[int], list[int]]]:
    return [(list(row["input_ids"]), list(row["labels"])) for row in dataset]


def text_rows(count: int = 60) -> list[dict[str, Any]]:
    rows = [{"text": text} for text in texts_of(Random(5), count)]
    return [*rows, {"text": ""}, {"text": EOS}, {"text": "ends already" + EOS}, rows[0], {"text": "  \n"}]


def chat_rows(count: int = 40) -> list[dict[str, Any]]:
    texts = texts_of(Random(6), 2 * count)
    return [
        {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": say}]}
        for ask, say in zip(texts[::2], texts[1::2], strict=True)
    ]


def tool_rows() -> list[dict[str, Any]]:
    tools = [{"type": "function", "function": {"name": "f"}}]
    return [
        {**row, "tools": given, "chat_template_kwargs": {"mood": mood}}
        for row, given, mood in zip(chat_rows(4), [json.dumps(tools), None, None, None], "abca", strict=True)
    ]


def with_template(tokenizer: Any, template: str) -> Any:
    tokenizer.chat_template = template
    return tokenizer


def ending_with_eos(tokenizer: Any) -> Any:
    """One whose own cut keeps the special token at the end, unlike TRL's."""
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{EOS} $A {EOS}", special_tokens=[(EOS, tokenizer.eos_token_id)]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("case", "max_length"),
    [
        ("text", None),
        ("text", 1),
        ("text", 24),
        ("text-eos", 24),
        ("text-eos", 1024),
        ("keep_end", 24),
        ("messages", 24),
        ("messages", None),
        ("tools", 24),
        ("tools", 1024),
        ("assistant", 24),
        ("assistant", 1024),
        ("large", 1024),
    ],
)
def test_rows_are_those_of_trl(
    tmp_path: pathlib.Path, tokenizer: Any, large_tokenizer: Any, case: str, max_length: int | None
) -> None:
    rows = text_rows()
    options: dict[str, Any] = {}
    if case == "text-eos":
        tokenizer = ending_with_eos(tokenizer)
    if case == "keep_end":
        options = {"truncation_mode": "keep_end"}
    if case == "messages":
        rows = chat_rows()
    if case == "tools":
        rows, tokenizer = tool_rows(), with_template(tokenizer, TOOL_TEMPLATE)
    if case == "assistant":
        rows, tokenizer = chat_rows(), with_template(tokenizer, MARKED_TEMPLATE)
        options = {"assistant_only_loss": True}
    if case == "large":
        tokenizer = large_tokenizer
    given = rows if case == "tools" else datasets.Dataset.from_list(rows)
    theirs = trainer(
        tmp_path,
        tokenizer,
        datasets.Dataset.from_list(rows),
        prepared=False,
        max_length=max_length,
        **options,
    ).train_dataset
    expected = rows_of(theirs)
    for _ in range(2):  # tokenized, and then from the store
        ours = sft_dataset(tmp_path / "store", given, tokenizer=tokenizer, max_length=max_length, **options)
        assert rows_of(ours) == expected
    assert rows_of(ours.to_hf()) == rows_of(ours.to_arrow()) == expected
    if case == "assistant" and max_length == 24:
        assert any(-100 in labels for _, labels in expected)
        assert len(expected) < len(rows)  # some have nothing left to learn
    if case == "text" and max_length is not None:
        with TokenizedCache.open(tmp_path / "store") as cache:
            _, stats = pretokenize_rows(
                [row for row in rows], tokenizer=tokenizer, sequence_len=max_length, cache=cache
            )
            assert stats.cache_misses == 0  # the same entries


def losses(trained: Any) -> list[float]:
    trained.train()
    return [entry["loss"] for entry in trained.state.log_history if "loss" in entry]


@pytest.mark.parametrize("case", ["text", "assistant"])
def test_the_same_losses(tmp_path: pathlib.Path, tokenizer: Any, case: str) -> None:
    rows = text_rows() if case == "text" else chat_rows()
    tokenizer.chat_template = MARKED_TEMPLATE
    options = {"assistant_only_loss": case == "assistant", "max_length": 300}
    expected = losses(
        trainer(tmp_path, tokenizer, datasets.Dataset.from_list(rows), prepared=False, **options)
    )
    assert len(expected) == 8
    ours = sft_dataset(tmp_path / "store", rows, tokenizer=tokenizer, **options)
    other = sft_dataset(tmp_path / "store", rows[::-1], tokenizer=tokenizer, **options)
    options.pop("assistant_only_loss")  # SFTTrainer asks for conversations then; the labels are there already
    for train in (ours.to_hf(), ours.to_arrow(tmp_path)):
        assert losses(trainer(tmp_path, tokenizer, train, prepared=True, **options)) == expected
    workers = {"dataloader_num_workers": 2}
    assert losses(trainer(tmp_path, tokenizer, ours.to_hf(), prepared=True, **options, **workers)) == expected
    assert losses(trainer(tmp_path, tokenizer, other.to_hf(), prepared=True, **options)) != expected


@pytest.mark.parametrize("masked", [False, True])
def test_one_entry_serves_all_lengths_and_both_sides(
    tmp_path: pathlib.Path, tokenizer: Any, masked: bool
) -> None:
    rows: Any = text_rows()
    if masked:
        rows, tokenizer = chat_rows(), with_template(tokenizer, MARKED_TEMPLATE)
    settings = [
        (24, "keep_start"),
        (24, "keep_end"),
        (9, "keep_end"),
        (None, "keep_start"),
        (300, "keep_start"),
    ]
    for number, (length, mode) in enumerate(settings):
        ours = sft_dataset(
            tmp_path / "store",
            rows,
            tokenizer=tokenizer,
            max_length=length,
            truncation_mode=mode,  # type: ignore[arg-type]
            assistant_only_loss=masked,
        )
        assert ours.stats is not None
        assert (ours.stats.cache_misses == 0) == (number > 0)
        options = {"max_length": length, "truncation_mode": mode, "assistant_only_loss": masked}
        theirs = trainer(
            tmp_path, tokenizer, datasets.Dataset.from_list(rows), prepared=False, **options
        ).train_dataset
        assert rows_of(ours) == rows_of(theirs)
        assert rows_of(pickle.loads(pickle.dumps(ours))) == rows_of(theirs)
        assert rows_of(ours.to_hf()) == rows_of(theirs)
        assert ours.lengths.tolist() == [len(ids) for ids, _ in rows_of(theirs)]
        if masked:
            loss = collate([ours[0], ours[1]], loss="labels")["labels"]
            assert loss[0, : len(ours[0]["labels"])].tolist() == ours[0]["labels"].tolist()


def test_nothing_is_tokenized_by_the_trainer(
    tmp_path: pathlib.Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = sft_dataset(tmp_path / "store", text_rows(), tokenizer=tokenizer, max_length=100)
    made = trainer(tmp_path, tokenizer, ours.to_hf(), prepared=True, max_length=100)
    assert made.train_dataset.column_names == ["input_ids", "labels"]

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("tokenized")

    monkeypatch.setattr(type(tokenizer), "__call__", fail)
    monkeypatch.setattr(type(tokenizer), "apply_chat_template", fail)
    made.train()


def test_what_the_store_has_no_room_for_is_made(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = [{"text": f"{number} " + "word " * 3000} for number in range(60)]
    ours = sft_dataset(tmp_path / "store", rows, tokenizer=tokenizer, max_length=None, max_bytes=512 * 1024)
    with TokenizedCache.open(tmp_path / "store", read_only=True) as cache:
        assert cache.entry_count < len(rows)
    expected = [tokenizer(row["text"] + EOS)["input_ids"] for row in rows]
    assert [ids for ids, _ in rows_of(ours)] == expected
    again = pickle.loads(pickle.dumps(ours))
    assert again.__getitems__([59])[0]["input_ids"].tolist() == expected[59]


def test_a_pickle_keeps_its_labels(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    tokenizer.chat_template = MARKED_TEMPLATE
    ours = sft_dataset(tmp_path / "store", chat_rows(), tokenizer=tokenizer, assistant_only_loss=True)
    again = pickle.loads(pickle.dumps(ours))
    assert isinstance(again, SFTDataset)
    assert rows_of(again) == rows_of(ours)
    assert ours[0]["labels"].dtype == ours[0]["input_ids"].dtype == np.int64


def test_an_hf_dataset_survives_the_verbs_of_datasets(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    rows = text_rows()
    ours = sft_dataset(tmp_path / "store", rows, tokenizer=tokenizer, max_length=40)
    expected = rows_of(ours)
    made = ours.to_hf()
    assert isinstance(made, datasets.Dataset)
    assert rows_of(made) == expected
    twice = expected + expected
    mixed = [row for pair in zip(expected, expected, strict=True) for row in pair]
    assert rows_of(datasets.concatenate_datasets([made, made])) == twice
    assert rows_of(datasets.interleave_datasets([made, made])) == mixed
    assert rows_of(made.select([5, 2])) == [expected[5], expected[2]]
    assert sorted(rows_of(made.shuffle(seed=3))) == sorted(expected)
    assert rows_of(made.to_iterable_dataset()) == expected
    assert rows_of(made.shuffle(seed=3).flatten_indices()) == rows_of(made.shuffle(seed=3))
    assert rows_of(made.filter(lambda row: len(row["input_ids"]) > 3, num_proc=2)) == [
        row for row in expected if len(row[0]) > 3
    ]
    assert made.map(lambda row: {"n": len(row["input_ids"])}, num_proc=2)["n"] == [
        len(i) for i, _ in expected
    ]
    assert made.with_format("torch")[3]["input_ids"].tolist() == expected[3][0]
    assert made.to_pandas()["labels"][3].tolist() == expected[3][1]
    assert made.remove_columns("labels").rename_column("input_ids", "x")[3]["x"] == expected[3][0]
    halves = made.train_test_split(test_size=0.5, seed=1)
    assert sorted(rows_of(halves["train"]) + rows_of(halves["test"])) == sorted(expected)
    made.to_parquet(tmp_path / "p.parquet")
    assert rows_of(datasets.Dataset.from_parquet(str(tmp_path / "p.parquet"))) == expected
    made.save_to_disk(tmp_path / "saved")
    assert rows_of(datasets.load_from_disk(str(tmp_path / "saved"))) == expected
    loader = torch.utils.data.DataLoader(
        made, batch_size=None, num_workers=2, multiprocessing_context="spawn", collate_fn=dict
    )
    assert rows_of(loader) == expected


def test_the_file_of_an_hf_dataset_outlives_it(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    program = f"""
import gc, pathlib, pickle, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import datasets, tokcask.trl, transformers, tokenizers
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=sys.argv[1], eos_token={EOS!r})
rows = [{{"text": f"text {{n}}"}} for n in range(5)]
made = tokcask.trl.sft_dataset(sys.argv[2], rows, tokenizer=tokenizer).to_hf()
(file,) = [entry["filename"] for entry in made.cache_files]
other = made.shuffle(seed=1)
del made
gc.collect()
assert len(pickle.loads(pickle.dumps(other))[4]["input_ids"]) > 0
assert len(other.map(lambda row: row, num_proc=2)) == 5
print(file)
"""
    (tmp_path / "t.json").write_text(tokenizer.backend_tokenizer.to_str())
    done = run_python(program, tmp_path / "t.json", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    file = pathlib.Path(done.stdout.split()[-1])
    assert file.suffix == ".arrow"
    assert not file.parent.exists()  # it went with its process


def test_a_kept_file_is_used_again(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    kept = tmp_path / "kept"
    rows = text_rows()
    made = sft_dataset(tmp_path / "store", rows, tokenizer=tokenizer).to_hf(kept)
    (file,) = kept.glob("*.arrow")
    written = file.stat().st_mtime_ns
    again = sft_dataset(tmp_path / "store", rows, tokenizer=tokenizer).to_hf(kept)
    assert again._fingerprint == made._fingerprint
    assert file.stat().st_mtime_ns == written
    same = dict
    assert again.map(same)._fingerprint == made.map(same)._fingerprint
    fewer = sft_dataset(tmp_path / "store", rows[:40], tokenizer=tokenizer).to_hf(kept)
    assert fewer._fingerprint != made._fingerprint
    assert rows_of(pickle.loads(pickle.dumps(again))) == rows_of(made)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "completion": "c"}, "row 1: it has prompt; leave rows of prompt"),
        ({"other": 1}, r"row 1: it has neither messages nor text.*\['other'\]"),
        ({"messages": []}, "row 1: messages"),
        ("text", "row 1 is a str"),
    ],
)
def test_refuses_other_rows(tmp_path: pathlib.Path, tokenizer: Any, row: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        sft_dataset(tmp_path / "store", [{"text": "good"}, row], tokenizer=tokenizer)


def test_refuses_conversations_without_an_assistant(tmp_path: pathlib.Path, tokenizer: Any) -> None:
    tokenizer.chat_template = MARKED_TEMPLATE
    rows = [{"messages": [{"role": "user", "content": "hello"}]}]
    with pytest.raises(ValueError, match=r"no tokens of the assistant.*generation"):
        sft_dataset(tmp_path / "store", rows, tokenizer=tokenizer, assistant_only_loss=True)
    with pytest.raises(ValueError, match="truncation_mode"):
        mode: Any = "keep_middle"
        sft_dataset(tmp_path / "store", rows, tokenizer=tokenizer, truncation_mode=mode)
