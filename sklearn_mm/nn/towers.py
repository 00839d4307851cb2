"""From features to the joint space."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_mm.nn.heads import mlp, unit_rows
from sklearn_mm.registry import stored_as

__all__ = ["AffineMap", "FeatureTower", "ResidualHead", "Standardizing"]


@stored_as("nn.Standardizing")
class Standardizing(nn.Module):
    """A module that standardises features first.

    Parameters
    ----------
    n_features : int

    Attributes
    ----------
    mean, scale : Tensor of shape (n_features,), float32
        Of the training features; 0 and 1 until `standardize_by` sets them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def standardize_by(self, mean: Tensor, scale: Tensor) -> None:
        """Set the statistics; a feature of scale 0 is constant in training, and left out from then on."""
        self.mean.copy_(mean)
        # divided by infinity a constant feature is 0, also where a later picture has another value
        self.scale.copy_(torch.where(scale > 0, scale, torch.inf))

    def standardized(self, features: Tensor) -> Tensor:
        """Return features (n, n_features) by these statistics, float32."""
        return (features.float() - self.mean) / self.scale  # int8 where they are ternary


@stored_as("nn.FeatureTower")
class FeatureTower(Standardizing):
    """Standardise features, and map them to the joint space by one linear map or a perceptron.

    Parameters
    ----------
    n_features, n_components : int
        Width of the input and of the output.
    hidden_layer_sizes : sequence of int
        Layers between; none for one linear map.
    dropout : float
        Share of input features, and of hidden units, dropped in training.
    """

    def __init__(
        self,
        n_features: int,
        n_components: int,
        *,
        hidden_layer_sizes: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(n_features)
        self.config: dict[str, Any] = {
            "n_features": n_features,
            "n_components": n_components,
            "hidden_layer_sizes": list(hidden_layer_sizes),
            "dropout": dropout,
        }
        # behind the standardisation: a dropped feature is an average one
        self.dropout = nn.Dropout(dropout)
        self.layers = mlp(n_features, hidden_layer_sizes, n_components, dropout=dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_features) to (n, n_components) float32."""
        return self.layers(self.dropout(self.standardized(features)))


@stored_as("nn.AffineMap")
class AffineMap(nn.Module):
    """An affine map in closed form: features less their mean, times a matrix, plus an offset. It does not train.

    Parameters
    ----------
    n_features, n_components : int
        Width of the input and of the output.

    Attributes
    ----------
    mean : Tensor of shape (n_features,), float32
    weight : Tensor of shape (n_features, n_components), float32
    offset, sparse_offset : Tensor of shape (n_components,), float32
        Of dense features, and of sparse ones, from which no mean is taken before.
    """

    mean: Tensor
    weight: Tensor
    offset: Tensor
    sparse_offset: Tensor

    def __init__(self, n_features: int, n_components: int) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"n_features": n_features, "n_components": n_components}
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("weight", torch.zeros(n_features, n_components))
        self.register_buffer("offset", torch.zeros(n_components))
        self.register_buffer("sparse_offset", torch.zeros(n_components))

    def set_map(self, mean: Tensor, weight: Tensor, offset: Tensor) -> None:
        """Set the map: `mean` and `offset` may be float64, `weight` is float32."""
        self.mean.copy_(mean)
        self.weight.copy_(weight)
        self.offset.copy_(offset)
        self.sparse_offset.copy_(offset - mean.float() @ weight)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_features), dense or sparse, to (n, n_components)."""
        if features.is_sparse:
            with torch.autocast(features.device.type, enabled=False):  # it knows no sparse products
                return torch.sparse.mm(features, self.weight) + self.sparse_offset
        # The mean is taken off first: of large means the difference of two products would be left.
        return (features.float() - self.mean) @ self.weight + self.offset


@stored_as("nn.ResidualHead")
class ResidualHead(nn.Module):
    """Add to unit vectors what a perceptron makes of them, which is nothing before training.

    Towers that were aligned before stay aligned: the cosine of what comes out is that of what goes in.

    Parameters
    ----------
    n_features : int
        Width of the input and of the output.
    hidden_layer_sizes : sequence of int
        Layers of the perceptron; none for one linear map.
    dropout : float
        Share of the perceptron's input features, and of hidden units, dropped in training.
    """

    def __init__(self, n_features: int, *, hidden_layer_sizes: Sequence[int] = (), dropout: float = 0.0) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "n_features": n_features,
            "hidden_layer_sizes": list(hidden_layer_sizes),
            "dropout": dropout,
        }
        self.dropout = nn.Dropout(dropout)
        self.branch = mlp(n_features, hidden_layer_sizes, n_features, dropout=dropout)
        for parameter in self.branch[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_features) to as many, float32."""
        # of unit length first: the branch has the same share of every row, whatever length a tower's vectors have
        unit = unit_rows(features)
        return unit + self.branch(self.dropout(unit))
