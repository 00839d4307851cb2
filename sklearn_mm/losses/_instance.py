"""Instance loss: every image with its texts is a class of its own."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["instance_loss"]

_CLASS_BLOCK = 8192


class _BlockedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of a linear classifier whose logits are never held for more than a block of classes.

    Forward keeps the log of the normaliser for each row; backward computes each block's logits once more.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, classifier: Tensor, instance: Tensor, block: int) -> Tensor:
        log_normalizer = features.new_full((len(features),), -torch.inf)
        for start in range(0, len(classifier), block):
            weights = classifier[start : start + block]
            log_normalizer = torch.logaddexp(log_normalizer, torch.logsumexp(features @ weights.T, dim=1))
        ctx.save_for_backward(features, classifier, instance, log_normalizer)
        ctx.block = block
        return log_normalizer - (features * classifier[instance]).sum(dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        features, classifier, instance, log_normalizer = ctx.saved_tensors
        scale = grads[0][:, None]  # (n, 1)
        feature_grad = -scale * classifier[instance]
        classifier_grad = torch.empty_like(classifier)
        for start in range(0, len(classifier), ctx.block):
            weights = classifier[start : start + ctx.block]
            weighted = torch.exp(features @ weights.T - log_normalizer[:, None]) * scale  # (n, block)
            feature_grad += weighted @ weights
            classifier_grad[start : start + ctx.block] = weighted.T @ features
        classifier_grad.index_add_(0, instance, -scale * features)
        return feature_grad, classifier_grad, None, None


def instance_loss(features: Tensor, instance: Tensor, classifier: Tensor, *, block: int = _CLASS_BLOCK) -> Tensor:
    """Compute the cross-entropy of naming the instance that a feature belongs to.

    Parameters
    ----------
    features : Tensor of shape (n, d), float
        Image or text features.
    instance : Tensor of shape (n,), int64
        The instance of each row, 0 to n_instances - 1.
    classifier : Tensor of shape (n_instances, d), float
        The weights of the linear classifier, shared by images and texts; it has no bias.
    block : int, default=8192
        How many instances' logits are held at once.

    Returns
    -------
    Tensor of shape (n,)

    Notes
    -----
    Takes ``n * block`` numbers of memory besides the gradient of the classifier, however many instances there are;
    the time is that of three matrix products forward and backward, and of one more for the logits computed twice.

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
    loss: Tensor = _BlockedCrossEntropy.apply(features, classifier, instance, block)
    return loss
