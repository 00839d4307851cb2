"""Losses on the labels of an image: each sees logits and targets, and forgets what is not known."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sklearn_mm._params import Interval, Real
from sklearn_mm.losses._base import LabelLoss
from sklearn_mm.registry import stored_as

__all__ = [
    "AsymmetricLoss",
    "BinaryLoss",
    "SoftmaxLoss",
    "asymmetric_label_loss",
    "binary_label_loss",
    "softmax_label_loss",
]


def softmax_label_loss(logits: Tensor, targets: Tensor, label_weight: Tensor | None = None) -> Tensor:
    """Compute the cross-entropy of a softmax against the normalised label vector.

    Parameters
    ----------
    logits : Tensor of shape (n, n_labels), float
    targets : Tensor of shape (n, n_labels), float
        1 where a label is true, 0 where it is not, NaN where that is not known; such a label is no part of the
        softmax of its row.
    label_weight : Tensor of shape (n_labels,), optional
        Factor on the loss of each label where it is true.

    Returns
    -------
    Tensor of shape (n,)
        ``-sum_c weight_c * y_c / sum(y) * log softmax(logits)_c``; 0 for a row without labels.

    References
    ----------
    .. [1] Gong, Jia, Leung, Toshev, Ioffe, "Deep Convolutional Ranking for Multilabel Image Annotation", ICLR 2014,
       equation 1.

    Examples
    --------
    >>> import torch
    >>> softmax_label_loss(torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    tensor([1.3863])
    """
    unknown = targets.isnan()
    true = targets.masked_fill(unknown, 0)
    n_true = true.sum(dim=1, keepdim=True)
    share = true / n_true.clamp(min=1)
    if label_weight is not None:
        share = share * label_weight
    # A row that knows nothing would have an empty softmax; without a true label its loss is 0 all the same.
    known_logits = logits.masked_fill(unknown & (n_true > 0), -torch.inf)
    log_normalizer = torch.logsumexp(known_logits, dim=1)
    return share.sum(dim=1) * log_normalizer - (share * logits).sum(dim=1)


def binary_label_loss(logits: Tensor, targets: Tensor, label_weight: Tensor | None = None) -> Tensor:
    """Sum the binary cross-entropies of all labels.

    Parameters
    ----------
    logits : Tensor of shape (n, n_labels), float
    targets : Tensor of shape (n, n_labels), float
        1 where a label is true, 0 where it is not, NaN where that is not known.
    label_weight : Tensor of shape (n_labels,), optional
        Factor on the loss of each label where it is true.

    Returns
    -------
    Tensor of shape (n,)
        ``-sum_c weight_c * y_c * log p_c + (1 - y_c) * log(1 - p_c)`` over the labels known, with p the sigmoid of the
        logits.

    Examples
    --------
    >>> import torch
    >>> binary_label_loss(torch.zeros(1, 2), torch.tensor([[1.0, torch.nan]]))
    tensor([0.6931])
    """
    unknown = targets.isnan()
    # NaN out of the targets first: masked in the loss alone, it would come back in the gradient as 0 times NaN
    loss = functional.binary_cross_entropy_with_logits(
        logits, targets.masked_fill(unknown, 0), pos_weight=label_weight, reduction="none"
    )
    return loss.masked_fill(unknown, 0).sum(dim=1)


def asymmetric_label_loss(
    logits: Tensor,
    targets: Tensor,
    label_weight: Tensor | None = None,
    *,
    gamma_negative: float = 4.0,
    gamma_positive: float = 1.0,
    margin: float = 0.05,
) -> Tensor:
    """Sum binary cross-entropies that play down easy labels, above all negatives.

    Parameters
    ----------
    logits : Tensor of shape (n, n_labels), float
    targets : Tensor of shape (n, n_labels), float
        1 where a label is true, 0 where it is not, NaN where that is not known.
    label_weight : Tensor of shape (n_labels,), optional
        Factor on the loss of each label where it is true.
    gamma_negative, gamma_positive : float, default=4.0, 1.0
        How strongly the easy ones are played down; 0 not at all.
    margin : float, default=0.05
        Negatives of a probability below it cost nothing; in [0, 1).

    Returns
    -------
    Tensor of shape (n,)
        The sum over the labels known of ``-weight * (1 - p) ** gamma_positive * log p`` for a true one, and of
        ``-q ** gamma_negative * log(1 - q)`` with ``q = max(p - margin, 0)`` for another.

    Notes
    -----
    The gradient is that of the formula. The authors' faster variant holds the factors before the logarithms constant.

    References
    ----------
    .. [1] Ben-Baruch, Ridnik, Zamir, Noy, Friedman, Protter, Zelnik-Manor, "Asymmetric Loss For Multi-Label
       Classification", ICCV 2021, equations 4 to 7, https://arxiv.org/abs/2009.14119

    Examples
    --------
    >>> import torch
    >>> asymmetric_label_loss(torch.tensor([[0.0, -4.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.3466])
    """
    unknown = targets.isnan()
    false_probability = torch.sigmoid(-logits)
    # the logarithm of a sigmoid that has become 0 would be infinite
    positive = -functional.logsigmoid(logits) * false_probability.pow(gamma_positive)
    if label_weight is not None:
        positive = positive * label_weight
    shifted = torch.relu(1 - false_probability - margin)
    # 1 - q is at least the margin; without one it may round to 0, where only logsigmoid stays finite
    if margin > 0:
        negative = -torch.log1p(-shifted) * shifted.pow(gamma_negative)
    else:
        negative = -functional.logsigmoid(-logits) * shifted.pow(gamma_negative)
    return torch.where(targets == 1, positive, negative).masked_fill(unknown, 0).sum(dim=1)


@stored_as("losses.BinaryLoss")
class BinaryLoss(LabelLoss):
    """Binary cross-entropy of each label.

    See Also
    --------
    binary_label_loss : The function.

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.losses import BinaryLoss
    >>> BinaryLoss()(torch.zeros(1, 2), torch.tensor([[1.0, torch.nan]]))
    tensor([0.6931])
    """

    short_name = "bce"

    def __call__(self, logits: Tensor, targets: Tensor, label_weight: Tensor | None = None) -> Tensor:
        """Compute the loss of each image, as `binary_label_loss` does."""
        return binary_label_loss(logits, targets, label_weight)


@stored_as("losses.SoftmaxLoss")
class SoftmaxLoss(LabelLoss):
    """Cross-entropy of a softmax against the normalised label vector.

    See Also
    --------
    softmax_label_loss : The function.

    References
    ----------
    .. [1] Gong, Jia, Leung, Toshev, Ioffe, "Deep Convolutional Ranking for Multilabel Image Annotation", ICLR 2014,
       equation 1, https://arxiv.org/abs/1312.4894

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.losses import SoftmaxLoss
    >>> SoftmaxLoss()(torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    tensor([1.3863])
    """

    short_name = "softmax"
    shares = True

    def __call__(self, logits: Tensor, targets: Tensor, label_weight: Tensor | None = None) -> Tensor:
        """Compute the loss of each image, as `softmax_label_loss` does."""
        return softmax_label_loss(logits, targets, label_weight)


@stored_as("losses.AsymmetricLoss")
class AsymmetricLoss(LabelLoss):
    """Binary cross-entropy in which easy labels, above all negatives, count little.

    Parameters
    ----------
    gamma_negative, gamma_positive : float, default=4.0, 1.0
        How strongly the easy ones are played down; 0 not at all.
    margin : float, default=0.05
        Negatives of a probability below it cost nothing; in [0, 1).

    See Also
    --------
    asymmetric_label_loss : The function.

    References
    ----------
    .. [1] Ben-Baruch, Ridnik, Zamir, Noy, Friedman, Protter, Zelnik-Manor, "Asymmetric Loss For Multi-Label
       Classification", ICCV 2021, equations 4 to 7, https://arxiv.org/abs/2009.14119

    Examples
    --------
    >>> import torch
    >>> from sklearn_mm.losses import AsymmetricLoss
    >>> AsymmetricLoss(gamma_positive=0.0)(torch.tensor([[0.0, -4.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.6931])
    """

    short_name = "asymmetric"
    _parameter_constraints: dict[str, Any] = {
        "gamma_negative": [Interval(Real, 0, None, closed="left")],
        "gamma_positive": [Interval(Real, 0, None, closed="left")],
        "margin": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(self, gamma_negative: float = 4.0, gamma_positive: float = 1.0, margin: float = 0.05) -> None:
        self.gamma_negative = gamma_negative
        self.gamma_positive = gamma_positive
        self.margin = margin

    def __call__(self, logits: Tensor, targets: Tensor, label_weight: Tensor | None = None) -> Tensor:
        """Compute the loss of each image, as `asymmetric_label_loss` does."""
        return asymmetric_label_loss(logits, targets, label_weight, **self.get_params())
