"""llama.cpp through llama-cpp-python's low-level interface: a context that shows every node of its graph.

llama-cpp-python gives the C functions of ``llama.h``; what a node of the graph is (``struct ggml_tensor``, ``ggml.h``)
is spelled out here, and checked against ggml's own functions as soon as a node is seen.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from llama_core.errors import TraceError

_F32 = 0


class GgmlTensor(ctypes.Structure):
    """``struct ggml_tensor``."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    ]


class Node:
    """One node of the graph that is being computed; valid only while the callback runs.

    Attributes:
        name: as llama.cpp calls it, such as ``Qcur-0``. op: such as ``MUL_MAT``.
    """

    def __init__(self, library: Library, address: int):
        self._library, self._address = library, address
        self._tensor = GgmlTensor.from_address(address)
        self.name = self._tensor.name.decode(errors="replace")
        self.op = library.c.ggml_op_name(self._tensor.op).decode()

    def source(self, number: int) -> Node:
        """A node that this one is computed from."""
        return Node(self._library, self._tensor.src[number])

    def read(self) -> np.ndarray:
        """The values, float32, on four axes, the slowest first.

        Raises:
            TraceError: the values are stored in another type.
        """
        tensor, c = self._tensor, self._library.c
        if tensor.type != _F32:
            raise TraceError(
                f"llama.cpp computes {self.name} in another type than float32",
                key=self.name,
                expected="F32",
                actual=c.ggml_type_name(tensor.type).decode(),
            )
        size = c.ggml_nbytes(self._address)
        content = np.empty(size, np.uint8)
        c.ggml_backend_tensor_get(self._address, content.ctypes.data, 0, size)
        shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
        values = np.lib.stride_tricks.as_strided(content.view(np.float32), shape, strides)
        return np.ascontiguousarray(values)

    def check(self) -> None:
        """Refuse a ggml whose nodes look otherwise than this file says."""
        tensor, c = self._tensor, self._library.c
        elements = int(np.prod(list(tensor.ne)))
        extent = 4 + sum((n - 1) * step for n, step in zip(tensor.ne, tensor.nb, strict=True))
        same = c.ggml_get_name(self._address) == tensor.name and c.ggml_nelements(self._address) == elements
        if not same or (tensor.type == _F32 and c.ggml_nbytes(self._address) != extent):
            raise TraceError(
                "this llama.cpp lays out its tensors in a way that is not known here",
                key="--engine",
                expected="struct ggml_tensor as in ggml.h of 2025 and 2026",
                actual=f"llama-cpp-python {self._library.version}",
                hint="install the version that constraints.txt names",
            )


class Library:
    """The C functions, and what llama.cpp last complained about.

    Raises:
        TraceError: llama-cpp-python is not installed, or cannot be loaded.
    """

    def __init__(self):
        try:
            import llama_cpp
        except (ImportError, OSError, RuntimeError) as e:
            raise TraceError(
                "llama-cpp-python is not installed",
                key="--engine",
                expected="llama-cpp-python, with a C++ compiler and cmake to build it",
                actual=str(e).splitlines()[0][:200],
                hint="pip install 'llama-core[llamacpp]' (some minutes: it compiles llama.cpp)",
            ) from e
        self.api = llama_cpp
        self.version = llama_cpp.__version__
        self.c = llama_cpp.llama_cpp._lib
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for name, result, arguments in (
            ("ggml_op_name", text, [ctypes.c_int]),
            ("ggml_type_name", text, [ctypes.c_int]),
            ("ggml_get_name", text, [pointer]),
            ("ggml_nbytes", ctypes.c_size_t, [pointer]),
            ("ggml_nelements", ctypes.c_int64, [pointer]),
            ("ggml_backend_tensor_get", None, [pointer, pointer, ctypes.c_size_t, ctypes.c_size_t]),
        ):
            function = getattr(self.c, name)
            function.restype, function.argtypes = result, arguments
        self.complaints: list[str] = []
        self._listener = llama_cpp.llama_log_callback(self._listen)
        llama_cpp.llama_log_set(self._listener, None)
        llama_cpp.llama_backend_init()

    def _listen(self, level: int, message: bytes, _) -> None:
        if level >= 3 and message:  # warnings and errors
            self.complaints = [*self.complaints[-4:], message.decode(errors="replace").strip()]

    def failed(self, what: str, file: Path | None = None) -> TraceError:
        said = " / ".join(self.complaints) or "nothing"
        return TraceError(f"llama.cpp {what}", file=file, key="--engine", actual=f"it said: {said[:500]}")


class Model:
    """A GGUF file, loaded by llama.cpp for the CPU."""

    def __init__(self, library: Library, path: Path):
        self.library = library
        api = library.api
        parameters = api.llama_model_default_params()
        parameters.n_gpu_layers = 0
        # Weights stay as they are stored: repacked ones go to kernels, such as AMX's, that not every system lets run.
        parameters.use_extra_bufts = False
        self.pointer = api.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.pointer:
            raise library.failed(f"does not load {path.name}", path)

    def close(self) -> None:
        self.library.api.llama_model_free(self.pointer)


class Context:
    """One sequence's run: its cache, and a callback that sees the nodes of every pass.

    Flash attention is off, for it hides the scores; the cache is float32; every token gets logits.

    Args:
        length: slots of the cache. width: tokens of the longest pass, which is computed in one piece.
        wants: ``wants(node)``: whether the node is to be shown. show: takes it, once it is computed.
    """

    def __init__(
        self,
        model: Model,
        length: int,
        width: int,
        threads: int,
        wants: Callable[[Node], bool],
        show: Callable[[Node], object],
    ):
        self.library, api = model.library, model.library.api
        self._wants, self._show = wants, show
        self._problem: BaseException | None = None
        self._checked = False
        parameters = api.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = length, 1
        parameters.n_batch = parameters.n_ubatch = width
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.type_k = parameters.type_v = _F32
        parameters.offload_kqv = parameters.op_offload = False
        self._callback = type(parameters.cb_eval)(self._seen)
        parameters.cb_eval = self._callback
        self.pointer = api.llama_init_from_model(model.pointer, parameters)
        if not self.pointer:
            raise self.library.failed("makes no context for this model")

    def run(self, ids: Sequence[int], positions: Sequence[int]) -> None:
        """One pass over tokens [S] at their positions."""
        api = self.library.api
        batch = api.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for n, (token, position) in enumerate(zip(ids, positions, strict=True)):
                batch.token[n], batch.pos[n] = token, position
                batch.n_seq_id[n], batch.seq_id[n][0] = 1, 0
                batch.logits[n] = 1
            status = api.llama_decode(self.pointer, batch)
        finally:
            api.llama_batch_free(batch)
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem
        if status:
            raise self.library.failed(f"could not compute a pass of {len(ids)} tokens (status {status})")

    def _seen(self, address: int, asked: bool, _) -> bool:
        """ggml asks whether a node is wanted, computes up to it, and shows it. False, then, stops the pass."""
        try:
            node = Node(self.library, address)
            if not self._checked:
                node.check()
                self._checked = True
            if asked:
                return self._wants(node)
            self._show(node)
            return True
        except BaseException as problem:  # an exception does not pass through C
            self._problem = self._problem or problem
            return False

    def close(self) -> None:
        self.library.api.llama_free(self.pointer)
