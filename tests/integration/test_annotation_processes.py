"""Annotators across processes: killed and started again, opened where nothing of this one is known."""

import os
import signal
import subprocess
import sys
import textwrap
import time

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
        "max_epochs": 30,
        "batch_size": 16,
        "n_folds": 2,
        "random_state": 0,
        "device": "cpu",
        "precision": "float32",  # as the other process may have bfloat16 for "auto"
        "n_jobs": 1,
    },
    LabelCountPredictor: {
        "hidden_layer_sizes": (16,),
        "max_epochs": 60,
        "batch_size": 16,
        "random_state": 0,
        "device": "cpu",
        "precision": "float32",  # as the other process may have bfloat16 for "auto"
        "n_jobs": 1,
    },
}
SLOW = """
    import sys, time
    import joblib
    import sklearn_mm.training._checkpoint as checkpoint

    save = checkpoint.Checkpoint.save
    def save_slowly(self, state):
        save(self, state)
        time.sleep(0.05)  # so that the kill comes before the end
    checkpoint.Checkpoint.save = save_slowly

    estimator, X, Y = joblib.load(sys.argv[1])
    estimator.fit(X, Y)
"""


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 4)) < rng.random((200, 1))).astype(np.int64)
    return (truth + rng.normal(0, 0.3, truth.shape)).astype(np.float32), truth


def _wait_for_epochs(folder, process, n_files, n_epochs):
    """Wait until a run has saved so many epochs in the last of its files."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        files = sorted(folder.glob("*.pt"), key=lambda path: path.stat().st_mtime) if folder.exists() else []
        if len(files) >= n_files:
            saved = torch.load(files[-1], weights_only=True)["state"]
            if saved["stage"] > 0 or saved["n_done"] >= n_epochs:
                return
        time.sleep(0.01)
    raise AssertionError(f"no epochs to kill: exit code {process.poll()}")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no such signal")
@pytest.mark.parametrize(
    ("kind", "n_files"),
    [(MultiLabelAnnotator, 1), (MultiLabelAnnotator, 3), (LabelCountPredictor, 1)],
    ids=["in the first fold", "in the final network", "counts"],
)
def test_a_fit_that_is_killed_goes_on_to_the_same_bits(kind, n_files, data, tmp_path):
    estimator = kind(**SETTINGS[kind], checkpoint=str(tmp_path / "run"))
    joblib.dump((estimator, *data), tmp_path / "job")
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SLOW), str(tmp_path / "job")])
    try:
        _wait_for_epochs(tmp_path / "run", process, n_files, 3)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
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
    models = {"joblib": joblib.load(folder / "model.joblib")}  # nothing of the library was imported before
    from sklearn_mm.persistence import load
    models["folder"] = load(folder / "model")

    frame = joblib.load(folder / "frame.joblib")
    answers = {}
    for form, model in models.items():
        answers[form] = model.predict(frame), model.predict_proba(frame), model[-1].history_[-1]["epoch"]
    joblib.dump(answers, folder / "answers.joblib")
"""


@pytest.mark.slow
def test_a_pipeline_of_pictures_and_tags_answers_as_before_in_a_fresh_process(shapes, tmp_path):
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
    command = [sys.executable, "-c", textwrap.dedent(OPEN), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, cwd=tmp_path)
    for predicted, probability, n_epochs in joblib.load(tmp_path / "answers.joblib").values():
        assert predicted.tolist() == model.predict(frame).tolist()
        np.testing.assert_array_equal(probability, model.predict_proba(frame))
        assert n_epochs == model[-1].n_epochs_
