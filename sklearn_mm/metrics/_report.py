"""The numbers that papers on image-text retrieval print, as one dict."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from sklearn_mm.metrics._counting import Offsets
from sklearn_mm.metrics._ranking import check_offsets, check_retrieval_input, check_wording, rank_directions
from sklearn_mm.metrics._ranks import (
    RetrievalRanks,
    check_cutoff,
    check_weights,
    hit_at_k,
    mean_rank,
    median_rank,
    recall_at_k,
)

__all__ = ["DIRECTIONS", "check_report_options", "report_directions", "retrieval_report"]

DIRECTIONS = ("i2t", "t2i")
_SHARES = {"hit": hit_at_k, "recall": recall_at_k}


def retrieval_report(
    image_embedding: Any,
    text_embedding: Any,
    text_to_image: Any,
    *,
    k: int | Sequence[int] = (1, 5, 10),
    definition: str = "hit",
    similarity: str = "cosine",
    fold_size: int | None = None,
    sample_weight: Any = None,
    groups: Any = None,
    wording: Any = None,
    image_offset: Any = None,
    text_offset: Any = None,
) -> dict[str, float]:
    """Report how well images find their texts and texts their images.

    Parameters
    ----------
    image_embedding : array-like of shape (n_images, n_components)
        Embedded images; computed with in float32. They need not have unit length.
    text_embedding : array-like of shape (n_texts, n_components)
        Embedded texts.
    text_to_image : array-like of shape (n_texts,), int
        ``text_to_image[j]`` is the row of the image that text j describes, in any order. Every image needs
        at least one text.
    k : int or sequence of int, default=(1, 5, 10)
        How many of the items found are looked at. A k beyond the gallery is allowed and gives 1.
    definition : {"hit", "recall"}, default="hit"
        "hit" is the share of queries with any positive among the first k, which papers on images and text
        call recall@k; "recall" is the share of a query's positives among the first k.
    similarity : {"cosine", "order", "order-root"}, default="cosine"
        See `retrieval_ranks`.
    fold_size : int, optional
        Evaluate consecutive blocks of that many images apart, each with its own texts, and average:
        ``fold_size=1000`` on the 5,000 test images is the COCO 1K protocol. It must divide n_images.
    sample_weight : array-like of shape (n_images,), optional
        Weight of each image, as a query and in its texts as queries.
    groups : array-like of shape (n_images,), optional
        Images of one group and their texts are neither negatives nor positives of each other; see
        `retrieval_ranks`.
    wording : array-like of shape (n_texts,), optional
        The texts themselves: texts of one wording are then equally right for the images of each. None: each text is
        right for its own image alone, as papers count; see `retrieval_ranks`.
    image_offset : array-like of shape (n_images,), optional
    text_offset : array-like of shape (n_texts,), optional
        What is taken off the scores of images and of texts wherever they are the items found; see `retrieval_ranks`.

    Returns
    -------
    dict of str to float
        For both directions, ``i2t`` (images are the queries) and ``t2i``:

        - ``"i2t_hit@1"``, ... (``"i2t_recall@1"``, ... by the other definition): fractions in [0, 1];
        - ``"i2t_median_rank"``, ``"i2t_mean_rank"``: rank of the best positive, 1 is best.

        And ``"rsum"``, the fractions above added up in percent: 0 to 600 with three k, otherwise to 200
        times the number of k; ``"n_images"`` and ``"n_texts"``, as chance depends on them, and ``"n_folds"``
        where `fold_size` is given.

    Raises
    ------
    ValueError
        The embeddings do not fit together (see `retrieval_ranks`), or a parameter is none of its options.

    See Also
    --------
    RetrievalScorer : The same dict for an estimator, in `GridSearchCV` and `cross_validate`.

    Notes
    -----
    Ties count as expected over random orders of the tied items, so an embedding that is the same everywhere
    scores exactly as chance. One product of the embeddings serves both directions; see `retrieval_ranks`
    for the cost.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.metrics import retrieval_report
    >>> images = np.eye(4)
    >>> texts = np.eye(4)[[0, 1, 3, 2]]
    >>> report = retrieval_report(images, texts, [0, 1, 2, 3], k=(1,))
    >>> report["i2t_hit@1"], report["t2i_hit@1"], report["rsum"]
    (0.5, 0.5, 100.0)
    """
    cutoffs = check_report_options(k, definition)
    image, text, owner, label = check_retrieval_input(image_embedding, text_embedding, text_to_image, groups)
    weight = check_weights(sample_weight, len(image), "images")
    same = check_wording(wording, len(text))
    offsets = check_offsets(image_offset, text_offset, len(image), len(text), similarity)
    report = partial(
        report_directions,
        cutoffs=cutoffs,
        definition=definition,
        similarity=similarity,
        directions=DIRECTIONS,
    )
    if fold_size is None:
        return report(image, text, owner, label, weight, same, offsets)

    reports = []
    for first in range(0, len(image), _check_fold_size(fold_size, len(image))):
        fold = slice(first, first + fold_size)
        # Texts may stand in any order, so that those of a block of images are no block.
        texts = np.flatnonzero((owner >= first) & (owner < first + fold_size))
        reports.append(
            report(
                image[fold],
                text[texts],
                owner[texts] - first,
                None if label is None else label[fold],
                None if weight is None else check_weights(weight[fold], fold_size, f"images from {first} on"),
                None if same is None else same[texts],
                offsets.take(fold, texts),
            )
        )
    mean = {key: float(np.mean([one[key] for one in reports])) for key in reports[0]}
    return mean | {"n_images": len(image), "n_texts": len(text), "n_folds": len(reports)}


def check_report_options(k: Any, definition: Any) -> list[int]:
    """Return the cutoffs as a list of different ints."""
    if definition not in _SHARES:
        raise ValueError(f"definition must be 'hit' or 'recall', got {definition!r}")
    cutoffs = [check_cutoff(one) for one in (k if isinstance(k, Sequence | np.ndarray) else (k,))]
    if not cutoffs or len(set(cutoffs)) < len(cutoffs):
        raise ValueError(f"k must hold at least one int and none twice, got {k!r}")
    return cutoffs


def _check_fold_size(fold_size: Any, n_images: int) -> int:
    if isinstance(fold_size, bool) or not isinstance(fold_size, int | np.integer) or fold_size < 1:
        raise ValueError(f"fold_size must be a positive int or None, got {fold_size!r}")
    if n_images % fold_size:
        raise ValueError(f"fold_size={fold_size} must divide the number of images, which is {n_images}")
    return int(fold_size)


def report_directions(
    image: np.ndarray,
    text: np.ndarray,
    owner: np.ndarray,
    groups: np.ndarray | None,
    weight: np.ndarray | None,
    wording: np.ndarray | None,
    offsets: Offsets,
    *,
    cutoffs: list[int],
    definition: str,
    similarity: str,
    directions: Sequence[str],
) -> dict[str, float]:
    """Report on checked input, in some directions."""
    every_positive = definition == "recall"
    ranks = rank_directions(image, text, owner, groups, similarity, directions, every_positive, wording, offsets)
    weights = {"i2t": weight, "t2i": None if weight is None else weight[owner]}
    report: dict[str, float] = {}
    for direction in directions:
        report |= _shares(ranks[direction], direction, cutoffs, definition, weights[direction])
    rsum = 100 * sum(report.values())  # before ranks are added, which are no shares
    for name, number in (("median_rank", median_rank), ("mean_rank", mean_rank)):
        for direction in directions:
            report[f"{direction}_{name}"] = number(ranks[direction], sample_weight=weights[direction])
    return report | {"rsum": rsum, "n_images": len(image), "n_texts": len(text)}


def _shares(
    ranks: RetrievalRanks, direction: str, cutoffs: list[int], definition: str, weight: np.ndarray | None
) -> dict[str, float]:
    share = _SHARES[definition]
    return {f"{direction}_{definition}@{k}": share(ranks, k, sample_weight=weight) for k in cutoffs}
