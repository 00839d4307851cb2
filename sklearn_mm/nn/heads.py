"""Small perceptrons on top of features."""

from collections.abc import Sequence

from torch import nn

__all__ = ["mlp"]


def mlp(n_in: int, hidden_layer_sizes: Sequence[int], n_out: int, *, dropout: float = 0.0) -> nn.Sequential:
    """Build a perceptron: linear, batch norm, ReLU and dropout for each hidden layer, then one linear map."""
    layers: list[nn.Module] = []
    for size in hidden_layer_sizes:
        layers += [nn.Linear(n_in, size, bias=False), nn.BatchNorm1d(size), nn.ReLU(), nn.Dropout(dropout)]
        n_in = size
    layers.append(nn.Linear(n_in, n_out))
    return nn.Sequential(*layers)
