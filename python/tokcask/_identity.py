"""The identity of a tokenizer: a hash over what decides which ids it returns."""

from __future__ import annotations

import json
from typing import Any

from tokcask._adapters import adapted, content_of_python_tokenizer, digest, is_batch_tokenizer

_SPECIAL_TOKENS = ("bos_token", "eos_token")


def tokenizer_sha256(tokenizer: Any) -> str:
    """The identity of a tokenizer, 64 hexadecimal digits: the same for the same vocabulary and rules.

    Takes a fast tokenizer of transformers or a tokenizers.Tokenizer. Hashed is the backend's serialization
    as canonical JSON, without padding and truncation: these are state, which every call may set. What a
    transformers tokenizer adds to its backend is hashed too where there is any: the chat template, bos_token
    and eos_token, other special tokens that the template names, truncation on the left, add_bos_token and
    add_eos_token, split_special_tokens. So a plain wrapper has the identity of its backend.

    Takes also, by content again: transformers tokenizers over SentencePiece or mistral-common; a
    SentencePieceProcessor; a tiktoken.Encoding, by its ranks, pattern and special tokens; MistralTokenizer and
    its parts of mistral-common. And a BatchTokenizer, which says itself what its sha256 is.

    Not seen: Python code that changes what a tokenizer returns, as a subclass with methods of its own may.

    Leaves the tokenizer as it was. Takes half a second for 130,000 tokens, and is not cached, because a
    tokenizer can be changed. TypeError or ValueError for one whose whole content cannot be told, e.g. one
    written in Python.
    """
    if _is_backend(tokenizer):
        recipe = {"split_special_tokens": True} if getattr(tokenizer, "encode_special_tokens", False) else {}
        return _sha256(tokenizer, recipe)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if _is_backend(backend):
        return _sha256(backend, _recipe(tokenizer))
    content = content_of_python_tokenizer(tokenizer)
    if content is not None:
        return digest({"content": content, **_recipe(tokenizer)})
    return _sha256_of_other(tokenizer)


def _sha256_of_other(tokenizer: Any) -> str:
    refusal = (
        f"the content of a {type(tokenizer).__name__} cannot be identified: it is of no kind that tokcask knows; "
        "pass a fast tokenizer of transformers, a tokenizers.Tokenizer, one of sentencepiece, tiktoken or "
        "mistral-common, or a tokcask.BatchTokenizer, which brings its sha256"
    )
    try:
        known = adapted(tokenizer)
    except TypeError as error:
        raise TypeError(refusal) from error
    if not is_batch_tokenizer(known):
        raise TypeError(refusal)
    sha: str = known.sha256
    if len(sha) != 64 or not set(sha) <= set("0123456789abcdef"):
        raise ValueError(
            f"the content of this {type(tokenizer).__name__} cannot be identified: its sha256 is {sha[:80]!r}; "
            "pass a tokenizer whose sha256 is 64 lower-case hexadecimal digits"
        )
    return sha


def traits_of(tokenizer: Any) -> tuple[bool, bool]:
    """truncation_traits() of any tokenizer; what is not known does not hold."""
    if is_batch_tokenizer(tokenizer):
        at_length, to_prefix = getattr(tokenizer, "traits", (False, False))
        return bool(at_length), bool(to_prefix)
    return truncation_traits(
        getattr(tokenizer, "backend_tokenizer", None), getattr(tokenizer, "truncation_side", "right")
    )


def sha256_of_file_tokenizer(backend: Any, truncation_side: str) -> str:
    """What tokenizer_sha256() says of a plain transformers tokenizer made from the same file, which takes the
    side to truncate on from it."""
    return _sha256(backend, _truncation(truncation_side))


# Of more than one script, with what tokenizers treat specially, and longer than any template.
_PROBE = "def f(x):\n    return x + 1  # naïve\n\n" + "The quick brown fox 漢字 🙂 1234567890.\t" * 8


def truncation_traits(backend: Any, truncation_side: str) -> tuple[bool, bool]:
    """What is known of how a tokenizer truncates: cuts_at_length and cuts_to_prefix of declare_tokenizer().

    The library tokenizers cuts the ids of the whole text to max_length less what its post-processor adds, and
    then lets that add. So a cut text has max_length ids; and they are a prefix of those of the whole text if it
    cuts on the right and nothing is added after the text, as the post-processor's own description tells. Both
    are tried out as well: what is not seen to hold is not said to.

    backend is a tokenizers.Tokenizer, which is left as it was. (False, False) for any other.
    """
    if not _is_backend(backend):
        return False, False
    try:
        truncation, padding = backend.truncation, backend.padding
        try:
            return _try_truncation(backend, truncation_side)
        finally:
            backend.no_truncation()
            if truncation is not None:
                backend.enable_truncation(**truncation)
            if padding is not None:
                backend.enable_padding(**padding)
    except Exception:  # the library raises Exception itself, e.g. for a length less than what it adds
        return False, False


def _try_truncation(backend: Any, side: str) -> tuple[bool, bool]:
    def encode(length: int) -> list[int]:
        backend.enable_truncation(length, direction=side)
        ids: list[int] = backend.encode(_PROBE).ids
        return ids

    backend.no_padding()
    whole = encode(1 << 20)
    lengths = [len(whole) // 4, len(whole) // 2, len(whole) - 1]
    cut = [encode(length) for length in lengths]
    same = all(encode(len(whole) + more) == whole for more in (0, 1))
    at_length = same and all(len(ids) == length for ids, length in zip(cut, lengths, strict=True))
    to_prefix = (
        at_length
        and side == "right"
        and _adds_nothing_after(backend.post_processor)
        and all(ids == whole[: len(ids)] for ids in cut)
    )
    return at_length, to_prefix


def _adds_nothing_after(post_processor: Any) -> bool:
    if post_processor is None:
        return True
    try:
        return _ends_with_text(json.loads(post_processor.__getstate__()))
    except Exception:  # one that cannot be described
        return False


def _ends_with_text(description: dict[str, Any]) -> bool:
    kind = description.get("type")
    if kind == "Sequence":
        return all(_ends_with_text(part) for part in description["processors"])
    if kind == "TemplateProcessing":
        return "Sequence" in description["single"][-1]
    return kind == "ByteLevel"  # which only moves offsets


def _is_backend(candidate: Any) -> bool:
    return callable(getattr(candidate, "to_str", None))


def _truncation(side: str) -> dict[str, Any]:
    return {} if side == "right" else {"truncation_side": side}


def _recipe(tokenizer: Any) -> dict[str, Any]:
    """What the wrapper adds to the backend; empty for nothing."""
    recipe = _truncation(getattr(tokenizer, "truncation_side", "right"))
    for name in ("add_bos_token", "add_eos_token", "split_special_tokens"):
        if getattr(tokenizer, name, False):
            recipe[name] = True
    for name in _SPECIAL_TOKENS:
        token = getattr(tokenizer, name, None)
        if token is not None:
            recipe[name] = str(token)
    template = getattr(tokenizer, "chat_template", None)
    if template:
        recipe["chat_template"] = template
        # Other special tokens count only where the template can show them: setting pad_token is common and
        # changes nothing.
        source = json.dumps(template)
        for name, token in getattr(tokenizer, "special_tokens_map", {}).items():
            if name not in _SPECIAL_TOKENS and name in source:
                recipe[name] = [str(item) for item in token] if isinstance(token, list) else str(token)
    return recipe


def _sha256(backend: Any, recipe: dict[str, Any]) -> str:
    identity = digest(_content(backend))
    return digest({"backend": identity, **recipe}) if recipe else identity


def _content(backend: Any) -> dict[str, Any]:
    name = type(backend).__name__
    try:
        content = json.loads(backend.to_str())
    except Exception as error:  # the library raises Exception itself, e.g. for parts written in Python
        raise ValueError(
            f"the content of this {name} cannot be identified: it cannot be serialized ({error}); "
            "pass a tokenizer without parts written in Python"
        ) from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), (dict, list)):
        raise ValueError(
            f"the content of this {name} cannot be identified: its serialization holds no vocabulary; "
            "pass a fast tokenizer of transformers or a tokenizers.Tokenizer"
        )
    content = {key: value for key, value in content.items() if key not in ("padding", "truncation")}
    if _adds_nothing(content.get("post_processor")):
        content["post_processor"] = None
    return content


def _adds_nothing(post_processor: Any) -> bool:
    """Whether it is the template of just the text, which transformers puts where a file has none."""
    if not isinstance(post_processor, dict) or post_processor.get("type") != "TemplateProcessing":
        return False
    parts = [part for name in ("single", "pair") for part in post_processor.get(name, [])]
    return not post_processor.get("special_tokens") and [
        part["Sequence"]["id"] for part in parts if "Sequence" in part
    ] == ["A", "A", "B"]
