"""What every encoder that trains can do on its own."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import ImageCNNEncoder, TextCNNEncoder, TextNGramEncoder
from sklearn_mm.retrieval import JointEmbeddingRanker
from sklearn_mm.towers import TrainableEncoder
from sklearn_mm.towers._trainable import _split, as_instances

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = [
    f"{colour} {shape}{extra}"
    for colour in ("red", "green", "blue")
    for shape in ("dot", "box")
    for extra in ("", " here", " on paper", " again")
]
KIND = [i // 4 for i in range(24)]
N_BATCHES = 4  # of an epoch, of six rows each


class LetterEncoder(TrainableEncoder):
    """Texts by the number of their letters: an encoder as somebody else would write it."""

    def __init__(self, n_components=8, max_epochs=5, early_stopping=False, random_state=0, checkpoint=None):
        self.n_components = n_components
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.random_state = random_state
        self.checkpoint = checkpoint

    batch_size = 6

    def initialize(self, data, random_state=None):
        self.module_ = nn.Sequential(nn.Linear(26, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, self.n_components))
        return self

    def prepare(self, data):
        return np.array([[text.count(letter) for letter in LETTERS] for text in data], dtype=np.float32)

    def collate(self, rows, rng=None):
        noise = 0 if rng is None else rng.normal(0, 0.1, rows.shape)
        return torch.from_numpy((rows + noise).astype(np.float32))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


ENCODERS = {
    "letters": LetterEncoder(max_epochs=12),
    "n-grams": TextNGramEncoder(8, word_dim=8, dropout=0.2, max_epochs=12, batch_size=6, random_state=0),
    "convolutional": TextCNNEncoder(8, width=0.1, word_dim=8, max_epochs=4, batch_size=6, random_state=0),
    "pictures": ImageCNNEncoder(
        network(),
        image_size=16,
        fix_batch_norm=False,
        backbone_learning_rate=1.0,
        color_jitter=0.2,
        precision="float32",
        max_epochs=4,
        batch_size=6,
        random_state=0,
    ),
}


@pytest.fixture(scope="module")
def pictures():
    return make_captioned_shapes(24, image_size=16, random_state=0).images


@pytest.fixture(params=ENCODERS)
def encoder(request):
    return clone(ENCODERS[request.param])


@pytest.fixture
def data(encoder, pictures):
    return (pictures if isinstance(encoder, ImageCNNEncoder) else TEXTS), KIND


def weights(encoder):
    return {name: value.clone() for name, value in encoder.module_.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def without_seconds(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


class EveryEpoch:
    """A scikit-learn callback that looks at the encoder after each epoch, and stops after some."""

    def __init__(self, stop_after=None):
        self.stop_after, self.records, self.weights, self.names = stop_after, [], [], []

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context):
        self.names.append(context.task_name)

    def on_fit_task_end(self, estimator, context, *, metadata, fitted_estimator):
        if context.task_name != "epoch":
            return False
        self.records.append(metadata)
        self.weights.append(weights(fitted_estimator))
        return len(self.records) == self.stop_after


# Alone ----------------------------------------------------------------------------------------------------------------


def test_an_epoch_leaves_a_record_of_the_one_stage(encoder, data):
    history = encoder.fit(*data).history_
    assert [record["epoch"] for record in history] == list(range(1, encoder.max_epochs + 1))
    assert {record["stage"] for record in history} == {"instance"}
    assert set(history[0]) == {"epoch", "stage", "train_loss", "learning_rate", "seconds"}
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_what_was_fitted_is_ready_for_use_and_the_same_every_time(encoder, data):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = encoder.fit(*data).transform(data[0])
    assert torch.equal(torch.rand(1), expected)  # the global random state is left alone
    assert first.shape == (24, encoder.n_features_out)
    assert first.dtype == np.float32
    assert not any(part.training for part in encoder.module_.modules())
    np.testing.assert_array_equal(encoder.transform(data[0]), first)
    np.testing.assert_array_equal(clone(encoder).fit(*data).transform(data[0]), first)
    assert list(encoder.get_feature_names_out())[-1].endswith(str(encoder.n_features_out - 1))


def test_as_many_instances_as_rows_are_asked_for(encoder, data):
    with pytest.raises(ValueError, match="expected one instance for each row in y, got 2 for 24 rows"):
        encoder.fit(data[0], [0, 1])


def test_parameters_are_checked_before_anything_is_built(encoder, data):
    wrong = {"max_epochs": 0} if isinstance(encoder, LetterEncoder) else {"validation_fraction": 1.0}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        encoder.set_params(**wrong).fit(*data)
    assert not hasattr(encoder, "module_")


def test_lists_and_arrays_are_instances_too():
    assert as_instances([["a", "b"], ["a"], ["a", "b"]], 3).tolist() == [0, 1, 0]
    assert as_instances(np.array([[1, 2], [1, 2], [2, 1]]), 3).tolist() == [0, 0, 1]
    assert as_instances(["x", "y", "x", 3], 4).tolist() == [0, 1, 0, 2]


def test_an_encoder_says_what_it_needs():
    for call in (lambda e: e.initialize(TEXTS), lambda e: e.prepare(TEXTS), lambda e: e.collate(TEXTS)):
        with pytest.raises(NotImplementedError, match="TrainableEncoder does not say"):
            call(TrainableEncoder())
    with pytest.raises(NotFittedError):
        LetterEncoder().transform(TEXTS)


def test_what_holds_still_is_not_trained():
    class Frozen(LetterEncoder):
        def initialize(self, data, random_state=None):
            super().initialize(data, random_state)
            self.module_.requires_grad_(False)
            return self

    encoder = Frozen().fit(TEXTS, KIND)
    assert encoder.history_ == []
    assert encoder.transform(TEXTS).shape == (24, 8)


# Early stopping -------------------------------------------------------------------------------------------------------


def test_early_stopping_keeps_the_weights_that_named_most_instances(encoder, data):
    watching = EveryEpoch()
    encoder.set_params(early_stopping=True, max_epochs=40)
    if not isinstance(encoder, LetterEncoder):
        encoder.set_params(n_iter_no_change=3, validation_fraction=0.25)
    encoder.set_callbacks(watching).fit(*data)
    accuracy = [record["val_accuracy"] for record in encoder.history_]
    assert set(encoder.history_[0]) == {"epoch", "stage", "train_loss", "learning_rate", "seconds", "val_accuracy"}
    assert all(0 <= share <= 1 for share in accuracy)
    assert len(accuracy) < 40
    best = int(np.argmax(accuracy))
    assert best == len(accuracy) - 1 - encoder.n_iter_no_change
    assert_same(weights(encoder), watching.weights[best])
    assert not any(part.training for part in encoder.module_.modules())


def test_accuracy_is_the_share_of_held_out_rows_that_are_named_right():
    """Texts whose instance is their first word, learnt by heart: every one is named."""
    texts = [f"{word} {n}" for word in ("red", "green", "blue", "black") for n in range(10)]
    encoder = TextNGramEncoder(16, word_dim=16, early_stopping=True, validation_fraction=0.3, random_state=0)
    encoder.set_params(max_epochs=40, n_iter_no_change=40, learning_rate=1e-2, batch_size=8)
    accuracy = [record["val_accuracy"] for record in encoder.fit(texts, [i // 10 for i in range(40)]).history_]
    assert accuracy[-1] == 1.0
    assert all(abs(12 * share - round(12 * share)) < 1e-9 for share in accuracy)  # of twelve rows held out
    wrong = clone(encoder).fit(texts, [i % 10 for i in range(40)]).history_  # a number that training never shows again
    assert len(wrong) == 40


def test_no_two_rows_of_an_instance_leave_nothing_to_hold_out(encoder, data):
    encoder.set_params(early_stopping=True)
    with pytest.raises(ValueError, match="each row is the only one of its instance; give y with rows in common"):
        encoder.fit(data[0], range(24))


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_every_instance_is_learnt_from_and_about_a_fraction_held_out(fraction, seed):
    rng = np.random.default_rng(seed)
    instance = as_instances(rng.integers(6, size=40).tolist(), 40)
    learnt, held_out = _split(instance, fraction, rng)
    assert sorted([*learnt, *held_out]) == list(range(40))
    assert set(instance[learnt]) == set(instance)
    assert len(held_out) == min(max(1, round(fraction * 40)), 40 - len(set(instance)))


# Going on -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("early_stopping", "n_before"),
    [(False, 1), (True, N_BATCHES + 1), (False, 3 * N_BATCHES + 2), (True, 3 * N_BATCHES + 2)],
)
def test_a_fit_that_was_stopped_goes_on_to_the_same_bits(
    encoder, data, early_stopping, n_before, tmp_path, monkeypatch
):
    encoder.set_params(early_stopping=early_stopping)
    whole = clone(encoder).fit(*data)
    collate, n_drawn = type(encoder).collate, []

    def stopping(self, rows, rng=None):
        n_drawn.append(rng is not None)
        if sum(n_drawn) > n_before:
            raise KeyboardInterrupt
        return collate(self, rows, rng)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(encoder), "collate", stopping)
        clone(encoder).set_params(checkpoint=tmp_path).fit(*data)
    assert len(list(tmp_path.iterdir())) == (n_before > N_BATCHES)
    resumed = clone(encoder).set_params(checkpoint=tmp_path).fit(*data)
    assert len(list(tmp_path.iterdir())) == 1
    assert without_seconds(resumed.history_) == without_seconds(whole.history_)
    assert_same(weights(resumed), weights(whole))
    np.testing.assert_array_equal(resumed.transform(data[0]), whole.transform(data[0]))


def test_a_finished_fit_is_read_back_and_another_is_not(encoder, data, tmp_path, monkeypatch):
    encoder.set_params(checkpoint=tmp_path, random_state=None)  # None is a seed drawn from parameters and data
    first = clone(encoder).fit(*data)
    with monkeypatch.context() as patch:
        patch.setattr("sklearn_mm.towers._trainable._InstanceModel.forward", None)  # training would fail
        again = clone(encoder).fit(*data)
    assert_same(weights(again), weights(first))
    clone(encoder).set_params(max_epochs=1).fit(*data)
    clone(encoder).fit(data[0], [0, 1] * 12)
    clone(encoder).fit(data[0][:-1], data[1][:-1])
    assert len(list(tmp_path.iterdir())) == 4


# Callbacks ------------------------------------------------------------------------------------------------------------


def test_callbacks_see_every_epoch_and_may_stop(encoder, data):
    watching = EveryEpoch(stop_after=2)
    encoder.set_callbacks(watching).fit(*data)
    assert len(encoder.history_) == 2
    assert [record["epoch"] for record in watching.records] == [1, 2]
    assert watching.names.count("epoch") == 2
    assert_same(weights(encoder), watching.weights[-1])


# Inside of a ranker ---------------------------------------------------------------------------------------------------


def test_an_encoder_of_ones_own_is_trained_by_a_ranker():
    features = np.eye(6, dtype=np.float32)[KIND] + np.random.default_rng(0).normal(0, 0.1, (24, 6)).astype(np.float32)
    settings = {"n_components": 8, "max_epochs": 40, "batch_size": 12, "learning_rate": 5e-3, "random_state": 0}
    ranker = JointEmbeddingRanker(LetterEncoder(8), dropout=0.0, **settings).fit(features, TEXTS, groups=KIND)
    start = clone(ranker).set_params(learning_rate=1e-9).fit(features, TEXTS, groups=KIND)
    assert not torch.equal(ranker.text_encoder_.module_[0].weight, start.text_encoder_.module_[0].weight)
    kinds = np.array([text.rsplit(" ")[:2] for text in ranker.gallery_texts_])
    found = [tuple(kinds[row]) for row in ranker.search_texts(features, k=1)[1][:, 0]]
    assert np.mean([each == tuple(text.split()[:2]) for each, text in zip(found, TEXTS, strict=True)]) > 0.8
