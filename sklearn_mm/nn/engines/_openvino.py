"""The graph of a network compiled by OpenVINO."""

import warnings
from collections.abc import Callable
from threading import Lock, local
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from sklearn_mm.nn.engines._chunks import full_chunks
from sklearn_mm.nn.engines._openvino_means import average_by_convolutions
from sklearn_mm.nn.engines._trace import UntraceableError

__all__ = ["compiled_by_openvino"]

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class _SideBySide(nn.Module):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat(self.module(pixels), dim=1)


def compiled_by_openvino(
    module: fx.GraphModule, pixels: Tensor, chunk_size: int, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """Return a function from pixels (n, 3, h, w) to what is read, float32 (n, d).

    It computes in `dtype`, and with as many threads as torch does when it is called: each takes chunks of its own.
    """
    finishes = average_by_convolutions(module)
    with torch.no_grad():
        widths = [part.shape[1] for part in module(pixels)]
    # nothing is left of a network of which the first layer alone is read
    compiled = _compiled(module, pixels, chunk_size, dtype) if widths else None

    def read(pixels: Tensor) -> Tensor:
        answers = () if compiled is None else torch.split(compiled(pixels), widths, dim=1)
        parts = [pixels if number is None else answers[number] for number, _ in finishes]
        finished = [part if finish is None else finish(part) for part, (_, finish) in zip(parts, finishes, strict=True)]
        return torch.cat(finished, dim=1)

    return read


def _compiled(
    module: fx.GraphModule, pixels: Tensor, chunk_size: int, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """Return a function from pixels (n, 3, h, w), channels last, to all that the graph answers, side by side."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    # as many as in each call: a size that the network computes with becomes a number of the graph
    example = pixels[:1].expand(chunk_size, *pixels.shape[1:]).contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about tracing, which is openvino's way to a graph
        try:
            model = openvino.convert_model(_SideBySide(module).eval(), example_input=example)
            model.reshape([chunk_size, *pixels.shape[1:]])
        except RuntimeError as error:  # an operator that it does not know
            raise UntraceableError(f"openvino: {error}") from error
    channels_last = PrePostProcessor(model)  # as pixels are in memory
    channels_last.input().tensor().set_layout(openvino.Layout("NHWC"))
    channels_last.input().model().set_layout(openvino.Layout("NCHW"))
    return _Compiled(openvino.Core(), channels_last.build(), chunk_size, _PRECISIONS[dtype])


class _Compiled:
    """A model, compiled for each number of threads with which it is called."""

    def __init__(self, core: Any, model: Any, chunk_size: int, precision: str) -> None:
        self._core, self._model, self._chunk_size, self._precision = core, model, chunk_size, precision
        self._compiled: dict[int, Any] = {}
        self._compiling = Lock()
        self._thread = local()  # .requests: of this thread, by the number of threads

    def __call__(self, pixels: Tensor) -> Tensor:
        requests = self._requests(torch.get_num_threads())
        positions = pixels.permute(0, 2, 3, 1).contiguous()  # no copy of what is channels last
        chunks = list(full_chunks(positions, self._chunk_size))
        answers: list[np.ndarray] = []
        for number, chunk in enumerate(chunks):
            if number >= len(requests):
                answers.append(_answer(requests[number % len(requests)]))
            requests[number % len(requests)].start_async([chunk.numpy()], share_inputs=True)
        first = len(answers)
        answers += [_answer(requests[number % len(requests)]) for number in range(first, len(chunks))]
        return torch.from_numpy(np.concatenate(answers)[: len(pixels)])

    def _requests(self, n_threads: int) -> list[Any]:
        own = self._thread.__dict__.setdefault("requests", {})
        if n_threads not in own:
            compiled = self._compile(n_threads)
            own[n_threads] = [compiled.create_infer_request() for _ in range(n_threads)]
        requests: list[Any] = own[n_threads]
        return requests

    def _compile(self, n_threads: int) -> Any:
        with self._compiling:
            if n_threads not in self._compiled:
                options = {"INFERENCE_PRECISION_HINT": self._precision, "INFERENCE_NUM_THREADS": n_threads}
                options["NUM_STREAMS"] = n_threads
                self._compiled[n_threads] = self._core.compile_model(self._model, "CPU", options)
            return self._compiled[n_threads]


def _answer(request: Any) -> np.ndarray:
    request.wait()
    return np.array(request.get_output_tensor().data)
