"""Training end to end on JPEG files: batches read while the network works, against one after the other.

Drawn scenes, saved as JPEGs of 500 x 375 pixels, are read, cut and mirrored by chance, and seen by a network that
trains inside a ranker. Both ways take turns in one process; beside them, what reading alone takes, and the network
alone on batches in memory: whoever reads ahead cannot be faster than the slower of the two. Nor, where both compute
on the same cores and each alone keeps all of them busy, faster than one after the other: look at one thread for each,
or at a network on a GPU. The first batch of an epoch is waited for: of few batches it is a large part.

    python tests/benchmarks/bench_reading_ahead.py --turns 5 --out reading_ahead.json
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import bench
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
    """Time both ways, with one thread for each part, and with all."""
    options = bench.parser(__doc__)
    options.add_argument("--images", type=int, default=512)
    options.add_argument("--backbone", default="efficientnet_lite0")
    options.add_argument(
        "--trainable", default="none", help="as ImageCNNEncoder takes it; an int is a number of scales"
    )
    options.add_argument("--precision", default="auto")
    options = options.parse_args()
    trainable = int(options.trainable) if options.trainable.isdigit() else options.trainable
    records = []
    with TemporaryDirectory() as folder:
        paths, captions = save_scenes(Path(folder), options.images)
        for n_threads in bench.thread_counts():
            ranker = JointEmbeddingRanker(
                image_encoder=ImageCNNEncoder(options.backbone, trainable=trainable, n_jobs=n_threads),
                n_components=256,
                max_epochs=1,
                batch_size=32,
                precision=options.precision,
                random_state=0,
                n_jobs=n_threads,
            )
            with bench.threads(n_threads):
                seconds = turns(ranker, paths, captions, options.turns)
                records.append(
                    bench.report(
                        f"training on JPEGs, {options.backbone}, trainable {options.trainable}",
                        seconds,
                        against="the slower of both",
                        targets={"ahead": ("<=", 1.1)},
                        n_images=options.images,
                    )
                )
    bench.save(records, options.out)


def turns(ranker, paths, captions, n_turns):
    ranker.fit(paths[:64], captions[:64])
    seconds = {name: [] for name in ("the slower of both", "ahead", "in turn", "reading alone", "network alone")}
    for _ in range(n_turns):
        seconds["ahead"].append(fit_seconds(ranker, paths, captions, _train.made_ahead))
        timed = Timed()
        seconds["in turn"].append(fit_seconds(ranker, paths, captions, timed))
        seconds["reading alone"].append(timed.seconds)
        seconds["network alone"].append(seconds["in turn"][-1] - timed.seconds)
        seconds["the slower of both"].append(max(seconds["reading alone"][-1], seconds["network alone"][-1]))
    return seconds


if __name__ == "__main__":
    main()
