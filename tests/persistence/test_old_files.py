"""Models that an earlier version wrote open, and answer as they did.

The files in fixtures/ were written by format 1 of `save` and by joblib at version 0.1.0.dev0, from drawn scenes: a
pipeline of

    FullNetworkEmbedding("squeezenet1_1", weights=None, image_size=32, layers=2)
    JointEmbeddingRanker(
        TextNGramEncoder(n_components=8, word_dim=8), n_components=8, loss="ranking", margin=0.3, negatives="hardest",
        instance_weight=(1.0, 0.1), max_epochs=8, batch_size=8,
    )

and, of features and columns of tags, and of the features alone,

    MultiLabelAnnotator(
        tag_features=slice(16, None), hidden_layer_sizes=(4,), tag_hidden_layer_sizes=(4,),
        count_hidden_layer_sizes=(4,), loss="asymmetric", count_loss="regression", calibrate=True, max_epochs=25,
    )
    LabelCountPredictor("regression", count_hidden_layer_sizes=(4,), max_epochs=25)

They are not to be written again: that they are old is what they are for.
"""

from pathlib import Path

import joblib
import numpy as np
import pytest

from sklearn_mm.persistence import load

FIXTURES = Path(__file__).parent / "fixtures"
N_FEATURES = 16  # in front of the tags
TOLERANCE = 1e-5  # another CPU rounds float32 otherwise; nothing is trained

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.VersionMismatchWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning"),  # of the Pipeline's pickle
]


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "expected.npz") as file:
        return dict(file)


def opened(name):
    return joblib.load(FIXTURES / name) if name.endswith(".joblib") else load(FIXTURES / name)


def assert_close(value, expected):
    np.testing.assert_allclose(value, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["ranker", "ranker.joblib"])
def test_an_old_ranker_embeds_and_finds_as_it_did(name, expected):
    pipeline = opened(name)
    ranker, texts = pipeline["ranker"], expected["texts"].tolist()
    # Of the scenes drawn, these pictures have the activations that are farthest from a threshold.
    np.testing.assert_array_equal(pipeline["features"].transform(expected["pictures"]), expected["features"])
    assert_close(pipeline.transform(expected["pictures"]), expected["images"])
    assert_close(ranker.transform_text(texts), expected["sentences"])
    scores, found = ranker.search_images(texts, k=3)
    assert_close(scores, expected["image_scores"])
    np.testing.assert_array_equal(found, expected["images_found"])
    scores, found = ranker.search_texts(expected["features"], k=3)
    assert_close(scores, expected["text_scores"])
    np.testing.assert_array_equal(found, expected["texts_found"])
    assert pipeline.predict(expected["pictures"]).tolist() == expected["captions"].tolist()


@pytest.mark.parametrize("name", ["annotator", "annotator.joblib"])
def test_an_old_annotator_labels_as_it_did(name, expected):
    annotator, X = opened(name), expected["X"]
    assert_close(annotator.decision_function(X), expected["label_scores"])
    assert_close(annotator.predict_proba(X), expected["probabilities"])
    np.testing.assert_array_equal(annotator.predict_count(X), expected["label_counts"])
    assert [" ".join(own) for own in annotator.predict(X)] == expected["labels"].tolist()


def test_an_old_count_predictor_counts_as_it_did(expected):
    counts = opened("count_predictor").predict(expected["X"][:, :N_FEATURES])
    np.testing.assert_array_equal(counts, expected["counts"])
