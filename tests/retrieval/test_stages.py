"""The ranker's stages, its instance loss, the pool of texts and the trained temperature."""

import numpy as np
import pytest
import torch

from sklearn_mm._checks import check_captions
from sklearn_mm.features import TextCNNEncoder, TextGRUEncoder, TextNGramEncoder
from sklearn_mm.features._instance_training import SharedClassifier
from sklearn_mm.features._tower import Tower
from sklearn_mm.metrics import retrieval_report
from sklearn_mm.nn.towers import FeatureTower
from sklearn_mm.retrieval import JointEmbeddingRanker
from sklearn_mm.retrieval._epochs import JointBatches, JointStep
from sklearn_mm.retrieval._objective import Objective
from sklearn_mm.retrieval._training_rows import merge_rows

FAST = {"n_components": 16, "max_epochs": 4, "batch_size": 16, "random_state": 0, "learning_rate": 5e-3}


def test_instance_loss_comes_first_then_ranking(data):
    ranker = JointEmbeddingRanker(
        **FAST, pretrain_epochs=3, pretrain_learning_rate=2e-3, lr_schedule="constant", instance_weight=0.5
    ).fit(*data)
    assert [record["stage"] for record in ranker.history_] == ["instance"] * 3 + ["joint"] * 4
    assert [record["epoch"] for record in ranker.history_] == list(range(1, 8))
    assert {record["learning_rate"] for record in ranker.history_[:3]} == {2e-3}
    assert {record["learning_rate"] for record in ranker.history_[3:]} == {5e-3}
    assert ranker.n_epochs_ == 7


def test_instance_loss_alone_brings_images_and_texts_together(data):
    features, captions = data
    kinds = np.unique([" ".join(own[1].split()) for own in captions], return_inverse=True)[1]  # colour and shape
    # The one epoch of ranking is too slow to move anything.
    slow = {**FAST, "max_epochs": 1, "learning_rate": 1e-9}
    trained = JointEmbeddingRanker(**slow, pretrain_epochs=20, pretrain_learning_rate=5e-3)
    trained.fit(features, captions, groups=kinds)
    image, text = trained.transform(features), trained.transform_text([own[1] for own in captions])
    same = kinds[:, None] == kinds[None, :]
    scores = image @ text.T
    assert scores[same].mean() > scores[~same].mean() + 0.3


def test_warm_start_does_not_pretrain_again(data):
    ranker = JointEmbeddingRanker(**FAST, pretrain_epochs=2, warm_start=True).fit(*data).fit(*data)
    assert [record["stage"] for record in ranker.history_] == ["instance"] * 2 + ["joint"] * 8


def test_partial_fit_refuses_classes_it_cannot_know(data):
    with pytest.raises(ValueError, match="instance_weight=0"):
        JointEmbeddingRanker(**FAST, instance_weight=1.0).partial_fit(*data)


@pytest.mark.parametrize("weight", [(1.0,), (1.0, -1.0), (1.0, 2.0, 3.0), ("a", "b")])
def test_a_wrong_instance_weight_is_named(data, weight):
    with pytest.raises(ValueError, match="instance_weight"):
        JointEmbeddingRanker(**FAST, instance_weight=weight).fit(*data)


def test_the_temperature_is_trained_only_when_asked(data):
    assert JointEmbeddingRanker(**FAST).fit(*data).temperature_ == pytest.approx(0.07)
    assert JointEmbeddingRanker(**FAST, train_temperature=True).fit(*data).temperature_ != pytest.approx(0.07)
    partial = JointEmbeddingRanker(**FAST, train_temperature=True).partial_fit(*data)
    first = partial.temperature_
    assert first != pytest.approx(0.07)
    assert partial.partial_fit(*data).temperature_ != first


def test_the_last_relu_is_for_training_only(data):
    ranker = JointEmbeddingRanker(**FAST, final_relu=True).fit(*data)
    assert ranker.transform(data[0]).min() < 0
    report = retrieval_report(
        np.maximum(ranker.transform(data[0]), 0),
        np.maximum(ranker.transform_text([c[0] for c in data[1]]), 0),
        range(96),
    )
    assert report["rsum"] > 80  # what was trained works as well; chance is 33


@pytest.mark.parametrize("factor", [1e-30, 1.0])
def test_words_learn_by_their_own_factor_of_the_rankers_rate(data, factor):
    vectors = {"red": [1.0, 2.0, 3.0], "dot": [3.0, -1.0, 0.5]}
    encoder = TextGRUEncoder(16, word_vectors=vectors, word_learning_rate=factor)
    ranker = JointEmbeddingRanker(encoder, **FAST, weight_decay=0.0).fit(*data)
    table = ranker.text_encoder_.module_.words.weight.detach().numpy()
    red = table[1 + ranker.text_encoder_.vocabulary_.index("red")]
    assert np.allclose(red / np.linalg.norm(red), np.array(vectors["red"]) / 14**0.5, atol=1e-4) == (factor < 1)


def test_texts_are_shifted_in_training_and_averaged_over_all_shifts_in_use(data):
    seen = {True: set(), False: set()}

    class Watching(TextCNNEncoder):
        def collate(self, rows, rng=None):
            batch = super().collate(rows, rng)
            seen[rng is not None] |= set(batch.shifts.tolist())
            return batch

    ranker = JointEmbeddingRanker(Watching(16, width=0.05, word_dim=8), **FAST).fit(*data)
    assert seen == {True: {0, 1, 2, 3}, False: {0}}
    module = ranker.text_encoder_.module_.eval()
    batch = ranker.text_encoder_.collate(ranker.text_encoder_.prepare(["a red dot"]))
    module.average_shifts = False
    with torch.no_grad():
        shifted = [module(batch._replace(shifts=torch.tensor([shift])))[0] for shift in range(8)]
    expected = torch.stack(shifted).mean(dim=0)
    module.average_shifts = True
    np.testing.assert_allclose(
        ranker.transform_text(["a red dot"])[0], (expected / expected.norm()).numpy(), rtol=1e-4, atol=1e-5
    )


def test_a_text_of_another_image_with_the_same_wording_is_no_negative():
    """Two images that share each wording: no negative is left, and nothing to lose."""
    features = np.eye(2, dtype=np.float32)
    ranker = JointEmbeddingRanker(**{**FAST, "batch_size": 2})
    assert ranker.fit(features, [["a dog", "a cat"], ["a cat", "a dog"]]).history_[0]["train_loss"] == 0
    assert ranker.fit(features, ["a dog", "a cat"]).history_[0]["train_loss"] > 0


def test_a_callback_may_embed_while_training_goes_on(data):
    """It moves the networks to the CPU, in evaluation mode; the next epoch brings them back."""
    modes = []

    class Watching(TextNGramEncoder):
        def collate(self, rows, rng=None):
            if rng is not None:
                modes.append(self.module_.training)
            return super().collate(rows, rng)

    class Embedding:
        def setup(self, estimator, context): ...

        def teardown(self, estimator, context): ...

        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context, *, fitted_estimator):
            if context.task_name == "epoch":
                fitted_estimator.transform(data[0][:3])
                fitted_estimator.transform_text(["a red dot"])

    watched = JointEmbeddingRanker(Watching(16), **FAST).set_callbacks(Embedding()).fit(*data)
    assert set(modes) == {True}
    plain = JointEmbeddingRanker(TextNGramEncoder(16), **FAST).fit(*data)
    np.testing.assert_array_equal(watched.transform(data[0]), plain.transform(data[0]))


def test_n_jobs_is_the_number_of_threads_while_it_computes(data):
    seen = []

    class Watching(TextNGramEncoder):
        def collate(self, rows, rng=None):
            seen.append(torch.get_num_threads())
            return super().collate(rows, rng)

    before = torch.get_num_threads()
    encoder = Watching(n_components=16)
    JointEmbeddingRanker(encoder, **FAST, n_jobs=1).fit(*data)
    assert set(seen[:10]) == {1}
    assert torch.get_num_threads() == before


# The step, against a slow and obvious one -------------------------------------------------------------------------


def parts(groups=None):
    """Eight images, two captions each, two linear towers."""
    torch.manual_seed(0)
    features = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    captions = check_captions([[f"text {i} one", f"text {i} two"] for i in range(8)])
    training = merge_rows(range(8), captions, groups, None)
    cpu = torch.device("cpu")
    towers = [Tower(None, FeatureTower(width, 4), cpu, torch.float32) for width in (5, 6)]
    texts = np.random.default_rng(1).normal(size=(len(training.texts), 6)).astype(np.float32)
    return features, training, towers, texts


def objective(**changes):
    settings = {
        "similarity": "cosine",
        "loss": "ranking",
        "margin": 1.0,
        "temperature": 0.07,
        "train_temperature": False,
        "negatives": ("all", "all"),
        "negative_side": "both",
    }
    return Objective(**{**settings, **changes})


def test_the_loss_is_the_weighted_sum_of_ranking_and_both_instance_losses():
    features, training, towers, texts = parts(groups=np.array([0, 0, 1, 2, 3, 4, 5, 6]))
    classifier = SharedClassifier(4, 7, temperature=None, dropout=0.0)
    data = JointBatches(*towers, features, texts, training, 8, 1, 0, np.random.default_rng(0))
    images, drawn, image_of_text = next(iter(data))
    loss = JointStep(data, objective(), classifier, (0.5, 0.05), final_relu=True)((images, drawn, image_of_text))

    image = torch.relu(towers[0].head(torch.from_numpy(features)))
    text = torch.relu(towers[1].head(torch.from_numpy(texts)))
    expected = 0.0
    for i, t in zip(images, drawn, strict=True):
        own = torch.nn.functional.cosine_similarity(image[i], text[t], dim=0)
        for j, other in zip(images, drawn, strict=True):
            if training.group[i] != training.group[j]:
                expected += (
                    torch.relu(1 - own + torch.nn.functional.cosine_similarity(image[i], text[other], dim=0)) / 8
                )
                expected += torch.relu(1 - own + torch.nn.functional.cosine_similarity(image[j], text[t], dim=0)) / 8
        logits = torch.stack([image[i], text[t]]) @ classifier.weight.T
        cross_entropy = torch.nn.functional.cross_entropy(
            logits, torch.tensor([training.group[i]] * 2), reduction="none"
        )
        expected += (0.5 * cross_entropy[0] + 0.05 * cross_entropy[1]) / 8
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_pool_adds_each_images_hardest_foreign_text():
    features, training, towers, texts = parts(groups=np.array([0, 0, 1, 2, 3, 4, 5, 6]))
    data = JointBatches(*towers, features, texts, training, 3, 1, 10**6, np.random.default_rng(0))
    step = JointStep(data, objective(), None, (0.0, 0.0), final_relu=False)
    images, drawn, image_of_text = np.array([0, 3, 5]), np.array([0, 6, 10]), np.arange(3)
    image = towers[0].head(torch.from_numpy(features)).detach()
    found = step._mined(image[images], images, drawn, image_of_text)
    scores = objective().scores(image[images], towers[1].head(torch.from_numpy(texts)).detach()).numpy()
    expected = set()
    for row, i in enumerate(images):
        foreign = [t for t in range(16) if training.group[training.owner[t]] != training.group[i]]
        expected.add(max(foreign, key=lambda t, row=row: scores[row, t]))
    assert set(found) == expected - set(drawn)
    with_pool = float(step((images, drawn, image_of_text)).detach())
    plain = JointStep(
        JointBatches(*towers, features, texts, training, 3, 1, 0, data.rng), objective(), None, (0, 0), False
    )
    assert with_pool > float(plain((images, drawn, image_of_text)).detach())


def test_the_pool_is_embedded_as_in_use(data):
    pooled = JointEmbeddingRanker(**FAST, dropout=0.5, text_pool_size=64, negatives="hardest", loss="ranking").fit(
        *data
    )
    assert pooled.score(*data) > 0.15  # chance is 0.06


def test_the_sources_sums_and_halves_are_our_means():
    """Batches of 32 with 16 triplets weighted 2, sums divided by 32: the mean over the triplets, weighted 1."""
    hinge = np.random.default_rng(0).random(16)
    assert 2 * hinge.sum() / 32 == pytest.approx(hinge.mean())


def test_the_two_sides_may_have_other_negatives(data):
    def losses(negatives, side):
        settings = {**FAST, "max_epochs": 1, "loss": "ranking", "dropout": 0.0}
        return (
            JointEmbeddingRanker(**settings, negatives=negatives, negative_side=side)
            .fit(*data)
            .history_[0]["train_loss"]
        )

    assert losses(("hardest", "all"), "text") == losses("hardest", "text")
    assert losses(("hardest", "all"), "image") == losses("all", "image")
    with pytest.raises(ValueError, match="negatives must be one or two of"):
        losses(("hardest", "closest"), "both")
