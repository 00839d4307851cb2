"""The files of a pretrained model: a local folder, or what a hub's cache on this machine holds of a name."""

import importlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sklearn_mm.exceptions import WeightsError

__all__ = ["find_files", "find_model", "import_optional", "quiet_loading", "read_json"]

# What a model consists of. No pickles, which may run code when they are opened, no code, no exports to other formats.
_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "README.md")
_OLD_PATTERNS = ("pytorch_model*.bin", "pytorch_model*.bin.index.json", "open_clip_pytorch_model.bin")
_NOT = ("onnx/*", "openvino/*", "coreml/*", "*.msgpack", "*.h5", "*.onnx")


def import_optional(library: str, extra: str = "hf") -> Any:
    """Import a library of an extra.

    Raises
    ------
    ImportError
        It is not installed; the message says how it is.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        name = library.partition(".")[0]
        raise ImportError(f"pretrained models need {name}; pip install 'sklearn-mm[{extra}]'") from error


def find_model(model: str | os.PathLike[str], *, local_files_only: bool = True, revision: str | None = None) -> Path:
    """Return the folder of a pretrained model.

    Parameters
    ----------
    model : str or path-like
        A folder, or a name on the hub such as "sentence-transformers/all-MiniLM-L6-v2", of which this machine's cache
        has the files.
    local_files_only : bool, default=True
        Look at this machine alone. Otherwise files that are missing are downloaded.
    revision : str, optional
        A branch, a tag or a commit of a name on the hub.

    Raises
    ------
    WeightsError
        The files are not to be had; the message says how they can be got.
    """
    folder = Path(model)
    if folder.is_dir():
        if not any(folder.glob("*.json")):
            raise WeightsError(f"the folder {str(folder)!r} holds no model: there is no config.json in it")
        return folder
    name = str(model)
    if folder.is_absolute() or name.startswith(".") or name.count("/") > 1 or (os.sep != "/" and os.sep in name):
        raise WeightsError(f"there is no folder {name!r}; give one that holds a model, or the name of one on the hub")
    hub = import_optional("huggingface_hub")
    # what the hub raises where there is no file or no network, in the words of several libraries
    failures = (OSError, ValueError, hub.errors.HfHubHTTPError, hub.errors.HFValidationError)
    get = partial(hub.snapshot_download, name, revision=revision, local_files_only=local_files_only)
    try:
        found = Path(get(allow_patterns=list(_PATTERNS), ignore_patterns=list(_NOT)))
        if not local_files_only and not any(found.glob("*.safetensors")):
            get(allow_patterns=list(_OLD_PATTERNS))  # tensors in a pickle, which is opened as such alone
        return found
    except failures as error:
        asked = "and local_files_only=True allows no download" if local_files_only else f"nor to be downloaded: {error}"
        raise WeightsError(
            f"the model {name!r} is neither a folder nor in this machine's cache of the hub, {asked}. "
            + ("Pass local_files_only=False to download it; or, to work offline, " if local_files_only else "")
            + f"on a machine with a network, run `hf download {name} --local-dir FOLDER`, bring the folder here, and "
            "pass its path"
        ) from error


def find_files(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first file of these names that a folder has."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_json(path: Path | None, default: Any = None) -> Any:
    """Read a JSON file; the default where there is none.

    Raises
    ------
    WeightsError
        It is damaged.
    """
    if path is None or not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{str(path)!r} is no JSON: {error}") from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Let transformers show no bar while it reads weights inside the block."""
    logging = import_optional("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
