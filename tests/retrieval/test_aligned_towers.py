"""Towers that are aligned before training: residual heads, no epoch at all, and weights between both ends."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone

from sklearn_mm.features import TextNGramEncoder
from sklearn_mm.losses import InfoNCELoss, InstanceLoss, SigmoidLoss
from sklearn_mm.metrics import retrieval_report
from sklearn_mm.nn.towers import ResidualHead
from sklearn_mm.persistence import load, save
from sklearn_mm.retrieval import JointEmbeddingRanker

ROUNDING = 1e-5  # of unit vectors in float32, scaled once more
WORDS = ("red", "green", "blue", "black", "dot", "box", "star")
SLOW = {"learning_rate": 1e-12, "weight_decay": 0.0, "max_epochs": 1}  # one epoch that moves nothing


class WordsOfTheWorld(TransformerMixin, BaseEstimator):
    """A frozen text tower that is aligned with the features: a column for each word, and some that say nothing."""

    def __init__(self, width=12, logit_scale=None, logit_bias=None):
        self.width = width
        self.logit_scale = logit_scale
        self.logit_bias = logit_bias

    def fit(self, X, y=None):
        self.logit_scale_, self.logit_bias_ = self.logit_scale, self.logit_bias
        return self

    def transform(self, X):
        out = np.full((len(X), self.width), 0.01, dtype=np.float32)
        for row, text in enumerate(X):
            for column, word in enumerate(WORDS):
                out[row, column] += 3 * (word in text.split())
        return out


@pytest.fixture(scope="module")
def aligned(data):
    features, captions = data
    return features * np.array([1] * 7 + [0.3] * 5, dtype=np.float32), captions


def _ranker(**settings):
    encoder = settings.pop("text_encoder", WordsOfTheWorld())
    return JointEmbeddingRanker(encoder, **{"heads": "residual", "random_state": 0, "max_epochs": 0, **settings})


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_without_an_epoch_the_towers_answer_as_they_come(aligned):
    features, captions = aligned
    ranker = _ranker(hidden_layer_sizes=(8,)).fit(features, captions)
    texts = [own[0] for own in captions]
    np.testing.assert_allclose(ranker.transform(features), _unit(features), atol=ROUNDING)
    np.testing.assert_allclose(ranker.transform_text(texts), _unit(WordsOfTheWorld().transform(texts)), atol=ROUNDING)
    assert ranker.history_ == []
    assert ranker.n_epochs_ == 0
    found = ranker.search_images(["red star"], k=3)[1][0]
    assert all("red star" in captions[image][0] for image in found)
    assert len(ranker.get_feature_names_out()) == features.shape[1]


def test_heads_drawn_at_random_throw_the_alignment_away(aligned):
    zero_shot = _ranker().fit(*aligned).score(*aligned)
    assert _ranker(heads="projection", n_components=12).fit(*aligned).score(*aligned) < zero_shot - 0.05


def test_the_first_loss_is_that_of_the_towers_with_their_temperature(aligned):
    features, captions = aligned
    one_each = [own[:1] for own in captions]
    encoder = WordsOfTheWorld(logit_scale=20.0)
    ranker = _ranker(text_encoder=encoder, batch_size=200, **SLOW).fit(features, one_each)
    scores = torch.from_numpy(20 * _unit(features) @ _unit(encoder.transform([own[0] for own in one_each])).T)
    truth = torch.arange(len(features))
    cross_entropy = torch.nn.functional.cross_entropy
    assert ranker.loss_.temperature == pytest.approx(1 / 20)
    expected = float(cross_entropy(scores, truth) + cross_entropy(scores.T, truth))
    assert ranker.history_[0]["train_loss"] == pytest.approx(expected, rel=1e-4)


def test_a_sigmoid_by_its_name_takes_the_bias_of_the_towers_too_and_an_object_keeps_its_own(aligned):
    encoder = WordsOfTheWorld(logit_scale=50.0, logit_bias=-7.0)
    by_name = _ranker(text_encoder=encoder, loss="sigmoid").fit(*aligned).loss_
    assert (by_name.temperature, by_name.bias) == pytest.approx((1 / 50, -7.0))
    given = _ranker(text_encoder=encoder, loss=SigmoidLoss(0.3, -1.0)).fit(*aligned).loss_
    assert (given.temperature, given.bias) == pytest.approx((0.3, -1.0))
    projected = _ranker(text_encoder=encoder, heads="projection", n_components=8).fit(*aligned).loss_
    assert projected.temperature == InfoNCELoss().temperature


def test_training_starts_from_the_towers_and_improves_on_them(aligned):
    features, captions = aligned
    train, test = slice(0, 72), slice(72, None)
    ranker = _ranker(learning_rate=2e-3, batch_size=16)
    before = ranker.fit(features[train], captions[train]).score(features[test], captions[test])
    ranker.set_params(max_epochs=15).fit(features[train], captions[train])
    assert ranker.score(features[test], captions[test]) >= before
    assert ranker.history_[-1]["train_loss"] < ranker.history_[0]["train_loss"]


def test_early_stopping_never_ends_below_the_towers(aligned):
    features, captions = aligned
    wild = {"learning_rate": 3.0, "lr_schedule": "constant", "clip_norm": 1e6, "max_epochs": 2, "batch_size": 16}
    ranker = _ranker(**wild, early_stopping=True, validation_fraction=0.3).fit(features, captions)
    zero_shot = _ranker().fit(features, captions)
    np.testing.assert_allclose(ranker.transform(features), zero_shot.transform(features), atol=ROUNDING)


def test_towers_of_different_widths_have_no_residual_heads(aligned):
    with pytest.raises(ValueError, match="images have 12 columns and those of texts 9"):
        _ranker(text_encoder=WordsOfTheWorld(9)).fit(*aligned)


def test_a_text_model_trained_from_nothing_is_as_wide_as_the_images(aligned):
    ranker = _ranker(text_encoder=None, max_epochs=1).fit(*aligned)
    assert ranker.text_encoder_.n_components == 12
    assert _ranker(text_encoder=TextNGramEncoder(12, word_dim=8), max_epochs=1).fit(*aligned).transform_text(
        ["a red dot"]
    ).shape == (1, 12)


def test_the_instance_loss_and_partial_fit_know_the_width_of_residual_heads(aligned):
    ranker = _ranker(max_epochs=1, instance_loss=InstanceLoss()).fit(*aligned)
    assert ranker.transform(aligned[0]).shape[1] == 12
    partial = _ranker().partial_fit(*aligned).partial_fit(*aligned)
    assert partial.n_epochs_ == 2
    assert partial.interpolation_ == 1.0


def test_interpolated_weights_lie_between_both_ends(aligned):
    features, captions = aligned
    fast = {"max_epochs": 5, "learning_rate": 5e-3, "batch_size": 16}
    ends = {share: _ranker(**fast, interpolate=share).fit(features, captions) for share in (0.0, 0.25, 1.0)}
    zero_shot = _ranker().fit(features, captions)
    np.testing.assert_array_equal(ends[0.0].transform(features), zero_shot.transform(features))
    plain = _ranker(**fast).fit(features, captions)
    np.testing.assert_array_equal(ends[1.0].transform(features), plain.transform(features))
    weight, trained = (ends[share].image_head_.branch[0].weight for share in (0.25, 1.0))
    torch.testing.assert_close(weight, 0.25 * trained)
    assert ends[0.25].interpolation_ == 0.25


def test_the_share_is_chosen_by_what_is_held_out(aligned):
    features, captions = aligned
    wild = {"learning_rate": 3.0, "lr_schedule": "constant", "clip_norm": 1e6, "max_epochs": 2, "batch_size": 16}
    ranker = _ranker(**wild, interpolate="auto", validation_fraction=0.3).fit(features, captions)
    assert ranker.interpolation_ < 0.5
    assert ranker.score(features, captions) > _ranker(**wild).fit(features, captions).score(features, captions)
    assert all("val_rsum" in record for record in ranker.history_)


def test_the_share_is_a_half_where_nothing_can_be_held_out(aligned):
    features, captions = aligned
    ranker = _ranker(interpolate="auto", max_epochs=1, batch_size=2).fit(features[:6], captions[:6])
    assert ranker.interpolation_ == 0.5


@pytest.mark.parametrize("settings", [{"interpolate": 1.5}, {"interpolate": "best"}, {"heads": "mlp"}])
def test_wrong_settings_are_named(aligned, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        _ranker(**settings).fit(*aligned)


def test_a_ranker_of_residual_heads_is_opened_as_it_was_saved(aligned, tmp_path):
    text_encoder = TextNGramEncoder(12, word_dim=8)
    ranker = _ranker(text_encoder=text_encoder, max_epochs=1, text_hidden_layer_sizes=(4,)).fit(*aligned)
    save(ranker, tmp_path / "model")
    opened = load(tmp_path / "model")
    assert isinstance(opened.image_head_, ResidualHead)
    np.testing.assert_array_equal(opened.transform(aligned[0]), ranker.transform(aligned[0]))
    texts = [own[1] for own in aligned[1]]
    np.testing.assert_array_equal(opened.transform_text(texts), ranker.transform_text(texts))
    assert clone(ranker).get_params()["heads"] == "residual"


def test_recall_before_training_is_that_of_the_vectors(aligned):
    features, captions = aligned
    texts = [text for own in captions for text in own]
    report = retrieval_report(features, WordsOfTheWorld().transform(texts), np.repeat(np.arange(len(captions)), 2))
    ranker = _ranker().fit(features, captions)
    again = retrieval_report(
        ranker.transform(features), ranker.transform_text(texts), np.repeat(np.arange(len(captions)), 2)
    )
    assert again["rsum"] == pytest.approx(report["rsum"], abs=0.5)
