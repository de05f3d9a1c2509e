"""What the other examples share: a tokenizer, a model and texts that need no network. Not of interest itself."""

from __future__ import annotations

import pathlib
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

EOS = "<eos>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{{ eos_token }}{% endfor %}"
)


def texts() -> list[str]:
    """Paragraphs of this repository's pages."""
    root = pathlib.Path(__file__).parent.parent
    pages = [(root / name).read_text() for name in ("README.md", "CHANGELOG.md")]
    return [paragraph for page in pages for paragraph in page.split("\n\n") if paragraph.strip()]


def tokenizer() -> Any:
    """A byte-level BPE of 600 tokens with a chat template, trained on the texts."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts(), trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=EOS, pad_token=EOS, chat_template=CHAT_TEMPLATE
    )


def model(vocab_size: int) -> Any:
    """A Llama of 50,000 weights, the same each time."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        eos_token_id=0,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config)
