"""Everything that needs a GPU, in one script of some minutes: the tests marked `cuda`, then speeds against the best.

The machine needs what the package needs, pytest and threadpoolctl. Each row compares with what the GPU could do at
best: the bare network, the bare step, the bare product. Nothing is downloaded.

    make gpu-check
    python tests/benchmarks/gpu_check.py --out gpu.json
    python tests/benchmarks/gpu_check.py --device cpu --small     # does the script itself run?
"""

import subprocess
import sys
import time
from pathlib import Path

import bench
import numpy as np
import torch
from torch import nn

from sklearn_mm._device import autocast
from sklearn_mm.features import FullNetworkEmbedding
from sklearn_mm.losses import instance_loss
from sklearn_mm.metrics import retrieval_report
from sklearn_mm.nn.backbones import build_backbone
from sklearn_mm.retrieval import CorrelationRanker, JointEmbeddingRanker

ROOT = Path(__file__).parents[2]
BUDGET_S = 400  # after it no further row is begun: all ends within eight minutes
TESTS_S = 240


def run_tests():
    """Run the tests that need a GPU; return whether they passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "tests"]
    return subprocess.run(command, cwd=ROOT, timeout=TESTS_S, check=False).returncode == 0


def extraction(device, small, precision, channels_last):
    """All layers of a resnet50 on decoded pictures, against the bare network on pixels that are there already."""
    n, side = (16, 64) if small else (1024, 224)
    images = np.random.default_rng(0).integers(256, size=(n, side, side, 3), dtype=np.uint8)
    name = "resnet18" if small else "resnet50"
    network = build_backbone(name, None).module.to(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)
    pixels = torch.from_numpy(images[:64]).permute(0, 3, 1, 2).float().div(255).to(device, memory_format=layout)
    embedding = FullNetworkEmbedding(
        name, weights=None, image_size=side, batch_size=128, device=device, precision=precision
    ).fit(images)
    dtype = getattr(torch, precision)

    def bare():
        with torch.inference_mode(), autocast(device, dtype):
            for _ in range(0, n, len(pixels)):
                network(pixels)

    return {"bare network": bare, "transform": lambda: embedding.transform(images)}, "bare network", {"n_pictures": n}


def training(device, small, precision):
    """An epoch of a ranker on features, bag of words, against forward, backward and step on tensors that are there."""
    n, width, n_components, size = (64, 32, 16, 16) if small else (12_800, 8000, 1024, 128)
    X = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    texts = [f"word{row % 997} word{row % 991} word{row % 983} word{row % 977}" for row in range(n)]
    ranker = JointEmbeddingRanker(
        n_components=n_components, max_epochs=1, batch_size=size, device=device, precision=precision, hubness=None
    )
    image, text = nn.Linear(width, n_components).to(device), nn.EmbeddingBag(4000, n_components).to(device)
    optimizer = torch.optim.AdamW([*image.parameters(), *text.parameters()], fused=True)
    pixels = torch.from_numpy(X[:size]).to(device)
    words = torch.randint(4000, (size, 4), device=device)
    label, dtype = torch.arange(size, device=device), getattr(torch, precision)

    def bare():
        for _ in range(0, n, size):
            with autocast(device, dtype):
                one, other = nn.functional.normalize(image(pixels)), nn.functional.normalize(text(words))
                scores = (one @ other.T).float() / 0.07
                loss = nn.functional.cross_entropy(scores, label) + nn.functional.cross_entropy(scores.T, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return {"bare steps": bare, "fit": lambda: ranker.fit(X, texts)}, "bare steps", {"n_pictures": n}


def instances(device, small):
    """The instance loss at COCO's size, against torch's cross-entropy."""
    n_classes, width, n = (500, 16, 32) if small else (113_287, 1024, 1024)
    features = nn.functional.normalize(torch.randn(n, width, device=device)).requires_grad_()
    classifier = torch.randn(n_classes, width, device=device).requires_grad_()
    instance = torch.randint(n_classes, (n,), device=device)

    def whole():
        nn.functional.cross_entropy(features @ classifier.T, instance).backward()

    runs = {"torch": whole, "blocked": lambda: instance_loss(features, instance, classifier).mean().backward()}
    facts = {}
    if device.type == "cuda":
        for name, run in runs.items():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            facts[f"MiB beyond, {name}"] = round((torch.cuda.max_memory_allocated() - before) / 2**20)
    return runs, "torch", facts


def solving(device, small):
    """A ranker solved for on 6,000 x 8,000, against the same on the CPU."""
    n, width = (64, 32) if small else (6000, 8000)
    X = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    texts = [f"word{row % 97} word{row % 89} word{row % 83}" for row in range(n)]
    made = {where: CorrelationRanker(device=where, random_state=0) for where in ("cpu", str(device))}
    runs = {f"on {where}": lambda ranker=ranker: ranker.fit(X, texts) for where, ranker in made.items()}
    return runs, "on cpu", {"n_pictures": n}


def ranks(device, small):
    """A report of ranks on the CPU, against the product alone on the device."""
    n, n_texts, width = (50, 250, 16) if small else (5000, 25_000, 1024)
    rng = np.random.default_rng(0)
    image, text = (rng.normal(size=(rows, width)).astype(np.float32) for rows in (n, n_texts))
    owner = np.arange(n_texts) % n
    there = [torch.from_numpy(part).to(device) for part in (image, text)]
    runs = {"product": lambda: there[0] @ there[1].T, "report": lambda: retrieval_report(image, text, owner)}
    return runs, "product", {}


def rows(device, small):
    """Yield the title of each row, and a function that sets it up."""
    half = "bfloat16"
    for precision, channels_last in (("float32", True), (half, False), (half, True)):
        layout = "channels last" if channels_last else "channels first"
        title = f"network and all its layers, {precision}; bare network {layout}"
        yield title, lambda p=precision, c=channels_last: extraction(device, small, p, c)
    for precision in ("float32", half):
        yield f"epoch of a ranker, {precision}", lambda p=precision: training(device, small, p)
    yield "instance loss", lambda: instances(device, small)
    yield "solved for", lambda: solving(device, small)
    yield "report of ranks", lambda: ranks(device, small)


def main():
    """Run the tests, print the table, and return whether the tests passed."""
    parser = bench.parser(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes that only show that the script runs")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is there: --device cpu --small tries the script itself")
    start = time.perf_counter()
    passed = options.small or run_tests()
    records = []
    for title, make in rows(device, options.small):
        if time.perf_counter() - start > BUDGET_S:
            print(f"{title}: not measured, {BUDGET_S} s are over")
            continue
        runs, against, facts = make()
        records.append(bench.report(title, bench.interleave(runs, options.turns), against=against, **facts))
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(f"tests {'passed' if passed else 'FAILED'}; {time.perf_counter() - start:.0f} s in all")
    bench.save(records, options.out)
    return passed


if __name__ == "__main__":
    sys.exit(not main())
