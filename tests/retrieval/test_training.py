"""The ranker's stages, its instance loss, the pool of texts and the trained temperature."""

import numpy as np
import pytest
import torch

from sklearn_mm.features import TextCNNEncoder, TextGRUEncoder, TextNGramEncoder
from sklearn_mm.losses import InfoNCELoss, InstanceLoss, RankingLoss
from sklearn_mm.metrics import retrieval_report
from sklearn_mm.retrieval import JointEmbeddingRanker

FAST = {"n_components": 16, "max_epochs": 4, "batch_size": 16, "random_state": 0, "learning_rate": 5e-3}


def test_instance_loss_comes_first_then_ranking(data):
    instance_loss = InstanceLoss(0.5, pretrain_epochs=3, pretrain_learning_rate=2e-3)
    ranker = JointEmbeddingRanker(**FAST, lr_schedule="constant", instance_loss=instance_loss).fit(*data)
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
    instance_loss = InstanceLoss(0.0, pretrain_epochs=20, pretrain_learning_rate=5e-3)
    trained = JointEmbeddingRanker(**slow, instance_loss=instance_loss)
    trained.fit(features, captions, groups=kinds)
    image, text = trained.transform(features), trained.transform_text([own[1] for own in captions])
    same = kinds[:, None] == kinds[None, :]
    scores = image @ text.T
    assert scores[same].mean() > scores[~same].mean() + 0.3


def test_warm_start_does_not_pretrain_again(data):
    instance_loss = InstanceLoss(0.0, pretrain_epochs=2)
    ranker = JointEmbeddingRanker(**FAST, instance_loss=instance_loss, warm_start=True).fit(*data).fit(*data)
    assert [record["stage"] for record in ranker.history_] == ["instance"] * 2 + ["joint"] * 8


def test_partial_fit_refuses_classes_it_cannot_know(data):
    with pytest.raises(ValueError, match="instance_loss=None"):
        JointEmbeddingRanker(**FAST, instance_loss=InstanceLoss()).partial_fit(*data)


@pytest.mark.parametrize("weight", [(1.0,), (1.0, -1.0), (1.0, 2.0, 3.0), ("a", "b")])
def test_a_wrong_instance_weight_is_named(data, weight):
    with pytest.raises(ValueError, match="weight must be a number of at least 0, or two of them"):
        JointEmbeddingRanker(**FAST, instance_loss=InstanceLoss(weight)).fit(*data)


def test_the_temperature_is_trained_only_when_asked(data):
    assert JointEmbeddingRanker(**FAST).fit(*data).loss_.temperature == pytest.approx(0.07)
    given = InfoNCELoss(trainable=True)
    assert JointEmbeddingRanker(**FAST, loss=given).fit(*data).loss_.temperature != pytest.approx(0.07)
    partial = JointEmbeddingRanker(**FAST, loss=given).partial_fit(*data)
    first = partial.loss_.temperature
    assert first != pytest.approx(0.07)
    assert partial.partial_fit(*data).loss_.temperature != first
    assert given.temperature == 0.07  # what is learnt is the fitted loss's


def test_the_last_relu_is_for_training_only(data):
    ranker = JointEmbeddingRanker(**FAST, instance_loss=InstanceLoss(0.0, relu=True)).fit(*data)
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
    """It puts the networks into evaluation mode; the next epoch brings them back."""
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


def test_the_pool_is_embedded_as_in_use(data):
    pooled = JointEmbeddingRanker(**FAST, dropout=0.5, loss=RankingLoss(negatives="hardest", pool_size=64)).fit(*data)
    assert pooled.score(*data) > 0.15  # chance is 0.06


def test_the_two_sides_may_have_other_negatives(data):
    def losses(negatives, side):
        settings = {**FAST, "max_epochs": 1, "dropout": 0.0}
        ranker = JointEmbeddingRanker(**settings, loss=RankingLoss(negatives=negatives, side=side))
        return ranker.fit(*data).history_[0]["train_loss"]

    assert losses(("hardest", "all"), "text") == losses("hardest", "text")
    assert losses(("hardest", "all"), "image") == losses("all", "image")
    with pytest.raises(ValueError, match="negatives must be one or two of"):
        losses(("hardest", "closest"), "both")
