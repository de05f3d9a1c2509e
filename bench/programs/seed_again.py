"""A second run the seed's way: each file is read, hashed, and its tokens loaded. It is spared loading the tokenizer.

seed_again.py CORPUS CACHE TOKENIZER_SHA SEQUENCE_LEN
"""

from __future__ import annotations

import json
import pathlib
import sys

from corpus_files import batches_of_texts
from rivals.seed_store import SeedCache
from tokcask import section_id


def main() -> None:
    corpus, root, sha, sequence_len = sys.argv[1:]
    cache = SeedCache(pathlib.Path(root))
    hits = files = 0
    for texts in batches_of_texts(pathlib.Path(corpus)):
        for text in texts:
            files += 1
            hits += cache.get(f"{section_id(text, 'file')}|{sha}|{sequence_len}") is not None
    cache.save_manifest()
    print(json.dumps({"files": files, "hits": hits}))


if __name__ == "__main__":
    main()
