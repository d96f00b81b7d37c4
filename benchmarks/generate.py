"""Drawing: pictures a second in PyTorch and in ONNX Runtime, and the share of the machine's product rate.

    python benchmarks/generate.py --recipe projected

Weights are random, which costs the same. Operations are counted in PyTorch (convolutions and products), and
ONNX Runtime is held against the same count. Writing PNG files is timed with them, as `generate` does it.
Writes results/generate.json, of other recipes and sizes generate-RECIPE-SIZE.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bonsaigan  # noqa: F401  # before torch: it settles how threads wait

# isort: split
import _result
import onnxruntime
import torch
from roofline import product_gflop_per_sec
from torch.utils.flop_counter import FlopCounterMode

from bonsaigan.config import Size
from bonsaigan.export import onnx
from bonsaigan.export.targets import export
from bonsaigan.generator import BATCH, Generator, GeneratorSpec, save_generator
from bonsaigan.training.recipes import default_config, find

ROUNDS = 3
STREAMED = (256, 2560)
CHILD = """
import resource, sys
from bonsaigan.cli import app
app(sys.argv[1:], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def main() -> None:
    """Time a recipe's generator at its defaults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="projected")
    parser.add_argument("--size", default="64")
    parser.add_argument("--count", type=int, default=512)
    asked = parser.parse_args()
    generator = fresh(asked.recipe, Size.parse(asked.size))
    z = generator.latents(range(asked.count))
    with FlopCounterMode(display=False) as counter:
        generator.images(z[:BATCH])
    gflop = counter.get_total_flops() / 1e9 / BATCH
    rate = product_gflop_per_sec(torch.float32)

    def told(per_sec: float) -> dict[str, float]:
        return {
            "pictures_per_sec": round(per_sec, 1),
            "share_of_product_rate": round(per_sec * gflop / rate, 3),
        }

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        export(generator, to="onnx", out=place / "generator.onnx")
        draw = onnx.load(place / "generator.onnx")
        save_generator(place, generator.network, generator.spec)
        batches = [part.numpy() for part in z.split(BATCH)]
        found = {
            "pytorch": told(per_second(lambda: generator.images(z), len(z))),
            "onnxruntime": told(per_second(lambda: [draw(part) for part in batches], len(z))),
        }
        streamed = {f"{n} pictures": stream(place, n) for n in STREAMED}
    name = f"generate-{asked.recipe}-{asked.size}"
    _result.write(
        "generate" if (asked.recipe, asked.size) == ("projected", "64") else name,
        {
            "recipe": asked.recipe,
            "size": asked.size,
            "batch": BATCH,
            "gflop_per_picture": round(gflop, 4),
            "product_gflop_per_sec": round(rate),
            "drawn": found,
            "to_disk": streamed,
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    )


def fresh(recipe: str, size: Size) -> Generator:
    """A recipe's generator as it is before training."""
    config = default_config(find(recipe), size)
    spec = GeneratorSpec(
        family=find(recipe).family, network=config.network, size=size, channels=3, recipe=recipe, step=0
    )
    return Generator(find(recipe).generator(config), spec)


def per_second(work: Callable[[], object], count: int) -> float:
    """Pictures a second: the best of some rounds after one to warm up."""
    work()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return count / min(times)


def stream(run: Path, n: int) -> dict[str, float]:
    """Seconds and peak memory of `bonsaigan generate -n N` in a process of its own."""
    command = [sys.executable, "-c", CHILD, "generate", str(run), "-n", str(n), "--out", str(run / f"out{n}")]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mib": int(done.stdout.split()[-1]),
    }


if __name__ == "__main__":
    main()
