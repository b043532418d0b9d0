"""MPI's names for the types of array elements, as NumPy knows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Datatype:
    """The type of a buffer's elements.

    Attributes:
        name: MPI's.
        dtype: NumPy's.
    """

    name: str
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    def Get_size(self) -> int:
        """Bytes of one element."""
        return self.size

    def Get_name(self) -> str:
        """MPI's name."""
        return f"MPI_{self.name}"

    def Get_extent(self) -> tuple[int, int]:
        """Where an element begins, and the bytes to the next one."""
        return 0, self.size

    def __repr__(self) -> str:
        return f"<MPI.{self.name}: {self.dtype}>"


_CODES = {
    "BYTE": "u1",
    "CHAR": "S1",
    "SIGNED_CHAR": "b",
    "UNSIGNED_CHAR": "B",
    "SHORT": "h",
    "UNSIGNED_SHORT": "H",
    "INT": "i",
    "UNSIGNED": "I",
    "UNSIGNED_INT": "I",
    "LONG": "l",
    "UNSIGNED_LONG": "L",
    "LONG_LONG": "q",
    "UNSIGNED_LONG_LONG": "Q",
    "FLOAT": "f",
    "DOUBLE": "d",
    "LONG_DOUBLE": "g",
    "BOOL": "?",
    "C_BOOL": "?",
    "CXX_BOOL": "?",
    "INT8_T": "i1",
    "INT16_T": "i2",
    "INT32_T": "i4",
    "INT64_T": "i8",
    "UINT8_T": "u1",
    "UINT16_T": "u2",
    "UINT32_T": "u4",
    "UINT64_T": "u8",
    "COMPLEX": "F",
    "DOUBLE_COMPLEX": "D",
    "C_COMPLEX": "F",
    "C_FLOAT_COMPLEX": "F",
    "C_DOUBLE_COMPLEX": "D",
    "INTEGER": "i",
    "REAL": "f",
    "DOUBLE_PRECISION": "d",
    "AINT": "i8",
    "COUNT": "i8",
    "OFFSET": "i8",
}
_PAIRS = {"FLOAT_INT": "f", "DOUBLE_INT": "d", "LONG_INT": "l", "INT_INT": "i", "TWOINT": "i", "SHORT_INT": "h"}

DATATYPES: dict[str, Datatype] = {
    **{name: Datatype(name, np.dtype(code)) for name, code in _CODES.items()},
    **{name: Datatype(name, np.dtype([("value", code), ("index", "i")], align=True)) for name, code in _PAIRS.items()},
}
BYTE = DATATYPES["BYTE"]
BY_CODE = {DATATYPES[name].dtype.char: DATATYPES[name] for name in reversed(_CODES)}  # of equals the first named


def known(value: Any) -> Datatype | None:
    """The datatype meant by a ``Datatype``, a NumPy dtype or its code; None when it is none of these.

    Raises:
        TypeError: A text that is no code.
    """
    if isinstance(value, Datatype):
        return value
    if isinstance(value, (str, np.dtype)) or (isinstance(value, type) and issubclass(value, np.generic)):
        try:
            dtype = np.dtype(value)
        except TypeError as error:
            raise TypeError(f"{value!r} is no datatype; use one such as MPI.DOUBLE, or NumPy's code 'd'") from error
        named = BY_CODE.get(dtype.char)
        return named if named is not None and named.dtype == dtype else Datatype(str(dtype), dtype)
    return None
