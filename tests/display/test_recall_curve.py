import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mm.display import RecallCurveDisplay
from sklearn_mm.metrics import RetrievalScorer, retrieval_report
from tests import reference
from tests.metrics.linear_ranker import LinearRanker


@pytest.fixture
def embedded():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(30, 6))
    owner = np.concatenate([np.arange(30), rng.integers(0, 30, 40)])
    return images, images[owner] + 1.5 * rng.normal(size=(70, 6)), owner


@pytest.mark.parametrize("definition", ["hit", "recall"])
def test_curves_are_the_numbers_of_the_report(embedded, definition):
    display = RecallCurveDisplay.from_predictions(*embedded, max_k=20, definition=definition)
    report = retrieval_report(*embedded, k=range(1, 21), definition=definition)
    for direction in ("i2t", "t2i"):
        drawn = display.lines_[direction].get_xydata()
        assert drawn[:, 0].tolist() == list(range(1, 21))
        assert drawn[:, 1] == pytest.approx([report[f"{direction}_{definition}@{k}"] for k in range(1, 21)])
    assert display.axes_[0].get_ylabel() == f"{definition}@k"
    assert display.axes_[0].get_xticks()[0] == 1


@pytest.mark.parametrize("definition", ["hit", "recall"])
def test_chance_is_what_a_constant_model_scores(embedded, definition):
    images, texts, owner = embedded
    display = RecallCurveDisplay.from_predictions(images, texts, owner, max_k=100, definition=definition)
    constant = RecallCurveDisplay.from_predictions(
        np.ones_like(images), np.ones_like(texts), owner, max_k=100, definition=definition
    )
    for direction in ("i2t", "t2i"):
        np.testing.assert_allclose(display.chance[direction], constant.curves[direction], atol=1e-12)
    if definition == "hit":
        n_texts_of = np.bincount(owner)
        truth = [float(reference.chance_of_hit(70, int(n), 5)) for n in n_texts_of]
        assert display.chance["i2t"][4] == pytest.approx(np.mean(truth))


def test_curves_end_where_the_galleries_do(embedded):
    display = RecallCurveDisplay.from_predictions(*embedded, max_k=1000)
    assert len(display.curves["i2t"]) == len(display.curves["t2i"]) == 70
    assert display.curves["t2i"][29:].tolist() == [1.0] * 41


def test_one_image_and_one_text_draw_too():
    display = RecallCurveDisplay.from_predictions([[1.0]], [[1.0]], [0])
    display.figure_.canvas.draw()
    assert display.curves["i2t"].tolist() == [1.0]


def test_an_estimator_is_drawn_as_its_scorer_scores_it():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(25, 5))
    y = [[f"w{np.argmax(row)} w{np.argmin(row)}"] for row in X]
    pipe = make_pipeline(StandardScaler(), LinearRanker(similarity="order")).fit(X, y)
    _, ax = plt.subplots()
    display = RecallCurveDisplay.from_estimator(pipe, X, y, max_k=10, ax=ax)
    scores = RetrievalScorer()(pipe, X, y)
    for k in (1, 5, 10):
        assert display.curves["i2t"][k - 1] == pytest.approx(scores[f"i2t_hit@{k}"])
        assert display.curves["t2i"][k - 1] == pytest.approx(scores[f"t2i_hit@{k}"])
    assert display.axes_[0] is ax
    assert display.figure_ is ax.figure


def test_parameters_are_checked(embedded):
    with pytest.raises(ValueError, match="k must be a positive int, got 0"):
        RecallCurveDisplay.from_predictions(*embedded, max_k=0)
    with pytest.raises(ValueError, match="definition must be"):
        RecallCurveDisplay.from_predictions(*embedded, definition="precision")
    with pytest.raises(TypeError, match="transform_text"):
        RecallCurveDisplay.from_estimator(StandardScaler(), [[1.0]], ["a"])
