"""Averages of a map that follow from those of its windows, so that it is read once for both."""

from itertools import combinations

import torch
from torch import Tensor, fx

from sklearn_mm.nn.engines._rewrite import mean_behind, mean_of_convolution, window_means
from sklearn_mm.nn.pooling import spatial_mean

__all__ = ["read_windows_once"]


def read_windows_once(module: fx.GraphModule) -> None:
    """Take the average of a map, where that of a convolution of it is taken too, from the averages over its windows.

    A cache keeps layers before and after their activation function: what comes out of one, and what the next
    convolution makes of that.

    Parameters
    ----------
    module : fx.GraphModule
        As `fold_and_pool` leaves it; changed in place.
    """
    graph = module.graph
    means = {node.args[0]: node for node in graph.nodes if node.target is spatial_mean}
    for node in [node for node in graph.nodes if node.target is mean_behind]:
        source, rows, columns, *convolution = node.args
        met = [getattr(module, constant.target) for constant in (rows, columns)]
        entries = [_entries_that_cover(part) for part in met]
        if source not in means or not all(entries):
            continue
        mean = means.pop(source)
        # the averages are over the positions behind the convolution
        share = 1 / (float(met[1].max()) * met[0].shape[1] * met[1].shape[1])
        with graph.inserting_before(min(mean, node)):
            windows = graph.call_function(window_means, (source, rows, columns))
            whole = graph.call_function(_mean_of_windows, (windows, *entries, share))
        mean.replace_all_uses_with(whole)
        graph.erase_node(mean)
        node.target, node.args = mean_of_convolution, (windows, *convolution)
    graph.lint()
    module.recompile()


def _entries_that_cover(met: Tensor) -> list[int]:
    """Return entries of a kernel, along one side, that meet each row of a map once; none if there are none."""
    is_met = (met > 0).int()
    for n_entries in range(1, len(met) + 1):
        for entries in combinations(range(len(met)), n_entries):
            if bool((is_met[list(entries)].sum(0) == 1).all()):
                return list(entries)
    return []


def _mean_of_windows(windows: Tensor, rows: list[int], columns: list[int], share: float) -> Tensor:
    """Return the average of maps, (n, c), from averages over windows (n, kernel, kernel, c)."""
    return torch.stack([windows[:, row, column] for row in rows for column in columns]).sum(0) * share
