"""The baseline: the article's procedure as a Keras 3 program on TensorFlow, as its reader would have it.

    python benchmarks/article_keras.py --data PHOTOS --at 600 3600 --out DIR
    python benchmarks/article_keras.py --data PHOTOS --steps 3000 --out DIR

PHOTOS is a .npy file of uint8 (N, 64, 64, 3), or a folder of pictures. DIR gets what every rival leaves
(`rivals/_protocol.py`). It shares no code with the package; `rivals/README.md` tells how to make its
environment.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from rivals import _protocol

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
IMPORTS_BEGAN_SEC = time.perf_counter()

try:
    import keras
    from keras import layers
except ImportError as error:
    raise SystemExit(_protocol.missing(error)) from error

LATENT, SIDE_PX, BATCH = 100, 64, 32
LEARNING_RATE, BETA_1 = 2e-4, 0.5
SUMMARY, DRAW_BATCH = 50, 50
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


def load_folder(path: Path) -> np.ndarray:
    """Pictures as uint8 (N, 64, 64, 3): squashed with bilinear interpolation, as the article does."""
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


class Reader:
    """The procedure as the protocol uses it: batches of real pictures and latents in, pictures out."""

    def __init__(self, article: Article, pictures: np.ndarray, asked: _protocol.Asked) -> None:
        self.article = article
        # Reports come by the clock: with numbers of their own, training depends on the seed alone.
        self.rng, self.rng_summary = np.random.default_rng(asked.seed).spawn(2)
        scaled = pictures.astype(np.float32) / 255.0
        self.low, self.high = float(scaled.min()), float(scaled.max())
        self.pictures = (scaled - self.low) / (self.high - self.low) * 2.0 - 1.0
        self.latents = _latents(np.random.default_rng(0), asked.samples)
        self.losses = (0.0, 0.0)

    def step(self) -> None:
        real = self._real(self.rng, BATCH // 2)
        self.losses = self.article.step(real, _latents(self.rng, BATCH // 2), _latents(self.rng, BATCH))

    def draw(self) -> dict[str, np.ndarray]:
        """Pictures of the same latents each time, scaled back from the generator's [-1, 1]."""
        starts = range(0, len(self.latents), DRAW_BATCH)
        generate = self.article.generator.predict_on_batch
        parts = [generate(self.latents[start : start + DRAW_BATCH]) for start in starts]
        shares = (np.concatenate(parts) + 1.0) / 2.0
        return {"generator": _protocol.to_uint8(shares * (self.high - self.low) + self.low)}

    def progress(self) -> dict[str, float]:
        """The article's performance summary: the discriminator's accuracy on 50 real and on 50 generated."""
        fake = self.article.generator.predict_on_batch(_latents(self.rng_summary, SUMMARY))
        return {
            "loss_discriminator": self.losses[0],
            "loss_generator": self.losses[1],
            "accuracy_real": self.article.accuracy(self._real(self.rng_summary, SUMMARY), 1.0),
            "accuracy_fake": self.article.accuracy(fake, 0.0),
        }

    def _real(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return self.pictures[rng.choice(len(self.pictures), count, replace=True)]


def main() -> None:
    """Read the command line and run the article's procedure."""
    import_sec = time.perf_counter() - IMPORTS_BEGAN_SEC
    asked = _protocol.asked(_protocol.parser(__doc__).parse_args())
    keras.utils.set_random_seed(asked.seed)
    pictures = load_folder(asked.data) if asked.data.is_dir() else _protocol.load_pictures(asked.data)
    if pictures.shape[1:3] != (SIDE_PX, SIDE_PX):
        raise SystemExit(f"--data {asked.data}: the article's networks are for {SIDE_PX}x{SIDE_PX} pictures")
    article = Article(build_generator(), build_discriminator())
    about = _protocol.About(
        method="article_keras",
        import_sec=import_sec,
        parameters={net.name: net.count_params() for net in (article.generator, article.discriminator)},
        versions={"keras": keras.__version__, keras.backend.backend(): _backend_version()},
        settings={
            "pictures": list(pictures.shape),
            "batch": BATCH,
            "latent": LATENT,
            "learning_rate": LEARNING_RATE,
            "beta_1": BETA_1,
        },
    )
    _protocol.run(Reader(article, pictures, asked), asked, about)


def _adam() -> keras.optimizers.Adam:
    return keras.optimizers.Adam(learning_rate=LEARNING_RATE, beta_1=BETA_1)


def _backend_version() -> str:
    return importlib.import_module(keras.backend.backend()).__version__


def _latents(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_normal((count, LATENT), dtype=np.float32)


def _first(result: object) -> float:
    return float(np.ravel(np.asarray(result, dtype=np.float64))[0])


if __name__ == "__main__":
    main()
