"""How close images and texts are: score matrices that gradients flow through."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

__all__ = ["SIMILARITIES", "cosine_scores", "order_root_scores", "order_scores"]

_IMAGE_BLOCK, _BLOCK_NUMBERS = 16, 2**22  # a block holds so many images, and so many numbers


def cosine_scores(image: Tensor, text: Tensor) -> Tensor:
    """Return the inner product of each image with each text.

    Parameters
    ----------
    image : Tensor of shape (n_images, d), float
        Unit vectors.
    text : Tensor of shape (n_texts, d), float
        Unit vectors.

    Returns
    -------
    Tensor of shape (n_images, n_texts)

    Examples
    --------
    >>> import torch
    >>> cosine_scores(torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
    tensor([[0.6000, 1.0000]])
    """
    return image @ text.T


class _OrderScores(torch.autograd.Function):
    """Block by block, so that the differences of all pairs are never held at once, forward or backward."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor) -> Tensor:
        ctx.save_for_backward(image, text)
        scores = image.new_empty(len(image), len(text))
        for rows, columns in _blocks(image, text):
            scores[rows, columns] = -_violation(image[rows], text[columns]).square().sum(dim=2)
        return scores

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        image, text = ctx.saved_tensors
        image_grad, text_grad = torch.zeros_like(image), torch.zeros_like(text)
        for rows, columns in _blocks(image, text):
            # computed again: kept from the forward pass it would be all differences of all pairs
            slope = 2 * _violation(image[rows], text[columns]) * grads[0][rows, columns, None]  # (rows, columns, d)
            image_grad[rows] += slope.sum(dim=1)
            text_grad[columns] -= slope.sum(dim=0)
        return image_grad, text_grad


def _blocks(image: Tensor, text: Tensor) -> Iterator[tuple[slice, slice]]:
    """Cut the pairs of images and texts into blocks."""
    # 16 MB of float32 in a block, however long the vectors are
    n_texts = max(1, _BLOCK_NUMBERS // (_IMAGE_BLOCK * image.shape[1]))
    for row in range(0, len(image), _IMAGE_BLOCK):
        for column in range(0, len(text), n_texts):
            yield slice(row, row + _IMAGE_BLOCK), slice(column, column + n_texts)


def _violation(image: Tensor, text: Tensor) -> Tensor:
    return torch.relu(text[None, :, :] - image[:, None, :])  # (n_images, n_texts, d)


def order_scores(image: Tensor, text: Tensor) -> Tensor:
    """Return minus the squared violation of "the text is above the image".

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
