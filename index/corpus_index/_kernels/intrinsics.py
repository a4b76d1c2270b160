"""Instructions that numba doesn't give: prefetch, bits counted and found, and 64 numbers compared at once.

A random read of a large index costs a hundred nanoseconds or more when the next step waits for it, and a few when
some dozen others are under way. The kernels therefore touch what they will need some steps ahead. `prefetch(array, i)`
compiles to one instruction, never faults (an index outside of the array is harmless) and does nothing in plain Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload


def instead_of(function: Any) -> Any:
    """numba's `overload`, for what kernels alone call: no wrapper for callers in C."""
    alone: Any = {"no_cfunc_wrapper": True}
    return overload(function, inline="never", jit_options=alone)


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


@instead_of(prefetch)
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


@instead_of(lowest_bit)
def _overload_lowest_bit(word):
    def implementation(word):
        return np.int64(_lowest_bit(np.uint64(word)))

    return implementation


def count_bits(word: int) -> int:
    """How many bits of a 64-bit word are set."""
    return int(word).bit_count()


@intrinsic
def _count_bits(typing_context, word_type):
    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@instead_of(count_bits)
def _overload_count_bits(word):
    def implementation(word):
        return np.int64(_count_bits(np.uint64(word)))

    return implementation


WORD = 64


def equal_bits(array: Any, start: int, value: int) -> np.uint64:
    """Bit k: whether array[start + k] is value, for k < WORD; as many entries have to be there."""
    return np.uint64(sum(1 << k for k in range(WORD) if int(array[start + k]) == value))


LANE = 32


def below_bits(array: Any, start: int, value: int) -> np.uint64:
    """Bit k: whether array[start + k] is below value, for k < LANE; as many entries have to be there."""
    return np.uint64(sum(1 << k for k in range(LANE) if int(array[start + k]) < value))


def _comparison(relation: str, width: int) -> Any:
    """An intrinsic: how `width` entries of an array stand to a value, a bit for each."""

    @intrinsic
    def bits(typing_context, array_type, start_type, value_type):
        def generate(context, builder, signature, arguments):
            array_value, start, value = arguments
            item = context.get_data_type(array_type.dtype)
            vector, places = ir.VectorType(item, width), ir.VectorType(ir.IntType(32), width)
            data = context.make_array(array_type)(context, builder, array_value).data
            entries = builder.bitcast(builder.gep(data, [start]), vector.as_pointer())
            one = context.cast(builder, value, types.int64, array_type.dtype)
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), one, ir.IntType(32)(0))
            same = builder.shuffle_vector(first, first, ir.Constant(places, [0] * width))
            found = builder.icmp_unsigned(relation, builder.load(entries, align=item.width // 8), same)
            packed = builder.bitcast(found, ir.IntType(width))
            return packed if width == WORD else builder.zext(packed, ir.IntType(WORD))

        return types.uint64(array_type, types.int64, types.int64), generate

    return bits


_equal_bits, _below_bits = _comparison("==", WORD), _comparison("<", LANE)


@instead_of(equal_bits)
def _overload_equal_bits(array, start, value):
    if isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C":
        return lambda array, start, value: _equal_bits(array, np.int64(start), np.int64(value))
    return None


@instead_of(below_bits)
def _overload_below_bits(array, start, value):
    if isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C":
        return lambda array, start, value: _below_bits(array, np.int64(start), np.int64(value))
    return None


def range_bits(array: Any, start: int, first: int, length: int) -> np.uint64:
    """Bit k: whether array[start + k], of uint32, is in first … first + length − 1, for k < WORD."""
    return np.uint64(sum(1 << k for k in range(WORD) if first <= int(array[start + k]) < first + length))


@intrinsic
def _range_bits(typing_context, array_type, start_type, first_type, length_type):
    def generate(context, builder, signature, arguments):
        array_value, start, first, length = arguments
        item = context.get_data_type(array_type.dtype)
        vector, places = ir.VectorType(item, WORD), ir.VectorType(ir.IntType(32), WORD)
        data = context.make_array(array_type)(context, builder, array_value).data
        entries = builder.bitcast(builder.gep(data, [start]), vector.as_pointer())

        def everywhere(value):
            one = builder.trunc(value, item)
            vector_of_one = builder.insert_element(ir.Constant(vector, ir.Undefined), one, ir.IntType(32)(0))
            return builder.shuffle_vector(vector_of_one, vector_of_one, ir.Constant(places, [0] * WORD))

        beyond = builder.sub(builder.load(entries, align=item.width // 8), everywhere(first))  # before it: wraps around
        return builder.bitcast(builder.icmp_unsigned("<", beyond, everywhere(length)), ir.IntType(WORD))

    return types.uint64(array_type, types.int64, types.int64, types.int64), generate


@instead_of(range_bits)
def _overload_range_bits(array, start, first, length):
    if isinstance(array, types.Array) and array.ndim == 1 and array.dtype == types.uint32:

        def implementation(array, start, first, length):
            return _range_bits(array, np.int64(start), np.int64(first), np.int64(length))

        return implementation
    return None
