"""The Trainer of transformers on a store, with its own collator or tokcask's: the same losses.

    python examples/transformers_trainer.py /data/tokens          # --native: tokcask's collator, which is faster

The data set is that of the rows, in their order.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import tiny
import transformers
from tokcask.torch import Collator, TokenDataset

LENGTH = 256


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--native", action="store_true", help="tokcask's collator")
    arguments = parser.parse_args()

    tokenizer = tiny.tokenizer()
    rows = [{"text": text} for text in tiny.texts()]
    dataset = TokenDataset.from_rows(arguments.store, rows, tokenizer=tokenizer, max_length=LENGTH)
    assert dataset.stats is not None
    print("tokenized", dataset.stats.cache_misses)

    collator: Any = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    if arguments.native:
        collator = Collator(pad_token_id=tokenizer.pad_token_id, ignore_pad_token=True)
    with tempfile.TemporaryDirectory() as directory:
        config = transformers.TrainingArguments(
            output_dir=directory,
            max_steps=10,
            logging_steps=1,
            learning_rate=1e-3,
            per_device_train_batch_size=4,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(
            tiny.model(len(tokenizer)), args=config, train_dataset=dataset, data_collator=collator
        )
        trainer.train()
    print("losses", *[entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


if __name__ == "__main__":
    main()
