import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_mm.exceptions import MergedRowsWarning, UnknownWordsWarning
from sklearn_mm.features import TextCNNEncoder, TextGRUEncoder, TextNGramEncoder, TextSequenceEncoder
from sklearn_mm.losses import InfoNCELoss, InstanceLoss, PairLoss, RankingLoss, SigmoidLoss
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.persistence import load, save
from sklearn_mm.retrieval import JointEmbeddingRanker

FAST = {"n_components": 16, "max_epochs": 8, "batch_size": 16, "random_state": 0, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def fitted(data):
    return JointEmbeddingRanker(**FAST).fit(*data)


def test_search_finds_what_the_words_say(fitted, data):
    _, captions = data
    scores, indices = fitted.search_images(["a green star"], k=3)
    assert scores.shape == indices.shape == (1, 3)
    assert (np.diff(scores) <= 0).all()
    assert all("green star" in captions[i][0] for i in indices[0])


def test_predict_gives_a_caption_of_the_gallery(fitted, data):
    features, captions = data
    predicted = fitted.predict(features)
    right = [captions[i][1].split()[2] in text for i, text in enumerate(predicted)]
    assert np.mean(right) > 0.7  # the colour; chance is a quarter
    assert set(predicted) <= set(fitted.gallery_texts_)


def test_order_embeddings_are_searched_by_their_own_score(data):
    features, _ = data
    ranker = JointEmbeddingRanker(**FAST, similarity="order", loss=RankingLoss(0.05)).fit(*data)
    image, text = ranker.transform(features[:4]), ranker.transform_text(ranker.gallery_texts_)
    assert image.min() >= 0
    expected = -(np.maximum(text[None] - image[:, None], 0) ** 2).sum(axis=2)
    np.testing.assert_allclose(ranker.decision_function(features[:4]), expected, rtol=1e-4, atol=1e-5)
    scores, indices = ranker.search_texts(features[:4], k=3)
    np.testing.assert_allclose(scores, np.sort(expected, axis=1)[:, ::-1][:, :3], rtol=1e-4, atol=1e-5)
    scores, indices = ranker.search_images(["a green star"], k=2)
    text = ranker.transform_text(["a green star"])
    expected = -(np.maximum(text - ranker.transform(features), 0) ** 2).sum(axis=1)
    np.testing.assert_allclose(scores[0], expected[indices[0]], rtol=1e-4, atol=1e-5)
    assert scores[0, 0] == pytest.approx(expected.max(), abs=1e-5)


def test_embeddings_are_unit_vectors_of_the_joint_width(fitted, data):
    features, _ = data
    for embedding in (fitted.transform(features), fitted.transform_text(["a red dot"])):
        assert embedding.dtype == np.float32
        assert embedding.shape[1] == 16
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)
    assert fitted.get_feature_names_out()[0] == "jointembeddingranker0"


def test_decision_function_holds_the_scores_that_search_sorts(fitted, data):
    features, _ = data
    table = fitted.decision_function(features[:5])
    scores, indices = fitted.search_texts(features[:5], k=4)
    np.testing.assert_allclose(np.take_along_axis(table, indices, axis=1), scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.sort(table, axis=1)[:, ::-1][:, :4], scores, rtol=1e-4, atol=1e-5)


def test_score_is_far_above_chance_on_held_out_images(data):
    features, captions = data
    scores = []
    for train, test in KFold(3, shuffle=True, random_state=0).split(features):
        ranker = JointEmbeddingRanker(**FAST).fit(features[train], [captions[i] for i in train])
        scores.append(ranker.score(features[test], [captions[i] for i in test]))
    # 32 images of 12 kinds: chance is about 0.18, telling every kind apart about 0.6.
    assert np.mean(scores) > 0.4


@pytest.mark.parametrize(
    "parameters",
    [
        {"loss": "ranking"},
        {"loss": "sigmoid"},
        {"loss": RankingLoss(negatives="hardest")},
        {"loss": RankingLoss(negatives="semi-hard")},
        {"loss": RankingLoss(negatives="random")},
        {"loss": RankingLoss(side="text")},
        {"loss": RankingLoss(side="image")},
        {"loss": InfoNCELoss(side="image")},
        {"hidden_layer_sizes": (32,)},
        {"similarity": "order", "loss": RankingLoss(0.05), "n_components": 64, "max_epochs": 20},
        {"similarity": "order-root", "loss": RankingLoss(negatives="hardest"), "n_components": 64, "max_epochs": 30},
        {"loss": RankingLoss(negatives="hardest", pool_size=64)},
        {"loss": "ranking", "instance_loss": InstanceLoss((1.0, 0.1), temperature=None, pretrain_epochs=4)},
        {"loss": InfoNCELoss(trainable=True), "instance_loss": InstanceLoss(0.1), "clip_tensors": True},
        {"text_encoder": TextCNNEncoder(16, width=0.2, dropout=0.0)},
        {"text_encoder": TextNGramEncoder(24, ngram_range=(1, 2)), "text_hidden_layer_sizes": (32,)},
        {"text_encoder": TextNGramEncoder(16, ngram_range=(1, 2), skip=1, word_dim=32)},
        {"text_encoder": TextGRUEncoder(16, word_dim=32)},
        {"text_encoder": TextGRUEncoder(24, word_dim=32, bidirectional=True, pooling="max"), "precision": "bfloat16"},
        {"text_encoder": TextSequenceEncoder(16, phrase_dim=32, word_dim=32)},
        {"text_encoder": TfidfVectorizer()},
        {"image_encoder": StandardScaler()},
        {"optimizer": "sgd", "learning_rate": 0.5},
        {"optimizer": "sgd", "learning_rate": 0.5, "precision": "float16", "loss": InfoNCELoss(trainable=True)},
        pytest.param(
            {"text_encoder": TextCNNEncoder(16, width=0.2, dropout=0.0), "precision": "float16", "max_epochs": 20},
            marks=pytest.mark.slow,
        ),
        {"lr_schedule": "linear", "precision": "bfloat16"},
    ],
    ids=str,
)
def test_every_setting_learns(data, parameters):
    ranker = JointEmbeddingRanker(**{**FAST, "early_stopping": False, "max_epochs": 12, **parameters}).fit(*data)
    assert ranker.score(*data) > 0.3  # chance is 0.06, and captions of one kind differ by a number only
    assert ranker.history_[-1]["train_loss"] < ranker.history_[0]["train_loss"]


class LogisticLoss(PairLoss):
    """A smooth hinge whose sharpness is trained: a loss as somebody else would write it."""

    def __init__(self, sharpness=1.0):
        self.sharpness = sharpness

    def __call__(self, pairs, **learnt):
        gap = pairs.scores - pairs.positive  # (n_images, n_pairs)
        return torch.nn.functional.softplus(learnt["sharpness"] * gap).masked_fill(pairs.not_negative, 0).sum(dim=0)

    def initial(self):
        return {"sharpness": self.sharpness}

    def with_learnt(self, values):
        return LogisticLoss(**values)


def test_a_loss_of_ones_own_trains_and_learns(data):
    ranker = JointEmbeddingRanker(**{**FAST, "max_epochs": 12}, loss=LogisticLoss(5.0)).fit(*data)
    assert ranker.score(*data) > 0.3  # chance is 0.06
    assert ranker.loss_.sharpness != 5.0
    assert ranker.loss.sharpness == 5.0


def test_losses_are_given_by_name_or_as_objects_and_searched_by_their_parameters(data):
    by_name, by_object = (
        JointEmbeddingRanker(**FAST, loss=loss).fit(*data).transform(data[0]) for loss in ("ranking", RankingLoss())
    )
    np.testing.assert_array_equal(by_name, by_object)
    settings = {**FAST, "max_epochs": 2}
    search = GridSearchCV(JointEmbeddingRanker(**settings, loss=RankingLoss()), {"loss__margin": [0.1, 0.4]}, cv=2)
    assert search.fit(*data).best_estimator_.loss_.margin == search.best_params_["loss__margin"]
    with pytest.raises(ValueError, match=r"call it: RankingLoss\(...\)|'loss' parameter"):
        JointEmbeddingRanker(**FAST, loss=RankingLoss).fit(*data)


def test_what_a_loss_has_learnt_goes_on_in_a_warm_start_and_a_folder(data, tmp_path):
    ranker = JointEmbeddingRanker(**FAST, loss="sigmoid", warm_start=True).fit(*data)
    learnt = ranker.loss_.get_params()
    assert learnt["bias"] != SigmoidLoss().bias
    save(ranker, tmp_path / "model")
    assert load(tmp_path / "model").loss_.get_params() == learnt
    ranker.set_params(learning_rate=1e-9).fit(*data)
    assert ranker.loss_.get_params() == pytest.approx(learnt, abs=1e-4)
    ranker.set_params(loss="infonce").fit(*data)
    assert ranker.loss_.get_params() == InfoNCELoss().get_params()


def test_the_maximum_along_the_released_axis_learns_though_less(data):
    """Most pairs are the worst one of no negative, and have no loss."""
    settings = {**FAST, "max_epochs": 12}
    released, standard = (
        JointEmbeddingRanker(**settings, loss=RankingLoss(negatives=negatives)).fit(*data).score(*data)
        for negatives in ("hardest-anchor", "hardest")
    )
    assert 0.2 < released < standard  # chance is 0.06


def test_a_frozen_text_encoder_is_a_clone_fitted_on_the_captions(data):
    vectorizer = TfidfVectorizer()
    ranker = JointEmbeddingRanker(vectorizer, **FAST).fit(*data)
    assert not hasattr(vectorizer, "vocabulary_")
    assert "green" in ranker.text_encoder_.vocabulary_


def test_the_vocabulary_knows_no_caption_that_is_held_out(data):
    ranker = JointEmbeddingRanker(**FAST, early_stopping=True, validation_fraction=0.3).fit(*data)
    numbers = {str(i) for i in range(96)}
    assert 60 <= len(numbers & set(ranker.text_encoder_.vocabulary_)) < 80


def test_fit_twice_and_fit_anew_give_the_same(data):
    ranker = JointEmbeddingRanker(**FAST)
    first = ranker.fit(*data).transform(data[0])
    np.testing.assert_array_equal(first, ranker.fit(*data).transform(data[0]))
    np.testing.assert_array_equal(first, clone(ranker).fit(*data).transform(data[0]))


def test_the_order_of_rows_does_not_matter(data):
    features, captions = data
    order = np.random.default_rng(1).permutation(len(features))
    shuffled = JointEmbeddingRanker(**FAST).fit(features[order], [captions[i] for i in order])
    np.testing.assert_array_equal(
        shuffled.transform(features), JointEmbeddingRanker(**FAST).fit(*data).transform(features)
    )


def test_fit_leaves_the_global_random_state_alone(data):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    JointEmbeddingRanker(**FAST).fit(*data)
    assert torch.equal(torch.rand(1), expected)


def test_pair_form_is_the_same_as_nested_form(data):
    features, captions = data
    pairs = [(x, caption) for x, own in zip(features, captions, strict=True) for caption in own]
    nested = JointEmbeddingRanker(**FAST).fit(features, captions)
    with pytest.warns(MergedRowsWarning, match="192 rows are 96 pictures"):
        paired = JointEmbeddingRanker(**FAST).fit(np.array([x for x, _ in pairs]), [caption for _, caption in pairs])
    np.testing.assert_array_equal(nested.transform(features), paired.transform(features))


def test_early_stopping_keeps_the_best_weights(data):
    ranker = JointEmbeddingRanker(
        **{**FAST, "max_epochs": 60}, early_stopping=True, n_iter_no_change=3, validation_fraction=0.3
    )
    ranker.fit(*data)
    rsum = [record["val_rsum"] for record in ranker.history_]
    assert len(rsum) < 60
    assert int(np.argmax(rsum)) == len(rsum) - 1 - 3
    assert ranker.n_epochs_ == len(rsum)


def test_without_early_stopping_all_images_train_for_all_epochs(data):
    ranker = JointEmbeddingRanker(**FAST).fit(*data)
    assert len(ranker.history_) == 8
    assert "val_rsum" not in ranker.history_[0]
    assert {str(i) for i in range(96)} <= set(ranker.text_encoder_.vocabulary_)


def test_warm_start_goes_on_from_where_it_was(data):
    ranker = JointEmbeddingRanker(**FAST, warm_start=True).fit(*data)
    before = ranker.history_[-1]["train_loss"]
    vocabulary = ranker.text_encoder_.vocabulary_
    ranker.fit(*data)
    assert ranker.n_epochs_ == 16
    assert ranker.history_[8]["train_loss"] < ranker.history_[0]["train_loss"] / 2
    assert ranker.history_[-1]["train_loss"] < before
    assert ranker.text_encoder_.vocabulary_ is vocabulary


def test_partial_fit_learns_pass_by_pass_on_parts(data):
    features, captions = data
    ranker = JointEmbeddingRanker(**FAST)
    ranker.partial_fit(features, captions)
    after_one = ranker.score(features, captions)
    for _ in range(8):
        ranker.partial_fit(features[:48], captions[:48]).partial_fit(features[48:], captions[48:])
    assert ranker.n_epochs_ == 17
    assert ranker.score(features, captions) > after_one + 0.1


def test_partial_fit_goes_on_after_pickling(data):
    ranker = pickle.loads(pickle.dumps(JointEmbeddingRanker(**FAST).partial_fit(*data)))
    assert ranker.partial_fit(*data).n_epochs_ == 2


@pytest.mark.parametrize("changed", [{"learning_rate": 1e-30}, {"loss": RankingLoss(0.0)}], ids=str)
def test_partial_fit_obeys_parameters_that_are_set_between_calls(data, changed):
    kept, other = (JointEmbeddingRanker(**FAST, weight_decay=0.0).partial_fit(*data) for _ in range(2))
    before = kept.transform(data[0])
    np.testing.assert_array_equal(other.transform(data[0]), before)
    other.set_params(**changed).partial_fit(*data)
    assert not np.allclose(kept.partial_fit(*data).transform(data[0]), other.transform(data[0]), atol=1e-3)
    if "learning_rate" in changed:
        np.testing.assert_allclose(other.transform(data[0]), before, atol=1e-6)


def test_a_temperature_set_before_a_warm_start_is_the_one_used(data):
    ranker = JointEmbeddingRanker(**FAST, warm_start=True).fit(*data)
    assert ranker.set_params(loss=InfoNCELoss(0.5)).fit(*data).loss_.temperature == 0.5


def test_set_gallery_keeps_the_order_given(fitted, data):
    features, _ = data
    ranker = pickle.loads(pickle.dumps(fitted))
    ranker.set_gallery(images=features[:3], texts=["a red dot", "a blue box", "a red dot"])
    assert ranker.gallery_texts_.tolist() == ["a red dot", "a blue box", "a red dot"]
    assert ranker.search_texts(features, k=3)[1].max() == 2
    assert ranker.search_images(["a red dot"], k=3)[1].max() == 2
    with pytest.raises(ValueError, match="k=4 is larger than the gallery, which has 3"):
        ranker.search_texts(features, k=4)
    # who does not say how many gets what there is
    assert ranker.search_images(["a red dot"])[1].shape == (1, 3)
    assert ranker.search_texts(features[:2])[1].shape == (2, 3)


def test_zero_weight_is_absence_and_weights_scale_together(data):
    features, captions = data
    weight = np.ones(96)
    weight[48:] = 0
    half = JointEmbeddingRanker(**FAST).fit(features[:48], captions[:48])
    weighted = JointEmbeddingRanker(**FAST).fit(features, captions, sample_weight=3 * weight)
    np.testing.assert_array_equal(half.transform(features), weighted.transform(features))


def test_sparse_and_dense_features_are_searched_alike(data):
    features, captions = data
    ranker = JointEmbeddingRanker(**FAST).fit(sparse.csr_array(features), captions)
    np.testing.assert_allclose(
        ranker.transform(sparse.csr_array(features)), ranker.transform(features), rtol=1e-4, atol=1e-5
    )


def test_int8_features_stay_int8_and_train(data):
    features, captions = data
    ternary = np.where(features > 0.5, 1, np.where(features < -0.5, -1, 0)).astype(np.int8)
    ranker = JointEmbeddingRanker(**FAST).fit(ternary, captions)
    assert ranker.score(ternary, captions) > 0.3
    np.testing.assert_array_equal(ranker.transform(ternary), ranker.transform(ternary.astype(np.float32)))


def test_grid_search_reaches_the_text_encoder_and_selects_by_rsum(data):
    features, captions = data
    pipe = make_pipeline(StandardScaler(), JointEmbeddingRanker(TextNGramEncoder(16), **FAST))
    search = GridSearchCV(
        pipe,
        {"jointembeddingranker__text_encoder__word_dim": [2, 32], "jointembeddingranker__loss": ["infonce"]},
        scoring=RetrievalScorer(),
        refit="rsum",
        cv=3,
        error_score="raise",
    ).fit(features, captions)
    assert search.best_params_["jointembeddingranker__text_encoder__word_dim"] == 32
    assert search.cv_results_["mean_test_i2t_hit@1"].shape == (2,)


def test_groups_and_weights_are_routed_to_fit_and_score(data):
    features, captions = data
    groups, weight = np.arange(96) // 2, np.repeat([1.0, 2.0], 48)
    seen = []

    class Watched(JointEmbeddingRanker):
        def fit(self, X, y, sample_weight=None, groups=None):
            seen.append((len(np.unique(groups)), len(sample_weight)))
            return super().fit(X, y, sample_weight, groups)

    with config_context(enable_metadata_routing=True):
        ranker = Watched(**{**FAST, "max_epochs": 1}).set_fit_request(groups=True, sample_weight=True)
        ranker.set_score_request(groups=True, sample_weight=True)
        search = GridSearchCV(
            make_pipeline(StandardScaler().set_fit_request(sample_weight=False), ranker), {}, cv=GroupKFold(3)
        )
        search.fit(features, captions, groups=groups, sample_weight=weight)
    assert seen == [(32, 64)] * 3 + [(48, 96)]
    assert 0 < search.best_score_ < 1


def test_embeddings_come_out_as_data_frames_when_asked_for(data):
    pandas = pytest.importorskip("pandas")
    ranker = JointEmbeddingRanker(**{**FAST, "max_epochs": 1}).set_output(transform="pandas").fit(*data)
    frame = ranker.transform(data[0])
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(ranker.get_feature_names_out())


class Recorder:
    """A scikit-learn callback that stops after three epochs."""

    def __init__(self):
        self.seen = []

    def setup(self, estimator, context):
        self.seen.append("setup")

    def teardown(self, estimator, context):
        self.seen.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, metadata, fitted_estimator):
        if context.task_name == "epoch":
            self.seen.append((metadata["train_loss"], fitted_estimator.transform_text(["a red dot"]).shape))
        return len(self.seen) == 4


def test_callbacks_see_every_epoch_and_may_stop(data):
    recorder = Recorder()
    ranker = JointEmbeddingRanker(**FAST).set_callbacks(recorder)
    ranker.fit(*data)
    assert recorder.seen[0] == "setup"
    assert recorder.seen[-1] == "teardown"
    assert [entry[1] for entry in recorder.seen[1:-1]] == [(1, 16)] * 3
    assert ranker.n_epochs_ == 3


def test_texts_without_a_known_word_are_named_and_embedded(fitted):
    with pytest.warns(UnknownWordsWarning, match="1 of 2 texts hold no known word.*rows 1"):
        embedding = fitted.transform_text(["a red dot", "zebra"])
    assert np.isfinite(embedding).all()


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((3, 2)), ["a", "b"], "got 2 caption entries for 3 images.*group_captions"),
        (np.zeros((2, 2)), ["a", ""], "row 1 has an empty caption"),
        (np.zeros((2, 2)), [["a"], []], "row 1 has no captions"),
        (np.array([[0, np.nan], [1, 2]]), ["a", "b"], "NaN"),
        (np.array([[0, np.inf], [1, 2]]), ["a", "b"], "infinity"),
        (np.zeros((1, 2)), ["a"], "at least 2 images"),
        (np.zeros((3, 2)), ["a", "b", "c"], "at least 2 different images"),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.MergedRowsWarning")  # of equal rows
def test_bad_training_data_is_named(X, y, message):
    with pytest.raises(ValueError, match=message):
        JointEmbeddingRanker(**FAST).fit(X, y)


@pytest.mark.parametrize("entry", [3, None, ["a", None], b"bytes"])
def test_an_entry_that_is_no_text_is_named(entry):
    with pytest.raises(TypeError, match="row 1"):
        JointEmbeddingRanker(**FAST).fit(np.eye(2), ["a", entry])


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"loss": "triplet"}, "loss"),
        ({"loss": RankingLoss(margin=-1)}, "margin"),
        ({"loss": InfoNCELoss(temperature=0)}, "temperature"),
        ({"instance_loss": 1.0}, "instance_loss"),
        ({"instance_loss": InstanceLoss(dropout=1.0)}, "dropout"),
        ({"n_components": 0}, "n_components"),
        ({"text_encoder": "gru"}, "text_encoder"),
        ({"dropout": 1.0}, "dropout"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(data, parameters, named):
    with pytest.raises(ValueError, match=named):
        JointEmbeddingRanker(**parameters).fit(*data)


def test_features_of_another_width_are_refused(fitted):
    with pytest.raises(ValueError, match="12 features"):
        fitted.transform(np.zeros((2, 3)))


def test_groups_of_another_length_are_refused(data):
    with pytest.raises(ValueError, match="groups must hold one entry for each of the 96 rows, got 2"):
        JointEmbeddingRanker(**FAST).fit(*data, groups=[0, 1])


def test_an_encoder_that_skips_images_is_told_from_a_mismatch(data):
    features, captions = data
    skipping = FunctionTransformer(_skip_first)
    with pytest.raises(ValueError, match="got 95 rows for 96"):
        JointEmbeddingRanker(image_encoder=skipping, **FAST).fit(features, captions)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_an_encoder_that_gives_no_numbers_is_named_with_the_rows(data, make):
    def broken(X):
        X = X.copy()
        X[3, 1], X[40, 0] = np.nan, np.inf
        return make(X)

    encoder = FunctionTransformer(broken)
    with pytest.raises(ValueError, match="what FunctionTransformer gave holds NaN, .* in 2 of 96 rows: 3, 40; mend"):
        JointEmbeddingRanker(image_encoder=encoder, **FAST).fit(*data)


def test_an_encoder_that_gives_no_matrix_is_named(data):
    encoder = FunctionTransformer(lambda texts: np.array([len(text) for text in texts]))
    with pytest.raises(ValueError, match=r"matrix of features from FunctionTransformer.* \(192,\)"):
        JointEmbeddingRanker(encoder, **FAST).fit(*data)


def test_chance_in_a_frozen_encoder_is_the_rankers(data):
    encoder = make_pipeline(TfidfVectorizer(), TruncatedSVD(6))
    ranker = JointEmbeddingRanker(encoder, TruncatedSVD(4), **FAST)
    first, second = (clone(ranker).fit(*data) for _ in range(2))
    np.testing.assert_array_equal(first.transform(data[0]), second.transform(data[0]))
    np.testing.assert_array_equal(first.transform_text(["a red dot"]), second.transform_text(["a red dot"]))
    assert encoder[-1].random_state is None
    given = JointEmbeddingRanker(image_encoder=TruncatedSVD(4, random_state=7), **FAST).fit(*data)
    assert given.image_encoder_.random_state == 7


def _skip_first(X):
    return X[1:]


def test_divergence_is_an_error_not_a_model(data):
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        JointEmbeddingRanker(**{**FAST, "optimizer": "sgd", "learning_rate": 1e38, "loss": "ranking"}).fit(*data)


def test_scores_of_folds_are_refused_with_the_way_out(data):
    with pytest.raises(AttributeError, match="gallery_texts_, which differ from fold to fold; ask cross_val_predict"):
        features, captions = data
        first = [own if isinstance(own, str) else own[0] for own in captions]
        cross_val_predict(JointEmbeddingRanker(**FAST), features, first, cv=2, method="decision_function")
    assert not hasattr(JointEmbeddingRanker(), "classes_")


def test_a_frozen_encoder_of_ours_is_not_trained(data):
    features, captions = data
    texts = [text for own in captions for text in own]
    encoder = TextNGramEncoder(n_components=8, word_dim=8, max_epochs=1, random_state=0)
    before = encoder.fit(texts, y=np.repeat(np.arange(len(features)), 2)).transform(texts)
    ranker = JointEmbeddingRanker(FrozenEstimator(encoder), **FAST).fit(features, captions)
    np.testing.assert_array_equal(ranker.text_encoder_.transform(texts), before)
