import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from sklearn_mm.losses import (
    NEGATIVES,
    PairScores,
    _instance,
    _similarity,
    infonce_loss,
    instance_loss,
    mean_instance_loss,
    order_root_scores,
    order_scores,
    ranking_loss,
)

MARGIN, TEMPERATURE = 0.3, 0.1


@pytest.fixture
def pairs():
    """Three images; the second has two texts, and the third image shares a wording with the first's text."""
    rng = np.random.default_rng(0)
    scores = torch.tensor(rng.uniform(-1, 1, (3, 4)), requires_grad=True)
    image_of_text = torch.tensor([0, 1, 1, 2])
    not_negative = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]], dtype=torch.bool)
    return PairScores(scores, image_of_text, not_negative)


def naive_negatives(pairs, text, side):
    """The scores of the negatives of one positive pair, by loops."""
    image = int(pairs.image_of_text[text])
    if side == "text":
        return [float(pairs.scores.detach()[image, j]) for j in range(4) if not pairs.not_negative[image, j]]
    return [float(pairs.scores.detach()[i, text]) for i in range(3) if not pairs.not_negative[i, text]]


@pytest.mark.parametrize("side", ["text", "image"])
def test_the_pairs_negatives_are_those_of_loops(pairs, side):
    matrix = pairs.text_negatives() if side == "text" else pairs.image_negatives()
    for text in range(4):
        finite = matrix[text][~matrix[text].isneginf()]
        assert finite.tolist() == naive_negatives(pairs, text, side)
    assert pairs.positive.tolist() == [pairs.scores[i, j].item() for i, j in [(0, 0), (1, 1), (1, 2), (2, 3)]]


@pytest.mark.parametrize("side", ["text", "image"])
def test_ranking_loss_is_the_sum_of_hinges(pairs, side):
    matrix = pairs.text_negatives() if side == "text" else pairs.image_negatives()
    loss = ranking_loss(pairs.positive, matrix, MARGIN)
    for text in range(4):
        positive = pairs.scores[pairs.image_of_text[text], text].item()
        hinges = [max(0.0, MARGIN - positive + n) for n in naive_negatives(pairs, text, side)]
        assert float(loss[text].detach()) == pytest.approx(sum(hinges))


@pytest.mark.parametrize("side", ["text", "image"])
def test_infonce_is_a_cross_entropy(pairs, side):
    matrix = pairs.text_negatives() if side == "text" else pairs.image_negatives()
    loss = infonce_loss(pairs.positive, matrix, TEMPERATURE)
    for text in range(4):
        positive = pairs.scores[pairs.image_of_text[text], text].item()
        logits = [positive, *naive_negatives(pairs, text, side)]
        exponentials = np.exp(np.array(logits) / TEMPERATURE)
        assert float(loss[text].detach()) == pytest.approx(-np.log(exponentials[0] / exponentials.sum()))


def test_hardest_takes_each_anchors_highest_negative_not_each_negatives_worst_anchor():
    """The released code of Vilalta et al. takes the maximum along the other axis."""
    positive = torch.tensor([0.5, 0.5])
    negative = torch.tensor([[0.4, 0.1, 0.3], [0.0, 0.2, -0.1]])
    assert NEGATIVES["hardest"](positive, negative).tolist() == [[pytest.approx(0.4)], [pytest.approx(0.2)]]


def test_hardest_anchor_is_the_maximum_along_the_other_axis():
    positive = torch.tensor([0.5, 0.3])
    negative = torch.tensor([[0.4, 0.1, 0.3], [0.0, 0.2, -torch.inf]])
    chosen = NEGATIVES["hardest-anchor"](positive, negative)
    # violations: -0.1, -0.4, -0.2 and -0.3, -0.1, none
    assert chosen.tolist() == [
        [pytest.approx(0.4), -torch.inf, pytest.approx(0.3)],
        [-torch.inf, pytest.approx(0.2), -torch.inf],
    ]


def test_semi_hard_is_the_highest_below_the_positive():
    positive = torch.tensor([0.5, 0.1])
    negative = torch.tensor([[0.6, 0.4, 0.2], [0.6, 0.4, 0.2]])
    chosen = NEGATIVES["semi-hard"](positive, negative)
    assert chosen[0].item() == pytest.approx(0.4)
    assert chosen[1].isneginf()
    assert ranking_loss(positive, chosen, MARGIN).tolist() == [pytest.approx(0.2), 0.0]


def test_random_never_takes_what_is_no_negative_and_takes_all_others():
    torch.manual_seed(0)
    negative = torch.tensor([[1.0, -torch.inf, 2.0]]).expand(200, 3)
    chosen = NEGATIVES["random"](torch.zeros(200), negative)
    assert set(chosen.flatten().tolist()) == {1.0, 2.0}


@pytest.mark.parametrize("name", sorted(NEGATIVES))
def test_a_pair_without_negatives_costs_nothing(name):
    positive = torch.zeros(1, requires_grad=True)
    chosen = NEGATIVES[name](positive, torch.full((1, 3), -torch.inf))
    for loss in (ranking_loss(positive, chosen, MARGIN), infonce_loss(positive, chosen, TEMPERATURE)):
        assert loss.item() == 0
        assert torch.autograd.grad(loss.sum(), positive)[0].item() == 0


@pytest.mark.parametrize("name", ["all", "hardest", "hardest-anchor", "semi-hard"])
def test_gradients_are_right(pairs, name):
    def both_sides(scores):
        fresh = PairScores(scores, pairs.image_of_text, pairs.not_negative)
        losses = []
        for negative in (fresh.text_negatives(), fresh.image_negatives()):
            chosen = NEGATIVES[name](fresh.positive, negative)
            losses += [
                ranking_loss(fresh.positive, chosen, MARGIN),
                infonce_loss(fresh.positive, chosen, TEMPERATURE),
            ]
        return torch.cat(losses)

    assert gradcheck(both_sides, (pairs.scores,))


@pytest.mark.parametrize("unit_classes", [False, True])
@pytest.mark.parametrize("block", [1, 2, 5, 100])
def test_instance_loss_is_a_cross_entropy_and_its_gradient_right(block, unit_classes):
    torch.manual_seed(0)
    features = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    classifier = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    instance = torch.tensor([0, 4, 2, 2])
    settings = {"block": block, "unit_classes": unit_classes}
    loss = instance_loss(features, instance, classifier, **settings)
    for row in range(4):
        logits = (classifier.detach() @ features[row].detach()).numpy()
        if unit_classes:
            logits /= np.linalg.norm(classifier.detach().numpy(), axis=1)
        expected = np.log(np.exp(logits).sum()) - logits[instance[row]]
        assert float(loss[row].detach()) == pytest.approx(expected)
    assert gradcheck(lambda f, c: instance_loss(f, instance, c, **settings), (features, classifier))


@pytest.mark.parametrize("unit_classes", [False, True])
@pytest.mark.parametrize("n_logits", [1, 10, 100])
def test_the_mean_instance_loss_is_that_of_the_losses_and_its_gradient_right(monkeypatch, n_logits, unit_classes):
    monkeypatch.setattr(_instance, "_N_LOGITS", n_logits)  # of 4 x 5: a row at a time, two, all
    monkeypatch.setattr(_instance, "_CLASS_BLOCK", 3)
    torch.manual_seed(0)
    features = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    classifier = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    instance, weight = torch.tensor([0, 4, 2, 2]), torch.rand(4, dtype=torch.float64)

    def mean(features, classifier):
        return mean_instance_loss(features, instance, classifier, weight, unit_classes=unit_classes, factor=0.3)

    expected = 0.3 * (instance_loss(features, instance, classifier, unit_classes=unit_classes) * weight).mean()
    loss = mean(features, classifier)
    torch.testing.assert_close(loss, expected)
    wanted = torch.autograd.grad(expected, (features, classifier))
    for times in (1.0, 2.0):  # the second time gradients are computed again
        given = torch.autograd.grad(times * loss, (features, classifier), retain_graph=True)
        torch.testing.assert_close(given, tuple(times * each for each in wanted))
    assert gradcheck(mean, (features, classifier))
    assert gradcheck(lambda f: mean(f, classifier.detach()), (features,))
    with torch.no_grad():
        torch.testing.assert_close(mean(features, classifier), expected)


MANY_CLASSES = """
import resource, sys
import torch
from sklearn_mm.losses import InstanceClassifier

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

n_rows, n_classes, width = 1024, 120_000, 64
classifier = InstanceClassifier(width, n_classes, temperature=None, dropout=0.0)
image, text = (torch.randn(n_rows, width, requires_grad=True) for _ in range(2))
instance = torch.randint(n_classes, (n_rows,))
small = InstanceClassifier(width, 10, temperature=0.1, dropout=0.0)  # what torch allocates once
small(image, instance % 10).backward()
before = peak()
(classifier(image, instance) + classifier(text, instance)).backward()
del classifier
classifier = InstanceClassifier(width, n_classes, temperature=0.05, dropout=0.0)
(classifier(image, instance) + classifier(text, instance)).backward()
print(peak() - before)
"""


@pytest.mark.slow
def test_more_than_a_hundred_thousand_classes_take_no_logits_of_all():
    script = [sys.executable, "-c", MANY_CLASSES]
    taken = int(subprocess.run(script, capture_output=True, text=True, check=True).stdout)
    # Logits of all classes are 490 MB, for images, for texts, and as many for their gradients. Here it is two gradients
    # of the classifier (31 MB each) and some blocks of 8,192 logits (34 MB each).
    assert taken < 0.6 * 4 * 1024 * 120_000


def test_instance_loss_is_finite_for_huge_logits():
    features = torch.full((1, 1), 1e4, requires_grad=True)
    loss = instance_loss(features, torch.tensor([1]), torch.tensor([[1.0], [-1.0], [1.0]]), block=1)
    assert loss.item() == pytest.approx(2e4 + np.log(2))
    assert torch.isfinite(torch.autograd.grad(loss.sum(), features)[0]).all()


def test_order_scores_are_those_of_loops_and_their_gradient_right(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(_similarity, "_BLOCK_NUMBERS", 3 * 3 * 16)
    image = torch.rand(19, 3, dtype=torch.float64, requires_grad=True)  # more than a block, as the texts are
    text = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    scores = order_scores(image, text)
    for i in range(19):
        for j in range(4):
            squares = [max(0.0, (text[j, d] - image[i, d]).item()) ** 2 for d in range(3)]
            assert scores[i, j].item() == pytest.approx(-sum(squares))
    assert gradcheck(order_scores, (image, text))


def test_order_is_no_symmetric_matter():
    general, special = torch.tensor([[0.2, 0.1]]), torch.tensor([[0.9, 0.8]])
    assert order_scores(image=special, text=general).item() == 0
    assert order_scores(image=general, text=special).item() < -0.9


def test_a_trained_temperature_gets_its_gradient_though_entries_are_masked(pairs):
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    negative = pairs.image_negatives()
    assert negative.isneginf().any()
    assert torch.equal(infonce_loss(pairs.positive, negative, temperature), infonce_loss(pairs.positive, negative, 0.3))
    assert gradcheck(lambda t: infonce_loss(pairs.positive.detach(), negative.detach(), t), (temperature,))


def test_texts_beyond_the_pairs_are_negatives_only(pairs):
    fewer = PairScores(pairs.scores, pairs.image_of_text[:2], pairs.not_negative)
    assert fewer.positive.shape == (2,)
    assert torch.equal(fewer.text_negatives(), pairs.text_negatives()[:2])
    assert torch.equal(fewer.image_negatives(), pairs.image_negatives()[:2])


def test_the_root_form_is_the_square_forms_root_and_its_gradient_right():
    torch.manual_seed(0)
    image = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    text = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    scores = order_root_scores(image, text)
    assert torch.allclose(scores, -torch.sqrt(-order_scores(image, text)))
    assert gradcheck(order_root_scores, (image, text))


def test_the_root_form_has_a_finite_gradient_where_nothing_is_violated():
    image = torch.ones(1, 2, requires_grad=True)
    order_root_scores(image, torch.zeros(1, 2)).sum().backward()
    assert image.grad.tolist() == [[0.0, 0.0]]
