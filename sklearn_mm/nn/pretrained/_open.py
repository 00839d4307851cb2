"""Which kind of model a name or a folder is, and opening it."""

import os

from sklearn_mm.nn.pretrained._dual import is_dual_encoder, open_dual_text
from sklearn_mm.nn.pretrained._files import find_model
from sklearn_mm.nn.pretrained._model import OpenedModel
from sklearn_mm.nn.pretrained._sentence import open_sentence_model

__all__ = ["open_text_model"]


def open_text_model(
    model: str | os.PathLike[str],
    *,
    pooling: str = "auto",
    prompt: str | None = "auto",
    max_length: int | None = None,
    local_files_only: bool = True,
    revision: str | None = None,
) -> OpenedModel:
    """Open a sentence encoder, or the text tower of a dual encoder, with the weights that it came with.

    Parameters
    ----------
    model : str or path-like
        A folder, or a name on the hub.
    pooling : {"auto", "mean", "cls", "max", "last"}, default="auto"
        How a sentence encoder makes a vector of its tokens'; "auto" as its files say.
    prompt : str or None, default="auto"
        What stands before each text; "auto" is what its files say, None nothing.
    max_length : int, optional
        Tokens of a text at most; None for the model's own limit.
    local_files_only : bool, default=True
        Download nothing.
    revision : str, optional
        A branch, a tag or a commit of a name on the hub.

    Raises
    ------
    WeightsError
        The files are not to be had, or hold no such model.
    ValueError
        The model is of a kind that is not known, or the parameters do not suit it.
    ImportError
        Its library is not installed.
    """
    folder = find_model(model, local_files_only=local_files_only, revision=revision)
    if is_dual_encoder(folder):
        return open_dual_text(folder, name=str(model), prompt=prompt, max_length=max_length)
    return open_sentence_model(folder, name=str(model), pooling=pooling, prompt=prompt, max_length=max_length)
