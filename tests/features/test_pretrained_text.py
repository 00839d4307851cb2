"""Texts by pretrained models: as they are, with adapters and learning as a whole, alone and inside of a ranker."""

import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold

pytest.importorskip("transformers")
pytest.importorskip("peft")

from sklearn_mm.exceptions import TruncationWarning, WeightsError
from sklearn_mm.features import PretrainedTextEncoder
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.persistence import load, save
from sklearn_mm.retrieval import JointEmbeddingRanker
from tests.tiny_models import write_bert

CLOSE = 1e-5  # float32, in batches of other lengths
CAPTIONS = [f"a {colour} {thing}" for colour in ("red", "green", "blue") for thing in ("dot", "box")] * 4
FEATURES = np.tile(np.eye(6, dtype=np.float32), (4, 1)) + np.random.default_rng(0).normal(0, 0.1, (24, 6)).astype("f4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


def encoder(folder, **parameters):
    return PretrainedTextEncoder(folder, random_state=0, precision="float32", **parameters)


def ranker(folder, trainable, **parameters):
    settings = {"n_components": 8, "batch_size": 8, "max_epochs": 3, "dropout": 0.0, "learning_rate": 0.01}
    text_encoder = encoder(folder, trainable=trainable, backbone_learning_rate=1.0)
    return JointEmbeddingRanker(text_encoder, random_state=0, precision="float32", **{**settings, **parameters})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of sentence-transformers
def test_vectors_are_those_of_sentence_transformers_in_the_order_of_the_texts(folder):
    library = pytest.importorskip("sentence_transformers")
    texts = ["two blue dots in the box", "dog", "a red square", "dog", *CAPTIONS]
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(encoder(folder).fit(texts).transform(texts), expected, atol=CLOSE)


def test_a_frozen_encoder_embeds_each_text_once(folder, monkeypatch):
    seen = []
    original = PretrainedTextEncoder.collate

    def counted(self, rows, rng=None):
        seen.append(len(rows))
        return original(self, rows, rng)

    monkeypatch.setattr(PretrainedTextEncoder, "collate", counted)
    ranker(folder, "none").fit(FEATURES, CAPTIONS)
    assert sum(seen) == len(set(CAPTIONS))


@pytest.mark.parametrize("trainable", ["none", "lora", "all"])
def test_only_what_is_said_to_learn_is_changed_by_a_ranker(folder, trainable):
    fitted = ranker(folder, trainable).fit(FEATURES, CAPTIONS).text_encoder_
    before = encoder(folder).fit(CAPTIONS).module_.state_dict()
    after = {name.replace(".base_layer", ""): value for name, value in fitted.module_.state_dict().items()}
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    adapters = {name: value for name, value in after.items() if ".lora_B" in name}
    assert bool(changed) == (trainable == "all")
    assert all(bool(value.any()) for value in adapters.values())
    assert len(adapters) == (12 if trainable == "lora" else 0)
    assert np.abs(fitted.transform(CAPTIONS) - encoder(folder).fit_transform(CAPTIONS)).max() > 0.01 or (
        trainable == "none"
    )


@pytest.mark.parametrize("trainable", ["none", "lora", "all"])
def test_a_ranker_learns_which_text_is_of_which_image(folder, trainable):
    fitted = ranker(folder, trainable, max_epochs=25, learning_rate=0.003).fit(FEATURES, CAPTIONS)
    assert np.mean(fitted.predict(FEATURES) == np.array(CAPTIONS)) > 0.9  # by chance 1 in 6


@pytest.mark.parametrize(("trainable", "was_used"), [("lora", True), ("lora", False), ("all", False)])
def test_a_warm_start_lets_a_model_learn_that_held_still(folder, trainable, was_used):
    heads_alone = ranker(folder, "none").fit(FEATURES, CAPTIONS)
    before = heads_alone.transform_text(CAPTIONS)
    opened = pickle.loads(pickle.dumps(heads_alone))
    if was_used:  # or its files are not read yet when it goes on
        np.testing.assert_array_equal(opened.transform_text(CAPTIONS), before)
    opened.set_params(warm_start=True, text_encoder__trainable=trainable, max_epochs=1, learning_rate=1e-9)
    at_first = opened.fit(FEATURES, CAPTIONS).transform_text(CAPTIONS)
    np.testing.assert_allclose(at_first, before, atol=1e-4)  # the heads of before, on the model as it came
    learnt = opened.set_params(learning_rate=0.01).fit(FEATURES, CAPTIONS)
    as_it_came = encoder(folder).fit_transform(CAPTIONS)
    assert np.abs(learnt.text_encoder_.transform(CAPTIONS) - as_it_came).max() > 0.01
    again = pickle.loads(pickle.dumps(learnt))
    np.testing.assert_array_equal(again.transform_text(CAPTIONS), learnt.transform_text(CAPTIONS))


def test_partial_fit_goes_on_with_a_model_that_held_still(folder):
    fitted = ranker(folder, "none").partial_fit(FEATURES, CAPTIONS)
    fitted.set_params(text_encoder__trainable="lora").partial_fit(FEATURES, CAPTIONS)
    as_it_came = encoder(folder).fit_transform(CAPTIONS)
    assert np.abs(fitted.text_encoder_.transform(CAPTIONS) - as_it_came).max() > 1e-3


def test_a_model_that_learnt_in_one_way_is_not_taken_further_in_another(folder):
    fitted = ranker(folder, "lora", warm_start=True).fit(FEATURES, CAPTIONS)
    with pytest.raises(ValueError, match="trainable='lora', as this PretrainedTextEncoder was trained, got 'all'"):
        fitted.set_params(text_encoder__trainable="all").fit(FEATURES, CAPTIONS)


@pytest.mark.parametrize("trainable", ["none", "lora", "all"])
@pytest.mark.parametrize("how", ["pickle", "folder"])
def test_what_was_trained_comes_back(folder, tmp_path, trainable, how):
    fitted = ranker(folder, trainable).fit(FEATURES, CAPTIONS)
    if how == "pickle":
        opened = pickle.loads(pickle.dumps(fitted))
    else:
        save(fitted, tmp_path / "model")
        opened = load(tmp_path / "model")
    np.testing.assert_array_equal(opened.transform_text(CAPTIONS), fitted.transform_text(CAPTIONS))
    again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(fitted))))  # of one that was never used in between
    np.testing.assert_array_equal(again.transform_text(CAPTIONS), fitted.transform_text(CAPTIONS))


def test_weights_that_stayed_as_they_came_do_not_travel(folder):
    whole, adapters, frozen = (
        len(pickle.dumps(encoder(folder, trainable=trainable, lora_rank=1).fit(CAPTIONS)))
        for trainable in ("all", "lora", "none")
    )
    weights = sum(value.nbytes for value in encoder(folder).fit(CAPTIONS).module_.state_dict().values())
    assert whole > weights
    assert frozen < 4000
    assert frozen < adapters < whole / 2  # each tensor has a few hundred bytes of its own in a pickle


def test_a_model_trained_as_a_whole_needs_no_folder_any_more(tmp_path):
    folder = write_bert(tmp_path / "bert")
    fitted = encoder(folder, trainable="all", max_epochs=1).fit(CAPTIONS, np.arange(24) % 6)
    pickled, expected = pickle.dumps(fitted), fitted.transform(CAPTIONS)
    shutil.rmtree(folder)
    np.testing.assert_array_equal(pickle.loads(pickled).transform(CAPTIONS), expected)


@pytest.mark.parametrize("trainable", ["none", "lora"])
def test_a_model_that_is_elsewhere_is_asked_for_and_one_that_changed_is_refused(tmp_path, trainable):
    folder = write_bert(tmp_path / "bert")
    fitted = encoder(folder, trainable=trainable, max_epochs=1).fit(CAPTIONS, np.arange(24) % 6)
    pickled, expected = pickle.dumps(fitted), fitted.transform(CAPTIONS)
    folder.rename(tmp_path / "moved")
    with pytest.raises(WeightsError, match=r"there is no folder.*set_params\(model=\.\.\.\)"):
        pickle.loads(pickled).transform(CAPTIONS)
    found = pickle.loads(pickled).set_params(model=tmp_path / "moved")
    np.testing.assert_array_equal(found.transform(CAPTIONS), expected)
    write_bert(folder, seed=1)
    with pytest.raises(WeightsError, match="is not the model that this PretrainedTextEncoder was fitted with"):
        pickle.loads(pickled).transform(CAPTIONS)


@pytest.mark.parametrize("trainable", ["lora", "all"])
def test_a_ranker_that_was_stopped_goes_on_to_the_same_weights(folder, tmp_path, trainable):
    whole = ranker(folder, trainable, checkpoint=tmp_path / "whole").fit(FEATURES, CAPTIONS)

    class Killed(Exception):
        pass

    stopped = ranker(folder, trainable, checkpoint=tmp_path / "stopped")
    keep, n_epochs = JointEmbeddingRanker._keep_history, []

    def kill(self, history):
        keep(self, history)
        n_epochs.append(len(history))
        if len(history) == 2 and n_epochs.count(2) == 1:
            raise Killed

    JointEmbeddingRanker._keep_history = kill
    try:
        with pytest.raises(Killed):
            stopped.fit(FEATURES, CAPTIONS)
        stopped.fit(FEATURES, CAPTIONS)
    finally:
        JointEmbeddingRanker._keep_history = keep
    np.testing.assert_array_equal(stopped.transform_text(CAPTIONS), whole.transform_text(CAPTIONS))


def test_a_grid_search_tries_what_of_the_model_learns(folder):
    search = GridSearchCV(
        ranker(folder, "none", max_epochs=1),
        {"text_encoder__trainable": ["none", "lora", "all"]},
        scoring=RetrievalScorer(),
        refit="rsum",
        cv=KFold(2),
        error_score="raise",
    ).fit(FEATURES, CAPTIONS)
    assert len(set(search.cv_results_["mean_test_rsum"])) > 1
    assert search.predict(FEATURES[:2]).shape == (2,)


def test_texts_that_are_cut_are_named_by_their_rows(folder):
    fitted = encoder(folder, max_length=6).fit(CAPTIONS)
    with pytest.warns(TruncationWarning, match=r"1 of 2 texts have more tokens than the 6 .*: rows 1;"):
        fitted.transform(["a red dog", "a red dog runs in the box"])


def test_fit_alone_brings_texts_of_one_instance_together(folder):
    texts = ["a red dot", "the dot in red", "two blue boxs", "blue boxs"] * 4
    frozen = encoder(folder).fit(texts, [0, 0, 1, 1] * 4)
    assert frozen.history_ == []
    trained = encoder(folder, trainable="all", max_epochs=30, batch_size=4, backbone_learning_rate=5.0)
    trained.fit(texts, [0, 0, 1, 1] * 4)

    def gap(answer):
        return answer[0] @ answer[1] - answer[0] @ answer[2]

    assert gap(trained.transform(texts[:4])) > gap(frozen.transform(texts[:4])) + 0.1


def test_clones_carry_nothing_and_parameters_are_checked(folder):
    fitted = encoder(folder).fit(CAPTIONS)
    assert not hasattr(clone(fitted), "identity_")
    assert fitted.trained_on_ is None
    assert fitted.get_feature_names_out()[0] == "pretrainedtextencoder0"
    with pytest.raises(ValueError, match="'trainable' parameter"):
        encoder(folder, trainable="some").fit(CAPTIONS)
    with pytest.raises(ValueError, match="expected at least one text"):
        encoder(folder).fit([])


@pytest.mark.slow
def test_a_fresh_process_answers_alike_and_nothing_warns_of_forks(folder, tmp_path, forked):
    fitted = ranker(folder, "lora").fit(FEATURES, CAPTIONS)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(fitted))
    np.save(tmp_path / "expected.npy", fitted.transform_text(CAPTIONS))
    code = (
        "import os, pickle, sys, numpy as np\n"
        "folder = sys.argv[1]\n"
        "ranker = pickle.load(open(folder + '/model.pickle', 'rb'))\n"
        f"texts = {CAPTIONS!r}\n"
        "np.testing.assert_array_equal(ranker.transform_text(texts), np.load(folder + '/expected.npy'))\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if len(ranker.text_encoder_.prepare(texts)) == len(texts) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    status, (output,) = forked(code, tmp_path)
    assert status == [0], output
    assert "parallelism" not in output


def test_threads_get_the_same_vectors(folder):
    from concurrent.futures import ThreadPoolExecutor

    fitted = encoder(folder).fit(CAPTIONS)
    opened = pickle.loads(pickle.dumps(fitted))
    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(opened.transform, [CAPTIONS] * 8))
    for answer in answers:
        np.testing.assert_array_equal(answer, fitted.transform(CAPTIONS))
