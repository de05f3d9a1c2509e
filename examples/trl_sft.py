"""TRL's SFTTrainer on a store: the same losses as without, and the second run tokenizes nothing.

    python examples/trl_sft.py /data/tokens              # --plain: without tokcask, to compare

Only the two marked places differ from a script without tokcask. Under torchrun the ranks share the work.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import tiny
from datasets import Dataset
from tokcask.trl import sft_dataset
from trl import SFTConfig, SFTTrainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--plain", action="store_true", help="let TRL tokenize")
    arguments = parser.parse_args()

    tokenizer = tiny.tokenizer()
    rows = Dataset.from_list(
        [
            {"messages": [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": text}]}
            for text in tiny.texts()
        ]
    )
    options: dict[str, Any] = (
        {} if arguments.plain else {"dataset_kwargs": {"skip_prepare_dataset": True}}
    )  # 1
    with tempfile.TemporaryDirectory() as directory:
        config = SFTConfig(
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
            **options,
        )
        train: Any = rows
        if not arguments.plain:
            train = sft_dataset(arguments.store, rows, tokenizer=tokenizer, args=config).to_hf()  # 2
        trainer = SFTTrainer(
            tiny.model(len(tokenizer)), args=config, train_dataset=train, processing_class=tokenizer
        )
        trainer.train()
    print("losses", *[entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


if __name__ == "__main__":
    main()
