"""Instance loss: every image with its texts is a class of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from sklearn_mm._params import Interval, InvalidParameterError, Real, non_negative_int, positive_real
from sklearn_mm.registry import stored_as

__all__ = ["InstanceClassifier", "InstanceLoss", "instance_loss", "mean_instance_loss"]

# the logits of a thousand rows with so many classes are 32 MB
_CLASS_BLOCK = 8192
_N_LOGITS = 2**25  # held at once by the mean loss: 134 MB, what four blocks of a thousand rows take
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
            # the logarithm of the sum grows block by block; no exponential of a large logit is ever taken
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
            # into its place: no second array of the size of the classifier
            torch.mm(weighted.T, features, out=classifier_grad[part])
            feature_grad += (weighted if scale is None else weighted * scale[part]) @ classifier[part]
        classifier_grad.index_add_(0, instance, -slope * features)
        _through_lengths(classifier_grad, classifier, scale, ctx.block)
        return feature_grad, classifier_grad, None, None, None


class _MeanCrossEntropy(torch.autograd.Function):
    """The mean of the same, whose gradients are computed beside it: no logits are computed twice.

    A gradient of a mean is known but for a factor: forward takes it while the logits of some rows are there. Each chunk
    of rows goes through the gradient of the classifier once, so that there have to be many rows in one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        classifier: Tensor,
        instance: Tensor,
        weight: Tensor | None,
        scale: Tensor | None,
        factor: float,
        n_logits: int,
        learns: bool,
    ) -> Tensor:
        ctx.save_for_backward(features, classifier, instance, weight, scale)
        ctx.rest = (factor, n_logits, *(learns and needed for needed in ctx.needs_input_grad[:2]))
        loss, *ctx.ready = _mean_and_gradients(features, classifier, instance, weight, scale, *ctx.rest)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # Handed on, not copied: who goes through the graph again has them computed again.
        ready, ctx.ready = ctx.ready or _mean_and_gradients(*ctx.saved_tensors, *ctx.rest)[1:], None
        is_one = grads[0].device.type == "cpu" and float(grads[0]) == 1.0
        features_grad, classifier_grad = (grad if grad is None or is_one else grad.mul_(grads[0]) for grad in ready)
        return features_grad, classifier_grad, *[None] * 6


def _mean_and_gradients(
    features: Tensor,
    classifier: Tensor,
    instance: Tensor,
    weight: Tensor | None,
    scale: Tensor | None,
    factor: float,
    n_logits: int,
    for_features: bool,
    for_classifier: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the mean loss times a factor, and its gradients where they are wanted."""
    n_rows, n_classes = len(features), len(classifier)
    slope = (features.new_tensor(factor) / n_rows * (1 if weight is None else weight)).expand(n_rows)[:, None]  # (n, 1)
    losses = features.new_empty(n_rows)
    feature_grad = torch.empty_like(features) if for_features else None
    classifier_grad = torch.empty_like(classifier) if for_classifier else None
    step = max(1, n_logits // n_classes)
    buffer = features.new_empty(min(step, n_rows), n_classes)
    for start in range(0, n_rows, step):
        rows = slice(start, min(start + step, n_rows))
        logits = torch.mm(features[rows], classifier.T, out=buffer[: rows.stop - start])
        if scale is not None:
            logits.mul_(scale)  # and not a copy of the weights
        log_normalizer = logits.new_full((len(logits),), -torch.inf)
        for part in _blocks(classifier, _CLASS_BLOCK):  # whose exponentials need a second place for a block alone
            log_normalizer = torch.logaddexp(log_normalizer, logits[:, part].logsumexp(1))
        own = _weights(classifier, scale, instance[rows])
        losses[rows] = log_normalizer - (features[rows] * own).sum(dim=1)
        if not (for_features or for_classifier):
            continue
        weighted = logits.sub_(log_normalizer[:, None]).exp_().mul_(slope[rows])
        if classifier_grad is not None and start == 0:
            torch.mm(weighted.T, features[rows], out=classifier_grad)
        elif classifier_grad is not None:
            classifier_grad.addmm_(weighted.T, features[rows])
        if feature_grad is not None:
            weighted = weighted if scale is None else weighted.mul_(scale)
            torch.mm(weighted, classifier, out=feature_grad[rows])
            feature_grad[rows] -= slope[rows] * own
    if classifier_grad is not None:
        classifier_grad.index_add_(0, instance, -slope * features)
        _through_lengths(classifier_grad, classifier, scale, _CLASS_BLOCK)
    weighted_losses = losses if weight is None else losses * weight
    return factor * weighted_losses.mean(), feature_grad, classifier_grad


def _through_lengths(grad: Tensor, classifier: Tensor, scale: Tensor | None, block: int) -> None:
    """Bring the gradient of unit vectors to that of what they were made of, in its place."""
    if scale is None:
        return
    for part in _blocks(classifier, block):
        unit, own = _weights(classifier, scale, part), grad[part]
        # what lies along the vector would change its length only, which is divided away
        own -= (own * unit).sum(dim=1, keepdim=True) * unit
        own *= scale[part, None]


def _blocks(classifier: Tensor, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, len(classifier), size)]


def _weights(classifier: Tensor, scale: Tensor | None, classes: slice | Tensor) -> Tensor:
    """Return the weights of some classes, scaled: (n_classes, d)."""
    return classifier[classes] if scale is None else classifier[classes] * scale[classes, None]


def _logits(features: Tensor, classifier: Tensor, scale: Tensor | None, part: slice) -> Tensor:
    """Return the logits of a block of classes: (n, n_classes)."""
    logits = features @ classifier[part].T
    # the logits are scaled, not a copy of the weights
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
    scale = _scale_of(classifier) if unit_classes else None
    loss: Tensor = _BlockedCrossEntropy.apply(features, classifier, instance, scale, block)
    return loss


def _scale_of(classifier: Tensor) -> Tensor:
    # detached, as backward goes through the lengths by itself, block by block
    lengths = torch.linalg.vector_norm(classifier.detach(), dim=1)
    return lengths.clamp_min(_LEAST_LENGTH).reciprocal()


def mean_instance_loss(
    features: Tensor,
    instance: Tensor,
    classifier: Tensor,
    weight: Tensor | None = None,
    *,
    unit_classes: bool = False,
    factor: float = 1.0,
) -> Tensor:
    """Compute the mean of `instance_loss`, as fast as a plain cross-entropy.

    Parameters
    ----------
    features, instance, classifier, unit_classes
        As there.
    weight : Tensor of shape (n,), float, optional
        Of each row; the sum of weighted losses is divided by n.
    factor : float, default=1.0
        On the result; given here, no gradient has to be multiplied by it.

    Returns
    -------
    Tensor of shape ()

    Notes
    -----
    Takes 134 MB besides the gradients, however many rows and instances there are, or the logits of one row where those
    take more. Gradients are computed in the forward pass: three matrix products in all, where `instance_loss` takes
    four.

    References
    ----------
    .. [1] Hsu, Dai, Kothapalli et al., "Liger Kernel: Efficient Triton Kernels for LLM Training", 2024, section 3.2,
       https://arxiv.org/abs/2410.10989

    Examples
    --------
    >>> import torch
    >>> mean_instance_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
    tensor(0.0001)
    """
    scale = _scale_of(classifier) if unit_classes else None
    settings = (factor, _N_LOGITS, torch.is_grad_enabled())  # inside of the function it never is
    loss: Tensor = _MeanCrossEntropy.apply(features, classifier, instance, weight, scale, *settings)
    return loss


class InstanceClassifier(nn.Module):
    """The one linear classifier that images and texts are told apart by, each image with its texts a class.

    Parameters
    ----------
    n_components, n_instances : int
    temperature : float or None
        Unit features and unit weights, their cosines divided by it; None takes inner products as they are.
    dropout : float
        Share of the features dropped in front of it in training.
    """

    def __init__(self, n_components: int, n_instances: int, *, temperature: float | None, dropout: float) -> None:
        super().__init__()
        self._temperature = temperature
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.empty(n_instances, n_components))
        # rows of about unit length
        nn.init.normal_(self.weight, std=n_components**-0.5)

    def forward(
        self, features: Tensor, instance: Tensor, weight: Tensor | None = None, *, factor: float = 1.0
    ) -> Tensor:
        """Compute `factor` times the mean loss of features (n, d) of the instances (n,), weighted (n,) or alike."""
        # from autocast they come in half precision, too coarse for cosines that are divided by a small temperature
        features = self.dropout(features.float())
        if self._temperature is not None:
            features = nn.functional.normalize(features, dim=1) / self._temperature
        unit_classes = self._temperature is not None
        return mean_instance_loss(features, instance, self.weight, weight, unit_classes=unit_classes, factor=factor)


@stored_as("losses.InstanceLoss")
class InstanceLoss(BaseEstimator):
    """The instance loss of a ranker: beside the loss on pairs, or before it.

    Each image (each group) with its texts is a class, and one linear classifier tells the classes apart by the image's
    embedding and by the text's.

    Parameters
    ----------
    weight : float or (float, float), default=1.0
        Of the loss beside that on pairs, at least 0; two numbers: for images, for texts. With 0 it is there for the
        stage before alone.
    temperature : float or None, default=0.05
        The classifier's features and weights are of unit length and their cosines divided by it. None takes them as
        they are, as the source does.
    dropout : float, default=0.0
        Share of the embedding dropped in front of the classifier in training; in [0, 1).
    pretrain_epochs : int, default=0
        A stage before the ranking: so many passes by the instance loss alone, with a trainable image encoder's
        backbone frozen.
    pretrain_learning_rate : float, default=None
        Of that stage; None for the ranker's.
    relu : bool, default=False
        This loss and that on pairs see embeddings after a ReLU, search sees them before it, as in [1]_.

    See Also
    --------
    instance_loss : The function.

    Notes
    -----
    The classifier takes ``4 * n_components`` bytes for each image, and four times that for its gradients and the
    optimiser.

    References
    ----------
    .. [1] Zheng, Zheng, Garrett, Yang, Xu, Shen, "Dual-Path Convolutional Image-Text Embeddings with Instance Loss",
       ACM TOMM 16(2), 2020, https://arxiv.org/abs/1711.05535

    Examples
    --------
    >>> from sklearn_mm.losses import InstanceLoss
    >>> InstanceLoss(weight=(1.0, 0.5), pretrain_epochs=10).weights
    (1.0, 0.5)
    """

    _parameter_constraints: dict[str, Any] = {
        "weight": [Interval(Real, 0, None, closed="left"), "array-like"],
        "temperature": [positive_real, None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "pretrain_epochs": [non_negative_int],
        "pretrain_learning_rate": [positive_real, None],
        "relu": ["boolean"],
    }

    def __init__(
        self,
        weight: float | Sequence[float] = 1.0,
        *,
        temperature: float | None = 0.05,
        dropout: float = 0.0,
        pretrain_epochs: int = 0,
        pretrain_learning_rate: float | None = None,
        relu: bool = False,
    ) -> None:
        self.weight = weight
        self.temperature = temperature
        self.dropout = dropout
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_learning_rate = pretrain_learning_rate
        self.relu = relu

    @property
    def weights(self) -> tuple[float, float]:
        """The weights for images and for texts."""
        given: Any = self.weight
        weights = (given, given) if isinstance(given, Real) else tuple(given)
        if len(weights) != 2 or not all(isinstance(weight, Real) and float(weight) >= 0 for weight in weights):
            raise InvalidParameterError(
                f"weight must be a number of at least 0, or two of them for images and texts, got {given!r}"
            )
        return float(weights[0]), float(weights[1])

    def _validate_params(self) -> None:  # the table has no word for what stands in a pair
        super()._validate_params()
        _ = self.weights
