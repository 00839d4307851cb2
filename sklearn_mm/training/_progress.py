"""A bar for long work."""

from collections.abc import Iterable, Iterator
from typing import Any

from tqdm.auto import tqdm

from sklearn_mm.training._loop import EpochRecord

__all__ = ["progress"]


def progress(records: Iterable[EpochRecord], *, n_epochs: int, title: str, verbose: int) -> Iterator[EpochRecord]:
    """Pass the records of the epochs on, and show what they say in a bar if `verbose`.

    What the caller adds to a record is shown with the next one.
    """
    bar: Any = tqdm(total=n_epochs, desc=title, unit="epoch", disable=not verbose)
    with bar:
        for record in records:
            yield record
            shown = {key: f"{value:.4g}" for key, value in record.items() if key.startswith(("train_", "val_"))}
            bar.set_postfix(shown, refresh=False)
            bar.update()
