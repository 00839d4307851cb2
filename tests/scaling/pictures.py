"""Sources of drawn pictures, and an embedding of them, for the tests of this folder."""

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from sklearn_mm.features import FullNetworkEmbedding

SIDE = 16


class TinyNet(nn.Sequential):
    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(
                *(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.ReLU()),
                *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)),
            )


def embedding(**parameters):
    return FullNetworkEmbedding(TinyNet(), image_size=SIDE, precision="float32", n_jobs=1, **parameters)


def encoded(number):
    pixels = np.random.default_rng(number).integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def write_folder(folder, n_pictures, bad=()):
    """Write "000.png" and so on; the bad ones are no pictures."""
    folder = Path(folder)
    folder.mkdir()
    for number in range(n_pictures):
        (folder / f"{number:03d}.png").write_bytes(b"no picture" if number in bad else encoded(number))
    return folder


def write_tars(folder, n_pictures, n_archives, bad=()):
    """Write the same pictures into archives, each with a caption beside it."""
    folder = Path(folder)
    folder.mkdir()
    shares = np.array_split(np.arange(n_pictures), n_archives)
    for place, share in enumerate(shares):
        with tarfile.open(folder / f"{place:02d}.tar", "w") as archive:
            for number in share:
                content = b"no picture" if number in bad else encoded(number)
                for name, member in ((f"{number:03d}.txt", b"a caption"), (f"{number:03d}.png", content)):
                    info = tarfile.TarInfo(name)
                    info.size = len(member)
                    archive.addfile(info, io.BytesIO(member))
    return folder


def write_parquet(folder, n_pictures, n_files, bad=(), kind="bytes"):
    """Write the same pictures into Parquet files of small row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    folder.mkdir()
    for place, share in enumerate(np.array_split(np.arange(n_pictures), n_files)):
        contents = [b"no picture" if number in bad else encoded(number) for number in share]
        if kind == "mapping":
            contents = [{"bytes": content, "path": None} for content in contents]
        table = pa.table({"name": [f"{number:03d}" for number in share], "image": contents})
        pq.write_table(table, folder / f"{place:02d}.parquet", row_group_size=3)
    return folder


def all_of(manifest):
    """Read all rows, ids and vectors of a manifest."""
    parts = [manifest.read(number) for number, shard in enumerate(manifest.shards) if shard.files]
    rows, ids, vectors = zip(*parts, strict=True)
    return np.concatenate(rows), [name for own in ids for name in own], np.concatenate(vectors)
