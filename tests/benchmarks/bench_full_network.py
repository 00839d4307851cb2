"""Pictures a second of `FullNetworkEmbedding.transform`, by engine, against the bare network in eager torch.

All get the same pictures, decoded before: `transform` as uint8 arrays of the network's size, the bare network as the
normalised, channels-last batches made of them, in chunks of the size that `transform` uses. The targets: all layers of
EfficientNet-Lite0 with OpenVINO at least 2.5 times the rate of the bare network in eager float32, ResNet-50 1.2 times;
EfficientNet-Lite0 with nothing beside torch 1.4 times. And, in each precision, 0.8 times the rate of the bare network
in OpenVINO, which is the fastest engine that can be installed: it gets the same chunks, a request for each thread.

With `--jpegs FOLDER` also the rate from those files against that of the same engine on decoded arrays: at least 0.9.

    python tests/benchmarks/bench_full_network.py --backbones efficientnet_lite0 resnet50 --engines torch openvino
"""

import warnings
from pathlib import Path

import bench
import numpy as np
import torch

from sklearn_mm._device import autocast, precision_of, resolve_device, resolve_dtype
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.nn.backbones import build_backbone, pixel_convention
from sklearn_mm.nn.pixels import cpu_chunk_size

TARGETS = {
    ("efficientnet_lite0", "openvino"): 2.5,
    ("efficientnet_lite0", "torch"): 1.4,
    ("resnet50", "openvino"): 1.2,
}
PLAIN = "plain"  # the taps on the network as it is, which "auto" takes for few pictures
HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}  # what OpenVINO calls a precision


def weights_of(name):
    return "default" if name.startswith("efficientnet_lite") else None  # no download; the speed is the same


def bare_network(name, images, device, dtype):
    """Return a function that runs the network alone on these pictures."""
    pixels = pixel_convention(name)
    network = build_backbone(name, weights_of(name)).module.to(device).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (pixels.mean, pixels.std))
    batch = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    batch = batch.to(device, memory_format=torch.channels_last)
    chunk_size = cpu_chunk_size() if device.type == "cpu" else 32

    def run():
        with torch.inference_mode(), autocast(device, dtype):
            for chunk in batch.split(chunk_size):
                network(chunk)

    return run


def bare_openvino(name, images, dtype):
    """Return a function that runs the network alone on these pictures, compiled by OpenVINO."""
    import openvino

    pixels = pixel_convention(name)
    network = build_backbone(name, weights_of(name)).module.eval()
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (pixels.mean, pixels.std))
    batch = ((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std).contiguous()
    chunks = [chunk.numpy() for chunk in batch.split(cpu_chunk_size())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about tracing
        model = openvino.convert_model(network, example_input=torch.from_numpy(chunks[0]))
    model.reshape([-1, *batch.shape[1:]] if len(chunks[-1]) < len(chunks[0]) else list(chunks[0].shape))
    n_threads = torch.get_num_threads()
    how = {"INFERENCE_PRECISION_HINT": HINTS[dtype], "INFERENCE_NUM_THREADS": n_threads, "NUM_STREAMS": n_threads}
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(model, "CPU", how), n_threads)

    def run():
        for chunk in chunks:
            queue.start_async([chunk], share_inputs=True)
        queue.wait_all()

    return run


def transforms(name, images, options, precision):
    """Return, by engine, the embedding, ready to run."""
    embeddings = {}
    for engine in options.engines:
        embedding = FullNetworkEmbedding(
            name,
            weights=weights_of(name),
            layers=options.layers,
            activation=options.activation,
            batch_size=options.batch_size,
            precision=precision,
            engine="auto" if engine == PLAIN else engine,
        )
        embeddings[engine] = embedding.fit(images[: 2 * options.batch_size])
    return embeddings


def compare(name, options, precision):
    """Compare engines on decoded pictures, and each with itself on files."""
    device = resolve_device()
    dtype = resolve_dtype(precision, device)
    side = pixel_convention(name).image_size
    images = np.random.default_rng(0).integers(256, size=(options.n_images, side, side, 3), dtype=np.uint8)
    embeddings = transforms(name, images, options, precision)
    runs = {"bare": bare_network(name, images, device, dtype)}
    has_openvino = "openvino" in embeddings
    if has_openvino:
        runs["bare, openvino"] = bare_openvino(name, images, dtype)
    runs |= {engine: lambda own=embedding: own.transform(images) for engine, embedding in embeddings.items()}
    targets = {
        engine: (">=", TARGETS[name, engine])
        for engine in embeddings
        if (name, engine) in TARGETS and precision_of(dtype) == "float32"
    }
    title = f"{name}, {precision_of(dtype)}, layers={options.layers!r}, {options.activation}"
    facts = {"n_images": len(images)}
    if PLAIN in embeddings:
        expected = embeddings[PLAIN].transform(images)
        others = {engine: own.transform(images) for engine, own in embeddings.items() if engine != PLAIN}
        facts |= {f"other_values_{engine}": float(np.mean(expected != found)) for engine, found in others.items()}
    seconds = bench.interleave(runs, options.turns)
    records = [bench.report(title, seconds, against="bare", targets=targets, compare="rate", **facts)]
    if has_openvino:
        best = {run: seconds[run] for run in ("bare, openvino", "openvino")}
        records.append(
            bench.report(title, best, against="bare, openvino", targets={"openvino": (">=", 0.8)}, compare="rate")
        )
    if options.jpegs:
        records += [from_files(title, engine, own, options) for engine, own in embeddings.items()]
    return records


def from_files(title, engine, embedding, options):
    """Compare the rate from files with that from what is in them."""
    files = sorted(options.jpegs.rglob("*.jpg"))[: options.n_images]
    pixels = pixel_convention(embedding.backbone)
    from sklearn_mm.images import PictureReader

    reader = PictureReader(pixels.image_size, pixels.resize_size, pixels.interpolation)
    decoded = np.concatenate([reader.read(file) for file in files])
    runs = {"arrays": lambda: embedding.transform(decoded), "files": lambda: embedding.transform(files)}
    seconds = bench.interleave(runs, options.turns)
    return bench.report(
        f"{title}, {engine}, from {len(files)} JPEG files",
        seconds,
        against="arrays",
        targets={"files": (">=", 0.9)},
        compare="rate",
    )


if __name__ == "__main__":
    parser = bench.parser(__doc__)
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0", "resnet50"])
    parser.add_argument("--engines", nargs="+", default=[PLAIN, "torch", "openvino"])
    parser.add_argument("--n-images", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    fastest = precision_of(resolve_dtype("auto", resolve_device()))  # bfloat16, where the processor has it
    parser.add_argument("--precisions", nargs="+", default=list(dict.fromkeys(["float32", fastest])))
    parser.add_argument("--layers", default="auto")
    parser.add_argument("--activation", default="pre")
    parser.add_argument("--jpegs", type=Path, help="a folder of JPEG files, of Flickr8k for one")
    options = parser.parse_args()
    records = []
    for n_threads in bench.thread_counts():
        with bench.threads(n_threads):
            for precision in options.precisions:
                for backbone in options.backbones:
                    records += compare(backbone, options, precision)
    bench.save(records, options.out)
