"""The pickle that torch.save writes, read by a machine that can only build data.

A pickle is a program. Instead of running it with some names forbidden, the few instructions that
torch.save emits (pickle protocol 2) are carried out here on plain values and on the records below;
there is no instruction that imports, calls or sets state. This keeps torch out of this room, and
the offset of every tensor is known without loading it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.faults import show

_BYTE, _USHORT, _UINT, _INT, _DOUBLE = map(struct.Struct, ("<B", "<H", "<I", "<i", ">d"))

_STORAGE_DTYPES = {
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Float": "float32",
    "Double": "float64",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
# Types of tensors, for the message; any other name is refused in general terms.
_OTHER_TENSORS = {
    "_rebuild_sparse_tensor": "a sparse tensor; save tensor.to_dense()",
    "_rebuild_sparse_csr_tensor": "a sparse tensor; save tensor.to_dense()",
    "_rebuild_nested_tensor": "a nested tensor; save a plain 2-D tensor",
    "_rebuild_qtensor": "a quantized tensor; save tensor.dequantize()",
    "_rebuild_meta_tensor_no_storage": "a meta tensor, which has no values; save a real one",
    "_rebuild_wrapper_subclass": "a subclass of Tensor; save a plain 2-D tensor",
}


@dataclass(frozen=True, slots=True)
class Storage:
    """A record of the archive: `key` names it; `size` counts numbers, or bytes when `dtype` is None."""

    key: str
    dtype: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A strided view of a storage; `offset` and `stride` count numbers."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that the pickle asks for; never looked up."""

    module: str
    name: str


_UNTYPED = _Global("torch.storage", "UntypedStorage")
_CALLS = {
    _Global("collections", "OrderedDict"),
    _Global("torch._utils", "_rebuild_tensor_v2"),
    _Global("torch._utils", "_rebuild_tensor_v3"),
    _Global("torch._utils", "_rebuild_parameter"),
}


@dataclass(slots=True)
class _Machine:
    data: bytes
    at: int = 0
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise EOFError("the pickle ends too early")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, form: struct.Struct) -> Any:
        (value,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return value

    def line(self) -> str:
        end = self.data.index(b"\n", self.at)
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        if mark > len(self.stack):
            raise IndexError("the pickle takes more than it put")
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def last(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise IndexError("the pickle takes more than it put")
        taken = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return taken


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something in a checkpoint that is no data of ours: what it was called, and never made."""

    name: str


def read_pickle(data: bytes) -> object:
    """The value of a torch.save pickle, its tensors as `Tensor`.

    Raises BadFileError for anything but tensors, numbers, text, lists, tuples and dicts, and
    LookupError, ValueError, TypeError, EOFError or struct.error for a damaged pickle.
    """
    return _carry_out(data, _STEPS)


def read_checkpoint_pickle(data: bytes) -> object:
    """The same for a checkpoint, which holds much else: whatever is not data becomes `Opaque`."""
    return _carry_out(data, _CHECKPOINT_STEPS)


def _carry_out(data: bytes, steps: Mapping[bytes, Callable[[_Machine], None]]) -> object:
    machine = _Machine(data)
    while True:
        code = data[machine.at : machine.at + 1]
        machine.at += 1
        step = steps.get(code)
        if code == b".":
            return machine.stack.pop()
        if not code:
            raise EOFError("the pickle ends too early")
        if step is None:
            raise BadFileError(
                f"its pickle uses instruction 0x{code.hex()}, which data saved by torch.save has no need of;"
                " save a tensor, or a dict of tensors and lists"
            )
        step(machine)


def _put(value: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(value(machine))


def _long(machine: _Machine) -> int:
    return int.from_bytes(machine.take(machine.number(_BYTE)), "little", signed=True)


def _unicode(machine: _Machine) -> str:
    return machine.take(machine.number(_UINT)).decode("utf-8", "surrogatepass")


def _memoize(form: struct.Struct) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        machine.memo[machine.number(form)] = machine.stack[-1]

    return step


def _known(asked: _Global) -> _Global:
    """The name as it is, when it is one that torch.save writes for data.

    Raises BadFileError for every other; names in `torch` are dtypes and storages, read where they are used.
    """
    if asked in _CALLS or asked == _UNTYPED or asked.module == "torch":
        return asked
    if asked.module == "torch._utils" and asked.name in _OTHER_TENSORS:
        raise BadFileError(f"holds {_OTHER_TENSORS[asked.name]}")
    if asked.module.startswith("numpy"):
        raise BadFileError("holds a numpy array; save it as a tensor (torch.from_numpy), item IDs as a list")
    raise BadFileError(
        f"its pickle asks for {show(asked.module)}.{show(asked.name)}, which is never given;"
        " save a tensor, or a dict of tensors and lists"
    )


def _append(machine: _Machine) -> None:
    (value,) = machine.last(1)
    _target(machine, list).append(value)


def _appends(machine: _Machine) -> None:
    values = machine.since_mark()
    _target(machine, list).extend(values)


def _set_item(machine: _Machine) -> None:
    _set(machine, list(machine.last(2)))


def _set_items(machine: _Machine) -> None:
    _set(machine, machine.since_mark())


def _set(machine: _Machine, pairs: list[Any]) -> None:
    target = _target(machine, dict)
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, (str, int)):
            raise BadFileError(f"its dict has a key that is a {type(key).__name__}; name the entries with text")
        target[key] = value


def _target(machine: _Machine, kind: type) -> Any:
    target = machine.stack[-1]
    if type(target) is not kind:
        raise TypeError(f"the pickle fills a {type(target).__name__} as a {kind.__name__}")
    return target


def _storage(machine: _Machine) -> Storage:
    (reference,) = machine.last(1)
    kind, type_, key, _, size = reference if isinstance(reference, tuple) else (reference,)
    if kind != "storage" or not isinstance(type_, _Global) or not isinstance(key, str) or not _is_count(size):
        raise ValueError("a storage is described wrongly")
    if type_ == _UNTYPED:
        return Storage(key, None, size)
    dtype = _STORAGE_DTYPES.get(type_.name.removesuffix("Storage")) if type_.module == "torch" else None
    if dtype is None:
        raise BadFileError(f"holds a storage of type {show(type_.name)}; save a plain 2-D tensor")
    return Storage(key, dtype, size)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _reduce(machine: _Machine) -> None:
    function, arguments = machine.last(2)
    if not isinstance(function, _Global) or function not in _CALLS or not isinstance(arguments, tuple):
        raise TypeError("the pickle calls what cannot be called")
    machine.stack.append(_rebuild(function, arguments))


def _rebuild(function: _Global, arguments: tuple[Any, ...]) -> object:
    """The few calls that torch.save writes for data, as data."""
    match function.name:
        case "OrderedDict" if not arguments:
            return {}
        case "_rebuild_tensor_v2":
            storage, offset, shape, stride, _, _, *extra = arguments
            return _tensor(storage, None, offset, shape, stride, extra)
        case "_rebuild_tensor_v3":
            storage, offset, shape, stride, _, _, dtype, *extra = arguments
            return _tensor(storage, dtype, offset, shape, stride, extra)
        case "_rebuild_parameter" if arguments and isinstance(arguments[0], Tensor):
            return arguments[0]
    raise TypeError(f"the pickle calls {function.name} wrongly")


def _tensor(storage: object, dtype: object, offset: object, shape: object, stride: object, extra: list[Any]) -> Tensor:
    named = dtype.name if isinstance(dtype, _Global) and dtype.module == "torch" else None
    name = storage.dtype or named if isinstance(storage, Storage) else None
    if not isinstance(storage, Storage) or name is None:
        raise ValueError("a tensor without a storage or dtype")
    if not _are_counts(shape) or not _are_counts(stride) or not _is_count(offset):
        raise ValueError("a tensor's shape is described wrongly")
    if any(extra):  # conjugated or negated views: the stored numbers are not the values
        raise BadFileError("holds a tensor that is a conjugated or negated view; save tensor.clone()")
    return Tensor(storage, name, offset, shape, stride)  # type: ignore[arg-type]


def _are_counts(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_count, value))


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": lambda machine: _check_protocol(machine.number(_BYTE)),
    b"(": lambda machine: machine.marks.append(len(machine.stack)),
    b"q": _memoize(_BYTE),
    b"r": _memoize(_UINT),
    b"h": _put(lambda machine: machine.memo[machine.number(_BYTE)]),
    b"j": _put(lambda machine: machine.memo[machine.number(_UINT)]),
    b"N": _put(lambda machine: None),
    b"\x88": _put(lambda machine: True),
    b"\x89": _put(lambda machine: False),
    b"K": _put(lambda machine: machine.number(_BYTE)),
    b"M": _put(lambda machine: machine.number(_USHORT)),
    b"J": _put(lambda machine: machine.number(_INT)),
    b"G": _put(lambda machine: machine.number(_DOUBLE)),
    b"\x8a": _put(_long),
    b"X": _put(_unicode),
    b"c": _put(lambda machine: _known(_Global(machine.line(), machine.line()))),
    b"]": _put(lambda machine: []),
    b"}": _put(lambda machine: {}),
    b")": _put(lambda machine: ()),
    b"t": _put(lambda machine: tuple(machine.since_mark())),
    b"\x85": _put(lambda machine: machine.last(1)),
    b"\x86": _put(lambda machine: machine.last(2)),
    b"\x87": _put(lambda machine: machine.last(3)),
    b"a": _append,
    b"e": _appends,
    b"s": _set_item,
    b"u": _set_items,
    b"Q": _put(_storage),
    b"R": _reduce,
}


def _check_protocol(protocol: int) -> None:
    if protocol != 2:
        raise BadFileError(f"is pickled with protocol {protocol}; save it with torch.save's own protocol, 2")


# -- checkpoints: the same instructions, and those that objects need, which make nothing --------------


def _any_global(machine: _Machine) -> _Global:
    return _Global(machine.line(), machine.line())


def _call(machine: _Machine) -> None:
    function, arguments = machine.last(2)
    if isinstance(function, _Global) and function in _CALLS and isinstance(arguments, tuple):
        machine.stack.append(_rebuild(function, arguments))
        return
    machine.stack.append(Opaque(f"{function.module}.{function.name}" if isinstance(function, _Global) else "object"))


def _fill(take: Callable[[_Machine], list[Any]]) -> Callable[[_Machine], None]:
    """Fill a list or a dict; anything else stays the nothing that it is."""

    def step(machine: _Machine) -> None:
        values = take(machine)
        target = machine.stack[-1]
        if type(target) is list:
            target.extend(values)
        elif type(target) is dict:
            pairs = zip(values[::2], values[1::2], strict=True)
            target.update((key, value) for key, value in pairs if isinstance(key, Hashable))

    return step


def _forget_state(machine: _Machine) -> None:
    machine.last(1)


_CHECKPOINT_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    **_STEPS,
    b"c": _put(_any_global),
    b"R": _call,
    b"\x81": _call,
    b"b": _forget_state,
    b"a": _fill(lambda machine: list(machine.last(1))),
    b"e": _fill(_Machine.since_mark),
    b"s": _fill(lambda machine: list(machine.last(2))),
    b"u": _fill(_Machine.since_mark),
    b"U": _put(lambda machine: machine.take(machine.number(_BYTE))),
    b"T": _put(lambda machine: machine.take(machine.number(_INT))),
}
