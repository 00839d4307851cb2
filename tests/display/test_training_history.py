import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mm.display import TrainingHistoryDisplay
from tests.metrics.linear_ranker import LinearRanker

HISTORY = [
    {"epoch": 1, "train_loss": 3.0, "val_rsum": 100.0, "learning_rate": 0.1, "seconds": 2.0},
    {"epoch": 2, "train_loss": 2.0, "val_rsum": 150.0, "learning_rate": 0.1, "seconds": 2.0},
    {"epoch": 3, "train_loss": 1.5, "val_rsum": 140.0, "learning_rate": 0.1, "seconds": 2.0},
]


def _lines(ax):
    return {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}


def test_losses_and_scores_have_a_panel_each():
    display = TrainingHistoryDisplay.from_history(HISTORY)
    loss, rsum = display.axes_
    assert (loss.get_ylabel(), rsum.get_ylabel()) == ("loss", "rsum")
    assert _lines(loss)["training"] == [[1, 3], [2, 2], [3, 1.5]]
    assert _lines(rsum)["validation"] == [[1, 100], [2, 150], [3, 140]]


def test_the_best_epoch_is_marked():
    display = TrainingHistoryDisplay.from_history(HISTORY)
    assert _lines(display.axes_[1])["best: 150 in epoch 2"] == [[2, 150]]
    assert not any(label.startswith("best") for label in _lines(display.axes_[0]))


def test_without_validation_there_is_one_panel():
    display = TrainingHistoryDisplay.from_history([{"epoch": 1, "train_loss": 1.0}])
    assert len(display.axes_) == 1
    display.figure_.canvas.draw()


def test_training_and_validation_share_the_panel_of_a_quantity():
    history = [{"epoch": e, "train_loss": 1 / e, "val_loss": 2 / e, "val_hit_at_1": e / 9} for e in range(1, 4)]
    loss, hit = TrainingHistoryDisplay.from_history(history).axes_
    assert set(_lines(loss)) == {"training", "validation"}
    assert hit.get_ylabel() == "hit at 1"


def test_epochs_without_a_number_are_passed_over():
    history = [*HISTORY, {"epoch": 4, "train_loss": np.nan}, {"epoch": 5, "train_loss": 1.0, "val_rsum": None}]
    display = TrainingHistoryDisplay.from_history(history)
    assert len(_lines(display.axes_[1])["validation"]) == 3
    display.figure_.canvas.draw()


def test_the_history_is_found_in_a_pipeline():
    ranker = LinearRanker()
    ranker.history_ = HISTORY
    _, axes = plt.subplots(2, 1)
    display = TrainingHistoryDisplay.from_estimator(make_pipeline(StandardScaler(), ranker), axes=axes)
    assert display.history is HISTORY
    assert list(display.axes_) == list(axes)
    assert display.figure_ is axes[0].figure


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(TypeError, match="fitted estimator with a history_.*LinearRanker"):
        TrainingHistoryDisplay.from_estimator(LinearRanker())
    for history in ([], [{"epoch": 1, "seconds": 2.0}]):
        with pytest.raises(ValueError, match="no numbers named 'train_...' or 'val_...'"):
            TrainingHistoryDisplay.from_history(history)
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="one panel for each of loss, rsum, got 1 axes"):
        TrainingHistoryDisplay.from_history(HISTORY, axes=ax)
