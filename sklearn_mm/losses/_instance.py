"""Instance loss: every image with its texts is a class of its own."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["instance_loss"]

_CLASS_BLOCK = 8192
_LEAST_LENGTH = 1e-12  # as in torch.nn.functional.normalize


class _BlockedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of a linear classifier whose logits are never held for more than a block of classes.

    Forward keeps the log of the normaliser for each row; backward computes each block's logits once more. `scale` is
    what each class's weights are multiplied by, (n_instances,), or None: one over their length, a function of them.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, classifier: Tensor, instance: Tensor, scale: Tensor | None, block: int
    ) -> Tensor:
        log_normalizer = features.new_full((len(features),), -torch.inf)
        for part in _blocks(classifier, block):
            log_normalizer = torch.logaddexp(log_normalizer, _logits(features, classifier, scale, part).logsumexp(1))
        ctx.save_for_backward(features, classifier, instance, scale, log_normalizer)
        ctx.block = block
        return log_normalizer - (features * _weights(classifier, scale, instance)).sum(dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        features, classifier, instance, scale, log_normalizer = ctx.saved_tensors
        slope = grads[0][:, None]  # (n, 1)
        feature_grad = -slope * _weights(classifier, scale, instance)
        classifier_grad = torch.empty_like(classifier)
        for part in _blocks(classifier, ctx.block):
            weighted = torch.exp(_logits(features, classifier, scale, part) - log_normalizer[:, None]) * slope
            torch.mm(weighted.T, features, out=classifier_grad[part])
            feature_grad += (weighted if scale is None else weighted * scale[part]) @ classifier[part]
        classifier_grad.index_add_(0, instance, -slope * features)
        if scale is not None:  # from the gradient of unit vectors to that of what they were made of
            for part in _blocks(classifier, ctx.block):
                unit, grad = _weights(classifier, scale, part), classifier_grad[part]
                grad -= (grad * unit).sum(dim=1, keepdim=True) * unit
                grad *= scale[part, None]
        return feature_grad, classifier_grad, None, None, None


def _blocks(classifier: Tensor, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, len(classifier), size)]


def _weights(classifier: Tensor, scale: Tensor | None, classes: slice | Tensor) -> Tensor:
    """Return the weights of some classes, scaled: (n_classes, d)."""
    return classifier[classes] if scale is None else classifier[classes] * scale[classes, None]


def _logits(features: Tensor, classifier: Tensor, scale: Tensor | None, part: slice) -> Tensor:
    """Return the logits of a block of classes: (n, n_classes)."""
    logits = features @ classifier[part].T
    return logits if scale is None else logits.mul_(scale[part])


def instance_loss(
    features: Tensor, instance: Tensor, classifier: Tensor, *, unit_classes: bool = False, block: int = _CLASS_BLOCK
) -> Tensor:
    """Compute the cross-entropy of naming the instance that a feature belongs to.

    Parameters
    ----------
    features : Tensor of shape (n, d), float
        Image or text features.
    instance : Tensor of shape (n,), int64
        The instance of each row, 0 to n_instances - 1.
    classifier : Tensor of shape (n_instances, d), float
        The weights of the linear classifier, shared by images and texts; it has no bias.
    unit_classes : bool, default=False
        Bring the weights of each class to unit length.
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
    scale = None
    if unit_classes:
        lengths = torch.linalg.vector_norm(classifier.detach(), dim=1)
        scale = lengths.clamp_min(_LEAST_LENGTH).reciprocal()
    loss: Tensor = _BlockedCrossEntropy.apply(features, classifier, instance, scale, block)
    return loss
