"""The losses of pairs, as objects, against loops over Python numbers."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from sklearn_mm.losses import InfoNCELoss, PairScores, RankingLoss, SigmoidLoss
from tests import reference

IMAGE_OF_TEXT = [0, 1, 1, 2]
# The second image has two texts; the third image is of the first text's group, and of the last text's, which is in no
# pair.
NOT_NEGATIVE = [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [1, 0, 0, 1, 1]]
DETERMINISTIC = ["all", "hardest", "hardest-anchor", "semi-hard"]
LOWEST = 0.01


@pytest.fixture
def scores():
    return torch.tensor(np.random.default_rng(0).uniform(-1, 1, (3, 5)), requires_grad=True)


def as_pairs(scores):
    return PairScores(scores, torch.tensor(IMAGE_OF_TEXT), torch.tensor(NOT_NEGATIVE, dtype=torch.bool))


def positives(scores):
    return [scores[image][text] for text, image in enumerate(IMAGE_OF_TEXT)]


def negatives(scores, side):
    """For each pair, its negatives: from the number of the wrong text, or image, to the score."""
    if side == "text":
        return [{j: scores[i][j] for j in range(5) if not NOT_NEGATIVE[i][j]} for i in IMAGE_OF_TEXT]
    return [{i: scores[i][j] for i in range(3) if not NOT_NEGATIVE[i][j]} for j in range(4)]


def choose(name, positive, negative):
    """For each pair, the scores of the negatives chosen."""
    if name == "all":
        return [list(own.values()) for own in negative]
    if name == "hardest":
        return [[max(own.values())] for own in negative]
    if name == "semi-hard":
        below = [[score for score in own.values() if score < p] for p, own in zip(positive, negative, strict=True)]
        return [[max(own)] if own else [] for own in below]
    chosen = [[] for _ in positive]
    for wrong in range(5):
        gaps = {pair: own[wrong] - positive[pair] for pair, own in enumerate(negative) if wrong in own}
        if gaps:
            most = max(gaps, key=gaps.get)
            chosen[most].append(negative[most][wrong])
    return chosen


def naive_ranking(scores, margin, names, sides):
    loss = [0.0] * 4
    for side, name in zip(("text", "image"), names, strict=True):
        if side in sides:
            for pair, chosen in enumerate(choose(name, positives(scores), negatives(scores, side))):
                loss[pair] += sum(max(0.0, margin - positives(scores)[pair] + score) for score in chosen)
    return loss


def naive_infonce(scores, temperature, sides=("text", "image")):
    loss = [0.0] * 4
    for side in sides:
        for pair, own in enumerate(negatives(scores, side)):
            logits = [positives(scores)[pair] / temperature, *(score / temperature for score in own.values())]
            loss[pair] += math.log(sum(map(math.exp, logits))) - logits[0]
    return loss


def naive_sigmoid(scores, temperature, bias):
    def loss_of(score, sign):
        return -math.log(1 / (1 + math.exp(-sign * (score / temperature + bias))))

    return [
        loss_of(positive, 1) + sum(loss_of(score, -1) for score in own.values())
        for positive, own in zip(positives(scores), negatives(scores, "image"), strict=True)
    ]


@pytest.mark.parametrize("side", ["both", "text", "image"])
@pytest.mark.parametrize("names", [*DETERMINISTIC, ("all", "hardest"), ["semi-hard", "hardest-anchor"]])
def test_ranking_loss_is_the_sum_of_hinges_of_the_sides_asked_for(scores, names, side):
    loss = RankingLoss(margin=0.3, negatives=names, side=side)
    pair = (names, names) if isinstance(names, str) else names
    sides = ("text", "image") if side == "both" else (side,)
    assert loss(as_pairs(scores)).tolist() == pytest.approx(naive_ranking(scores.tolist(), 0.3, pair, sides))
    assert gradcheck(lambda s: loss(as_pairs(s)), (scores,))


def test_a_random_negative_is_one_of_the_pairs_own(scores):
    torch.manual_seed(0)
    loss = RankingLoss(margin=2.5, negatives="random", side="text")  # every hinge is open
    seen = [set() for _ in IMAGE_OF_TEXT]
    for _ in range(50):
        for own, value in zip(seen, loss(as_pairs(scores)).tolist(), strict=True):
            own.add(round(value, 9))
    plain = scores.tolist()
    for own, positive, wrong in zip(seen, positives(plain), negatives(plain, "text"), strict=True):
        assert own == {round(2.5 - positive + score, 9) for score in wrong.values()}


@pytest.mark.parametrize("side", ["both", "text", "image"])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_infonce_is_a_softmax_over_all_negatives_of_the_sides_asked_for(scores, temperature, side):
    loss = InfoNCELoss(temperature, side=side)
    sides = ("text", "image") if side == "both" else (side,)
    assert loss(as_pairs(scores)).tolist() == pytest.approx(naive_infonce(scores.tolist(), temperature, sides))
    assert gradcheck(lambda s: loss(as_pairs(s)), (scores,))


@pytest.mark.parametrize(("temperature", "bias"), [(0.1, -10.0), (0.5, 0.3)])
def test_sigmoid_loss_asks_of_every_positive_and_every_negative_pair(scores, temperature, bias):
    """One image has two positives; two pairs of a group, and the text in no pair, count for nothing."""
    loss = SigmoidLoss(temperature, bias)(as_pairs(scores))
    assert loss.tolist() == pytest.approx(naive_sigmoid(scores.tolist(), temperature, bias))
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    counted = torch.tensor(NOT_NEGATIVE) == 0
    counted[IMAGE_OF_TEXT, torch.arange(4)] = True
    counted[:, 4] = False
    assert torch.equal(gradient != 0, counted)


@pytest.mark.parametrize("captions", [[[0], [1], [2]], [[0, 1, 2], [3], [4, 5]], [[0, 1], [2, 3], [4, 5]]], ids=str)
@pytest.mark.parametrize(
    ("loss", "naive"),
    [
        (SigmoidLoss(), lambda *given: reference.sigmoid_loss(*given, 0.1, -10.0)),
        (SigmoidLoss(0.5, 0.2), lambda *given: reference.sigmoid_loss(*given, 0.5, 0.2)),
        (InfoNCELoss(0.2), lambda *given: reference.infonce_loss(*given, 0.2)),
    ],
    ids=["sigmoid", "sigmoid from elsewhere", "infonce"],
)
def test_every_caption_of_an_image_in_the_batch_is_right(captions, loss, naive):
    image_of_text = torch.tensor([image for image, own in enumerate(captions) for _ in own])
    not_negative = image_of_text[None, :] == torch.arange(3)[:, None]
    scores = torch.tensor(np.random.default_rng(0).uniform(-1, 1, not_negative.shape), requires_grad=True)
    learnt = {name: torch.tensor(value, dtype=torch.float64) for name, value in loss.initial().items()}

    def total(scores, *values):
        pairs = PairScores(scores, image_of_text, not_negative)
        return loss(pairs, **dict(zip(learnt, values, strict=True))).sum()

    assert float(total(scores, *learnt.values()).detach()) == pytest.approx(naive(scores.tolist(), captions))
    assert gradcheck(total, (scores, *(value.requires_grad_() for value in learnt.values())))


def test_what_is_trained_has_the_right_gradient(scores):
    log_temperature = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(
        lambda s, t, b: SigmoidLoss()(as_pairs(s), log_temperature=t, bias=b), (scores, log_temperature, bias)
    )
    assert gradcheck(
        lambda s, t: InfoNCELoss(trainable=True)(as_pairs(s), log_temperature=t), (scores, log_temperature)
    )


def test_a_trained_temperature_never_falls_below_a_hundredth(scores):
    far_below = torch.tensor(-20.0, dtype=torch.float64)
    infonce, sigmoid = InfoNCELoss(trainable=True), SigmoidLoss()
    pairs = as_pairs(scores)
    assert torch.equal(infonce(pairs, log_temperature=far_below), InfoNCELoss(LOWEST)(pairs))
    assert torch.equal(sigmoid(pairs, log_temperature=far_below, bias=torch.tensor(-10.0)), SigmoidLoss(LOWEST)(pairs))
    assert infonce.with_learnt({"log_temperature": -20.0}).temperature == pytest.approx(LOWEST)
    assert sigmoid.with_learnt({"log_temperature": -20.0, "bias": -8.0}).temperature == pytest.approx(LOWEST)


def test_a_fixed_temperature_may_be_lower(scores):
    assert InfoNCELoss(0.002)(as_pairs(scores)).tolist() == pytest.approx(naive_infonce(scores.tolist(), 0.002))


@pytest.mark.parametrize("loss", [InfoNCELoss(0.3, trainable=True), SigmoidLoss(0.2, -4.0)])
def test_training_starts_from_the_parameters_and_ends_in_them(loss, scores):
    pairs, start = as_pairs(scores.detach()), loss.initial()
    learnt = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in start.items()}
    torch.testing.assert_close(loss(pairs, **learnt), loss(pairs))
    optimizer = torch.optim.SGD(learnt.values(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        loss(pairs, **learnt).mean().backward()
        optimizer.step()
    assert loss(pairs, **learnt).mean() < loss(pairs).mean()
    ended = loss.with_learnt({name: value.item() for name, value in learnt.items()})
    torch.testing.assert_close(ended(pairs), loss(pairs, **learnt).detach())
    assert ended.initial() == pytest.approx({name: value.item() for name, value in learnt.items()})
    assert loss.initial() == start  # the loss given stays as it is


@pytest.mark.parametrize("loss", [InfoNCELoss(0.3), SigmoidLoss(0.2, -4.0, trainable=False), RankingLoss(0.1)])
def test_what_is_not_trainable_is_not_trained(loss):
    assert loss.initial() == {}
    same = loss.with_learnt({})
    assert same is not loss
    assert same.get_params() == loss.get_params()


@pytest.mark.parametrize("loss", [InfoNCELoss(), RankingLoss(), SigmoidLoss()])
def test_losses_of_extreme_scores_are_finite(loss):
    scores = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], requires_grad=True)
    learnt = {name: torch.tensor(value, requires_grad=True) for name, value in loss.initial().items()}
    value = loss(PairScores(scores, torch.tensor([0, 1]), torch.eye(2).bool()), **learnt)
    assert torch.isfinite(value).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(value.sum(), [scores, *learnt.values()]))
