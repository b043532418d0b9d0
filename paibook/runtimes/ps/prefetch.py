"""A hint to the processor that a row is wanted soon, so that its memory is on the way before it is touched."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 16  # rows; a cache miss takes about as long as that many rows of work


@intrinsic
def _prefetch_address(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, i32(1), i32(3), i32(1)])  # to write, keep in all caches, data
        return context.get_dummy_value()

    return types.void(types.intp), generate


@njit(inline="always")
def prefetch(array: Any, row: int) -> None:
    """Fetch the first and the last cache line of a row."""
    address = array.ctypes.data + row * array.strides[0]
    _prefetch_address(address)  # type: ignore[call-arg]  # numba hands in the context
    _prefetch_address(address + array.strides[0] - 1)
