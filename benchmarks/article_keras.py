"""The baseline: the article's procedure as a Keras 3 program on TensorFlow, as its reader would have it.

    pip install 'bonsaigan[bench]'
    python benchmarks/article_keras.py --data PHOTOS --steps 3000 --out results/article_keras

PHOTOS is a folder of pictures, or a .npy file of uint8 (N, 64, 64, 3). It shares no code with the package.
In --out it leaves `steps.json` (seconds of every step, losses, versions, machine) and, at the chosen steps,
`samples-STEP.npz` (500 pictures, uint8) to score and `grid-STEP.png` to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
from keras import layers

LATENT, SIDE_PX, BATCH = 100, 64, 32
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def build_generator(
    *, latent: int = LATENT, width: int = 128, rows: int = 8, columns: int = 8, channels: int = 3
) -> keras.Sequential:
    """Latent vectors (B, latent) to pictures (B, 8 rows, 8 columns, channels) in [-1, 1]."""
    model = keras.Sequential(name="generator")
    model.add(keras.Input((latent,)))
    model.add(layers.Dense(rows * columns * width, name="dense"))
    model.add(layers.Reshape((rows, columns, width), name="reshape"))
    for n in range(3):
        up = layers.Conv2DTranspose(width << n, kernel_size=4, strides=2, padding="same", name=f"up_{n + 1}")
        model.add(up)
        model.add(layers.ReLU(name=f"relu_{n + 1}"))
    model.add(layers.Conv2D(channels, kernel_size=5, padding="same", activation="tanh", name="to_picture"))
    return model


def build_discriminator(
    *, width: int = 64, rows: int = 64, columns: int = 64, channels: int = 3, dropout: float = 0.3
) -> keras.Sequential:
    """Pictures (B, rows, columns, channels) in [-1, 1] to probabilities (B, 1) of being real."""
    model = keras.Sequential(name="discriminator")
    model.add(keras.Input((rows, columns, channels)))
    for n, filters in enumerate((width, 2 * width, 2 * width, 2 * width)):
        down = layers.Conv2D(filters, kernel_size=4, strides=2, padding="same", name=f"down_{n + 1}")
        model.add(down)
        model.add(layers.LeakyReLU(negative_slope=0.2, name=f"leaky_relu_{n + 1}"))
    model.add(layers.Flatten(name="flatten"))
    model.add(layers.Dropout(dropout, name="dropout"))
    model.add(layers.Dense(1, activation="sigmoid", name="dense"))
    return model


class Article:
    """Generator, discriminator, the combined model "DCGAN", and a step of their training."""

    def __init__(self, generator: keras.Sequential, discriminator: keras.Sequential) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.combined = keras.Sequential([generator, discriminator], name="DCGAN")
        discriminator.compile(loss="binary_crossentropy", optimizer=_adam(), metrics=["accuracy"])
        self.combined.compile(loss="binary_crossentropy", optimizer=_adam())

    def step(self, real: np.ndarray, latents_fake: np.ndarray, latents: np.ndarray) -> tuple[float, float]:
        """Train both networks once.

        Args:
            real: real pictures, float32 (B / 2, H, W, C) in [-1, 1].
            latents_fake: float32 (B / 2, latent), for the pictures the discriminator learns from.
            latents: float32 (B, latent), for the generator's turn.

        Returns:
            The losses of the discriminator and of the generator.
        """
        fake = self.generator.predict_on_batch(latents_fake)
        labels = np.concatenate((np.ones((len(real), 1)), np.zeros((len(fake), 1)))).astype(np.float32)
        # Keras 3 reads `trainable` when a model first trains, not when it is compiled as Keras 2 did.
        self.discriminator.trainable = True
        loss_d = self.discriminator.train_on_batch(np.concatenate((real, fake)), labels)
        self.discriminator.trainable = False
        loss_g = self.combined.train_on_batch(latents, np.ones((len(latents), 1), np.float32))
        return _first(loss_d), _first(loss_g)

    def accuracy(self, pictures: np.ndarray, label: float) -> float:
        """Share of the pictures to which the discriminator gives the label."""
        probabilities = self.discriminator.predict_on_batch(pictures)
        return float(((probabilities > 0.5) == (label > 0.5)).mean())


def load_pictures(path: Path) -> np.ndarray:
    """Pictures as uint8 (N, 64, 64, 3): squashed with bilinear interpolation, as the article does."""
    if path.suffix == ".npy":
        return np.load(path)
    from PIL import Image

    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise SystemExit(f"--data {path}: no pictures found")
    pictures = []
    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32)[None]
        small = keras.ops.image.resize(pixels, (SIDE_PX, SIDE_PX), interpolation="bilinear", antialias=False)
        pictures.append(np.rint(np.asarray(keras.ops.convert_to_numpy(small))[0]).astype(np.uint8))
    return np.stack(pictures)


@dataclass
class Record:
    """What `steps.json` holds."""

    pictures: int
    seed: int
    machine: str = field(default_factory=lambda: f"{platform.machine()}, {os.cpu_count()} CPUs")
    threads: str = field(default_factory=lambda: os.environ.get("OMP_NUM_THREADS", "all"))
    backend: str = field(default_factory=keras.backend.backend)
    keras: str = keras.__version__
    median_step_sec: float = 0.0
    step_sec: list[float] = field(default_factory=list)
    loss_discriminator: list[float] = field(default_factory=list)
    loss_generator: list[float] = field(default_factory=list)
    summaries: list[dict[str, float]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        self.median_step_sec = statistics.median(self.step_sec)
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def train(args: argparse.Namespace) -> None:
    """Run the article's procedure for the given steps or minutes."""
    keras.utils.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    pictures = load_pictures(args.data).astype(np.float32) / 255.0
    low, high = float(pictures.min()), float(pictures.max())
    pictures = (pictures - low) / (high - low) * 2.0 - 1.0
    print("pictures", pictures.shape)
    article = Article(build_generator(), build_discriminator())
    article.generator.summary()
    article.discriminator.summary()
    record = Record(pictures=len(pictures), seed=args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    started, step = time.monotonic(), 0
    while step < args.steps and time.monotonic() - started < args.minutes * 60:
        real = pictures[rng.choice(len(pictures), BATCH // 2, replace=True)]
        began = time.perf_counter()
        loss_d, loss_g = article.step(real, _latents(rng, BATCH // 2), _latents(rng, BATCH))
        record.step_sec.append(time.perf_counter() - began)
        record.loss_discriminator.append(loss_d)
        record.loss_generator.append(loss_g)
        step += 1
        if step % args.summary_every == 0:
            summarise(article, pictures, rng, step, record)
        if step in args.samples_at:
            write_samples(article.generator, step, args, (low, high))
    if step not in args.samples_at:
        write_samples(article.generator, step, args, (low, high))
    record.write(args.out / "steps.json")
    print(f"{step} steps, median {record.median_step_sec:.2f} s a step")


def summarise(
    article: Article, pictures: np.ndarray, rng: np.random.Generator, step: int, record: Record
) -> None:
    """The article's performance summary: the discriminator's accuracy on 50 real and 50 generated."""
    real = pictures[rng.choice(len(pictures), 50, replace=True)]
    fake = article.generator.predict_on_batch(_latents(rng, 50))
    summary = {
        "step": step,
        "accuracy_real": article.accuracy(real, 1.0),
        "accuracy_fake": article.accuracy(fake, 0.0),
    }
    record.summaries.append(summary)
    print(
        f"step {step}: losses {record.loss_discriminator[-1]:.3f} and {record.loss_generator[-1]:.3f}, "
        f"accuracy on real {summary['accuracy_real']:.0%}, on generated {summary['accuracy_fake']:.0%}"
    )


def write_samples(
    generator: keras.Sequential, step: int, args: argparse.Namespace, limits: tuple[float, float]
) -> None:
    """500 pictures to score, always of the same latents, and the first six as the article's 2×3 figure."""
    from PIL import Image

    latents = _latents(np.random.default_rng(0), args.samples)
    parts = [generator.predict_on_batch(latents[n : n + 50]) for n in range(0, len(latents), 50)]
    scaled = (np.concatenate(parts) + 1.0) / 2.0 * (limits[1] - limits[0]) + limits[0]
    images = np.rint(scaled * 255.0).clip(0, 255).astype(np.uint8)
    np.savez_compressed(args.out / f"samples-{step:06d}.npz", images=images, step=step)
    if len(images) >= 6:
        grid = np.concatenate([np.concatenate(list(images[n : n + 3]), axis=1) for n in (0, 3)])
        Image.fromarray(grid).save(args.out / f"grid-{step:06d}.png")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures, or .npy file")
    parser.add_argument("--steps", type=int, default=3000, help="training steps")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this long")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--samples-at", type=int, nargs="*", default=[500, 1000, 2000, 3000], metavar="STEP")
    parser.add_argument("--samples", type=int, default=500, help="pictures in each samples file")
    parser.add_argument("--summary-every", type=int, default=100, metavar="STEPS")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


def _adam() -> keras.optimizers.Adam:
    return keras.optimizers.Adam(learning_rate=2e-4, beta_1=0.5)


def _latents(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_normal((count, LATENT), dtype=np.float32)


def _first(result: object) -> float:
    return float(np.ravel(np.asarray(result, dtype=np.float64))[0])


if __name__ == "__main__":
    main()
