"""A model on disk opens in a process that has seen nothing of this one, and answers to the bit as before."""

import json
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.pipeline import make_pipeline

from sklearn_mm.features import FullNetworkEmbedding, TextNGramEncoder
from sklearn_mm.nn.backbones import build_backbone
from sklearn_mm.persistence import save
from sklearn_mm.retrieval import JointEmbeddingRanker

SENTENCES = ["a red circle", "a small blue square on a white background", "two green stars"]

OPEN = """
import json, sys, warnings
from pathlib import Path
import numpy as np

warnings.simplefilter("error")
unpickled = []
sys.addaudithook(lambda event, arguments: unpickled.append(arguments) if event == "pickle.find_class" else None)
folder, sentences = Path(sys.argv[1]), json.loads(sys.argv[2])

import joblib
models = {"joblib": joblib.load(folder / "model.joblib")}  # nothing of the library was imported before
assert unpickled
from sklearn_mm.persistence import load
unpickled.clear()
models["folder"] = load(folder / "model")
assert not unpickled, unpickled

pictures = sorted((folder / "pictures").glob("*.png"))
for form, model in models.items():
    scores, indices = model[-1].search_images(sentences, k=5, warn_unknown=False)
    np.savez(folder / f"{form}.npz", predicted=model.predict(pictures).astype(str), scores=scores, indices=indices,
             embedding=model.transform(pictures), n_epochs=len(model[-1].history_))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(shapes, folder):
    """Train a pipeline whose network has weights from a file, and save it in both forms; the file is gone then."""
    (folder / "pictures").mkdir()
    for row, pixels in enumerate(shapes.images[:12]):
        Image.fromarray(pixels).save(folder / "pictures" / f"{row:02d}.png")
    weights = folder / "weights.pt"
    torch.save(build_backbone("squeezenet1_1", None).module.state_dict(), weights)
    trained = make_pipeline(
        FullNetworkEmbedding("squeezenet1_1", weights=str(weights), image_size=32, layers=4, precision="float32"),
        JointEmbeddingRanker(
            TextNGramEncoder(n_components=16, word_dim=16),
            n_components=16,
            max_epochs=3,
            random_state=0,
            precision="float32",
        ),
    ).fit(shapes.images, shapes.captions)
    joblib.dump(trained, folder / "model.joblib")
    save(trained, folder / "model")
    weights.rename(folder / "moved.pt")
    return trained


def test_a_trained_pipeline_answers_to_the_bit_in_a_fresh_process(model, folder):
    command = [sys.executable, "-c", OPEN, str(folder), json.dumps(SENTENCES)]
    subprocess.run(command, check=True, timeout=300, cwd=folder)

    pictures = sorted((folder / "pictures").glob("*.png"))
    scores, indices = model[-1].search_images(SENTENCES, k=5, warn_unknown=False)
    expected = {
        "predicted": model.predict(pictures).astype(str),
        "scores": scores,
        "indices": indices,
        "embedding": model.transform(pictures),
        "n_epochs": len(model[-1].history_),
    }
    for form in ("joblib", "folder"):
        with np.load(folder / f"{form}.npz", allow_pickle=False) as answers:
            assert set(answers) == set(expected)
            for key, value in expected.items():
                np.testing.assert_array_equal(answers[key], value, err_msg=f"{key} after {form}")
