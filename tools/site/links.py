"""Links that lead out of docs/, to the repository: right where the pages are read in the repository, and text on the site."""

from __future__ import annotations

import pathlib
import re
from typing import Any

from mkdocs.exceptions import PluginError

_LINK = re.compile(r"\[([^\[\]]*)\]\((\.\.?/[^()\s]*)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    docs = pathlib.Path(config["docs_dir"])
    here = pathlib.Path(page.file.abs_src_path).parent

    def keep_or_unlink(found: re.Match[str]) -> str:
        text, link = found.groups()
        target = (here / link.partition("#")[0]).resolve()
        if target.is_relative_to(docs):
            return found[0]
        if not target.exists():
            raise PluginError(f"{page.file.src_uri}: {link} is not in the repository")
        return text

    return _LINK.sub(keep_or_unlink, markdown)
