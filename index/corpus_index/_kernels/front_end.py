"""What numba does with a kernel before LLVM gets it, without what kernels don't need: half of the wait is Python's.

Naively numba's default pipeline. Its passes for closures, generators, list comprehensions, `with`, array expressions
and literal loops find nothing in a kernel, but each goes over the whole function and works out anew which variables
live where. And numba looks up what it has compiled under the flags of the compiler, which it compares one by one.
"""

# mypy: disable-error-code="attr-defined, misc"
# (numba types little of what is taken from its inside)

from __future__ import annotations

from typing import Any

from numba.core import compiler, typed_passes, untyped_passes
from numba.core.compiler_machinery import PassManager

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
