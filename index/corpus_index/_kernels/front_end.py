"""What numba does with a kernel before LLVM gets it, without what kernels don't need: half of the wait is Python's.

Naively numba's default pipeline. Its passes for closures, generators, list comprehensions, `with`, array expressions
and literal loops find nothing in a kernel, but each goes over the whole function and works out anew which variables
live where. Numba looks up what it has compiled under the flags of the compiler, which it compares one by one. And it
tries all that it knows of an operator, at each place where a kernel adds two integers, until some of it fits.
"""

# mypy: disable-error-code="attr-defined, misc, assignment, method-assign"
# (numba types little of what is taken from its inside)

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import compiler, errors, typed_passes, untyped_passes
from numba.core.base import BaseContext
from numba.core.compiler_machinery import PassManager
from numba.core.targetconfig import ConfigStack
from numba.core.types.functions import BaseFunction

_PASSES = (
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    untyped_passes.IRProcessing,
    untyped_passes.RewriteSemanticConstants,  # whether an argument is None
    untyped_passes.DeadBranchPrune,
    untyped_passes.GenericRewrites,  # entries of tuples, branches on constants
    untyped_passes.InlineInlinables,
    untyped_passes.DeadBranchPrune,
    untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference,
    typed_passes.PreLowerStripPhis,
    typed_passes.IRLegalization,
    typed_passes.NativeLowering,
    typed_passes.NoPythonBackend,
)


class Flags(compiler.Flags):
    """The compiler's flags, compared by what is set before all of them are looked up."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Flags) and self._values == other._values:
            return True
        return bool(super().__eq__(other))

    def __hash__(self) -> int:
        return _HASH  # numba's is one of the options' names, which are always the same


_HASH = hash(compiler.Flags())


class Pipeline(compiler.CompilerBase):
    """numba's compiler with the passes that kernels need."""

    def define_pipelines(self) -> list[Any]:
        """The passes."""
        manager = PassManager("kernel")
        for each in _PASSES:
            manager.add_pass(each, each.__name__)
        manager.finalize()
        return [manager]


class _Plain:
    """numba's colours for messages, without any: it makes and catches thousands of errors in a kernel's compilation."""

    @staticmethod
    def _same(message: str) -> str:
        return message

    code = errmsg = filename = indicate = highlight = _same

    @staticmethod
    def reset(*_: Any) -> str:
        return ""


@contextmanager
def shortcuts() -> Iterator[None]:
    """Inside, numba does once what it would do at each helper, each place, or for nobody.

    It works out what an operator or a function of its own gives for types of arguments: `mixed_targets` with its
    helpers asks 4,800 times for 260 different answers. It looks for functions that were registered since: 780 times,
    here once a context and wherever one is lacking. Only for who holds the compiler's lock, and for one kernel with all
    that it calls.
    """
    asked, looked, coloured = BaseFunction.get_call_type, BaseContext.refresh, errors.termcolor()
    lacked = BaseContext.get_function.__code__
    plain, answers = compiler.Flags(), dict[Any, Any]()
    told, fresh = dict[int, Any](), dict[int, Any]()  # by places in memory: of what is kept, so that they stay its own

    def get_call_type(function: Any, context: Any, args: Any, kws: Any) -> Any:
        if kws:
            return asked(function, context, args, kws)
        flags = ConfigStack.top_or_none() or plain  # what numba compiles for a function on the way depends on them
        if id(flags) not in told:
            told[id(flags)] = flags, str(sorted(flags._values.items()))
        key = id(function), id(context), tuple(args), told[id(flags)][1]
        if key not in answers:
            answers[key] = asked(function, context, args, kws), function, context
        return answers[key][0]

    def refresh(context: Any) -> None:
        missing = sys._getframe(1).f_code is lacked  # who asks has found no definition
        if missing or id(context) not in fresh:
            fresh[id(context)] = context
            looked(context)

    BaseFunction.get_call_type, BaseContext.refresh, errors._termcolor_inst = get_call_type, refresh, _Plain
    try:
        yield
    finally:
        BaseFunction.get_call_type, BaseContext.refresh, errors._termcolor_inst = asked, looked, coloured
