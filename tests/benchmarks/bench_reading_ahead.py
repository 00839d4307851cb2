"""Training end to end on JPEG files: batches read while the network works, against one after the other.

Drawn scenes, saved as JPEGs of 500 x 375 pixels, are read, cut and mirrored by chance, and seen by a network that
trains inside a ranker. Both ways take turns in one process; beside them, what reading alone takes, and the network
alone on batches in memory: whoever reads ahead cannot be faster than the slower of the two. Medians of wall time.

    python tests/benchmarks/bench_reading_ahead.py --threads 1 --output reading_ahead.json
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.features import ImageCNNEncoder
from sklearn_mm.retrieval import JointEmbeddingRanker
from sklearn_mm.training import _train

SIZE_PX = (500, 375)


def save_scenes(folder, n_images):
    scenes = make_captioned_shapes(n_images, image_size=SIZE_PX[0], random_state=0)
    paths = []
    for number, image in enumerate(scenes.images):
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(image[: SIZE_PX[1]]).save(paths[-1], quality=90)
    return paths, scenes.captions


class Timed:
    """Batches made one after the other, with the time that making them takes."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self, batches):
        batches = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def fit_seconds(ranker, paths, captions, make):
    """Return the seconds of the epochs of a fit whose batches come through `make`."""
    ahead, _train.made_ahead = _train.made_ahead, make
    try:
        history = ranker.fit(paths, captions).history_
    finally:
        _train.made_ahead = ahead
    return sum(record["seconds"] for record in history)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--trainable", default="none", help="as ImageCNNEncoder takes it; an int is a number of scales")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    trainable = int(arguments.trainable) if arguments.trainable.isdigit() else arguments.trainable
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    seconds = {"ahead": [], "in turn": [], "reading alone": [], "network alone": []}
    with TemporaryDirectory() as folder:
        paths, captions = save_scenes(Path(folder), arguments.images)
        encoder = ImageCNNEncoder(arguments.backbone, trainable=trainable, n_jobs=arguments.threads)
        ranker = JointEmbeddingRanker(
            image_encoder=encoder,
            n_components=256,
            max_epochs=1,
            batch_size=32,
            precision=arguments.precision,
            random_state=0,
        )
        ranker.fit(paths[:64], captions[:64])
        for _ in range(arguments.turns):
            seconds["ahead"].append(fit_seconds(ranker, paths, captions, _train.made_ahead))
            timed = Timed()
            seconds["in turn"].append(fit_seconds(ranker, paths, captions, timed))
            seconds["reading alone"].append(timed.seconds)
            seconds["network alone"].append(seconds["in turn"][-1] - timed.seconds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    slower = max(medians["reading alone"], medians["network alone"])
    told = {
        "images": arguments.images,
        "backbone": arguments.backbone,
        "trainable": arguments.trainable,
        "threads": torch.get_num_threads(),
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "in turn / ahead": round(medians["in turn"] / medians["ahead"], 3),
        "ahead / the slower of both": round(medians["ahead"] / slower, 3),
    }
    print(json.dumps(told, indent=1))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
