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
from sklearn_mm.nn.engines._rewrite import linear_of_mean, mean_behind
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

    layers = _leave_layers_of_means(module)
    _pool_without_reordering(module)
    with torch.no_grad():
        widths = [part.shape[1] for part in module(pixels)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about tracing, which is openvino's way to a graph
        try:
            model = openvino.convert_model(_SideBySide(module).eval(), example_input=pixels)
        except RuntimeError as error:  # an operator that it does not know
            raise UntraceableError(f"openvino: {error}") from error
    model.reshape([chunk_size, *pixels.shape[1:]])
    compiled = _Compiled(openvino.Core(), model, chunk_size)

    def read(pixels: Tensor) -> Tensor:
        means = torch.split(compiled(pixels), widths, dim=1)
        parts = zip(means, layers, strict=True)
        return torch.cat([mean if layer is None else linear_of_mean(mean, *layer) for mean, layer in parts], dim=1)

    return read


def _leave_layers_of_means(module: fx.GraphModule) -> list[tuple[Tensor, Tensor | None] | None]:
    """Answer the averages to which layers are applied last of all, and return weight and bias of each such layer.

    For all pictures of a call at once their weights are read once, and not for each chunk of a few.
    """
    output = next(node for node in module.graph.nodes if node.op == "output")
    layers: list[tuple[Tensor, Tensor | None] | None] = []
    answers = []
    for node in output.args[0]:
        is_layer = node.target is linear_of_mean
        mean, *constants = node.args if is_layer else (node,)
        weight, bias = (None if value is None else getattr(module, value.target) for value in constants or (None, None))
        layers.append(None if weight is None else (weight, bias))
        answers.append(mean)
    output.args = (tuple(answers),)
    module.graph.eliminate_dead_code()
    module.recompile()
    return layers


def _pool_without_reordering(module: fx.GraphModule) -> None:
    """Take averages by what OpenVINO does in the blocks of channels in which it keeps maps."""
    for node in list(module.graph.nodes):
        if node.target is spatial_mean:
            node.target = _mean
        elif node.target is mean_behind:
            source, rows, columns, weight, bias, groups = node.args
            values = [getattr(module, constant.target) for constant in (rows, columns, weight)]
            with module.graph.inserting_before(node):
                is_same = _is_same(values[0]) and _is_same(values[1])
                if is_same and groups == len(values[2]) and values[2].shape[1] == 1:
                    parts = _weights_of_borders(values[2], *(value.shape[1] for value in values[:2]))
                    names = [f"{weight.target}_by_border_{number}" for number in range(len(parts))]
                    for name, part in zip(names, parts, strict=True):
                        module.register_buffer(name, part)
                    node.target = _mean_by_weighted_borders
                    node.args = (source, *map(module.graph.get_attr, names), bias)
                elif is_same:
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
    return F.conv2d(parts.unsqueeze(3), weight.unsqueeze(3), bias, groups=groups).flatten(1)


def _mean_by_weighted_borders(
    maps: Tensor, whole: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, bias: Tensor | None
) -> Tensor:
    """Return what `_mean_by_borders` does, where each channel is convolved alone, without putting parts together.

    OpenVINO writes tensors side by side along the last axis number by number: that took half of the time of all such
    averages.

    Parameters
    ----------
    maps : Tensor of shape (n, c, h, w)
    whole : Tensor of shape (c,)
        For their sum.
    top, bottom : Tensor of shape (c, width, w)
        For each number of the first and the last rows.
    left, right : Tensor of shape (c, 1, width)
        For the sums of the first and the last columns.
    bias : Tensor of shape (c,) or None
    """
    width = top.shape[1]
    means = maps.sum((2, 3)) * whole
    means = means + (maps[:, :, :width] * top).sum((2, 3)) + (maps[:, :, -width:] * bottom).sum((2, 3))
    means = means + (maps[:, :, :, :width] * left).sum((2, 3)) + (maps[:, :, :, -width:] * right).sum((2, 3))
    return means if bias is None else means + bias


def _weights_of_borders(weight: Tensor, height: int, width: int) -> list[Tensor]:
    """Return the weights of `_mean_by_weighted_borders`; those of the corners are in those of the rows."""
    border = weight.shape[-1] // 2
    sums = _weight_by_border(weight, height, width).squeeze(1)  # (c, 1 + 4 * border + 4 * border**2)
    whole, sides, corners = torch.split(sums, [1, 4 * border, 4 * border**2], dim=1)
    first_rows, last_rows, left, right = torch.split(sides, border, dim=1)
    corners = corners.reshape(-1, 2, 2, border, border)
    rows = []
    for place, side in enumerate((first_rows, last_rows)):
        row = side.unsqueeze(2).repeat(1, 1, width)  # (c, border, width)
        row[:, :, :border] += corners[:, place, 0]
        row[:, :, -border:] += corners[:, place, 1]
        rows.append(row)
    return [whole.squeeze(1).contiguous(), *rows, left.unsqueeze(1).contiguous(), right.unsqueeze(1).contiguous()]


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
