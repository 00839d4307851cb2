"""What a user gets wrong on the first day is answered with what to do."""

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.retrieval import CorrelationRanker, JointEmbeddingRanker

EMBEDDING = FullNetworkEmbedding("squeezenet1_1", weights=None, image_size=32, layers="last")


def test_a_frame_of_pictures_and_captions_is_to_be_passed_in_two():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"image": ["a.jpg", "b.jpg"], "caption": ["a dog", "a cat"]})
    for estimator in (EMBEDDING, CorrelationRanker()):
        with pytest.raises(ValueError, match=r"'image', 'caption' hold str; .*fit\(frame\['image'\].*load_folder"):
            estimator.fit(frame, frame.caption)
    with pytest.raises(ValueError, match="'caption' hold str"):
        CorrelationRanker().fit(frame.assign(image=[1.0, 2.0]), frame.caption)


def test_paths_where_features_belong_are_told_from_them():
    ranker = CorrelationRanker(n_components=2, regularization=1.0, random_state=0)
    ranker.fit(np.eye(4), ["a dog", "a cat", "a red box", "a star"])
    with pytest.raises(ValueError, match=r"begins with 'a.jpg'; .*model\[:-1\].transform\(pictures\)"):
        ranker.set_gallery(images=["a.jpg", "b.jpg"])


@pytest.mark.parametrize("ranker", [CorrelationRanker(), JointEmbeddingRanker()], ids=lambda one: type(one).__name__)
def test_parameters_of_an_encoder_that_is_none_cannot_be_set(ranker):
    with pytest.raises(ValueError, match=r"text_encoder__min_df cannot be set: text_encoder is None.*TfidfVectorizer"):
        make_pipeline(ranker).set_params(**{f"{type(ranker).__name__.lower()}__text_encoder__min_df": 2})
    with pytest.raises(ValueError, match="Invalid parameter 'txt_encoder'"):
        ranker.set_params(txt_encoder__min_df=2)


def test_a_missing_file_is_told_once_and_from_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = f"row 0 ('no.jpg'): no such file, looked for from {Path.cwd()}; mend or drop"
    with pytest.raises(ImageReadError, match=re.escape(message)):
        EMBEDDING.fit(["no.jpg"] * 3)


def test_captions_of_pictures_that_a_step_has_lost_are_no_groups_of_captions():
    with pytest.raises(ValueError, match=r"got 4 caption entries for 3 images; .*on_error='skip' .*find_unreadable"):
        CorrelationRanker().fit(np.eye(3), ["a", "b", "c", "d"])
