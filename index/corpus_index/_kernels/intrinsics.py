"""Two instructions that numba doesn't give: prefetch, and the place of the lowest set bit.

A random read of a large index costs a hundred nanoseconds or more when the next step waits for it, and a few when
some dozen others are under way. The kernels therefore touch what they will need some steps ahead. `prefetch(array, i)`
compiles to one instruction, never faults (an index outside of the array is harmless) and does nothing in plain Python.

And a flag that its types don't know: kernels on hot paths are UNCOUNTED. Numba counts references to every array that
is taken out of a tuple or handed to a helper, atomically, dozens of times a position; that was half of the time of all
targets. Without counts a kernel can't allocate (its caller does) nor sort. A helper that says nothing takes after its
caller, so one that sorts is COUNTED.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

UNCOUNTED: dict[str, Any] = {"_nrt": False}
COUNTED: dict[str, Any] = {"_nrt": True}


def prefetch(array: Any, index: int) -> None:
    """Hint that array[index] will be read soon; no effect but speed."""


@intrinsic
def _prefetch(typing_context, array_type, index_type):
    def generate(context, builder, signature, arguments):
        array_value, index = arguments
        array_type, index_type = signature.args
        data = context.make_array(array_type)(context, builder, array_value).data
        index = context.cast(builder, index, index_type, types.intp)
        size = context.get_abi_sizeof(context.get_data_type(array_type.dtype))
        byte_pointer = ir.IntType(8).as_pointer()
        address = builder.bitcast(data, byte_pointer)
        offset = builder.mul(index, context.get_constant(types.intp, size))
        address = cgutils.pointer_add(builder, address, offset, byte_pointer)
        void, int32 = ir.VoidType(), ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte_pointer], ir.FunctionType(void, [byte_pointer, int32, int32, int32])
        )
        builder.call(function, [address, int32(0), int32(3), int32(1)])
        return context.get_dummy_value()

    return types.void(array_type, index_type), generate


@overload(prefetch, inline="never")
def _overload_prefetch(array, index):
    if isinstance(array, types.Array) and array.ndim == 1 and isinstance(index, types.Integer):

        def implementation(array, index):
            _prefetch(array, index)

        return implementation
    return None


def lowest_bit(word: int) -> int:
    """The place of the lowest set bit of a 64-bit word that isn't 0."""
    word = int(word)
    return (word & -word).bit_length() - 1


@intrinsic
def _lowest_bit(typing_context, word_type):
    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], context.get_constant(types.boolean, True))

    return types.uint64(types.uint64), generate


@overload(lowest_bit, inline="never")
def _overload_lowest_bit(word):
    def implementation(word):
        return np.int64(_lowest_bit(np.uint64(word)))

    return implementation
