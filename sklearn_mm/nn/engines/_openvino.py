"""The graph of a network compiled by OpenVINO."""

import warnings
from collections.abc import Callable
from threading import Lock, local
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from sklearn_mm.nn.engines._chunks import full_chunks
from sklearn_mm.nn.engines._rewrite import mean_behind
from sklearn_mm.nn.engines._trace import UntraceableError
from sklearn_mm.nn.pooling import spatial_mean

__all__ = ["compiled_by_openvino"]


class _SideBySide(nn.Module):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat(self.module(pixels), dim=1)


def compiled_by_openvino(module: fx.GraphModule, pixels: Tensor, chunk_size: int) -> Callable[[Tensor], Tensor]:
    """Return a function from pixels (n, 3, h, w) to what is read, float32 (n, d).

    It computes with as many threads as torch does when it is called: each takes chunks of its own.
    """
    import openvino

    _pool_without_reordering(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about tracing, which is openvino's way to a graph
        try:
            model = openvino.convert_model(_SideBySide(module).eval(), example_input=pixels)
        except RuntimeError as error:  # an operator that it does not know
            raise UntraceableError(f"openvino: {error}") from error
    model.reshape([chunk_size, *pixels.shape[1:]])
    return _Compiled(openvino.Core(), model, chunk_size)


def _pool_without_reordering(module: fx.GraphModule) -> None:
    """Take averages by what OpenVINO does in the blocks of channels in which it keeps maps."""
    for node in list(module.graph.nodes):
        if node.target is spatial_mean:
            node.target = _mean
        elif node.target is mean_behind:
            source, rows, columns, weight, bias, groups = node.args
            values = [getattr(module, constant.target) for constant in (rows, columns, weight)]
            with module.graph.inserting_before(node):
                if _is_same(values[0]) and _is_same(values[1]):
                    name = f"{weight.target}_by_border"
                    module.register_buffer(
                        name, _weight_by_border(values[2], *(value.shape[1] for value in values[:2]))
                    )
                    node.target = _mean_by_borders
                    node.args = (source, module.graph.get_attr(name), bias, groups, len(values[0]) // 2)
                else:
                    node.target = _mean_by_products
    module.graph.eliminate_dead_code()
    module.recompile()


def _mean(maps: Tensor) -> Tensor:
    return maps.mean((2, 3))


def _mean_by_products(
    maps: Tensor, rows: Tensor, columns: Tensor, weight: Tensor, bias: Tensor | None, groups: int
) -> Tensor:
    """Return what `mean_behind` does, by products that leave maps (n, c, h, w)."""
    windows = torch.matmul(rows, torch.matmul(maps, columns.t()))  # (n, c, kernel, kernel)
    return F.conv2d(windows, weight, bias, groups=groups).flatten(1)


def _mean_by_borders(maps: Tensor, weight: Tensor, bias: Tensor | None, groups: int, width: int) -> Tensor:
    """Return the average behind a convolution that keeps the size of maps: from their sum, and those of their borders.

    Parameters
    ----------
    maps : Tensor of shape (n, c, h, w)
    weight : Tensor of shape (c_out, c / groups, 1 + 4 * width + 4 * width**2)
        For the sum; for those of the first and last rows and columns; and for the corners.
    bias : Tensor of shape (c_out,) or None
    groups : int
    width : int
        Rows, and columns, of a border.
    """
    sums = [maps.sum((2, 3)).unsqueeze(2)]
    rows = maps[:, :, :width], maps[:, :, -width:]
    sums += [row.sum(3) for row in rows]
    sums += [maps[:, :, :, :width].sum(2), maps[:, :, :, -width:].sum(2)]
    sums += [corner.flatten(2) for row in rows for corner in (row[:, :, :, :width], row[:, :, :, -width:])]
    parts = torch.cat(sums, 2)  # (n, c, n_parts)
    if groups == maps.shape[1] == weight.shape[0]:
        means = (parts * weight.squeeze(1)).sum(2)
        return means if bias is None else means + bias
    return F.conv2d(parts.unsqueeze(3), weight.unsqueeze(3), bias, groups=groups).flatten(1)


def _is_same(met: Tensor) -> bool:
    """Whether a side of a map is as long behind the convolution, and the border has no row twice."""
    kernel, side = met.shape
    # each entry of the kernel meets all rows but those that it is away from the middle
    away = (torch.arange(kernel) - kernel // 2).abs()
    is_all = kernel % 2 == 1 and kernel > 1 and side >= kernel
    return is_all and bool(((met > 0).sum(1) == side - away).all())


def _weight_by_border(weight: Tensor, height: int, width: int) -> Tensor:
    kernel = weight.shape[-1]
    border = kernel // 2
    places = [(row, column) for row in range(kernel) for column in range(kernel)]
    # by the row of the kernel, the rows of the border that it does not meet: first those above, then those below
    missed = torch.zeros(kernel, 2 * border)
    for entry in range(kernel):
        missed[entry, : max(entry - border, 0)] = 1
        missed[entry, 2 * border - max(border - entry, 0) :] = 1
    sums = []
    for row, column in places:
        corners = missed[row].view(2, border)[:, None, :, None] * missed[column].view(2, border)[None, :, None, :]
        sums.append(torch.cat([torch.ones(1), -missed[row], -missed[column], corners.flatten()]))
    return weight.flatten(2).float() @ torch.stack(sums) / (height * width)


class _Compiled:
    """A model, compiled for each number of threads with which it is called."""

    def __init__(self, core: Any, model: Any, chunk_size: int) -> None:
        self._core, self._model, self._chunk_size = core, model, chunk_size
        self._compiled: dict[int, Any] = {}
        self._compiling = Lock()
        self._thread = local()  # .requests: of this thread, by the number of threads

    def __call__(self, pixels: Tensor) -> Tensor:
        requests = self._requests(torch.get_num_threads())
        chunks = list(full_chunks(pixels.contiguous(), self._chunk_size))
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
                # float32, which is not what it takes by itself where the CPU has bfloat16
                options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": n_threads}
                options["NUM_STREAMS"] = n_threads
                self._compiled[n_threads] = self._core.compile_model(self._model, "CPU", options)
            return self._compiled[n_threads]


def _answer(request: Any) -> np.ndarray:
    request.wait()
    return np.array(request.get_output_tensor().data)
