"""Makes the corpus of fuzzing: a small, whole file of each kind that a parser or loader of ours reads.

python -m tests.make_corpus
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import zipfile
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from bonsaigan.generator import GeneratorSpec
from bonsaigan.models import build_generator
from bonsaigan.training import checkpoint
from bonsaigan.training.trainer import Trainer
from tests.fuzzing import CORPUS, NETWORK, PICTURE_FORMS, SIZE, tiny_config
from tests.hostile import encoded, photograph


def make_corpus() -> None:
    """Write every file of the corpus."""
    CORPUS.mkdir(exist_ok=True)
    for name, data in {**_archives(), **_pictures(), **_run_files()}.items():
        (CORPUS / name).write_bytes(data)
    _make_keras()


def _archives() -> dict[str, bytes]:
    members = {f"set/photo {i}.png": encoded(photograph(i, 20, 16, 1), "png") for i in range(3)}
    packed, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name + "é" * 60)  # an extended header
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    whole = tarred.getvalue().rstrip(b"\0") + bytes(1024)
    return {
        "set.zip": packed.getvalue(),
        "set.tar": whole + bytes(-len(whole) % 512),
        "set.tar.gz": gzip.compress(whole, mtime=0),
        "set.tar.bz2": bz2.compress(whole),
        "set.tar.xz": lzma.compress(whole),
    }


def _pictures() -> dict[str, bytes]:
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6
    more: dict[str, dict[str, Any]] = {
        "jpeg": {"exif": turned.tobytes(), "progressive": True},
        "gif": {"save_all": True, "append_images": [photograph(7, 32, 24)]},
        "webp": {"exif": turned.tobytes()},
        "tiff": {"compression": "tiff_adobe_deflate"},
    }
    made = {
        f"photo.{form}": encoded(photograph(5, 32, 24), form, **more.get(form, {})) for form in PICTURE_FORMS
    }
    from bonsaigan.plots import make_grid

    tiles = np.stack([np.asarray(photograph(i, 32, 32)) for i in range(24)])
    return {**made, "grid.png": encoded(Image.fromarray(make_grid(tiles, columns=8)), "png", optimize=True)}


def _run_files() -> dict[str, bytes]:
    config = tiny_config()
    trainer = Trainer(config, device=torch.device("cpu"))
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    trainer.step(pictures)
    tensors = {k: t.detach().contiguous() for k, t in checkpoint.pack(trainer._parts()).items()}
    state = save(tensors)
    counters = {
        "format": checkpoint.FORMAT,
        "sha256": hashlib.sha256(state).hexdigest(),
        "progress": {**vars(trainer.progress), "best_kid": 0.25, "train_sec": 1.5, "begin_sec": 0.5},
    }
    torch.manual_seed(0)
    network = build_generator("article", network=NETWORK, size=SIZE, channels=3)
    spec = GeneratorSpec(
        family="article",
        network=NETWORK,
        size=SIZE,
        channels=3,
        recipe="article",
        step=4,
        scores={"kid": 0.2},
    )
    return {
        "config.json": config.to_json().encode(),
        "generator.json": json.dumps(dataclasses.asdict(spec), indent=2).encode(),
        "generator.safetensors": save({k: t.contiguous() for k, t in network.state_dict().items()}),
        "state.json": json.dumps(counters, indent=2).encode(),
        "state.safetensors": state,
        **_texts(),
    }


def _texts() -> dict[str, bytes]:
    files = [
        {"name": f"photo {i}.png", "sha256": hashlib.sha256(bytes([i])).hexdigest(), "width_px": 40,
         "height_px": 30, "holdout": False, "notes": [{"kind": "aspect", "what": "40 x 30 pixels"}]}
        for i in range(8)
    ]  # fmt: skip
    data = {
        "source": "the folder photos", "name": "photos", "licence": "CC0", "citation": None,
        "counts": {"files": 9, "used": 8, "left_out": 1, "train": 8, "holdout": 0},
        "summary": "8 of 9 files will be used.", "files": files,
        "left_out": [{"name": "a.txt", "kind": "not a picture", "reason": "no picture", "sha256": ""}],
    }  # fmt: skip
    numbers = {"kid": 0.03, "frechet": 40.0, "precision": 0.5, "recall": 0.5, "density": 0.9,
               "coverage": 0.8, "diversity": 0.9}  # fmt: skip
    metrics = {
        "step": 4,
        "scores": {"nearness": "close", "verdict": "Close.", "numbers": numbers, "floor": numbers,
                   "floor_std": numbers, "holdout": None, "frechet_matched": 50.0, "frechet_count": 4,
                   "generated_count": 500, "real_count": 8, "holdout_count": 0, "floor_count": 4,
                   "network": "n", "filter": "f", "seed": 0, "notes": ["A note."]},
        "copies": {"verdict": "None.", "comparison": "Far.", "generated_count": 500, "flagged_count": 1,
                   "closest": [{"generated": 3, "training": 2, "mirrored": True, "closeness": 0.9,
                                "flagged": True, "seed": 3}]},
    }  # fmt: skip
    at = [{"step": s, "kimg": s / 100, "train_sec": s / 2} for s in range(1, 9)]
    step = {"kind": "step", "loss_generator": 1.0, "loss_discriminator": 0.001, "accuracy_real": 1.0,
            "accuracy_fake": 1.0, "mean_steps": 1, "mean_loss_discriminator": 0.001,
            "mean_accuracy_real": 1.0, "mean_accuracy_fake": 1.0, "pictures_per_sec": 9.0}  # fmt: skip
    evaluation = {"kind": "evaluation", "kid": 0.1, "diversity": 0.5, "leak_colour": 0.8,
                  "leak_colour_likeness": 0.9}  # fmt: skip
    health = {"kind": "health", "finding": "stalled", "since_step": 3, "what": "It stalls.",
              "advice": "Stop.", "over": False}  # fmt: skip
    begin = {"kind": "begin", "versions": {"torch": "2"}, "device": "cpu", "threads": 2}
    lines = [{**at[0], **begin}, *({**a, **step} for a in at), *({**a, **evaluation} for a in at)]
    lines += [{**a, "step": 100 * a["step"], "kind": "look", "spread": 0.1} for a in at] + [
        {**at[7], **health}
    ]
    lines.sort(key=lambda line: line["step"])
    return {
        "data.json": json.dumps(data, indent=2).encode(),
        "metrics.json": json.dumps(metrics, indent=2).encode(),
        "favourites.json": json.dumps(
            ["7", "8!0:1.5!1:-0.5", "7*zADwAPAA8ADw*0.4", "3~4"], indent=1
        ).encode(),
        "metrics.jsonl": "\n".join(json.dumps(line) for line in lines).encode() + b"\n",
    }


def _make_keras() -> None:
    from bonsaigan.export.keras import _builder

    torch.manual_seed(0)
    network: Any = build_generator("article", network=NETWORK, size=SIZE, channels=3)
    model = _builder(network)(network)
    model.save(CORPUS / "generator.keras")
    model.save(CORPUS / "generator.h5")


if __name__ == "__main__":
    make_corpus()
