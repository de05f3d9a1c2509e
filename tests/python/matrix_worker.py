"""One process of test_matrix.py: fills a store in all forms, lengths and cuts, from several threads that share a tokenizer,
and compares each row with the tokenizer called plainly.

    python matrix_worker.py STORE TOKENIZER.json SEED          # prints one line of JSON
"""

from __future__ import annotations

import functools
import json
import pathlib
import sys
import threading
from random import Random
from typing import Any

LENGTHS = (24, 60)
EOS = "<｜end▁of▁sentence｜>"
TEMPLATE = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{% if m.calls is defined %}[{{ m.calls }}]{% endif %}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
WORDS = [
    "the",
    "quick",
    "def",
    "naïve",
    "漢字",
    "🙂",
    "123",
    "_x",
    "(",
    "\n",
    "  ",
    EOS,
    "I'm",
    "\u0301",
    "अनु",
]


def text_of(random: Random) -> str:
    return " ".join(random.choices(WORDS, k=random.randrange(60)))


def rows_of(form: str, seed: int, count: int) -> list[dict[str, Any]]:
    random = Random(f"{form} {seed}")
    if form == "text":
        return [{"text": text_of(random)} for _ in range(count)]
    rows = []
    for number in range(count):
        messages = [
            {"role": "user", "content": text_of(random)},
            {"role": "assistant", "content": f"{number} {text_of(random)}"},
        ]
        if form == "filled":  # as Arrow does where other rows have the field
            messages = [{**message, "calls": None} for message in messages]
        rows.append({"messages": messages})
        if form == "tools":
            rows[-1]["tools"] = [{"type": "function", "function": {"name": f"f{number % 3}"}}]
    return rows


def plain(tokenizer: Any, row: dict[str, Any], **cut: Any) -> Any:
    if "messages" in row:
        return tokenizer.apply_chat_template(
            row["messages"], tools=row.get("tools"), tokenize=True, return_dict=True, **cut
        )
    text = row["text"] if row["text"].endswith(EOS) else row["text"] + EOS
    return tokenizer(text, **cut)


class Checks:
    def __init__(self, store: str, load: Any, seed: int, count: int) -> None:
        self.store, self.shared, self.seed, self.count = store, load(), seed, count
        self.reference = load()  # of its own, so that plain calls do not hide what shared use does
        self.lock = threading.Lock()
        self.rows = self.hits = self.misses = 0
        self.different: list[str] = []

    def compare(self, what: str, given: list[Any], expected: list[Any]) -> None:
        with self.lock:
            self.rows += len(expected)
            if len(given) != len(expected):
                self.different.append(f"{what}: {len(given)} rows, not {len(expected)}")
            self.different += [
                f"{what} {number}" for number, pair in enumerate(zip(given, expected)) if pair[0] != pair[1]
            ]

    def expected(self, rows: list[Any], cut: str, length: int, masked: bool = False) -> list[Any]:
        with self.lock:
            if cut == "tokenizer":
                return [
                    list(plain(self.reference, row, truncation=True, max_length=length)["input_ids"])
                    for row in rows
                ]
            pieces = slice(None, length) if cut == "keep_start" else slice(-length, None)
            made = []
            for row in rows:
                how = {"return_assistant_tokens_mask": True} if masked else {}
                out = plain(self.reference, row, **how)
                ids = list(out["input_ids"])
                labels = [i if m else -100 for i, m in zip(ids, out["assistant_masks"])] if masked else ids
                if any(label != -100 for label in labels[pieces]):
                    made.append((ids[pieces], labels[pieces]))
            return made

    def run(self, form: str, length: int) -> None:
        import tokcask
        from tokcask.torch import TokenDataset
        from tokcask.trl import sft_dataset

        rows = rows_of(form, self.seed, self.count)
        expected = self.expected(rows, "tokenizer", length)
        with tokcask.TokenizedCache.open(self.store) as cache:
            made, stats = tokcask.pretokenize_rows(
                rows, tokenizer=self.shared, sequence_len=length, cache=cache, progress=False
            )
        with self.lock:
            self.hits += stats.cache_hits
            self.misses += stats.cache_misses
        self.compare(
            f"pretokenize_rows {form} {length}", [row["input_ids"].tolist() for row in made], expected
        )
        dataset = TokenDataset.from_rows(
            self.store, rows, tokenizer=self.shared, max_length=length, progress=False
        )
        self.compare(f"from_rows {form} {length}", [item.input_ids.tolist() for item in dataset], expected)
        for cut in ("keep_start", "keep_end"):
            for masked in (False, True):
                if masked and (form == "text" or not has_trl()):
                    continue
                prepared = sft_dataset(
                    self.store,
                    rows,
                    tokenizer=self.shared,
                    max_length=length,
                    truncation_mode=cut,  # type: ignore[arg-type]
                    assistant_only_loss=masked,
                    progress=False,
                    allow_empty=True,  # where all that is left of each is the question
                )
                self.compare(
                    f"sft_dataset {form} {length} {cut} {masked}",
                    [(row["input_ids"].tolist(), row["labels"].tolist()) for row in prepared],
                    self.expected(rows, cut, length, masked),
                )


@functools.cache
def has_trl() -> bool:
    try:
        from trl.chat_template_utils import get_training_chat_template  # noqa: F401
    except Exception:  # one that does not go with this version of transformers
        return False
    return True


def main() -> None:
    store, file, seed, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    import tokenizers
    import transformers

    def load() -> Any:
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer.from_file(file),
            bos_token=EOS,
            eos_token=EOS,
            chat_template=TEMPLATE,
        )

    has_trl()  # before there are threads
    checks = Checks(store, load, seed, count)
    errors: list[BaseException] = []

    def work(length: int) -> None:
        try:
            for form in ("text", "messages", "filled", "tools"):
                checks.run(form, length)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(length,)) for length in LENGTHS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    filled = rows_of("filled", 0, 1)[0]["messages"]
    print(
        json.dumps(
            {
                "transformers": transformers.__version__,
                "tokenizers": tokenizers.__version__,
                "masks": has_trl(),
                "rows": checks.rows,
                "hits": checks.hits,
                "misses": checks.misses,
                "different": checks.different[:10],
                "rendered": load().apply_chat_template(filled, tokenize=False),
            }
        )
    )


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    main()
