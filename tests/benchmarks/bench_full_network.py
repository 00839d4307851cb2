"""Images a second of `FullNetworkEmbedding.transform` against the bare network on the same batches.

Both get the same pictures, decoded before: `transform` as uint8 arrays of the network's size, the bare network
as the normalised, channels-last float batches made of them, under the same autocast. They take turns, so that
whatever else the machine does falls on all; medians over the turns are reported.

On a CPU `transform` splits batches into chunks that fit the caches, which speeds the network up as well: so it is
also compared with the bare network on such chunks.

    python tests/benchmarks/bench_full_network.py --backbones resnet50 efficientnet_lite0
"""

import argparse
import statistics
import time

import numpy as np
import torch

from sklearn_mm._device import autocast, resolve_device, resolve_dtype
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.nn.backbones import build_backbone, pixel_convention


def normalised_batches(images, pixels, batch_size, device):
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (pixels.mean, pixels.std))
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(images[start : start + batch_size]).permute(0, 3, 1, 2).float() / 255
        yield ((batch - mean) / std).to(device, memory_format=torch.channels_last)


def compare(name, *, n_images, batch_size, n_turns, precision, layers, activation, clock):
    device = resolve_device()
    dtype = resolve_dtype(precision, device)
    weights = "default" if name.startswith("efficientnet_lite") else None  # no download; the speed is the same
    pixels = pixel_convention(name)
    side = pixels.image_size
    images = np.random.default_rng(0).integers(256, size=(n_images, side, side, 3), dtype=np.uint8)
    batches = list(normalised_batches(images, pixels, batch_size, device))
    network = build_backbone(name, weights).module.to(device).to(memory_format=torch.channels_last)
    embedding = FullNetworkEmbedding(
        name, weights=weights, layers=layers, activation=activation, batch_size=batch_size, precision=precision
    ).fit(images)

    def run_bare(batch_size):
        with torch.inference_mode(), autocast(device, dtype):
            for batch in batches:
                for chunk in batch.split(batch_size):
                    network(chunk)

    chunk_size = embedding._network[1].chunk_size or batch_size
    runs = {
        "bare": lambda: run_bare(batch_size),
        "transform": lambda: embedding.transform(images),
        "chunks": lambda: run_bare(chunk_size),
    }
    seconds = {what: [] for what in runs}
    for turn in range(n_turns + 1):
        for what, run in runs.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = clock()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                seconds[what].append(clock() - start)
    rate = {what: n_images / statistics.median(times) for what, times in seconds.items()}
    ratios = sorted(one / other for one, other in zip(seconds["bare"], seconds["transform"], strict=True))
    chunks_ratio = rate["transform"] / rate["chunks"]
    print(
        f"{name} in {str(dtype).removeprefix('torch.')}, {embedding.n_features_out_} activations: "
        f"transform {rate['transform']:.1f}/s\n"
        f"  bare network, batches of {batch_size}: {rate['bare']:.1f}/s, ratio {rate['transform'] / rate['bare']:.3f} "
        f"(single turns {ratios[0]:.3f} to {ratios[-1]:.3f})\n"
        f"  bare network, chunks of {chunk_size}: {rate['chunks']:.1f}/s, ratio {chunks_ratio:.3f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "efficientnet_lite0"])
    parser.add_argument("--n-images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--layers", default="auto")
    parser.add_argument("--activation", default="pre")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU seconds of the process: for a machine that others use"
    )
    options = parser.parse_args()
    for backbone in options.backbones:
        compare(
            backbone,
            n_images=options.n_images,
            batch_size=options.batch_size,
            n_turns=options.turns,
            precision=options.precision,
            layers=options.layers,
            activation=options.activation,
            clock=time.process_time if options.cpu_time else time.perf_counter,
        )
