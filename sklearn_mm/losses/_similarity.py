"""How close images and texts are: score matrices that gradients flow through."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

__all__ = ["SIMILARITIES", "cosine_scores", "order_root_scores", "order_scores"]

_IMAGE_BLOCK = 16


def cosine_scores(image: Tensor, text: Tensor) -> Tensor:
    """Return the inner products of unit vectors (n_images, d) and (n_texts, d): (n_images, n_texts)."""
    return image @ text.T


class _OrderScores(torch.autograd.Function):
    """Block by block, so that the differences of all pairs are never held at once, forward or backward."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor) -> Tensor:
        ctx.save_for_backward(image, text)
        blocks = range(0, len(image), _IMAGE_BLOCK)
        return torch.cat([-_violation(image[b : b + _IMAGE_BLOCK], text).square().sum(dim=2) for b in blocks])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        image, text = ctx.saved_tensors
        image_grad, text_grad = torch.empty_like(image), torch.zeros_like(text)
        for start in range(0, len(image), _IMAGE_BLOCK):
            block = slice(start, start + _IMAGE_BLOCK)
            slope = 2 * _violation(image[block], text) * grads[0][block, :, None]  # (n_block, n_texts, d)
            image_grad[block] = slope.sum(dim=1)
            text_grad -= slope.sum(dim=0)
        return image_grad, text_grad


def _violation(image: Tensor, text: Tensor) -> Tensor:
    return torch.relu(text[None, :, :] - image[:, None, :])


def order_scores(image: Tensor, text: Tensor) -> Tensor:
    """Return minus the violation of "the text is above the image", squared and summed.

    Parameters
    ----------
    image : Tensor of shape (n_images, d), float
    text : Tensor of shape (n_texts, d), float

    Returns
    -------
    Tensor of shape (n_images, n_texts)
        ``-sum_d max(0, text_d - image_d) ** 2``; 0 where the text holds of the image altogether.

    References
    ----------
    .. [1] Vendrov, Kiros, Fidler, Urtasun, "Order-Embeddings of Images and Language", ICLR 2016, equation 2.

    Examples
    --------
    >>> import torch
    >>> order_scores(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.0], [0.0, 1.0]]))
    tensor([[-0.0000, -0.2500]])
    """
    scores: Tensor = _OrderScores.apply(image, text)
    return scores


class _NegativeRoot(torch.autograd.Function):
    """Minus the root of minus a score; its slope is 0 where the root's is infinite."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        root = scores.neg().clamp_min(0.0).sqrt()
        ctx.save_for_backward(root)
        return -root

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return torch.where(root > 0, grads[0] / (2 * root), 0.0)


def order_root_scores(image: Tensor, text: Tensor) -> Tensor:
    """Return minus the length of the violation of "the text is above the image".

    Parameters
    ----------
    image : Tensor of shape (n_images, d), float
    text : Tensor of shape (n_texts, d), float

    Returns
    -------
    Tensor of shape (n_images, n_texts)
        ``-sqrt(sum_d max(0, text_d - image_d) ** 2)``. It ranks as `order_scores` does; hinges see other margins.

    Notes
    -----
    The gradient of a pair without violation is 0.

    References
    ----------
    .. [1] The authors' code of Faghri, Fleet, Kiros, Fidler, "VSE++: Improving Visual-Semantic Embeddings with Hard
       Negatives", BMVC 2018, https://github.com/fartashf/vsepp

    Examples
    --------
    >>> import torch
    >>> order_root_scores(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.0], [0.0, 1.0]]))
    tensor([[-0.0000, -0.5000]])
    """
    root: Tensor = _NegativeRoot.apply(order_scores(image, text))
    return root


SIMILARITIES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"cosine": cosine_scores, "order": order_scores, "order-root": order_root_scores}
)
