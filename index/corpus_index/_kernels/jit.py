"""The kernels' decorator: numba's `njit` without the GIL, made for a short first wait.

Naively `numba.njit(nogil=True, cache=True)`. This departs from it where that costs users time or answers. And from our
rule of no work at import, by hashes of the kernels' sources, because numba's cache looks at a function's own file alone
(numba issue 1833): after an upgrade that changes a helper, the old helper would go on running inside of its unchanged
callers, perhaps on arrays of another layout, and answer nonsense without a word.

- One specialisation a helper: numba compiles a helper again for each literal that it is called with (n = 0, sign = −1).
- A helper that only kernels call gets no machine code and no wrapper of its own: it is optimised inside of its callers.
  Asked from Python after all, it is compiled as a kernel.
- Python's garbage collector rests while the compiler runs: there is next to nothing for it to find.
- Of several processes (the ranks of a training, the workers of a loader) one compiles a kernel, and the others wait and
  read it from the cache. `compile_beside` lets other processes compile what will be needed next.
- Where a question is small, a kernel is interpreted (`work`) instead of making the user wait for the compiler.

What is taken from numba's inside (dispatcher, cache, code library) is imported below, in one place; where a version of
numba lacks some of it, kernels are plain `njit` with numba's own cache, and only slower to start.
"""

# mypy: disable-error-code="attr-defined, misc, assignment, union-attr"
# (numba types little of what is taken from its inside)

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np
from numba import config, njit, types

from corpus_index._kernels.cache_folder import kernel_lock, locator_classes

try:
    import llvmlite.binding as llvm
    from numba.core import compiler
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.dispatcher import _FunctionCompiler
    from numba.core.registry import CPUDispatcher
    from numba.core.runtime import rtsys

    from corpus_index._kernels.front_end import Flags, Pipeline, shortcuts
except ImportError:  # another numba
    CPUDispatcher = None

_LOG = logging.getLogger("corpus_index")
_LITTLE = 5_000  # units of work (tokens, ranks) that a process interprets of a kernel before it has it compiled

_compiling_s = 0.0
_told = False


def compiling_s() -> float:
    """Seconds that this process has spent compiling kernels so far, or waiting for another one that does."""
    return _compiling_s


def working_s() -> float:
    """A clock in seconds, for differences, that stands still while this process waits for the compiler."""
    return time.perf_counter() - _compiling_s


def _tell() -> None:
    """Say once that the compiler is what takes so long."""
    global _told
    if not _told:
        _told = True
        _LOG.warning(
            "Compiling kernels, once on this machine: some seconds (`corpus-teacher warm-up` does all of them ahead)."
        )


if CPUDispatcher is not None:

    class _Inner:
        """Stands for the entry point of a helper, which has none."""

    class _InnerLibrary(JITCodeLibrary):
        """The code of a helper: linked into its callers and optimised there, never made machine code by itself."""

        def _optimize_final_module(self) -> None:
            pass

        def _finalize_final_module(self) -> None:
            self._finalize_dynamic_globals()
            self._verify_declare_only_symbols()
            self._finalized = True

    class _CacheImpl(CompileResultCacheImpl):
        _locator_classes = locator_classes()

    class _KernelCache(FunctionCache):
        """numba's cache of a function, stale too when a module that its own one imports is another (`stamp_of`).

        And when it was compiled with other checks or less optimisation: numba's own cache doesn't ask.
        """

        _impl_class = _CacheImpl
        inner = False

        def __init__(self, function: Callable[..., Any]) -> None:
            super().__init__(function)
            stamp = (self._impl.locator.get_source_stamp(), config.BOUNDSCHECK, config.OPT)
            self._cache_file = IndexDataCacheFile(self.cache_path, self._impl.filename_base, stamp)
            self.name = f"{self.cache_path}/{self._impl.filename_base}"

        def holds(self, sig: Any, target: Any) -> bool:
            """Whether `load_overload` would find something."""
            with global_compiler_lock:  # while it is compiled as a helper, its keys are those of helpers
                return self._index_key(sig, target.codegen()) in self._cache_file._load_index()

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            """A specialisation from the cache, if it is there.

            numba looks before that for all functions that a compilation may want, which takes a process most of a
            second at its first kernel, and code that is compiled wants none of them.
            """
            rtsys.initialize(target_context)  # what kernels that make arrays call
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)

        def holds_any(self) -> bool:
            """Whether there is some specialisation of it."""
            return bool(self._cache_file._load_index())

        def _index_key(self, sig: Any, codegen: Any) -> Any:
            return (*super()._index_key(sig, codegen), self.inner)

        def _load_overload(self, sig: Any, target_context: Any) -> Any:
            if not self.inner:
                return super()._load_overload(sig, target_context)
            data = self._cache_file.load(self._index_key(sig, target_context.codegen()))
            return None if data is None else _loaded_helper(target_context, *data)

        def _save_overload(self, sig: Any, data: Any) -> None:
            if not self.inner:
                super()._save_overload(sig, data)
                return
            self._impl.locator.ensure_cache_path()
            self._cache_file.save(self._index_key(sig, data.codegen), _saved_helper(data))

    def _saved_helper(result: Any) -> tuple[Any, ...]:
        """A compiled helper as its bitcode and what belongs to it."""
        library, described = result.library, result.fndesc
        library._ensure_finalized()
        described.typemap = described.calltypes = None  # as numba does: they may not pickle
        environments = tuple(result._find_referenced_environments())
        bitcode = library._final_module.as_bitcode()
        return library.name, bitcode, described, result.environment, result.signature, environments

    def _loaded_helper(
        target: Any, name: str, bitcode: bytes, described: Any, environment: Any, signature: Any, environments: Any
    ) -> Any:
        """The inverse of `_saved_helper`."""
        library = _InnerLibrary(target.codegen(), name)
        library._final_module = llvm.parse_bitcode(bitcode)
        library._finalized = True
        return compiler.compile_result(
            typing_context=target.typing_context,
            target_context=target,
            library=library,
            environment=environment,
            entry_point=_Inner(),
            fndesc=described,
            type_annotation="",
            signature=signature,
            objectmode=False,
            lifted=(),
            typing_error=None,
            call_helper=None,
            metadata=None,
            reload_init=(),
            referenced_envs=environments,
        )

    class _Compiler(_FunctionCompiler):
        """numba's compiler of one function, for kernels and for helpers."""

        inner = False

        def _compile_core(self, args: Any, return_type: Any) -> Any:
            flags = Flags()
            self.targetdescr.options.parse_as_flags(flags, self.targetoptions)
            target = self.targetdescr.target_context
            if self.inner:
                flags.no_compile = flags.no_cpython_wrapper = True
            result = compiler.compile_extra(
                self.targetdescr.typing_context,
                target,
                self.py_func,
                args=args,
                return_type=return_type,
                flags=flags,
                locals=self.locals,
                library=_InnerLibrary(target.codegen(), self.py_func.__qualname__) if self.inner else None,
                pipeline_class=self.pipeline_class,
            )
            if self.inner:
                entry = _Inner()
                target.insert_user_function(entry, result.fndesc, [result.library])
                return result._replace(entry_point=entry)
            for environment in result._find_referenced_environments():  # its helpers' too
                result.library.codegen.set_env(environment.env_name, environment)
            return result

    class Kernel(CPUDispatcher):
        """A function compiled at its first call from Python as a kernel, and at its first call from one as a helper."""

        _depth = 0  # of compilations under way; the compiler's lock guards it
        work: Callable[..., int] | None = None
        _interpreted = 0  # work

        def __init__(
            self,
            py_func: Callable[..., Any],
            locals: Any = None,
            targetoptions: Any = None,
            pipeline_class: Any = Pipeline,
        ) -> None:
            super().__init__(py_func, locals or {}, targetoptions or {}, pipeline_class)
            self._compiler = _Compiler(py_func, self.targetdescr, targetoptions, locals or {}, pipeline_class)

        def enable_caching(self) -> None:
            self._cache = _KernelCache(self.py_func)

        def get_call_template(self, args: Any, kws: Any) -> Any:
            """For a call from another kernel: one specialisation for all literals."""
            with global_compiler_lock:
                self._be_inner(True)
                try:
                    return super().get_call_template([types.unliteral(arg) for arg in args], kws)
                finally:
                    self._be_inner(False)

        def _be_inner(self, inner: bool) -> None:
            self._compiler.inner = self._cache.inner = inner

        def compile(self, sig: Any) -> Any:
            """Compile for some argument types, or read from the cache; only one process at a time compiles a kernel."""
            global _compiling_s
            with global_compiler_lock:
                existing = self.overloads.get(tuple(sig))
                if existing is not None:
                    if self._compiler.inner or not isinstance(existing.entry_point, _Inner):
                        return existing.entry_point
                    del self.overloads[tuple(sig)]  # known as a helper only
                if self._cache.holds(sig, self.targetctx):
                    return super().compile(sig)
                outermost, begin = Kernel._depth == 0, time.perf_counter()
                if outermost and not self._compiler.inner:
                    _tell()
                Kernel._depth += 1
                try:
                    with kernel_lock(self._cache.name), _undisturbed() if outermost else nullcontext():
                        return super().compile(sig)
                finally:
                    Kernel._depth -= 1
                    if outermost:
                        _compiling_s += time.perf_counter() - begin

        def is_cached(self, sig: Any) -> bool:
            """Whether a specialisation is compiled already, in this process or by an earlier one."""
            known = self.overloads.get(tuple(sig))
            if known is not None and not isinstance(known.entry_point, _Inner):
                return True
            return bool(self._cache.holds(tuple(sig), self.targetctx))

        def _compile_for_args(self, *args: Any, **kws: Any) -> Any:
            """What a call from Python runs where no specialisation fits: one compiled now, or the plain form."""
            if _calls is not None:
                sig = tuple(self.typeof_pyval(argument) for argument in args)
                _calls.append((self.py_func.__module__, self.py_func.__name__, sig))
                return plain(self)
            if self.work is not None and self._interpreted < _LITTLE:
                self._interpreted += self.work(*args)
                sig = tuple(self.typeof_pyval(argument) for argument in args)
                if self._interpreted <= _LITTLE and not self._cache.holds(sig, self.targetctx):
                    return _without_warnings(plain(self))
            return super()._compile_for_args(*args, **kws)

        def add_overload(self, cres: Any) -> None:
            """Make a specialisation known; one of a helper can't be called from Python."""
            if isinstance(cres.entry_point, _Inner):
                self.overloads[tuple(cres.signature.args)] = cres
            else:
                super().add_overload(cres)

    @contextmanager
    def _undisturbed() -> Iterator[None]:
        """What is true of all that is compiled for a kernel, its helpers included."""
        pause = gc.isenabled()
        if pause:
            gc.disable()
        try:
            with shortcuts():
                yield
        finally:
            if pause:
                gc.enable()


def kernel(
    *, allocates: bool = False, work: Callable[..., int] | None = None, unbounded: bool = False, **options: Any
) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function at its first call, or take it from the cache.

    Numba counts references to every array that is taken out of a tuple or handed to a helper, atomically, dozens of
    times a position, which was half of the time of all targets. Kernels are compiled without counts.

    Parameters
    ----------
    allocates : bool
        Whether it makes an array or sorts one, which wants counts.
    work : callable, optional
        From the arguments to the tokens and ranks that a call looks at. As long as the kernel isn't compiled, calls of
        little work are interpreted; a process that goes on asking has it compiled in the end.
    unbounded : bool
        Whether its work has no bound that a caller's `work` could tell: interpreted callers ask it as Python does, so
        that it is compiled where there is more of it.
    **options
        As for `numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if CPUDispatcher is None or config.DISABLE_JIT:
            return njit(nogil=True, cache=True, **options)(function)
        chosen = {"nopython": True, "nogil": True, "boundscheck": None, "no_cfunc_wrapper": True, "_nrt": allocates}
        chosen |= options
        compiled = Kernel(function, targetoptions=chosen)
        compiled.enable_caching()
        compiled.work, compiled.unbounded = work, unbounded
        return compiled

    return decorate


def by_layout(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark what kernels call by way of numba's `overload`: interpreted, it calls what it calls interpreted too."""
    function.py_func = function
    return function


# interpreted

_plain: dict[Any, Callable[..., Any]] = {}


def plain(function: Any) -> Callable[..., Any]:
    """A kernel as Python runs it, with all that it calls."""
    if not hasattr(function, "py_func"):
        return function
    if function not in _plain:
        made: dict[Any, Callable[..., Any]] = {}
        _add_plain(function, made)
        _plain.update(made)  # only now: another thread must not run one that lacks what it calls
    return _plain[function]


@cache
def _without_warnings(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numpy's numbers, whose integers wrap and whose zeros divide as in compiled code: without a word."""

    def run(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arguments)

    return run


def _add_plain(function: Any, made: dict[Any, Callable[..., Any]]) -> Callable[..., Any]:
    """Add a kernel as Python runs it, and all that it calls."""
    if function not in made:
        code, names = function.py_func.__code__, function.py_func.__globals__
        scope = {name: value for name, value in names.items() if not hasattr(value, "py_func")}
        made[function] = FunctionType(code, scope, code.co_name, function.py_func.__defaults__)
        for name in code.co_names:
            if hasattr(names.get(name), "py_func"):
                asked = getattr(names[name], "unbounded", False)
                scope[name] = names[name] if asked else _add_plain(names[name], made)
    return made[function]


_calls: list[tuple[str, str, Any]] | None = None


@contextmanager
def recorded() -> Iterator[list[tuple[str, str, Any]]]:
    """Interpret kernels instead of compiling them; collects (module, name, argument types) of their calls.

    In all threads; kernels of this process that are compiled already run as they are, and aren't collected.
    """
    global _calls
    calls: list[tuple[str, str, Any]] = []
    _calls, before = calls, _calls
    try:
        yield calls
    finally:
        _calls = before


def is_cold(function: Any, *arguments: Any) -> bool:
    """Whether a call would have to wait for the compiler."""
    if _calls is not None or not isinstance(function, getattr(sys.modules[__name__], "Kernel", ())):
        return False
    return not function.is_cached(tuple(function.typeof_pyval(argument) for argument in arguments))


# beside

CHILD = "CORPUS_INDEX_COMPILES"
_begun: set[tuple[str, str]] = set()


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compile_beside(group: str, *parts: Sequence[Any], wide: bool) -> None:
    """Let other processes compile kernels that this one will need soon, while it compiles what it needs before.

    group: of `corpus_index.warming.GROUPS`, where each kernel is called. parts: kernels, a process for each part. wide:
    symbols have 32 bits. Does nothing where the first of a part is cached, where there is one processor only, without
    POSIX, or in such a process. Who needs a kernel before it is there waits for it (`kernel_lock`); where a process
    fails, this one compiles after all.
    """
    if CPUDispatcher is None or config.DISABLE_JIT or _calls is not None:
        return
    able = not os.environ.get(CHILD) and sys.executable and hasattr(os, "posix_spawn") and processors() > 1
    missing = []
    for part in parts:
        names = [function.py_func.__name__ for function in part]
        if (group, names[0]) not in _begun and able and not part[0].overloads and not part[0]._cache.holds_any():
            missing.append(names)
        _begun.add((group, names[0]))
    if missing:
        _tell()
        start_compiling(group, wide, missing)


def start_compiling(group: str, wide: bool, parts: Sequence[Sequence[str]]) -> None:
    """Start a process that compiles kernels of a group, with one of its own for each part; nobody waits for its end."""
    code = "from corpus_index.warming import compile_named; import sys; compile_named(sys.argv[1], *sys.argv[2:])"
    path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    with suppress(OSError):
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code, group, str(int(wide)), *map(",".join, parts)],
            {**os.environ, CHILD: "1", "PYTHONPATH": path},
            file_actions=nothing,
        )
