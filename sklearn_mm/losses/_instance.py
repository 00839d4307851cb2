"""Instance loss: every image with its texts is a class of its own."""

from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["instance_loss"]


def instance_loss(features: Tensor, instance: Tensor, classifier: Tensor) -> Tensor:
    """Compute the cross-entropy of naming the instance that a feature belongs to.

    Parameters
    ----------
    features : Tensor of shape (n, d), float
        Image or text features.
    instance : Tensor of shape (n,), int64
        The instance of each row, 0 to n_instances - 1.
    classifier : Tensor of shape (n_instances, d), float
        The weights of the linear classifier, shared by images and texts; it has no bias.

    Returns
    -------
    Tensor of shape (n,)

    References
    ----------
    .. [1] Zheng, Zheng, Garrett, Yang, Xu, Shen, "Dual-Path Convolutional Image-Text Embeddings with Instance Loss",
       ACM TOMM 16(2), 2020, equations 3 to 6.

    Examples
    --------
    >>> import torch
    >>> instance_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
    tensor([0.0001])
    """
    return cross_entropy(features @ classifier.T, instance, reduction="none")
