"""What a ranker trains, against slow and obvious loops."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from sklearn_mm._checks import check_captions
from sklearn_mm.losses import InfoNCELoss, InstanceClassifier, RankingLoss
from sklearn_mm.nn.towers import FeatureTower
from sklearn_mm.retrieval._data import JointBatches, merge_captioned
from sklearn_mm.retrieval._model import JointModel, PairObjective
from sklearn_mm.sampling import caption_batches
from sklearn_mm.towers import Tower

CPU = torch.device("cpu")
TWO_SCENES_OF_ONE = np.array([0, 0, 1, 2, 3, 4, 5, 6])


class Scene:
    """Eight images, two captions each, two linear towers."""

    def __init__(self, groups=None, dropout=0.0):
        torch.manual_seed(0)
        self.features = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
        captions = check_captions([[f"text {i} one", f"text {i} two"] for i in range(8)])
        self.images = merge_captioned(range(8), captions, groups, None)
        self.texts = np.random.default_rng(1).normal(size=(16, 6)).astype(np.float32)
        self.towers = [Tower(None, FeatureTower(n, 4, dropout=dropout), CPU, torch.float32) for n in (5, 6)]

    def first_batch(self, batch_size, pool_size=0):
        """Return the first batch, and which images and texts it holds."""
        settings = (self.features, self.texts, self.images, batch_size, 1, pool_size)
        batch = next(iter(JointBatches(*self.towers, *settings, np.random.default_rng(0))))
        images, texts, _ = next(caption_batches(self.images.starts, batch_size, 1, np.random.default_rng(0)))
        np.testing.assert_array_equal(batch.image, self.features[images])
        np.testing.assert_array_equal(batch.text, self.texts[texts])
        return batch, images, texts

    def embedded(self):
        """Return all images and all texts in the joint space, as they are in use."""
        with torch.no_grad():
            return [
                tower.eval()(torch.from_numpy(rows))
                for tower, rows in zip(self.towers, (self.features, self.texts), strict=True)
            ]

    def hardest_foreign_texts(self, images):
        """For some images, the text closest to each among those of other groups."""
        image, text = self.embedded()
        group = self.images.group
        hardest = set()
        for i in images:
            foreign = [t for t in range(16) if group[t // 2] != group[i]]
            hardest.add(max(foreign, key=lambda t, i=i: float(cosine_similarity(image[i], text[t], dim=0))))
        return hardest


def model_of(scene, loss=None, classifier=None, **options):
    objective = PairObjective(RankingLoss(1.0) if loss is None else loss, "cosine")
    return JointModel(*scene.towers, objective, classifier, **options)


@pytest.mark.parametrize("loss", [RankingLoss(1.0), InfoNCELoss(trainable=True)], ids=str)
def test_the_loss_of_a_batch_is_one_number_from_which_both_towers_learn(loss):
    scene = Scene()
    model = model_of(scene, loss, InstanceClassifier(4, 8, temperature=0.1, dropout=0.0))
    model.begin(ranks=True, instance_weights=(1.0, 1.0), freezes=False)
    value = model(scene.first_batch(4)[0])
    assert value.shape == ()
    assert value.isfinite()
    value.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_loss_is_the_weighted_sum_of_ranking_and_both_instance_losses():
    scene = Scene(groups=TWO_SCENES_OF_ONE)
    classifier = InstanceClassifier(4, 7, temperature=None, dropout=0.0)
    model = model_of(scene, classifier=classifier, relu=True)
    model.begin(ranks=True, instance_weights=(0.5, 0.05), freezes=False)
    batch, images, drawn = scene.first_batch(8)
    loss = model(batch)

    image, text = (torch.relu(rows) for rows in scene.embedded())
    group = scene.images.group
    expected = 0.0
    for i, t in zip(images, drawn, strict=True):
        own = cosine_similarity(image[i], text[t], dim=0)
        for j, other in zip(images, drawn, strict=True):
            if group[i] != group[j]:
                expected += torch.relu(1 - own + cosine_similarity(image[i], text[other], dim=0)) / 8
                expected += torch.relu(1 - own + cosine_similarity(image[j], text[t], dim=0)) / 8
        logits = torch.stack([image[i], text[t]]) @ classifier.weight.T
        told_apart = cross_entropy(logits, torch.tensor([group[i]] * 2), reduction="none")
        expected += (0.5 * told_apart[0] + 0.05 * told_apart[1]) / 8
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_first_stage_takes_the_instance_loss_alone():
    scene = Scene()
    classifier = InstanceClassifier(4, 8, temperature=0.1, dropout=0.0)
    model = model_of(scene, classifier=classifier)
    model.begin(ranks=False, instance_weights=(1.0, 1.0), freezes=True)
    batch, images, drawn = scene.first_batch(8)
    image, text = scene.embedded()
    expected = classifier(image[images], torch.from_numpy(images)) + classifier(text[drawn], torch.from_numpy(images))
    torch.testing.assert_close(model(batch), expected)


def test_weights_count_in_every_part_of_the_loss():
    scene = Scene()
    classifier = InstanceClassifier(4, 8, temperature=0.1, dropout=0.0)
    model = model_of(scene, classifier=classifier)
    batch, _, _ = scene.first_batch(8)
    weight = torch.tensor([2.0, 0.0, 1.0, 1.0, 0.5, 1.5, 1.0, 1.0])
    order = torch.arange(8)
    assert torch.equal(batch.image_of_text, order)
    for ranks, weights in [(True, (0.0, 0.0)), (False, (1.0, 0.0)), (False, (0.0, 1.0))]:
        model.begin(ranks=ranks, instance_weights=weights, freezes=False)
        single = [model(batch._replace(weight=(order == row).float())) for row in range(8)]
        torch.testing.assert_close(model(batch._replace(weight=weight)), (weight * torch.stack(single)).sum())


def test_the_pool_adds_each_images_hardest_foreign_text():
    scene = Scene(groups=TWO_SCENES_OF_ONE)
    model = model_of(scene)
    batch, images, drawn = scene.first_batch(3, pool_size=10**6)
    assert len(batch.pool.is_in_batch) == 16  # no more than there are, in their order
    with torch.no_grad():
        mined = model._mine(scene.towers[0](batch.image), batch.pool, batch.shares)
    expected = sorted(scene.hardest_foreign_texts(images) - set(drawn.tolist()))
    assert expected  # or nothing were tested
    assert mined.tolist() == expected

    image, text = scene.embedded()
    group = scene.images.group
    loss = 0.0
    for i, t in zip(images, drawn, strict=True):
        own = cosine_similarity(image[i], text[t], dim=0)
        for other in [*drawn, *expected]:
            if group[i] != group[other // 2]:
                loss += torch.relu(1 - own + cosine_similarity(image[i], text[other], dim=0)) / 3
        for j in images:
            if group[i] != group[j]:
                loss += torch.relu(1 - own + cosine_similarity(image[j], text[t], dim=0)) / 3
    assert float(model(batch).detach()) == pytest.approx(float(loss), rel=1e-5)
    assert float(model(batch).detach()) > float(model(batch._replace(pool=None)).detach())


def test_the_pool_is_looked_through_as_in_use_and_each_part_goes_on_in_its_own_mode():
    scene = Scene(dropout=0.5)
    batch, images, drawn = scene.first_batch(4, pool_size=16)
    expected = sorted(scene.hardest_foreign_texts(images) - set(drawn.tolist()))
    image = scene.embedded()[0][images]
    model = model_of(scene).train()
    scene.towers[1].head.layers.eval()  # a part that is held still
    modes = {name: part.training for name, part in model.named_modules()}
    assert modes["text_tower.head.dropout"]
    assert not modes["text_tower.head.layers"]
    assert [model._mine(image, batch.pool, batch.shares).tolist() for _ in range(5)] == [
        expected
    ] * 5  # with dropout, others
    model(batch).backward()
    assert {name: part.training for name, part in model.named_modules()} == modes


def test_the_sources_sums_and_halves_are_our_means():
    """Batches of 32 with 16 triplets weighted 2, sums divided by 32: the mean over the triplets, weighted 1."""
    hinge = np.random.default_rng(0).random(16)
    assert 2 * hinge.sum() / 32 == pytest.approx(hinge.mean())


def test_what_the_loss_learns_itself_is_trained_with_the_towers_and_read_back():
    scene = Scene()
    given = InfoNCELoss(0.5, trainable=True)
    model = model_of(scene, given)
    assert model.objective.learnt_loss().temperature == pytest.approx(0.5)
    names = [name for name, _ in model.named_parameters() if "objective" in name]
    assert names == ["objective.learnt.log_temperature"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(scene.first_batch(8)[0]).backward()
    optimizer.step()
    learnt = model.objective.learnt_loss()
    assert learnt.temperature != pytest.approx(0.5, abs=1e-6)
    assert learnt.temperature == pytest.approx(float(model.objective.learnt["log_temperature"].detach().exp()))
    assert given.temperature == 0.5
