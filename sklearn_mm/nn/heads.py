"""Small perceptrons on top of features."""

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["hidden_layers", "mlp", "unit_rows"]


def mlp(n_in: int, hidden_layer_sizes: Sequence[int], n_out: int, *, dropout: float = 0.0) -> nn.Sequential:
    """Build a perceptron: linear, batch norm, ReLU and dropout for each hidden layer, then one linear map."""
    layers = hidden_layers(n_in, hidden_layer_sizes, dropout=dropout)
    return nn.Sequential(*layers, nn.Linear([n_in, *hidden_layer_sizes][-1], n_out))


def hidden_layers(n_in: int, sizes: Sequence[int], *, dropout: float = 0.0) -> list[nn.Module]:
    """Build linear, batch norm, ReLU and dropout for each size."""
    layers: list[nn.Module] = []
    for n_before, size in zip([n_in, *sizes], sizes, strict=False):
        # no bias: the batch norm takes the mean away and has one
        layers += [nn.Linear(n_before, size, bias=False), nn.BatchNorm1d(size), nn.ReLU(), nn.Dropout(dropout)]
    return layers


def unit_rows(features: Tensor, positive_only: bool = False) -> Tensor:
    """Scale each row to unit length, in float32; `positive_only` takes the absolute values, as order embeddings do."""
    unit = nn.functional.normalize(features.float(), dim=1)
    return unit.abs() if positive_only else unit
