"""Slow and obvious: what the fast code of the library is held to.

Plain loops over Python numbers, no blocks, no tricks. Scores are computed in float64.
"""

import itertools
import math
from fractions import Fraction

import numpy as np


def cosine(image, text):
    """The cosine of two vectors; 0 if one of them is zero."""
    norms = math.sqrt(sum(x * x for x in image)) * math.sqrt(sum(x * x for x in text))
    return sum(x * y for x, y in zip(image, text, strict=True)) / norms if norms else 0.0


def order(image, text):
    """Minus the squared violation of the order "text above image"."""
    return -sum(max(0.0, y - x) ** 2 for x, y in zip(image, text, strict=True))


def score_matrix(images, texts, similarity=cosine):
    """Scores of every image with every text, nested lists."""
    return [[similarity(map_float(image), map_float(text)) for text in texts] for image in images]


def map_float(vector):
    return [float(x) for x in vector]


def split_gallery(scores, positives, ignored=()):
    """Return the scores of one query's positives and of its negatives."""
    return (
        [scores[i] for i in positives],
        [score for i, score in enumerate(scores) if i not in positives and i not in ignored],
    )


def tie_counts(scores, positives, tolerance, ignored=()):
    """Return (negatives better, negatives tied, positives tied) of one query's best positive."""
    right, wrong = split_gallery(scores, positives, ignored)
    best = max(right)
    return (
        sum(score > best + tolerance for score in wrong),
        sum(abs(score - best) <= tolerance for score in wrong),
        sum(score >= best - tolerance for score in right),
    )


def hit_by_all_orders(n_better, n_tied, n_tied_positives, k):
    """Return (probability of a hit among the first k, mean 0-based rank of the first positive).

    Every order of the tied items is written down; they are equally likely.
    """
    hits = ranks = total = 0
    for places in itertools.combinations(range(n_tied + n_tied_positives), n_tied_positives):
        rank = n_better + min(places)
        hits += rank < k
        ranks += rank
        total += 1
    return Fraction(hits, total), Fraction(ranks, total)


def recall_by_all_orders(scores, positives, k, tolerance):
    """Return the expected share of the positives among the first k, each tied class in random order."""
    found = 0.0
    for positive in positives:
        better = sum(score > scores[positive] + tolerance for score in scores)
        tied = sum(abs(score - scores[positive]) <= tolerance for score in scores)
        orders = [better + place < k for place in range(tied)]  # the positive's place among its equals
        found += sum(orders) / len(orders)
    return found / len(positives)


def chance_of_hit(n_gallery, n_positives, k):
    """Probability that k items drawn from the gallery hold a positive."""
    return 1 - Fraction(math.comb(n_gallery - n_positives, k), math.comb(n_gallery, k))


def published_numbers(i2t_ranks, t2i_ranks, k=(1, 5, 10)):
    """The dict of a report from 0-based ranks, by the formulas of the published evaluation code."""
    report, rsum = {}, 0.0
    for name, ranks in (("i2t", i2t_ranks), ("t2i", t2i_ranks)):
        for cutoff in k:
            share = 100.0 * len([rank for rank in ranks if rank < cutoff]) / len(ranks)
            report[f"{name}_hit@{cutoff}"] = share / 100
            rsum += share
        report[f"{name}_median_rank"] = math.floor(np.median(ranks)) + 1
        report[f"{name}_mean_rank"] = sum(ranks) / len(ranks) + 1
    return report | {"rsum": rsum}


def hub_offsets(items, bank, strength, n_neighbors):
    """A share of each item's mean cosine with the queries of a bank that are nearest to it."""
    offsets = []
    for item in items:
        nearest = sorted((cosine(map_float(item), map_float(query)) for query in bank), reverse=True)[:n_neighbors]
        offsets.append(strength * sum(nearest) / len(nearest))
    return offsets


def top_k(scores, k):
    """Indices of the k largest scores, best first, the lower index first among equals."""
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:k]


def canonical_maps(images, texts, weights, ridge, power):
    """Regularised canonical correlation in float64, one caption a row: maps from standardised images, centred texts.

    Returns (image_map, text_map, correlations), all components.
    """
    share = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    x, t = np.asarray(images, dtype=np.float64), np.asarray(texts, dtype=np.float64)
    x, t = x - share @ x, t - share @ t
    x = x / np.sqrt(share @ x**2)
    sides = []
    for side, own in zip((x, t), ridge, strict=True):
        covariance = sum(w * np.outer(row, row) for w, row in zip(share, side, strict=True))
        covariance += own * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        values, vectors = np.linalg.eigh(covariance)
        sides.append(vectors @ np.diag(values**-0.5) @ vectors.T)
    cross = sum(w * np.outer(a, b) for w, a, b in zip(share, x, t, strict=True))
    left, correlations, right = np.linalg.svd(sides[0] @ cross @ sides[1])
    n = len(correlations)
    return sides[0] @ left[:, :n] * correlations**power, sides[1] @ right.T[:, :n] * correlations**power, correlations


def sigmoid_loss(scores, captions, temperature, bias):
    """The sum over a batch of the questions "is this text one of the image's?", each a logistic loss.

    `captions` holds, for each image, the columns of its texts: each of them is a yes, every other column a no.
    """
    total = 0.0
    for own, row in zip(captions, scores, strict=True):
        for text, score in enumerate(row):
            sign = 1 if text in own else -1
            total += math.log(1 + math.exp(-sign * (score / temperature + bias)))
    return total


def infonce_loss(scores, captions, temperature):
    """The sum over a batch of the cross-entropies of each caption against other images', and of images against others.

    An image's other captions are no classes of the softmax: none of them is to be told from it.
    """
    total = 0.0
    for image, own in enumerate(captions):
        others = [text for text in range(len(scores[0])) if text not in own]
        for text in own:
            right = math.exp(scores[image][text] / temperature)
            wrong_texts = sum(math.exp(scores[image][other] / temperature) for other in others)
            wrong_images = sum(math.exp(row[text] / temperature) for other, row in enumerate(scores) if other != image)
            total += math.log(1 + wrong_texts / right) + math.log(1 + wrong_images / right)
    return total
