"""Annotators across processes: killed and started again, opened where nothing of this one is known."""

import signal

import joblib
import numpy as np
import pytest
import torch
from PIL import Image

from sklearn_mm.annotation import LabelCountPredictor, MultiLabelAnnotator, make_annotation_pipeline
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.persistence import save

SETTINGS = {
    MultiLabelAnnotator: {
        "hidden_layer_sizes": (16,),
        "label_count": LabelCountPredictor(hidden_layer_sizes=(16,)),
        "max_epochs": 6,
        "batch_size": 16,
        "n_folds": 2,
        "random_state": 0,
        "device": "cpu",
        "precision": "float32",  # as the other process may have bfloat16 for "auto"
        "n_jobs": 1,
    },
    LabelCountPredictor: {
        "hidden_layer_sizes": (16,),
        "max_epochs": 6,
        "batch_size": 16,
        "random_state": 0,
        "device": "cpu",
        "precision": "float32",  # as the other process may have bfloat16 for "auto"
        "n_jobs": 1,
    },
}
KILLED = """
    import os, signal, sys
    from pathlib import Path
    import joblib
    from sklearn_mm.training._checkpoint import Checkpoint

    folder, n_files = Path(sys.argv[1]), int(sys.argv[2])
    save = Checkpoint.save

    def save_and_end(self, state):
        save(self, state)
        if len(list((folder / "run").glob("*.pt"))) == n_files and state["n_done"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoint.save = save_and_end
    estimator, X, Y = joblib.load(folder / "job")
    estimator.fit(X, Y)
"""


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 4)) < rng.random((200, 1))).astype(np.int64)
    return (truth + rng.normal(0, 0.3, truth.shape)).astype(np.float32), truth


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no such signal")
@pytest.mark.parametrize(
    ("kind", "n_files"),
    [(MultiLabelAnnotator, 1), (MultiLabelAnnotator, 3), (LabelCountPredictor, 1)],
    ids=["in the first fold", "in the final network", "counts"],
)
def test_a_fit_that_is_killed_goes_on_to_the_same_bits(kind, n_files, data, tmp_path, forked):
    estimator = kind(**SETTINGS[kind], checkpoint=str(tmp_path / "run"))
    joblib.dump((estimator, *data), tmp_path / "job")
    status, output = forked(KILLED, tmp_path, n_files)
    assert status == [-signal.SIGKILL], output
    assert len(list((tmp_path / "run").glob("*.pt"))) == n_files
    resumed = estimator.fit(*data)
    whole = kind(**SETTINGS[kind]).fit(*data)
    for name, value in whole.network_.state_dict().items():
        assert torch.equal(resumed.network_.state_dict()[name], value), name
    np.testing.assert_array_equal(resumed.predict(data[0]), whole.predict(data[0]))
    losses = [[record["train_loss"] for record in each.history_] for each in (resumed, whole)]
    assert losses[0] == losses[1]


OPEN = """
    import sys, warnings
    from pathlib import Path

    warnings.simplefilter("error")
    folder = Path(sys.argv[1])
    import joblib
    from sklearn_mm.persistence import load
    models = {"joblib": joblib.load(folder / "model.joblib"), "folder": load(folder / "model")}

    frame = joblib.load(folder / "frame.joblib")
    answers = {}
    for form, model in models.items():
        answers[form] = model.predict(frame), model.predict_proba(frame), model[-1].history_[-1]["epoch"]
    joblib.dump(answers, folder / "answers.joblib")
"""


@pytest.mark.slow
def test_a_pipeline_of_pictures_and_tags_answers_as_before_in_another_process(shapes, tmp_path, forked):
    pandas = pytest.importorskip("pandas")
    paths = []
    for row, pixels in enumerate(shapes.images):
        paths.append(str(tmp_path / f"{row:02d}.png"))
        Image.fromarray(pixels).save(paths[-1])
    tags = [own[0].split()[:2] for own in shapes.captions]
    frame = pandas.DataFrame({"image": paths, "tags": tags})
    embedding = FullNetworkEmbedding("squeezenet1_1", weights=None, image_size=32, layers=2, precision="float32")
    annotator = MultiLabelAnnotator(
        hidden_layer_sizes=(16,), max_epochs=3, random_state=0, calibrate=True, precision="float32"
    )
    model = make_annotation_pipeline(annotator, image_encoder=embedding).fit(frame, shapes.tags)
    joblib.dump(model, tmp_path / "model.joblib")
    save(model, tmp_path / "model")
    joblib.dump(frame, tmp_path / "frame.joblib")
    status, output = forked(OPEN, tmp_path)
    assert status == [0], output
    for predicted, probability, n_epochs in joblib.load(tmp_path / "answers.joblib").values():
        assert predicted.tolist() == model.predict(frame).tolist()
        np.testing.assert_array_equal(probability, model.predict_proba(frame))
        assert n_epochs == model[-1].n_epochs_
