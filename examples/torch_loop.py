"""A loop of one's own over a store, stopped in the middle of an epoch and resumed at the very next batch.

    python examples/torch_loop.py /data/tokens

Worker processes read straight out of the store's map.
"""

from __future__ import annotations

import argparse

import tiny
import torch
from tokcask.torch import Collator, TokenDataLoader, TokenDataset

LENGTH = 256


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    arguments = parser.parse_args()

    tokenizer = tiny.tokenizer()
    rows = [{"text": text} for text in tiny.texts()]
    dataset = TokenDataset.from_rows(arguments.store, rows, tokenizer=tokenizer, max_length=LENGTH)

    def loader() -> TokenDataLoader:
        collate = Collator(pad_token_id=tokenizer.pad_token_id)
        return TokenDataLoader(dataset, 4, shuffle=True, seed=0, num_workers=2, collate_fn=collate)

    model = tiny.model(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(batch: dict[str, torch.Tensor]) -> float:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return round(float(loss.detach()), 4)

    first = loader()
    losses = [step(batch) for _, batch in zip(range(5), first)]
    state = first.state_dict()  # what a checkpoint would hold
    resumed = loader()
    resumed.load_state_dict(state)
    losses += [step(batch) for _, batch in zip(range(5), resumed)]
    print("losses", *losses)


if __name__ == "__main__":
    main()
