"""TRL's DPOTrainer with a tokenizer that remembers: the same losses, and the second run tokenizes nothing.

    python examples/trl_dpo.py /data/tokens              # --plain: without tokcask, to compare

The same line serves KTOTrainer, RewardTrainer and any program that tokenizes by itself.
"""

from __future__ import annotations

import argparse
import tempfile

import tiny
import tokcask
from datasets import Dataset
from trl import DPOConfig, DPOTrainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--plain", action="store_true", help="let TRL tokenize")
    arguments = parser.parse_args()

    tokenizer = tiny.tokenizer()
    if not arguments.plain:
        tokenizer = tokcask.cached(tokenizer, arguments.store)
    texts = list(tiny.texts())
    rows = [
        {"prompt": text[:40], "chosen": text[40:120], "rejected": other[40:120]}
        for text, other in zip(texts, texts[1:] + texts[:1], strict=True)
    ]
    with tempfile.TemporaryDirectory() as directory:
        config = DPOConfig(
            output_dir=directory,
            max_length=256,
            max_steps=10,
            logging_steps=1,
            learning_rate=1e-3,
            per_device_train_batch_size=4,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        )
        trainer = DPOTrainer(
            tiny.model(len(tokenizer)),
            tiny.model(len(tokenizer)),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.train()
    print("losses", *[entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


if __name__ == "__main__":
    main()
