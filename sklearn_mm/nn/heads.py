"""Small perceptrons on top of features."""

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["mlp", "unit_rows"]


def mlp(n_in: int, hidden_layer_sizes: Sequence[int], n_out: int, *, dropout: float = 0.0) -> nn.Sequential:
    """Build a perceptron: linear, batch norm, ReLU and dropout for each hidden layer, then one linear map."""
    layers: list[nn.Module] = []
    for size in hidden_layer_sizes:
        layers += [nn.Linear(n_in, size, bias=False), nn.BatchNorm1d(size), nn.ReLU(), nn.Dropout(dropout)]
        n_in = size
    layers.append(nn.Linear(n_in, n_out))
    return nn.Sequential(*layers)


def unit_rows(features: Tensor, positive_only: bool = False) -> Tensor:
    """Scale each row to unit length, in float32; `positive_only` takes the absolute values, as order embeddings do."""
    unit = nn.functional.normalize(features.float(), dim=1)
    return unit.abs() if positive_only else unit
