"""Arithmetic on eight numbers at once, for the inner loops of `_kernels`.

Arrays are C-contiguous with `LANES` values in their last axis; index i means the i-th group of eight. The compiler is
given vectors explicitly, because it cannot prove by itself that source and target do not overlap. A product may be
contracted with the sum that takes it (one rounding instead of two); sums are never reordered.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 8

_FLAGS = ("contract", "nsz")


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    first = builder.gep(data, [builder.mul(index, ir.Constant(index.type, LANES))])
    return builder.bitcast(first, ir.VectorType(context.get_data_type(array_type.dtype), LANES).as_pointer())


def _load(context, builder, array_type, array, index, offset=0):
    index = builder.add(index, ir.Constant(index.type, offset)) if offset else index
    return builder.load(_pointer(context, builder, array_type, array, index), align=array_type.dtype.bitwidth // 8)


def _store(context, builder, value, array_type, array, index, offset=0):
    index = builder.add(index, ir.Constant(index.type, offset)) if offset else index
    builder.store(value, _pointer(context, builder, array_type, array, index), align=array_type.dtype.bitwidth // 8)


def _splat(builder, scalar):
    vector = ir.VectorType(scalar.type, LANES)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined),
                                  ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


@intrinsic
def add_lanes(typingctx, target, i, source, k):
    """``target[i] += source[k]``."""
    def codegen(context, builder, signature, args):
        tt, _, ts, _ = signature.args
        t, i, s, k = args
        total = builder.fadd(_load(context, builder, tt, t, i), _load(context, builder, ts, s, k), flags=_FLAGS)
        _store(context, builder, total, tt, t, i)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), codegen


@intrinsic
def add_interpolated(typingctx, target, i, line, k, w):
    """``target[i] += line[k] + (line[k + 1] - line[k])·w``."""
    def codegen(context, builder, signature, args):
        tt, _, ts, _, _ = signature.args
        t, i, s, k, w = args
        here, next_ = (_load(context, builder, ts, s, k, offset) for offset in (0, 1))
        step = builder.fmul(builder.fsub(next_, here, flags=_FLAGS), _splat(builder, w), flags=_FLAGS)
        total = builder.fadd(_load(context, builder, tt, t, i), builder.fadd(here, step, flags=_FLAGS), flags=_FLAGS)
        _store(context, builder, total, tt, t, i)
        return context.get_dummy_value()

    return types.void(target, types.intp, line, types.intp, line.dtype), codegen


@intrinsic
def spread_interpolated(typingctx, line, k, source, i, w):
    """``line[k] += source[i]·(1 - w)`` and ``line[k + 1] += source[i]·w``: the transpose of `add_interpolated`."""
    def codegen(context, builder, signature, args):
        tt, _, ts, _, _ = signature.args
        t, k, s, i, w = args
        value = _load(context, builder, ts, s, i)
        behind = builder.fmul(value, _splat(builder, w), flags=_FLAGS)
        for offset, part in ((0, builder.fsub(value, behind, flags=_FLAGS)), (1, behind)):
            total = builder.fadd(_load(context, builder, tt, t, k, offset), part, flags=_FLAGS)
            _store(context, builder, total, tt, t, k, offset)
        return context.get_dummy_value()

    return types.void(line, types.intp, source, types.intp, line.dtype), codegen


@intrinsic
def subtract_lanes(typingctx, target, i, source):
    """``target[i] -= source[0]``."""
    def codegen(context, builder, signature, args):
        tt, _, ts = signature.args
        t, i, s = args
        first = ir.Constant(i.type, 0)
        total = builder.fsub(_load(context, builder, tt, t, i), _load(context, builder, ts, s, first), flags=_FLAGS)
        _store(context, builder, total, tt, t, i)
        return context.get_dummy_value()

    return types.void(target, types.intp, source), codegen


@intrinsic
def add_area_step(typingctx, target, i, before, sums, k, ahead, back):
    """Add how far the area grew since the last edge: ``target[i] += a - before[0]``, then ``before[0] = a``.

    a = P + (P₊ - P)·ahead + (P - P₋)·back with P₋, P, P₊ = sums[k], sums[k + 1], sums[k + 2].
    """
    def codegen(context, builder, signature, args):
        tt, _, tb, ts, _, _, _ = signature.args
        t, i, b, s, k, ahead, back = args
        left, here, right = (_load(context, builder, ts, s, k, offset) for offset in (0, 1, 2))
        area = builder.fadd(here, builder.fmul(builder.fsub(right, here, flags=_FLAGS), _splat(builder, ahead),
                                               flags=_FLAGS), flags=_FLAGS)
        area = builder.fadd(area, builder.fmul(builder.fsub(here, left, flags=_FLAGS), _splat(builder, back),
                                               flags=_FLAGS), flags=_FLAGS)
        growth = builder.fsub(area, _load(context, builder, tb, b, ir.Constant(i.type, 0)), flags=_FLAGS)
        _store(context, builder, builder.fadd(_load(context, builder, tt, t, i), growth, flags=_FLAGS), tt, t, i)
        _store(context, builder, area, tb, b, ir.Constant(i.type, 0))
        return context.get_dummy_value()

    return types.void(target, types.intp, before, sums, types.intp, types.float64, types.float64), codegen


@intrinsic
def spread_area(typingctx, weight, k, source, e, ahead, back):
    """Add g, g = source[e] - source[e + 1], to weight[k … k + 2]: the transpose of `add_area_step`."""
    def codegen(context, builder, signature, args):
        tw, _, ts, _, _, _ = signature.args
        w, k, s, e, ahead, back = args
        g = builder.fsub(_load(context, builder, ts, s, e), _load(context, builder, ts, s, e, 1), flags=_FLAGS)
        last = builder.fmul(g, _splat(builder, ahead), flags=_FLAGS)
        first = builder.fmul(g, _splat(builder, back), flags=_FLAGS)
        middle = builder.fsub(builder.fadd(g, first, flags=_FLAGS), last, flags=_FLAGS)
        for offset, part, combine in ((0, first, builder.fsub), (1, middle, builder.fadd), (2, last, builder.fadd)):
            total = combine(_load(context, builder, tw, w, k, offset), part, flags=_FLAGS)
            _store(context, builder, total, tw, w, k, offset)
        return context.get_dummy_value()

    return types.void(weight, types.intp, source, types.intp, types.float64, types.float64), codegen
