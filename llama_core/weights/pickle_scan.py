"""What the pickle of a ``torch.save`` archive would do, told from its opcodes; nothing of it is run.

``torch.load(weights_only=True)`` refuses to call what is not on its list. It does not refuse values that are nested so
deep that freeing them ends the process, storages that reach beyond their bytes, or strides of zero that make a tensor
of a million million values out of one. A table of tensors needs few opcodes and little depth; the rest is refused here.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

from llama_core.errors import WeightsError
from llama_core.weights.archive_directory import Archive

MAX_DEPTH = 16

#: Storage types of torch -> bytes of one value.
_STORAGES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
_REBUILD = {"torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
_GLOBALS = {"collections OrderedDict"} | _REBUILD | {f"torch {name}" for name in _STORAGES}


@dataclass(eq=False, slots=True)
class _Value:
    """A value on the unpickler's stack.

    what: ``plain global tuple dict storage tensor``. content: the constant, the global's name, a tuple's values, a
    storage's number of values. depth: how deep it is nested. shared: it came out of the memo, so that something else
    may hold it already; then it must not change, or the depth of that other would be wrong.
    """

    what: str
    content: Any = None
    depth: int = 0
    shared: bool = False


_MARK = _Value("mark")


def check_pickle(archive: Archive) -> None:
    """Refuse a pickle that is anything but a table of tensors whose bytes are there.

    Raises:
        WeightsError: naming what it asks for.
    """
    stack: list[_Value] = []
    memo: dict[int, _Value] = {}
    try:
        for opcode, argument, _ in pickletools.genops(archive.pickle):
            _step(opcode, argument, stack, memo, archive)
            if stack and stack[-1].depth > MAX_DEPTH:
                raise _refused(archive, "nests values without end", f"at most {MAX_DEPTH} levels", "more")
    except WeightsError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeDecodeError) as e:
        raise _refused(archive, "is damaged", "a whole pickle", str(e)[:120] or type(e).__name__) from e


def _step(opcode: Any, argument: Any, stack: list[_Value], memo: dict[int, _Value], archive: Archive) -> None:
    name = opcode.name
    if name in ("PROTO", "FRAME", "STOP"):
        return
    if name == "MARK":
        stack.append(_MARK)
    elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if argument is None else argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        memo[argument].shared = True
        stack.append(memo[argument])
    elif name in ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"):
        stack.append(_Value("plain", argument))
    elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
        stack.append(_Value("plain", {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name]))
    elif name == "GLOBAL":
        if argument not in _GLOBALS:
            raise _refused(archive, f"asks for {argument[:80]!r}", "tensors only", argument[:80])
        stack.append(_Value("global", argument))
    elif name == "EMPTY_DICT":
        stack.append(_Value("dict"))
    elif name == "EMPTY_TUPLE":
        stack.append(_Value("tuple", ()))
    elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
        items = _pop_mark(stack) if name == "TUPLE" else [stack.pop() for _ in range(int(name[-1]))][::-1]
        stack.append(_Value("tuple", tuple(items), 1 + max((item.depth for item in items), default=0)))
    elif name in ("SETITEM", "SETITEMS", "BUILD"):
        items = _pop_mark(stack) if name == "SETITEMS" else [stack.pop() for _ in range(1 + (name == "SETITEM"))]
        target = stack[-1]
        if target.what != "dict" or target.shared:
            raise _refused(archive, "changes a value that it has used before", "a table of tensors", name)
        target.depth = max(target.depth, 1 + max((item.depth for item in items), default=0))
    elif name == "BINPERSID":
        stack.append(_storage(stack.pop(), archive))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_call(function, arguments, archive))
    else:
        raise _refused(archive, f"uses the opcode {name}, which a table of tensors does not need", "tensors only", name)


def _pop_mark(stack: list[_Value]) -> list[_Value]:
    start = len(stack) - 1
    while stack[start] is not _MARK:
        start -= 1
        if start < 0:
            raise IndexError("no mark")
    items = stack[start + 1 :]
    del stack[start:]
    return items


def _storage(given: _Value, archive: Archive) -> _Value:
    """``("storage", type, key, device, number of values)``, whose bytes must be there, all of them."""
    kind, storage, key, _, count = (item.content for item in given.content)
    size = _STORAGES.get(str(storage).removeprefix("torch "))
    if kind != "storage" or size is None or not isinstance(count, int):
        raise _refused(archive, "names something else than a storage", "a storage of numbers", str(kind)[:80])
    found = archive.records.get(key)
    if found != count * size:
        actual = "no such record" if found is None else f"{found:,} bytes"
        raise _refused(archive, f"takes {count:,} values from data/{key}", f"{count * size:,} bytes", actual)
    return _Value("storage", count)


def _call(function: _Value, arguments: _Value, archive: Archive) -> _Value:
    if function.what != "global" or arguments.what != "tuple":
        raise _refused(archive, "calls something that is no function", "tensors only", function.what)
    if function.content == "collections OrderedDict" and not arguments.content:
        return _Value("dict")
    if function.content == "torch._utils _rebuild_parameter" and arguments.content[0].what == "tensor":
        return _Value("tensor", depth=1)
    if function.content != "torch._utils _rebuild_tensor_v2" or arguments.content[0].what != "storage":
        raise _refused(archive, f"calls {function.content} in an unknown way", "tensors only", function.content)
    storage, offset, shape, stride = arguments.content[:4]
    sizes, strides = ([item.content for item in part.content] for part in (shape, stride))
    numbers = [offset.content, *sizes, *strides]
    if len(sizes) > 8 or len(strides) != len(sizes) or any(type(n) is not int or not 0 <= n <= 2**48 for n in numbers):
        raise _refused(archive, "has a tensor of an impossible shape", "up to 8 sizes from 0 to 2^48", str(sizes)[:80])
    last = offset.content + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if math.prod(sizes) > storage.content or (0 not in sizes and last >= storage.content):
        actual = f"shape {sizes}, stride {strides}, offset {offset.content}, {storage.content:,} values stored"
        raise _refused(archive, "has a tensor with more values than are stored", "each value stored", actual[:200])
    return _Value("tensor", depth=1)


def _refused(archive: Archive, what: str, expected: str, actual: str) -> WeightsError:
    return WeightsError(
        f"the pickle of {archive.path.name} {what}",
        file=archive.path,
        key="data.pkl",
        expected=expected,
        actual=actual,
        hint="it holds more than tensors, or is damaged; do not trust it unless you know why",
    )
