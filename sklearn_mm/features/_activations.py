"""One pass of pictures through a network: blocks of activations in the order of the rows."""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from tempfile import SpooledTemporaryFile
from threading import Lock
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sklearn_mm._device import autocast, n_threads, torch_threads
from sklearn_mm._unreadable import summarise
from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.features._layer_cache import LayerCache
from sklearn_mm.images import PictureReader, Pictures, ReadFailure, describe, read_ahead
from sklearn_mm.nn.engines import EngineError, build_engine, chosen_engine
from sklearn_mm.nn.families import Backbone, PixelConvention
from sklearn_mm.nn.layer_table import Column, LayerTable
from sklearn_mm.nn.pixels import cpu_chunk_size, normalise, scale_and_shift
from sklearn_mm.nn.taps import TapReader

__all__ = ["ActivationPass", "RowWriter", "TappedNetwork"]

_POLL_S = 0.2  # between looks at whether another process has computed what we wait for
_SPOOL_BYTES = 2**28  # of activations kept in memory; more go to a temporary file
_AHEAD, _DIGESTS_AHEAD, _DIGESTS_TOGETHER = 256, 256, 16  # headers, digests

TakeBlock: TypeAlias = Callable[[list[int], np.ndarray], None]


class TappedNetwork:
    """A network on its device with taps, from 8-bit crops to activations, for any number of threads at once.

    Parameters
    ----------
    backbone : Backbone
        Moved to the device and given hooks, for good: nobody else may use it.
    pixels : PixelConvention
        What it wants to see.
    layers, activation, pooling : see FullNetworkEmbedding
    device : torch.device
        Where it runs.
    dtype : torch.dtype
        In which precision.
    engine : {"auto", "torch", "compile", "openvino"}
        What runs it; in float32 from the second batch on, as the first one shows what is read.
    leave_out : frozenset of str, optional
        Given for a cache: see TapReader.
    """

    def __init__(
        self,
        backbone: Backbone,
        pixels: PixelConvention,
        *,
        layers: str | int | Sequence[str],
        activation: str,
        pooling: str,
        device: torch.device,
        dtype: torch.dtype,
        engine: str,
        leave_out: frozenset[str] | None = None,
    ) -> None:
        # Channels last: measured 1.3 to 1.9 times as fast on a CPU in float32.
        self.module: nn.Module = backbone.module.to(device).to(memory_format=torch.channels_last)
        self._device, self._dtype = device, dtype
        side = pixels.image_size
        mean, std = (torch.tensor(value, dtype=torch.float64) for value in (pixels.mean, pixels.std))
        self._scale, self._shift = (part.to(device) for part in scale_and_shift(mean, std, side))
        self.chunk_size = cpu_chunk_size() if device.type == "cpu" else None
        # Entered here and never left: hooks cannot come and go while other threads run the network.
        reader = TapReader(self.module, layers, activation, backbone.class_layers, self.chunk_size, pooling, leave_out)
        self._reader = reader.__enter__()
        self._side = side
        self._again = partial(
            TappedNetwork,
            backbone,
            pixels,
            layers=layers,
            activation=activation,
            pooling=pooling,
            device=device,
            dtype=dtype,
            engine=engine,
        )
        self._by_leave_out = {leave_out: self}
        self._opening = Lock()
        self._engine = engine
        self._engines: dict[str, Callable[[Tensor], Tensor]] = {}
        self._building = Lock()

    @property
    def layers(self) -> list[tuple[str, int]]:
        """Name and width of the layers read, or of each part of them, after the first batch."""
        return [column for tap in self._reader.taps or [] for column in tap.columns]

    @property
    def table(self) -> LayerTable | None:
        """What can be read, after the first batch of a network that is read for a cache."""
        return self._reader.table

    @property
    def columns(self) -> list[tuple[Column, int]]:
        """What it answers, after the first batch of a network that is read for a cache."""
        return self._reader.columns

    def reading(self, leave_out: frozenset[str] | None) -> "TappedNetwork":
        """Return the same network with other taps: its hooks are silent where another one of them runs it."""
        with self._opening:
            if leave_out not in self._by_leave_out:
                self._by_leave_out[leave_out] = self._again(leave_out=leave_out)
            return self._by_leave_out[leave_out]

    @contextmanager
    def running(self, n_pictures: int) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
        """Yield the function from crops (n, n_crops, s, s, 3), uint8, to activations (n, d), float32.

        `n_pictures` are about to come: an engine has to be worth its start.
        """
        with torch.inference_mode(), autocast(self._device, self._dtype):

            def activations(crops: np.ndarray) -> np.ndarray:
                # One crop of all pictures at a time, so that the network sees batch_size squares at once, however many
                # crops there are. They are averaged here, before the statistics.
                total: Tensor | None = None
                for crop in range(crops.shape[1]):
                    pixels = torch.from_numpy(crops[:, crop]).to(self._device)
                    values = self._read(normalise(pixels, self._scale, self._shift), n_pictures * crops.shape[1])
                    total = values if total is None else total + values
                return (total / crops.shape[1]).cpu().numpy()

            yield activations

    def _read(self, pixels: Tensor, n_pictures: int) -> Tensor:
        # A network that cannot look at squares of this size says so in the first batch; what it raises later is passed
        # on as it is.
        if self._reader.taps is not None:
            return self._engine_for(n_pictures, pixels)(pixels)
        try:
            first = self._reader(pixels)
        except torch.OutOfMemoryError:  # a RuntimeError, but not for the size of a picture
            raise
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ValueError(
                f"the network cannot look at pictures of {self._side}x{self._side} pixels: {error}"
            ) from error
        run = self._reader if self._dtype == torch.float32 else self._engine_for(n_pictures, pixels)
        # in half precision engines round otherwise, and all pictures are to be read by the same
        return first if run is self._reader else run(pixels)

    def _engine_for(self, n_pictures: int, pixels: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what runs the network: the engine that is worth it for so many pictures, or torch as it is."""
        engine = chosen_engine(self._engine, self._device, self._dtype, n_pictures)
        with self._building:
            if engine is None:
                # one that is there is worth it for any number
                return next(iter(self._engines.values()), self._reader)
            if engine not in self._engines:
                try:
                    chunk_size = self.chunk_size or len(pixels)
                    # a few pictures tell whether it answers as the network does
                    few = pixels[:chunk_size]
                    self._engines[engine] = build_engine(engine, self._reader, few, self._dtype, chunk_size)
                except EngineError:
                    # nobody has asked for more than torch, which runs every network
                    if engine != "torch" and self._engine != "auto":
                        raise
                    self._engines[engine] = self._reader
            return self._engines[engine]


class ActivationPass:
    """Activations of pictures, block by block in the order of the rows; a context manager.

    Parameters
    ----------
    pictures : Pictures
        What to read.
    reader : PictureReader
        How to read it.
    open_network : callable
        Builds the TappedNetwork, or returns the one that is there; called when a picture needs it, with the taps that
        a cache leaves out, if there is one.
    batch_size : int
        Squares the network sees at once, and rows of a block.
    n_jobs : int or None
        Threads that read pictures, and that torch computes with on the CPU.
    on_error : {"raise", "nan", "skip"}
        Whether a picture that cannot be read ends the pass.
    cache : LayerCache or None
        What remembers activations; opened and closed by this context manager.
    verbose : bool
        Whether to show progress.
    names : sequence of int, optional
        The number of each picture's row for messages, where it is another one than its place in `pictures`.

    Attributes
    ----------
    n_rows : int
        How many pictures there are.
    failures : dict of int to ReadFailure
        By row, what could not be read; complete after `each_block`.

    Notes
    -----
    Blocks are those of the rows 0 to batch_size - 1, and so on, whatever comes from the cache: statistics over
    them do not depend on it. Rows that could not be read are left out of their block.
    """

    def __init__(
        self,
        pictures: Pictures,
        reader: PictureReader,
        open_network: Callable[[frozenset[str] | None], TappedNetwork],
        *,
        batch_size: int,
        n_jobs: int | None,
        on_error: str,
        cache: LayerCache | None,
        verbose: bool,
        names: Sequence[int] | None = None,
    ) -> None:
        self.failures: dict[int, ReadFailure] = {}
        self._names = names
        self.n_rows = len(pictures)
        self._pictures, self._reader, self._open_network = pictures, reader, open_network
        self._batch_size, self._n_jobs = batch_size, n_jobs
        self._on_error, self._cache, self._verbose = on_error, cache, verbose
        self._n_expected = len(pictures)  # that the network is to see
        self._keys: dict[int, bytes] = {}
        self._spooled: list[tuple[list[int], tuple[int, int]]] = []  # rows and shape of the blocks in the spool

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # left at once if the cache cannot be opened
            stack.enter_context(torch_threads(self._n_jobs))
            self._n_threads = n_threads(None)  # as many as torch computes with by now
            self._spool = stack.enter_context(SpooledTemporaryFile(max_size=_SPOOL_BYTES))
            if self._cache is not None:
                stack.enter_context(self._cache)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def each_block(self, take: TakeBlock, keep: bool = False) -> None:
        """Call ``take(rows, block)`` for each block: a list of int and float32 (len(rows), d).

        With `keep`, `each_block_again` can go through them a second time.
        """

        # Not in a list: the float32 activations of a whole data set may not fit into memory where their int8 embedding
        # does.
        def take_and_keep(rows: list[int], block: np.ndarray) -> None:
            self._spool.write(block.data)
            self._spooled.append((rows, block.shape))
            take(rows, block)

        rows = range(self.n_rows)
        with self._progress(len(rows)) as progress:
            if self._cache is None:
                self._check(rows)
                self._compute(rows, take_and_keep if keep else take, progress)
            else:
                self._digest(self._cache)
                self._each_window(self._cache, take, take_and_keep if keep else take, progress)
        if len(self.failures) == len(rows):
            raise ImageReadError(f"not one picture could be read: {summarise(self._named(self.failures.values()))}")

    def layers(self) -> list[tuple[str, int]]:
        """Return name and width of the layers read, from the cache if there is one."""
        return self._open_network(None).layers if self._cache is None else self._cache.layers

    def each_block_again(self, take: TakeBlock) -> None:
        """Call ``take(rows, block)`` for the blocks of `each_block` once more, without the network."""
        if self._cache is not None and not self._spooled:
            self._take_cached(self._cache, range(self.n_rows), take)
            return
        self._spool.seek(0)
        for rows, shape in self._spooled:
            content = self._spool.read(4 * shape[0] * shape[1])
            take(rows, np.frombuffer(content, dtype=np.float32).reshape(shape))

    def _compute(
        self, rows: Iterable[int], take: TakeBlock, progress: Any, leave_out: frozenset[str] | None = None
    ) -> None:
        """Read the pictures of some rows and run the network on `batch_size` of them at a time."""
        answers = read_ahead(self._reader.read, self._pictures, rows, self._n_threads, self._batch_size)
        with ExitStack() as stack:
            # The threads that read ahead end here, whatever the network raises.
            stack.callback(answers.close)
            # Opened with the first picture that can be read: without one no weights have to be got.
            run: Callable[[np.ndarray], np.ndarray] | None = None
            while batch := list(islice(answers, self._batch_size)):
                self._fail([answer for _, answer in batch if isinstance(answer, ReadFailure)])
                read = [(row, answer) for row, answer in batch if not isinstance(answer, ReadFailure)]
                if read:
                    if run is None:
                        run = stack.enter_context(self._open_network(leave_out).running(self._n_expected))
                    read_rows = [row for row, _ in read]
                    take(read_rows, _finite(run(np.stack([crops for _, crops in read])), self._names_of(read_rows)))
                progress.update(len(batch))

    def _digest(self, cache: LayerCache) -> None:
        """Find out by what the cache knows each picture, and look at those that it does not know."""
        digests = read_ahead(
            lambda source: cache.digest(self._reader, source),
            self._pictures,
            range(self.n_rows),
            self._n_threads,
            _DIGESTS_AHEAD,
            _DIGESTS_TOGETHER,
        )
        for row, digest in digests:
            if isinstance(digest, ReadFailure):
                self._fail([digest])
            else:
                self._keys[row] = cache.key(digest)
        cache.remember_files()
        row_of = {key: row for row, key in self._keys.items()}
        self._check([row_of[key] for key in cache.missing(list(row_of))])

    def _each_window(self, cache: LayerCache, take: TakeBlock, take_and_keep: TakeBlock, progress: Any) -> None:
        """Fill the cache, and take from it, as many rows at a time as it holds."""
        start = 0
        while start < self.n_rows:
            held = self.n_rows if cache.n_rows_held is None else cache.n_rows_held
            # how many it holds is known once a few are there
            rows = range(start, min(self.n_rows, start + max(held // self._batch_size, 1) * self._batch_size))
            self._fill(cache, rows, progress)
            # What does not fit into the cache would be computed twice, and what fits into memory is read twice as fast.
            is_kept = 4 * self.n_rows * cache.width <= _SPOOL_BYTES or 0 < (cache.n_rows_held or 0) < self.n_rows
            self._take_cached(cache, rows, take_and_keep if is_kept else take)
            start = rows.stop

    def _fill(self, cache: LayerCache, rows: Sequence[int], progress: Any) -> None:
        """See to it that the cache has the activations of every one of these pictures that can be read."""
        # Of rows of one picture the last stands for all.
        row_of = {self._keys[row]: row for row in rows if row in self._keys}
        waiting = cache.missing(list(row_of))
        progress.update(len(rows) - len(waiting))
        # What other processes have claimed is waited for, and computed here after all if such a process ends without
        # it.
        while waiting:
            claimed = self._fill_unclaimed(cache, waiting, row_of, progress)
            # what was stored here may be gone again, if the cache is small: it will be missed when it is taken
            waiting = cache.missing([key for key in waiting if key not in claimed])
            if waiting and not claimed:
                time.sleep(_POLL_S)
        failed = {self._keys.pop(row): failure for row, failure in self.failures.items() if row in self._keys}
        for row in [row for row, key in self._keys.items() if key in failed]:  # the same picture in other rows
            self.failures[row] = failed[self._keys.pop(row)]._replace(row=row)

    def _fill_unclaimed(
        self, cache: LayerCache, waiting: list[bytes], row_of: dict[bytes, int], progress: Any
    ) -> set[bytes]:
        """Compute what no other process is computing already; return what that was."""
        all_claimed: set[bytes] = set()
        self._n_expected = len(waiting)
        leave_out = cache.leave_out(waiting)

        def claimed_rows() -> Iterator[int]:
            for start in range(0, len(waiting), self._batch_size):
                claimed = cache.claim(waiting[start : start + self._batch_size])
                all_claimed.update(claimed)
                yield from (row_of[key] for key in claimed)

        def store(rows: list[int], block: np.ndarray) -> None:
            self._fail([self._changed(row) for row in rows if not self._is_as_digested(cache, row)])
            self._learn(cache, leave_out)  # before the first vector: where there are vectors there is a note
            good = [place for place, row in enumerate(rows) if row not in self.failures]
            if good:
                stored = block if len(good) == len(rows) else block[good]
                cache.put([self._keys[rows[place]] for place in good], stored)

        self._compute(claimed_rows(), store, progress, leave_out)
        # Otherwise other processes would wait for these until the claim runs out.
        cache.release([key for key in waiting if row_of[key] in self.failures])
        return all_claimed

    def _is_as_digested(self, cache: LayerCache, row: int) -> bool:
        """Whether a file still has the content by which its activations are to be known."""
        # What a container reads by itself is digested as pixels, and costs as much once more.
        if self._pictures.is_lazy:
            return True
        source = self._pictures[row]
        if not isinstance(source, str | os.PathLike):
            return True
        try:
            return cache.key(cache.digest(self._reader, source)) == self._keys[row]
        except ImageReadError:  # it is gone
            return False

    def _changed(self, row: int) -> ReadFailure:
        return ReadFailure(row, describe(self._pictures[row]), "the file has changed while it was read")

    def _learn(self, cache: LayerCache, leave_out: frozenset[str]) -> None:
        network = self._open_network(leave_out)
        cache.learn(network.table, network.columns)

    def _take_cached(self, cache: LayerCache, rows: range, take: TakeBlock) -> None:
        # One block for all: memory that is new each time costs as much as what is written to it. Whoever takes a block
        # has done with it, or has a copy, when it returns.
        whole = np.empty((min(self._batch_size, len(rows)), cache.width), dtype=np.float32)
        for start in range(rows.start, rows.stop, self._batch_size):
            those = [row for row in range(start, min(start + self._batch_size, rows.stop)) if row in self._keys]
            block = whole[: len(those)]
            lost = cache.get([self._keys[row] for row in those], block)
            if lost:
                self._compute_again(cache, those, lost, block)
                block = block[[place for place, row in enumerate(those) if row in self._keys]]
                those = [row for row in those if row in self._keys]
            if those:
                take(those, block)

    def _compute_again(self, cache: LayerCache, rows: Sequence[int], lost: Sequence[int], block: np.ndarray) -> None:
        """Compute rows that others have driven out of the cache since they were stored."""
        place_of = {rows[place]: place for place in lost}
        everything: frozenset[str] = frozenset()

        def put_back(found: list[int], answered: np.ndarray) -> None:
            self._learn(cache, everything)
            block[[place_of[row] for row in found]] = cache.chosen(answered)

        self._compute(list(place_of), put_back, self._progress(0), everything)
        for row in place_of.keys() & self.failures.keys():
            del self._keys[row]

    def _check(self, rows: Sequence[int]) -> None:
        """Look at the headers of files before any long work, if a picture that cannot be read ends it."""
        if self._on_error == "raise" and not self._pictures.is_lazy:
            checked = read_ahead(self._reader.check, self._pictures, rows, self._n_threads, _AHEAD)
            self._fail([answer for _, answer in checked if isinstance(answer, ReadFailure)])

    def _fail(self, failures: Sequence[ReadFailure]) -> None:
        if failures and self._on_error == "raise":
            raise ImageReadError(
                f"{summarise(self._named(failures))}; mend or drop these rows, or use on_error='skip' or on_error='nan'"
            )
        self.failures.update((failure.row, failure) for failure in failures)

    def _names_of(self, rows: Sequence[int]) -> Sequence[int]:
        return rows if self._names is None else [self._names[row] for row in rows]

    def _named(self, failures: Collection[ReadFailure]) -> list[ReadFailure]:
        """Return failures with the rows that they are to be told by."""
        rows = self._names_of([failure.row for failure in failures])
        return [failure._replace(row=row) for failure, row in zip(failures, rows, strict=True)]

    def _progress(self, n_rows: int) -> Any:
        return tqdm(total=n_rows, desc="pictures", unit="picture", disable=not self._verbose or not n_rows)


class RowWriter:
    """Embeds blocks of activations into one array.

    Parameters
    ----------
    out : ndarray of shape (n_rows, d), int8 or float32
        Where to.
    embed : callable
        From activations (n, d) to their embedding.
    close_gaps : bool
        Whether rows that are missing leave no gap.
    """

    def __init__(self, out: np.ndarray, embed: Callable[[np.ndarray], np.ndarray], close_gaps: bool) -> None:
        self._out, self._embed, self._close_gaps = out, embed, close_gaps
        self._n_written = 0

    def take(self, rows: list[int], block: np.ndarray) -> None:
        """Embed a block; blocks come in the order of their rows."""
        start = self._n_written if self._close_gaps else rows[0]
        # A slice is filled in place. Rows that failed leave gaps, and rows are numbered with them.
        if self._close_gaps or rows[-1] - rows[0] + 1 == len(rows):
            self._out[start : start + len(rows)] = self._embed(block)
        else:
            self._out[rows] = self._embed(block)
        self._n_written += len(rows)

    def close(self, failures: Collection[int]) -> np.ndarray:
        """Return the embedding, with the rows that failed marked: NaN, or 0 where there is no NaN."""
        if self._close_gaps:
            return self._out[: self._n_written]
        if failures:
            self._out[list(failures)] = 0 if self._out.dtype == np.int8 else np.nan
        return self._out


def _finite(block: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    # One pass without a mask: a sum is finite only if all of it is.
    if not np.isfinite(block.sum()):
        row = rows[int(np.argmin(np.isfinite(block).all(axis=1)))]
        raise ValueError(
            f"the network's activations for row {row} are not finite; try precision='float32', or other weights"
        )
    return block
