"""From the features and the tags of an image to its labels and their number (Niu et al. 2019)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sklearn_mm.nn.heads import hidden_layers
from sklearn_mm.nn.towers import Standardizing
from sklearn_mm.registry import stored_as

__all__ = ["AnnotationNetwork", "CountNetwork", "FeatureBranch", "TagBags", "TagBranch", "count_layers"]


class TagBags(NamedTuple):
    """The tags of a batch of images, one image after the other.

    Attributes
    ----------
    ids : Tensor of shape (n_tags_given,), int64
    values : Tensor of shape (n_tags_given,), float32
        What each tag counts.
    starts : Tensor of shape (n_images,), int64
        Where the tags of each image start.
    """

    ids: Tensor
    values: Tensor
    starts: Tensor


@stored_as("nn.FeatureBranch")
class FeatureBranch(Standardizing):
    """Standardise features, and take them through hidden layers.

    Parameters
    ----------
    n_features : int
    hidden_layer_sizes : sequence of int
        None for the standardised features themselves.
    dropout : float
        Share of input features, and of hidden units, dropped in training.

    Attributes
    ----------
    n_out : int
    """

    def __init__(self, n_features: int, hidden_layer_sizes: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__(n_features)
        self.layers = nn.Sequential(
            nn.Dropout(dropout), *hidden_layers(n_features, hidden_layer_sizes, dropout=dropout)
        )
        self.n_out = [n_features, *hidden_layer_sizes][-1]

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_features) to (n, n_out)."""
        return self.layers(self.standardized(features))


@stored_as("nn.TagBranch")
class TagBranch(nn.Module):
    """Take bags of tags through hidden layers, the first of which sees only the tags that are there.

    Parameters
    ----------
    n_tags : int
    hidden_layer_sizes : sequence of int
        At least one.
    dropout : float
        Share of tags, and of hidden units, dropped in training.
    """

    def __init__(self, n_tags: int, hidden_layer_sizes: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        first, *others = hidden_layer_sizes
        self.dropout = dropout
        # the first linear layer on the indicator of tags, without the indicator; its bias is that of the batch norm
        self.tags = nn.EmbeddingBag(n_tags, first, mode="sum")
        nn.init.normal_(self.tags.weight, std=n_tags**-0.5)  # as a linear layer of n_tags inputs
        self.layers = nn.Sequential(
            nn.BatchNorm1d(first), nn.ReLU(), nn.Dropout(dropout), *hidden_layers(first, others, dropout=dropout)
        )
        self.n_out = hidden_layer_sizes[-1]

    def forward(self, bags: TagBags) -> Tensor:
        """Map bags of n images to (n, n_out)."""
        # a tag of value 0 is out of the sum: whole tags are dropped
        values = nn.functional.dropout(bags.values, self.dropout, self.training)
        return self.layers(self.tags(bags.ids, bags.starts, per_sample_weights=values))


@stored_as("nn.AnnotationNetwork")
class AnnotationNetwork(nn.Module):
    """Features and tags, each through a branch of their own, side by side; then labels and their number.

    Parameters
    ----------
    n_features : int
        0 for no features.
    n_tags : int
        0 for no tags.
    n_labels : int
    n_count_outputs : int
        Outputs of the count head: 1 of a regression, one for each number in a classification, 0 for no head.
    hidden_layer_sizes, tag_hidden_layer_sizes : sequence of int
    count_hidden_layer_sizes : sequence of int
    dropout : float
    """

    def __init__(
        self,
        n_features: int,
        n_tags: int,
        n_labels: int,
        n_count_outputs: int,
        *,
        hidden_layer_sizes: Sequence[int] = (2048,),
        tag_hidden_layer_sizes: Sequence[int] = (2048, 2048),
        count_hidden_layer_sizes: Sequence[int] = (512, 256),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "n_features": n_features,
            "n_tags": n_tags,
            "n_labels": n_labels,
            "n_count_outputs": n_count_outputs,
            "hidden_layer_sizes": list(hidden_layer_sizes),
            "tag_hidden_layer_sizes": list(tag_hidden_layer_sizes),
            "count_hidden_layer_sizes": list(count_hidden_layer_sizes),
            "dropout": dropout,
        }
        self.visual = FeatureBranch(n_features, hidden_layer_sizes, dropout=dropout) if n_features else None
        self.textual = TagBranch(n_tags, tag_hidden_layer_sizes, dropout=dropout) if n_tags else None
        n_fused = sum(branch.n_out for branch in (self.visual, self.textual) if branch is not None)
        self.label_head = nn.Linear(n_fused, n_labels)
        self.count_head = None
        if n_count_outputs:
            self.count_head = count_layers(n_fused, count_hidden_layer_sizes, n_count_outputs, dropout=dropout)

    def start_from(self, log_odds: Tensor) -> None:
        """Let the labels start from their log odds in the training set, shape (n_labels,)."""
        with torch.no_grad():
            self.label_head.bias.copy_(log_odds)

    def fuse(self, features: Tensor | None, tags: TagBags | None) -> Tensor:
        """Put both branches side by side: (n, n_fused)."""
        parts = []
        if self.visual is not None and features is not None:
            parts.append(self.visual(features))
        if self.textual is not None and tags is not None:
            parts.append(self.textual(tags))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


@stored_as("nn.CountNetwork")
class CountNetwork(nn.Module):
    """Standardise features, and estimate a number from them.

    Parameters
    ----------
    n_features : int
    n_outputs : int
        1 of a regression, or one for each number in a classification.
    hidden_layer_sizes : sequence of int
    dropout : float
    """

    def __init__(
        self, n_features: int, n_outputs: int, *, hidden_layer_sizes: Sequence[int] = (512, 256), dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "n_features": n_features,
            "n_outputs": n_outputs,
            "hidden_layer_sizes": list(hidden_layer_sizes),
            "dropout": dropout,
        }
        self.features = FeatureBranch(n_features, (), dropout=0.0)
        self.head = count_layers(n_features, hidden_layer_sizes, n_outputs, dropout=dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_features) to (n, n_outputs)."""
        return self.head(self.features(features))


def count_layers(n_in: int, hidden_layer_sizes: Sequence[int], n_out: int, *, dropout: float) -> nn.Sequential:
    """Build the count head: linear layers, ReLU and dropout behind each but the last."""
    layers: list[nn.Module] = []
    for n_before, size in zip([n_in, *hidden_layer_sizes], hidden_layer_sizes, strict=False):
        # a public re-implementation has no ReLU in between: then all layers together are but one linear map
        layers += [nn.Linear(n_before, size), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear([n_in, *hidden_layer_sizes][-1], n_out))
