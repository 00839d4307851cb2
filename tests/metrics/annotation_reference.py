"""Slow and obvious: the numbers of annotation by loops over images and labels."""

import math

from tests.reference import top_k


def chosen_labels(scores, k):
    """The labels of each image, a list of sets; scores are rows of floats, k a number for each."""
    return [set(top_k(list(row), number)) for row, number in zip(scores, k, strict=True)]


def report(Y, chosen, weight=None, zero_division=0.0, absent_labels="skip"):
    """Precision, recall and N+ of chosen labels, as the field defines them; NaN in Y is not known."""
    weight = [1.0] * len(Y) if weight is None else weight
    precisions, recalls, n_recalled = [], [], 0
    all_predicted = all_correct = all_true = 0.0
    for label in range(len(Y[0])):
        predicted = correct = true = 0.0
        for row, labels, w in zip(Y, chosen, weight, strict=True):
            if math.isnan(row[label]):
                continue
            predicted += w * (label in labels)
            correct += w * (label in labels and row[label] == 1)
            true += w * (row[label] == 1)
        all_predicted, all_correct, all_true = all_predicted + predicted, all_correct + correct, all_true + true
        n_recalled += correct > 0
        if true > 0 or absent_labels == "zero":
            recalls.append(correct / true if true else 0.0)
            precision = correct / predicted if predicted else zero_division
            if not math.isnan(precision):
                precisions.append(precision)
    numbers = {
        "C-P": sum(precisions) / len(precisions) if precisions else 0.0,
        "C-R": sum(recalls) / len(recalls) if recalls else 0.0,
        "O-P": all_correct / all_predicted if all_predicted else 0.0,
        "O-R": all_correct / all_true if all_true else 0.0,
        "N+": n_recalled,
    }
    for kind in "CO":
        p, r = numbers[f"{kind}-P"], numbers[f"{kind}-R"]
        numbers[f"{kind}-F1"] = 2 * p * r / (p + r) if p + r else 0.0
    c, o = numbers["C-F1"], numbers["O-F1"]
    return numbers | {"H-F1": 2 * c * o / (c + o) if c + o else 0.0}


def mean_average_precision(Y, scores, weight=None):
    """The mean over labels of the mean, over their images, of precision at that image's score."""
    weight = [1.0] * len(Y) if weight is None else weight
    means = []
    for label in range(len(Y[0])):
        images = [
            (score[label], row[label], w)
            for row, score, w in zip(Y, scores, weight, strict=True)
            if not math.isnan(row[label])
        ]
        total = sum(w for _, true, w in images if true)
        if total:
            mean = 0.0
            for at, true, w in images:
                if true and w:
                    above = [(t, v) for s, t, v in images if s >= at]
                    mean += w / total * sum(v for t, v in above if t) / sum(v for _, v in above)
            means.append(mean)
    return sum(means) / len(means) if means else math.nan
