"""Python code that decides what a tokenizer returns: who wrote it, and what it is.

A fast tokenizer of transformers does nothing but call its backend, whose content can be read. A class of its own, or a
function that somebody put on the object, can do anything. Such code is part of the tokenizer's identity.
"""

from __future__ import annotations

import dis
import functools
import json
import re
import types
from collections.abc import Iterator
from typing import Any

# What a call of a tokenizer goes through, in all versions of transformers from 4.46 on.
_CALLED = (
    "__call__",
    "_call_one",
    "encode",
    "encode_plus",
    "batch_encode_plus",
    "_encode_plus",
    "_batch_encode_plus",
    "_convert_encoding",
    "set_truncation_and_padding",
    "_switch_to_input_mode",
    "backend_tokenizer",
    "_tokenizer",
    "__getattribute__",
)
_PLAIN = "transformers.tokenization_utils"


def is_a(thing: Any, name: str) -> bool:
    """Whether its class, or one that this is derived from, is called so, e.g. "tiktoken.core.Encoding"."""
    return any(f"{kind.__module__}.{kind.__qualname__}" == name for kind in type(thing).__mro__)


def is_of_transformers(tokenizer: Any) -> bool:
    """Whether it is a transformers tokenizer, or of a class that is derived from one."""
    return is_a(tokenizer, "transformers.tokenization_utils_base.PreTrainedTokenizerBase")


def calls_only_its_backend(tokenizer: Any) -> bool:
    """Whether a call of this fast tokenizer of transformers is that of its tokenizers.Tokenizer, and nothing else."""
    return (
        is_of_transformers(tokenizer)
        and not _overrides(tokenizer, _CALLED)
        and hasattr(getattr(tokenizer, "backend_tokenizer", None), "to_str")
    )


def renders_plainly(tokenizer: Any) -> bool:
    """Whether the ids of a conversation are those of the text that its template makes of it, as transformers has it."""
    return calls_only_its_backend(tokenizer) and not _overrides(tokenizer, ("apply_chat_template",))


def code_of_tokenizer(tokenizer: Any) -> Any:
    """A description, of what JSON has, of all Python code that decides a text's ids; None where there is none.

    Of a fast tokenizer of transformers: the methods on the way of a call that are not the base's. Of any other: all
    methods of classes that are not transformers'. What such code reads elsewhere, as in a file or in an attribute, is
    not seen.
    """
    if is_of_transformers(tokenizer) and getattr(tokenizer, "is_fast", False):
        return _described(tokenizer, _overrides(tokenizer, _CALLED))
    found = {}
    for kind in reversed(type(tokenizer).__mro__[:-1]):
        if not kind.__module__.startswith("transformers."):
            found.update({name: value for name, value in vars(kind).items() if _is_code(value)})
    found.update({name: value for name, value in _attributes(tokenizer).items() if _is_code(value)})
    return _described(tokenizer, found)


def code_of_template(tokenizer: Any) -> Any:
    """The same of how it renders conversations; None for transformers' own way."""
    return _described(tokenizer, _overrides(tokenizer, ("apply_chat_template",)))


def _described(tokenizer: Any, found: dict[str, Any]) -> Any:
    if not found:
        return None
    kind = type(tokenizer)
    code = [[name, code_of(value)] for name, value in sorted(found.items())]
    return [kind.__module__, kind.__qualname__, code, _configuration(tokenizer, found)]


def _configuration(tokenizer: Any, found: dict[str, Any]) -> Any:
    """Texts, numbers and other tokenizers in the attributes that this code names, but for what it sets itself: a counter is
    no configuration."""
    named: set[str] = set()
    changed: set[str] = set()
    for code in (code for value in found.values() for code in _functions(value)):
        named.update(code.co_names)
        if code.co_name != "__init__":
            changed.update(one.argval for one in dis.get_instructions(code) if one.opname == "STORE_ATTR")
    configuration = []
    own = _attributes(tokenizer)
    for name in sorted(named - changed):
        value = own.get(name, getattr(type(tokenizer), name, None))
        if value is None:
            continue
        if isinstance(value, (str, bytes, bool, int, float, tuple, frozenset, re.Pattern)):
            configuration.append([name, code_of(value)])
        elif value is not tokenizer and hasattr(value, "backend_tokenizer"):
            configuration.append([name, code_of_tokenizer(value)])
    return configuration


def _functions(value: Any) -> Iterator[types.CodeType]:
    """The code of a function, method, property or partial, and of the functions in it."""
    for name in ("fget", "func", "__func__"):
        value = getattr(value, name, value)
    waiting = [getattr(value, "__code__", None)]
    while waiting:
        code = waiting.pop()
        if isinstance(code, types.CodeType):
            yield code
            waiting += code.co_consts


def _overrides(tokenizer: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of the names that are not what transformers' base classes have, by a class, by the object, or by somebody who
    put a function of his own into a base class."""
    found = {}
    for kind in reversed(type(tokenizer).__mro__[:-1]):
        attributes = vars(kind)
        for name in names:
            if _is_code(attributes.get(name)):
                found[name] = attributes[name]
                if kind.__module__.startswith(_PLAIN) and _home(attributes[name]).startswith(_PLAIN):
                    del found[name]
    # Python looks for "__call__" and the like on the class alone.
    own = _attributes(tokenizer)
    found.update({name: own[name] for name in names if callable(own.get(name))})
    return found


def _home(value: Any) -> str:
    """The module in which the code of a method or property was written, whatever functools.wraps() says."""
    for name in ("fget", "func", "__func__"):
        value = getattr(value, name, value)
    return str(getattr(value, "__globals__", {}).get("__name__", ""))


def _attributes(thing: Any) -> dict[str, Any]:
    attributes = getattr(thing, "__dict__", None)
    return dict(attributes) if isinstance(attributes, dict) else {}


def _is_code(value: Any) -> bool:
    return isinstance(
        value,
        (
            types.FunctionType,
            types.MethodType,
            classmethod,
            staticmethod,
            property,
            functools.partial,
            functools.partialmethod,
            functools.cached_property,
        ),
    )


def code_of(value: Any, above: tuple[int, ...] = ()) -> Any:
    """What a function does, as JSON: its byte code and constants, and the same of what it is made of.

    An object that is not code, a number, a text or a collection of these counts by its class alone.
    """
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, type(...))):
        return repr(value)
    if id(value) in above:  # a function that knows itself
        return f"above, {len(above) - above.index(id(value))}"
    inside = functools.partial(code_of, above=(*above, id(value)))
    if isinstance(value, re.Pattern):
        return ["pattern", inside(value.pattern), value.flags]
    if isinstance(value, (tuple, list)):
        return [inside(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(inside(item)) for item in value)
    if isinstance(value, dict):
        return sorted([json.dumps(inside(name)), inside(item)] for name, item in value.items())
    if isinstance(value, types.CodeType):
        return [value.co_code.hex(), inside(value.co_consts), list(value.co_names)]
    if isinstance(value, (functools.partial, functools.partialmethod)):
        return ["partial", inside(value.func), inside(value.args), inside(value.keywords)]
    if isinstance(value, property):
        return ["property", inside(value.fget)]
    if isinstance(value, functools.cached_property):
        return ["property", inside(value.func)]
    function = getattr(value, "__func__", value)  # of a method, classmethod or staticmethod
    if isinstance(function, types.FunctionType):
        cells = [_content_of(cell) for cell in function.__closure__ or ()]
        parts = (function.__code__, function.__defaults__, function.__kwdefaults__, cells)
        return [inside(part) for part in parts]
    if hasattr(value, "backend_tokenizer"):
        return ["tokenizer", code_of_tokenizer(value)]
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _content_of(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # of a variable that has no value yet
        return None
