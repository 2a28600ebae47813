"""The pickle that numpy.save writes for a 1-D array of Python objects, carried out on plain values.

Item IDs straight from a data frame are such arrays. As with torch's pickles, no name is ever looked up: the few calls
that numpy writes are carried out here, and an element that is neither text nor an integer stays `Opaque`.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.torch_pickle import Global, Opaque, Unpickler

_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_STRING_TYPES = ("numpy._core._internal", "_convert_to_stringdtype_kwargs")
_SCALARS = re.compile(r"[iu][1248]|U[0-9]{1,7}")


@dataclass(slots=True)
class _ObjectArray:
    values: Any = None


@dataclass(slots=True)
class _Dtype:
    code: str
    order: str = "<"


def read_object_array(data: bytes, what: str) -> list[object]:
    """The elements of a pickled 1-D array: str, int and None as they are, NaN as None.

    Raises BadFileError for every other pickle, and for other elements.
    """
    wanted = f"save it with {what.split()[-1]}.astype(str)"
    array = _NumpyUnpickler(data).run()
    if not isinstance(array, _ObjectArray) or not isinstance(array.values, list):
        raise BadFileError(f"{what} is a pickle that is no array of text or integers; {wanted}")
    found: list[object] = [None if value != value else value for value in array.values]
    for row, value in enumerate(found):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
            kind = value.name if isinstance(value, Opaque) else type(value).__name__
            raise BadFileError(f"{what} holds an object of type {kind} at row {row:,}; {wanted}")
    return found


class _NumpyUnpickler(Unpickler):
    """Also carries out the instructions of protocols 3 to 5 that numpy's arrays need."""

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "SHORT_BINUNICODE" | "BINUNICODE8" | "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8" | "LONG4":
                self._stack.append(argument)
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            case "STACK_GLOBAL":
                module, name = self._pop(2)
                self._stack.append(Global(str(module), str(name)))
            case "NEWOBJ":
                self._stack.append(self._call(*self._pop(2)))
            case "BUILD":
                (state,) = self._pop(1)
                self._build(self._stack[-1], state)
            case _:
                super()._step(opcode, argument)

    def _find(self, name: Global) -> Global:
        return name

    def _call(self, function: object, arguments: object) -> object:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError("the pickle calls what cannot be called")
        if (function.module, function.name) == _STRING_TYPES:
            return _Dtype("T")
        if function.module in _MODULES:
            match function.name, arguments:
                case "_reconstruct", _:
                    return _ObjectArray()
                case "dtype", (str(code), *_):
                    return _Dtype(code)
                case "scalar", (_Dtype() as dtype, bytes(raw)) if _SCALARS.fullmatch(dtype.code):
                    return np.frombuffer(raw, dtype.order + dtype.code, 1)[0].item()
        return Opaque(f"{function.module}.{function.name}")

    def _build(self, target: object, state: object) -> None:
        match target, state:
            case _ObjectArray(), (_, _, _, _, list(values)):
                target.values = values
            case _Dtype(), (_, str(order), *_) if order in ("<", ">"):
                target.order = order
