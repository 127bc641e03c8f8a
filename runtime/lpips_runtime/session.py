"""One opened .onnx: what it is, and inputs in, outputs out."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from . import contract
from .checks import check_kind, check_net, check_tensors, probe
from .contract import ModelInfo
from .errors import DamagedModelError, ForeignModelError, LpipsError, ProviderError, UsageError
from .models import read_model
from .providers import MAX_THREADS, choose, exact_int8, onnxruntime

__all__ = ["Session"]

# ONNX Runtime's word for a type -> numpy's; whatever else it says is no type of the contract.
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}

# Values in a tensor of images from which on it pays to mind the arena: those of one image of 512x512.
_LARGE = 3 * 512**2

# Names of ONNX Runtime's exceptions that speak of the file, whatever the provider.
_OF_THE_FILE = frozenset(("InvalidProtobuf", "InvalidGraph", "NoModel", "InvalidArgument", "UnicodeDecodeError"))

_NOISE = (
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Exception during initialization: |Non-zero status code returned while "),
    # "/onnxruntime_src/.../graph.cc:1587 void onnxruntime::Graph::Call(const std::string&) (condition) was false. "
    # or "concatbase.h:12 PrepareForComputeImpl "
    re.compile(
        r"\S+\.(?:cc|cpp|h|cu):\d+ "
        r"(?:[^()]*?::~?\w+\([^()]*\)(?: const)? |[A-Z]\w*[a-z][A-Z]\w* )?"
        r"(?:\S.*? was false\. )?"
    ),
)


class Session:
    """A graph of lpips-export, opened by ONNX Runtime and checked against the contract.

    path: the .onnx file. provider: see providers.choose. threads: ONNX Runtime's intra-op threads, None for its
    default (the physical cores). kind: the kind of graph that the caller needs, None for any.

    Attributes: path, sha256 (of the file), info (ModelInfo), depths (number of taps), provider (our name),
    device, runtime (what computes: library and version), origin (what the file was made from: nothing, here).

    Raises ModelError and its kinds for a file that is not such a graph, ProviderError if the provider is missing,
    broken, or would hand the graph to another one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        provider: str = "auto",
        threads: int | None = None,
        kind: str | None = "pair",
    ) -> None:
        if threads is not None and not (isinstance(threads, int) and 1 <= threads <= MAX_THREADS):
            raise UsageError(f"threads is {threads!r}, it must be a whole number from 1 to {MAX_THREADS}")
        self.path = Path(path)
        data, self.sha256 = read_model(self.path)
        row, self.device = choose(provider)
        self.provider = row.name
        ort = onnxruntime()
        self.runtime = {"onnxruntime": str(ort.__version__)}
        self.origin: dict[str, str] = {}
        self._last: tuple[int, ...] = ()  # shape of the inputs that ran last
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # INT8: on x86 without VNNI the fast kernels add two products in 16 bits, which saturates: VGG16 came out up to
        # 24 % too small, in silence.
        options.add_session_config_entry(*exact_int8())
        # Memory patterns gain no time here, and where the first run is a large one the second takes twice its memory.
        options.enable_mem_pattern = False
        if threads is not None:
            options.intra_op_num_threads = threads
        providers = [(row.ort_name, dict(row.options(self.device)))]
        try:
            # Its fallback prints to stdout, and would go on with the CPU provider when another one fails in a run.
            self._session = ort.InferenceSession(data, sess_options=options, providers=providers, enable_fallback=0)
            metadata = self._session.get_modelmeta().custom_metadata_map
            inputs, outputs = (
                {node.name: (_DTYPES.get(str(node.type), str(node.type)), len(node.shape)) for node in nodes}
                for nodes in (self._session.get_inputs(), self._session.get_outputs())
            )
        except Exception as error:
            raise self._open_error(error, row.name) from error
        # A provider whose libraries are missing is left out in silence all the same.
        actual = self._session.get_providers()
        if actual[0] != row.ort_name:
            raise ProviderError(
                f"provider {row.name!r} did not start, ONNX Runtime fell back to {actual[0]}; "
                "check its libraries and driver, or ask for --provider cpu"
            )
        self.info = ModelInfo.from_metadata(metadata, self.path)
        check_kind(self.path, self.info, kind)
        if not contract.is_sealed(data, self.info.content_sha256):
            raise DamagedModelError(f"{self.path}: was changed or damaged after its export; export the model again")
        self.depths = sum(name.startswith(("depth_", "feature_")) for name in outputs)
        check_tensors(self.path, self.info, inputs, outputs, again="export the model again")
        self._check_net()

    def _open_error(self, error: Exception, provider: str) -> LpipsError:
        # With the CPU provider, which opens every intact graph, it is the file; with others it may be their set-up.
        if provider == "cpu" or type(error).__name__ in _OF_THE_FILE:
            return ForeignModelError(f"{self.path}: not an ONNX model, or a damaged one ({_words(error)})")
        return ProviderError(f"{self.path}: provider {provider!r} cannot open it: {_words(error)}")

    def _check_net(self) -> None:
        try:
            check_net(self.path, self.info, self.run, again="export it again")
        except ProviderError as error:
            raise DamagedModelError(f"{self.path}: fails on an image of zeros: {error.__cause__}") from error

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Run the graph on tensors of the contract and return the named outputs, in that order.

        The caller has checked sizes and values. Raises ProviderError if the provider fails, for want of memory say.
        """
        try:
            self._shrink_before(next(iter(inputs.values())).shape)
            return self._session.run(list(outputs), dict(inputs))
        except Exception as error:
            raise ProviderError(f"{self.path}: provider {self.provider!r} failed: {_words(error)}") from error

    def _shrink_before(self, shape: tuple[int, ...]) -> None:
        """Give memory back before inputs of another shape than the last ones, if either is large.

        ONNX Runtime's arena keeps what it has, and blocks for one size hardly serve another: with tiles of four sizes
        vgg took 3.8 GB where the largest alone takes 2.6. An arena shrinks after a run, so there is a tiny one.
        """
        last, self._last = self._last, shape
        if self.provider != "cpu" or shape == last or max(math.prod(shape), math.prod(last)) < _LARGE:
            return
        if tiny := probe(self.info):
            options = onnxruntime().RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            self._session.run([self._session.get_outputs()[0].name], tiny, options)


def _words(error: Exception) -> str:
    """What ONNX Runtime says, without its codes, C++ signatures and source paths, at most some 200 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    for noise in _NOISE:
        words = noise.sub("", words)
    return words if len(words) <= 200 else f"{words[:200]}..."
