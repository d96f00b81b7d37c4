"""A rival: a DCGAN with adaptive discriminator augmentation in Keras 3 on TensorFlow.

    python benchmarks/rivals/gan_ada_keras.py --data pictures.npy --out DIR --at 60 300 600

Written anew from the description of the Keras example "Data-efficient GANs with Adaptive Discriminator
Augmentation" (András Béres, 2021), whose settings it takes; README.md beside this file tells what differs.
"""

from __future__ import annotations

import os
import time
from typing import Any

import _protocol
import numpy as np

IMPORTS_BEGAN_SEC = time.perf_counter()
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

try:
    import keras
    import tensorflow as tf
    from keras import layers
except ImportError as error:
    raise SystemExit(_protocol.missing(error)) from error

LATENT, WIDTH, LEVELS, SIDE_PX = 64, 128, 4, 64
BATCH, BATCH_SMALL_SET, SMALL_SET = 128, 64, 256
LEARNING_RATE, BETA_1, EMA = 2e-4, 0.5, 0.99
TARGET_ACCURACY, INTEGRATION_STEPS = 0.8, 1000
TRANSLATION, ROTATION, ZOOM = 0.125, 0.125, 0.25
DROPOUT, SLOPE = 0.4, 0.2
DRAW_BATCH = 100


def main() -> None:
    """Read the command line and train."""
    import_sec = time.perf_counter() - IMPORTS_BEGAN_SEC
    parser = _protocol.parser(__doc__)
    parser.add_argument("--batch", type=int, help=f"{BATCH}, or {BATCH_SMALL_SET} below {SMALL_SET} pictures")
    values = parser.parse_args()
    asked = _protocol.asked(values)
    pictures = _protocol.load_pictures(asked.data)
    if pictures.shape[1:3] != (SIDE_PX, SIDE_PX):
        raise SystemExit(f"--data {asked.data}: the example's networks are for {SIDE_PX}x{SIDE_PX} pictures")
    batch = values.batch or (BATCH if len(pictures) >= SMALL_SET else BATCH_SMALL_SET)
    keras.utils.set_random_seed(asked.seed)
    gan = AdaptiveGan()
    gan.compile()
    about = _protocol.About(
        method="gan_ada_keras",
        import_sec=import_sec,
        parameters={net.name: count_trained(net) for net in (gan.generator, gan.discriminator)},
        versions={"keras": keras.__version__, "tensorflow": tf.__version__},
        settings=settings(pictures, batch),
    )
    _protocol.run(GanAda(gan, pictures, batch=batch, asked=asked), asked, about)


def settings(pictures: np.ndarray, batch: int) -> dict[str, Any]:
    """What `steps.json` says of the settings."""
    return {
        "pictures": list(pictures.shape),
        "batch": batch,
        "latent": LATENT,
        "width": WIDTH,
        "learning_rate": LEARNING_RATE,
        "beta_1": BETA_1,
        "ema": EMA,
        "dropout": DROPOUT,
        "target_accuracy": TARGET_ACCURACY,
        "integration_steps": INTEGRATION_STEPS,
    }


class GanAda:
    """The method as the protocol uses it: batches in, pictures of the averaged generator out."""

    def __init__(self, gan: AdaptiveGan, pictures: np.ndarray, *, batch: int, asked: _protocol.Asked) -> None:
        self.gan = gan
        self.pictures = pictures.astype(np.float32) / 255.0
        rng = np.random.default_rng(asked.seed)
        self.latents = rng.standard_normal((asked.samples, LATENT), dtype=np.float32)
        self.batches = _protocol.batches(len(pictures), batch, rng)
        self.values: dict[str, float] = {}

    def step(self) -> None:
        values = self.gan.train_on_batch(self.pictures[next(self.batches)], return_dict=True)
        self.values = {name: float(value) for name, value in values.items()}

    def draw(self) -> dict[str, np.ndarray]:
        """The averaged generator's pictures, and those of the generator it lags behind."""
        return {"average": self.drawn_by(self.gan.average), "generator": self.drawn_by(self.gan.generator)}

    def drawn_by(self, network: keras.Model) -> np.ndarray:
        starts = range(0, len(self.latents), DRAW_BATCH)
        parts: list[Any] = [
            network(self.latents[start : start + DRAW_BATCH], training=False) for start in starts
        ]
        return _protocol.to_uint8(np.concatenate([part.numpy() for part in parts]))

    def progress(self) -> dict[str, float]:
        return self.values


# ---- the training step -------------------------------------------------------------------------------------


class AdaptiveGan(keras.Model):
    """Generator, its moving average, discriminator and augmentation, and the step that trains them."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = build_generator(), build_discriminator()
        self.average = build_generator(name="average")
        self.average.set_weights(self.generator.get_weights())
        self.average.trainable = False
        self.augmentation = AdaptiveAugmentation()
        self.adams = {
            network.name: keras.optimizers.Adam(LEARNING_RATE, beta_1=BETA_1)
            for network in (self.generator, self.discriminator)
        }
        self.cross_entropy: Any = keras.losses.BinaryCrossentropy(from_logits=True)
        self.latent_seeds = keras.random.SeedGenerator()
        self.built = True

    def train_step(self, data: Any) -> dict[str, Any]:
        """Train both networks once, on the same generated pictures; data: float32 (B, H, W, 3) in [0, 1]."""
        real, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        latents = keras.random.normal((tf.shape(real)[0], LATENT), seed=self.latent_seeds)
        with tf.GradientTape(persistent=True) as tape:
            fake = self.generator(latents, training=True)
            # Real and generated apart: each gets its own batch statistics.
            logits_real: Any = self.discriminator(self.augmentation(real), training=True)
            logits_fake: Any = self.discriminator(self.augmentation(fake), training=True)
            losses = {
                self.generator: self.loss_generator(logits_fake),
                self.discriminator: self.loss_discriminator(logits_real, logits_fake),
            }
        for network, loss in losses.items():
            gradients = tape.gradient(loss, network.trainable_weights)
            self.adams[network.name].apply(gradients, network.trainable_weights)
        accuracy = tf.reduce_mean(tf.cast(logits_real > 0.0, tf.float32))
        self.augmentation.adapt_to(accuracy)
        for averaged, weight in zip(self.average.weights, self.generator.weights, strict=True):
            averaged.assign(EMA * averaged + (1.0 - EMA) * weight)
        return {
            "loss_generator": losses[self.generator],
            "loss_discriminator": losses[self.discriminator],
            "accuracy_real": accuracy,
            "augmented": self.augmentation.probability.value,
        }

    def loss_generator(self, logits_fake: Any) -> Any:
        """The non-saturating loss (Goodfellow et al. 2014)."""
        return self.cross_entropy(tf.ones_like(logits_fake), logits_fake)

    def loss_discriminator(self, logits_real: Any, logits_fake: Any) -> Any:
        """Cross-entropy, one mean over real and generated."""
        of_real = self.cross_entropy(tf.ones_like(logits_real), logits_real)
        return 0.5 * (of_real + self.cross_entropy(tf.zeros_like(logits_fake), logits_fake))


class AdaptiveAugmentation(layers.Layer):
    """Flips, shifts, turns and enlarges a share of the pictures that the discriminator's success decides.

    The share is the integral of the accuracy on real pictures less the wanted one (StyleGAN2-ADA, Karras et
    al. 2020, section 3.1, in terms of accuracy in place of the sign of the logits).
    """

    def __init__(self) -> None:
        super().__init__(name="augmentation")
        self.change = keras.Sequential(
            [
                layers.RandomFlip("horizontal"),
                layers.RandomTranslation(TRANSLATION, TRANSLATION, interpolation="nearest"),
                layers.RandomRotation(ROTATION),
                layers.RandomZoom((-ZOOM, 0.0), (-ZOOM, 0.0)),
            ]
        )
        self.seeds = keras.random.SeedGenerator()
        self.probability = self.add_weight(shape=(), initializer="zeros", trainable=False, name="probability")

    def call(self, pictures: Any) -> Any:
        """Pictures (B, H, W, 3), each changed with the present probability."""
        chance: Any = keras.random.uniform((tf.shape(pictures)[0], 1, 1, 1), seed=self.seeds)
        return tf.where(chance < self.probability, self.change(pictures, training=True), pictures)

    def adapt_to(self, accuracy: Any) -> None:
        """Raise the probability while the discriminator knows more real pictures than it should."""
        moved = self.probability + (accuracy - TARGET_ACCURACY) / INTEGRATION_STEPS
        self.probability.assign(tf.clip_by_value(moved, 0.0, 1.0))


# ---- the networks ------------------------------------------------------------------------------------------


def build_generator(*, name: str = "generator") -> keras.Sequential:
    """Latents (B, 64) to pictures (B, 64, 64, 3) in [0, 1]."""
    side = SIDE_PX >> LEVELS
    model = keras.Sequential([keras.Input((LATENT,))], name=name)
    model.add(layers.Dense(side * side * WIDTH, use_bias=False))
    _normalise(model, layers.ReLU())
    model.add(layers.Reshape((side, side, WIDTH)))
    for _ in range(LEVELS - 1):
        model.add(layers.Conv2DTranspose(WIDTH, 4, strides=2, padding="same", use_bias=False))
        _normalise(model, layers.ReLU())
    model.add(layers.Conv2DTranspose(3, 4, strides=2, padding="same", activation="sigmoid"))
    return model


def build_discriminator() -> keras.Sequential:
    """Pictures (B, 64, 64, 3) in [0, 1] to logits (B, 1)."""
    model = keras.Sequential([keras.Input((SIDE_PX, SIDE_PX, 3))], name="discriminator")
    for _ in range(LEVELS):
        model.add(layers.Conv2D(WIDTH, 4, strides=2, padding="same", use_bias=False))
        _normalise(model, layers.LeakyReLU(negative_slope=SLOPE))
    model.add(layers.Flatten())
    model.add(layers.Dropout(DROPOUT))
    model.add(layers.Dense(1))
    return model


def count_trained(net: keras.Model) -> int:
    """Number of parameters that training changes."""
    return sum(int(np.prod(weight.shape)) for weight in net.trainable_weights)


def _normalise(model: keras.Sequential, activation: layers.Layer) -> None:
    """Batch norm without a scale, which the layers after it could learn themselves, and the activation."""
    model.add(layers.BatchNormalization(scale=False))
    model.add(activation)


if __name__ == "__main__":
    main()
