"""The numbers that papers on image-text retrieval print, as one dict."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from sklearn_mm.metrics._bootstrap import Evidence, QueryNumbers, check_bootstrap, draw_samples, intervals
from sklearn_mm.metrics._counting import Offsets
from sklearn_mm.metrics._every_positive import average_precisions_at_r, map_at_r, ndcg_at_k, ndcgs
from sklearn_mm.metrics._ranking import check_offsets, check_retrieval_input, check_wording, rank_directions
from sklearn_mm.metrics._ranks import (
    RetrievalRanks,
    check_cutoff,
    check_weights,
    hit_at_k,
    mean_rank,
    median_rank,
    recall_at_k,
    recalls,
)

__all__ = ["DIRECTIONS", "check_report_options", "report_directions", "retrieval_report"]

DIRECTIONS = ("i2t", "t2i")
_SHARES: dict[str, tuple[str, ...]] = {"hit": ("hit",), "recall": ("recall",), "all": ("hit", "recall", "ndcg")}
_NUMBERS: dict[str, Any] = {"hit": hit_at_k, "recall": recall_at_k, "ndcg": ndcg_at_k}


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
    n_bootstrap: int | None = None,
    confidence: float = 0.95,
    random_state: Any = 0,
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
    definition : {"hit", "recall", "all"}, default="hit"
        "hit" is the share of queries with any positive among the first k, which papers on images and text
        call recall@k; "recall" is the share of a query's positives among the first k. "all" gives both, and `ndcg_at_k`
        and `map_at_r`, which know the order among the first; it takes as long as "recall".
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
    n_bootstrap : int, optional
        Draw the images so many times again, with their texts, for intervals of all numbers; 1,000 are usual.
    confidence : float, default=0.95
        Share of the draws that an interval holds.
    random_state : int, RandomState instance or None, default=0
        What images are drawn by: the same int draws the same in every call, so that reports of two models can be
        compared; see `compare`.

    Returns
    -------
    dict of str to float
        For both directions, ``i2t`` (images are the queries) and ``t2i``:

        - ``"i2t_hit@1"``, ... (``"i2t_recall@1"``, ... by the other definition; with "all" both, and
          ``"i2t_ndcg@1"``, ..., ``"i2t_map@r"``): fractions in [0, 1];
        - ``"i2t_median_rank"``, ``"i2t_mean_rank"``: rank of the best positive, 1 is best.

        And ``"rsum"``, the fractions above added up in percent (with "all" the hits alone): 0 to 600 with three k,
        otherwise to 200 times the number of k; ``"n_images"`` and ``"n_texts"``; ``"i2t_n_gallery"`` and
        ``"t2i_n_gallery"``, among how many items a query's answers are looked for, as chance depends on it (with
        `fold_size` those of a fold, on average); and ``"n_folds"`` where `fold_size` is given. With `n_bootstrap`
        ``"i2t_hit@1_low"``, ``"i2t_hit@1_high"`` and so on for every number above but the sizes.

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

    The bootstrap draws images, and whole groups of them where there are `groups`: texts of one image are no independent
    witnesses. Nothing is ranked again. An interval is that of the queries, before the gallery as it is: it says how far
    the number would move with other queries, not with another model or another gallery. It costs milliseconds for a
    thousand images and some seconds for 5,000 with 25,000 texts.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.metrics import retrieval_report
    >>> images = np.eye(4)
    >>> texts = np.eye(4)[[0, 1, 3, 2]]
    >>> report = retrieval_report(images, texts, [0, 1, 2, 3], k=(1,))
    >>> report["i2t_hit@1"], report["t2i_hit@1"], report["rsum"]
    (0.5, 0.5, 100.0)
    >>> report = retrieval_report(images, texts, [0, 1, 2, 3], k=(1,), n_bootstrap=200)
    >>> report["i2t_hit@1_low"], report["i2t_hit@1_high"]
    (0.0, 1.0)
    """
    check_bootstrap(n_bootstrap, confidence)
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
    evidence: list[list[Evidence]] = []

    def ends() -> dict[str, float]:
        if n_bootstrap is None:
            return {}
        return intervals(with_rsum(draw_samples(evidence, n_bootstrap, random_state)), confidence)

    def own() -> list[Evidence] | None:
        if n_bootstrap is None:
            return None
        evidence.append([])
        return evidence[-1]

    if fold_size is None:
        return report(image, text, owner, label, weight, same, offsets, evidence=own()) | ends()

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
                evidence=own(),
            )
        )
    mean = {key: float(np.mean([one[key] for one in reports])) for key in reports[0]}
    return mean | {"n_images": len(image), "n_texts": len(text), "n_folds": len(reports)} | ends()


def check_report_options(k: Any, definition: Any) -> list[int]:
    """Return the cutoffs as a list of different ints."""
    if definition not in _SHARES:
        raise ValueError(f"definition must be 'hit', 'recall' or 'all', got {definition!r}")
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
    evidence: list[Evidence] | None = None,
) -> dict[str, float]:
    """Report on checked input, in some directions; add what the numbers are made of to `evidence`."""
    every_positive = definition != "hit"
    ranks = rank_directions(image, text, owner, groups, similarity, directions, every_positive, wording, offsets)
    weights = {"i2t": weight, "t2i": None if weight is None else weight[owner]}
    report: dict[str, float] = {}
    for direction in directions:
        report |= _shares(ranks[direction], direction, cutoffs, definition, weights[direction])
    rsum = _rsum(report)  # before ranks are added, which are no shares
    for name, number in (("median_rank", median_rank), ("mean_rank", mean_rank)):
        for direction in directions:
            report[f"{direction}_{name}"] = number(ranks[direction], sample_weight=weights[direction])
    if evidence is not None:
        unit = np.arange(len(image)) if groups is None else np.unique(groups, return_inverse=True)[1]
        for direction in directions:
            units = unit if direction == "i2t" else unit[owner]
            evidence.append(_evidence(ranks[direction], direction, cutoffs, definition, weights[direction], units))
    sizes = {"i2t": len(text), "t2i": len(image)}
    return (
        report
        | {"rsum": rsum, "n_images": len(image), "n_texts": len(text)}
        | {f"{direction}_n_gallery": sizes[direction] for direction in directions}
    )


def _shares(
    ranks: RetrievalRanks, direction: str, cutoffs: list[int], definition: str, weight: np.ndarray | None
) -> dict[str, float]:
    shares = {
        f"{direction}_{name}@{k}": _NUMBERS[name](ranks, k, sample_weight=weight)
        for name in _SHARES[definition]
        for k in cutoffs
    }
    return shares | ({f"{direction}_map@r": map_at_r(ranks, sample_weight=weight)} if definition == "all" else {})


def _rsum(shares: dict[str, Any]) -> Any:
    """Add up the percentages that papers add: hits, or recalls where there are no hits."""
    added = "_hit@" if any("_hit@" in key for key in shares) else "_recall@"
    return 100 * sum(value for key, value in shares.items() if added in key)


def with_rsum(samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add the samples of "rsum" to those of the shares that it adds up."""
    return samples | {"rsum": _rsum(samples)}


def _evidence(
    ranks: RetrievalRanks,
    direction: str,
    cutoffs: list[int],
    definition: str,
    weight: np.ndarray | None,
    unit: np.ndarray,
) -> QueryNumbers:
    """Return of what the numbers of a direction are averages, query by query."""
    values = {}
    for name in _SHARES[definition]:
        for k in cutoffs:
            if name == "hit":
                value = ranks.hit_probability(k)
            else:
                assert ranks.positives is not None  # for mypy: every positive was asked for
                value = recalls(ranks.positives, k) if name == "recall" else ndcgs(ranks.positives, k)
            values[f"{direction}_{name}@{k}"] = value
    if definition == "all" and ranks.positives is not None:
        values[f"{direction}_map@r"] = average_precisions_at_r(ranks.positives)
    expected = np.asarray(ranks)
    values[f"{direction}_mean_rank"] = expected + 1
    weights = np.ones(len(ranks)) if weight is None else weight
    return QueryNumbers(values, {f"{direction}_median_rank": expected}, weights, unit, int(unit.max()) + 1)
