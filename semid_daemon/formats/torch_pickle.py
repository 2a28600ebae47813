"""The pickle that torch.save writes, carried out on plain values.

A pickle is a program. Instead of running it with some names forbidden, the few instructions that
torch.save emits (pickle protocol 2) are carried out here on plain values and on the records below;
there is no instruction that imports, calls or sets state. The standard library's `pickletools` splits the
bytes into instructions, and executes none. This keeps torch out of this room, and the offset of every
tensor is known without loading it.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats import budget
from semid_daemon.formats.faults import show

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


# What the instructions of a byte or two make, in bytes.
_REFERENCE_BYTES = 16
_COSTS = (
    dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINUNICODE", "REDUCE"), 80)
    | dict.fromkeys(("BINPUT", "LONG_BINPUT"), 100)
    | dict.fromkeys(("BININT", "BININT2", "LONG1", "BINFLOAT", "GLOBAL"), 48)
)
_FEWER_OBJECTS = "save item IDs as an integer tensor, or use .parquet"
_MOST_DIMENSIONS = 64


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
class Global:
    """A name that the pickle asks for; never looked up."""

    module: str
    name: str


_UNTYPED = Global("torch.storage", "UntypedStorage")
_CALLS = {
    Global("collections", "OrderedDict"),
    Global("torch._utils", "_rebuild_tensor_v2"),
    Global("torch._utils", "_rebuild_tensor_v3"),
    Global("torch._utils", "_rebuild_parameter"),
}


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something in a checkpoint that is no data of ours: what it was called, and never made."""

    name: str


def read_pickle(data: bytes) -> object:
    """The value of a torch.save pickle, its tensors as `Tensor`.

    Raises BadFileError for anything but tensors, numbers, text, lists, tuples and dicts, and
    LookupError, ValueError or TypeError for a damaged pickle.
    """
    return Unpickler(data).run()


def read_checkpoint_pickle(data: bytes) -> object:
    """The same for a checkpoint, which holds much else: whatever is not data becomes `Opaque`."""
    return CheckpointUnpickler(data).run()


class Unpickler:
    """Carries out a pickle's instructions on a stack of plain values."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> object:
        """The value that the pickle leaves. Raises as `read_pickle`."""
        held_bytes, most_bytes = 0, budget.held_bytes()
        for opcode, argument, _ in pickletools.genops(self._data):
            if opcode.name == "STOP":
                break
            held_bytes += _COSTS.get(opcode.name, _REFERENCE_BYTES)
            if held_bytes > most_bytes:
                budget.check_held("its pickle", held_bytes, _FEWER_OBJECTS)
            self._step(opcode, argument)
        return self._stack.pop()

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        match opcode.name:
            case "BINUNICODE" | "BININT1" | "BININT2" | "BININT" | "LONG1" | "BINFLOAT":
                self._stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._stack[-1]
            case "BINGET" | "LONG_BINGET":
                self._stack.append(self._memo[argument])
            case "MARK":
                self._marks.append(len(self._stack))
            case "NONE":
                self._stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self._stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_LIST":
                self._stack.append([])
            case "EMPTY_DICT":
                self._stack.append({})
            case "EMPTY_TUPLE":
                self._stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._stack.append(self._pop(int(opcode.name[-1])))
            case "TUPLE":
                self._stack.append(self._pop_mark())
            case "APPEND":
                self._extend(self._pop(1))
            case "APPENDS":
                self._extend(self._pop_mark())
            case "SETITEM":
                self._update(self._pop(2))
            case "SETITEMS":
                self._update(self._pop_mark())
            case "GLOBAL":
                self._stack.append(self._find(Global(*argument.split(" ", 1))))
            case "BINPERSID":
                self._stack.append(_storage(*self._pop(1)))
            case "REDUCE":
                self._stack.append(self._call(*self._pop(2)))
            case "BUILD" if self._stack[-2:-1] and type(self._stack[-2]) is dict:
                self._pop(1)  # attributes of an OrderedDict, such as a state_dict's _metadata
            case "PROTO":
                if argument != 2:
                    raise BadFileError(
                        f"is pickled with protocol {argument}; save it with torch.save's own protocol, 2"
                    )
            case _:
                raise BadFileError(
                    f"its pickle uses instruction 0x{ord(opcode.code):02x}, which data saved by torch.save has no need"
                    " of; save a tensor, or a dict of tensors and lists"
                )

    def _pop(self, count: int) -> tuple[Any, ...]:
        if len(self._stack) < count:
            raise IndexError("the pickle takes more than it put")
        return self._cut(len(self._stack) - count)

    def _pop_mark(self) -> tuple[Any, ...]:
        mark = self._marks.pop()
        if mark > len(self._stack):
            raise IndexError("the pickle takes more than it put")
        return self._cut(mark)

    def _cut(self, start: int) -> tuple[Any, ...]:
        values = tuple(self._stack[start:])
        del self._stack[start:]
        return values

    def _extend(self, values: tuple[Any, ...]) -> None:
        """Append values to the list on top of the stack."""
        self._target(list).extend(values)

    def _update(self, pairs: tuple[Any, ...]) -> None:
        """Put keys and values (one after the other) into the dict on top of the stack."""
        target = self._target(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise BadFileError(f"its dict has a key that is a {type(key).__name__}; name the entries with text")
            if _is_plain_key(key):
                target[key] = value

    def _target(self, kind: type) -> Any:
        target = self._stack[-1]
        if type(target) is not kind:
            raise TypeError(f"the pickle fills a {type(target).__name__} as a {kind.__name__}")
        return target

    def _find(self, name: Global) -> Global:
        """The name as it is, when it is one that torch.save writes for data.

        Raises BadFileError for every other; names in `torch` are dtypes and storages, read where they are used.
        """
        if name in _CALLS or name == _UNTYPED or name.module == "torch":
            return name
        if name.module == "torch._utils" and name.name in _OTHER_TENSORS:
            raise BadFileError(f"holds {_OTHER_TENSORS[name.name]}")
        if name.module.startswith("numpy"):
            raise BadFileError("holds a numpy array; save it as a tensor (torch.from_numpy), item IDs as a list")
        raise BadFileError(
            f"its pickle asks for {show(name.module)}.{show(name.name)}, which is never given;"
            " save a tensor, or a dict of tensors and lists"
        )

    def _call(self, function: object, arguments: object) -> object:
        if isinstance(function, Global) and function.module == "torch" and isinstance(arguments, tuple):
            return Opaque(f"torch.{function.name}")  # a device or a size, beside the data
        if not isinstance(function, Global) or function not in _CALLS or not isinstance(arguments, tuple):
            raise TypeError("the pickle calls what cannot be called")
        return _rebuild(function, arguments)


class CheckpointUnpickler(Unpickler):
    """Also carries out the instructions that objects need; they make nothing."""

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        match opcode.name:
            case "NEWOBJ":
                self._stack.append(self._call(*self._pop(2)))
            case "BUILD":
                self._pop(1)
            case "BINSTRING" | "SHORT_BINSTRING":
                self._stack.append(argument.encode("latin-1"))
            case _:
                super()._step(opcode, argument)

    def _extend(self, values: tuple[Any, ...]) -> None:
        target = self._stack[-1]
        if type(target) is list:  # anything else stays the nothing that it is
            target.extend(values)

    def _update(self, pairs: tuple[Any, ...]) -> None:
        target = self._stack[-1]
        if type(target) is dict:
            named = zip(pairs[::2], pairs[1::2], strict=True)
            target.update((key, value) for key, value in named if _is_plain_key(key))

    def _find(self, name: Global) -> Global:
        return name

    def _call(self, function: object, arguments: object) -> object:
        if isinstance(function, Global) and function in _CALLS and isinstance(arguments, tuple):
            return _rebuild(function, arguments)
        return Opaque(f"{function.module}.{function.name}" if isinstance(function, Global) else "object")


def _is_plain_key(key: object) -> bool:
    """Text or a small number: no large one names anything, and chosen ones with equal hashes make a dict slow."""
    return isinstance(key, str) or (isinstance(key, int) and abs(key) < 1 << 31)


def _storage(reference: object) -> Storage:
    kind, type_, key, _, size = reference if isinstance(reference, tuple) else (reference,)
    if kind != "storage" or not isinstance(type_, Global) or not isinstance(key, str) or not _is_count(size):
        raise ValueError("a storage is described wrongly")
    if type_ == _UNTYPED:
        return Storage(key, None, size)
    dtype = _STORAGE_DTYPES.get(type_.name.removesuffix("Storage")) if type_.module == "torch" else None
    if dtype is None:
        raise BadFileError(f"holds a storage of type {show(type_.name)}; save a plain 2-D tensor")
    return Storage(key, dtype, size)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _rebuild(function: Global, arguments: tuple[Any, ...]) -> object:
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
    named = dtype.name if isinstance(dtype, Global) and dtype.module == "torch" else None
    name = storage.dtype or named if isinstance(storage, Storage) else None
    if not isinstance(storage, Storage) or name is None:
        raise ValueError("a tensor without a storage or dtype")
    if not _are_counts(shape) or not _are_counts(stride) or not _is_count(offset):
        raise ValueError("a tensor's shape is described wrongly")
    if any(extra):  # conjugated or negated views: the stored numbers are not the values
        raise BadFileError("holds a tensor that is a conjugated or negated view; save tensor.clone()")
    return Tensor(storage, name, offset, shape, stride)  # type: ignore[arg-type]


def _are_counts(value: object) -> bool:
    # Few are looked at: a pickle may name the same long tuple again and again.
    return isinstance(value, tuple) and len(value) <= _MOST_DIMENSIONS and all(map(_is_count, value))
