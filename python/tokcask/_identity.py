"""The identity of a tokenizer: a hash over what decides which ids it returns."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import Any

import tokcask

from tokcask._adapters import adapted, content_of_python_tokenizer, digest, is_batch_tokenizer
from tokcask._code import code_of_tokenizer

_SPECIAL_TOKENS = ("bos_token", "eos_token")
# Identities of the last contents.
_known: OrderedDict[str, str] = OrderedDict()
_KNOWN = 16


def tokenizer_sha256(tokenizer: Any) -> str:
    """The identity of what a tokenizer makes of a text, 64 hexadecimal digits: the same for the same vocabulary and
    rules.

    Takes a fast tokenizer of transformers or a tokenizers.Tokenizer. Hashed is the backend's serialization
    as canonical JSON, without padding and truncation: these are state, which every call may set. What a
    transformers tokenizer adds to its backend is hashed too where there is any: truncation on the left,
    add_bos_token and add_eos_token, split_special_tokens, and the Python code of a class of one's own that changes a
    call. So a plain wrapper has the identity of its backend.

    Not hashed, because they change no id of a text: the chat template, bos_token, eos_token. The section id of a
    conversation is made of the text that the template renders; see key_for().

    Takes also, by content again: transformers tokenizers over SentencePiece or mistral-common; a
    SentencePieceProcessor; a tiktoken.Encoding, by its ranks, pattern and special tokens; MistralTokenizer and
    its parts of mistral-common. And a BatchTokenizer, which says itself what its sha256 is.

    Not seen: what Python code of one's own reads outside of itself, as in an attribute or a file.

    Leaves the tokenizer as it was, and may be called while other threads use it. Takes half a second for 130,000
    tokens the first time, then a fifth of that: it is computed once per content. (pretokenize_rows() and the
    like also find it in the store.) TypeError or ValueError for a
    tokenizer whose whole content cannot be known, e.g. one written in Python, and for one that draws at random (BPE
    with dropout).
    """
    return identity_of(tokenizer, None)


def identity_of(tokenizer: Any, memory: Any) -> str:
    """tokenizer_sha256(), which computes nothing that a store remembers: memory is a TokenizedCache, or None."""
    if _is_backend(tokenizer):
        recipe = {"split_special_tokens": True} if getattr(tokenizer, "encode_special_tokens", False) else {}
        return _sha256(tokenizer, recipe, memory)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if _is_backend(backend):
        return _sha256(backend, _recipe(tokenizer), memory)
    content = content_of_python_tokenizer(tokenizer)
    if content is not None:
        return digest({"content": content, **_recipe(tokenizer), **_special_tokens(tokenizer)})
    return _sha256_of_other(tokenizer)


def identity_with(backend: Any, recipe: dict[str, Any], memory: Any) -> str:
    """identity_of() a tokenizers.Tokenizer whose caller adds something to it, e.g. truncation on the left."""
    if getattr(backend, "encode_special_tokens", False):
        recipe = {**recipe, "split_special_tokens": True}
    return _sha256(backend, recipe, memory)


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

    backend is a tokenizers.Tokenizer that no other thread uses meanwhile; it is left as it was. (False, False) for any
    other.
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
    code = code_of_tokenizer(tokenizer)
    if code is not None:
        recipe["code"] = code
    return recipe


def _special_tokens(tokenizer: Any) -> dict[str, str]:
    """Those that a tokenizer written in Python may add by itself."""
    tokens = ((name, getattr(tokenizer, name, None)) for name in _SPECIAL_TOKENS)
    return {name: str(token) for name, token in tokens if token is not None}


def _sha256(backend: Any, recipe: dict[str, Any], memory: Any = None) -> str:
    identity = _identity_of_backend(backend, memory)
    return digest({"backend": identity, **recipe}) if recipe else identity


def _identity_of_backend(backend: Any, memory: Any) -> str:
    serialized = _serialized(backend)
    # The library does not serialize that a Unigram model samples.
    for name in ("alpha", "nbest_size"):
        value = getattr(getattr(backend, "model", None), name, None)
        if value:
            raise _at_random(type(backend).__name__, f"{name} of its model is {value}", f"model.{name}")
    # What is remembered is what this version of tokcask made of just these bytes, but for the state that stands before
    # the added tokens: {"version":"1.0","truncation":...,"padding":...,"added_tokens":...
    start = max(0, serialized.find('"added_tokens":'))
    hashed = hashlib.sha256(serialized[:16].encode() + serialized[start:].encode()).hexdigest()
    content = f"serialized {hashed} tokcask {tokcask.__version__}"
    identity = _known.get(content)
    if identity is None and memory is not None:
        identity = memory._tokenizer_of_content(content)
    if identity is None:
        identity = digest(_content(type(backend).__name__, serialized))
        if memory is not None and not memory.read_only:
            memory._remember_tokenizer(content, identity)
    _known[content] = identity
    while len(_known) > _KNOWN:
        _known.popitem(last=False)
    return identity


def _serialized(backend: Any) -> str:
    try:
        serialized = backend.to_str()
        if not isinstance(serialized, str):
            raise TypeError(f"to_str() returned {type(serialized).__name__}")
        return serialized
    except Exception as error:  # the library raises Exception itself, e.g. for parts written in Python
        raise _not_serializable(type(backend).__name__, error) from error


def _not_serializable(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"the content of this {name} cannot be identified: it cannot be serialized ({error}); "
        "pass a tokenizer without parts written in Python"
    )


def _at_random(name: str, why: str, setting: str) -> ValueError:
    return ValueError(
        f"the content of this {name} cannot be identified: {why}, so one text has many tokenizations; pass a "
        f"tokenizer whose {setting} is None"
    )


def _content(name: str, serialized: str) -> dict[str, Any]:
    try:
        content = json.loads(serialized)
    except ValueError as error:
        raise _not_serializable(name, error) from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), (dict, list)):
        raise ValueError(
            f"the content of this {name} cannot be identified: its serialization holds no vocabulary; "
            "pass a fast tokenizer of transformers or a tokenizers.Tokenizer"
        )
    if model.get("dropout"):
        raise _at_random(name, f"it has a dropout of {model['dropout']}", "model.dropout")
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
