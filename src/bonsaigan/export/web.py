"""A folder with one page that draws new pictures in the visitor's own browser, with ONNX Runtime Web.

No server is needed but one that hands out files. The weights are fp16. The runtime is fetched in a pinned
version and checked against its hash, or copied into the folder.

The seeds are the package's own: seed 7 on the page is the picture that `bonsaigan generate --seed 7` draws.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bonsaigan.config import MODES
from bonsaigan.errors import ConfigError
from bonsaigan.explore.directions import STEP, find_directions
from bonsaigan.export import onnx
from bonsaigan.export.targets import TOLERANCE_LEVELS, Draw, Job
from bonsaigan.report.facts import clean

PAGE_DIR = Path(__file__).with_name("page")
MODEL_FILE, FACTS_FILE, RUNTIME_DIR = "generator.onnx", "page.json", "runtime"
SCRIPT_FILE, WASM_FILE = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
RUNTIME_URL = "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/"
RUNTIME_HASHES = {
    SCRIPT_FILE: "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
    WASM_FILE: "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
}
BUNDLE_PLACES = (".", "dist", "package/dist", "node_modules/onnxruntime-web/dist")
DIRECTIONS = 6
LATENT_MIN = 16
"""Shorter latent vectors come from another of PyTorch's ways to draw, which the page does not know."""


def write(job: Job, path: Path) -> None:
    """Write the folder.

    Raises:
        ConfigError: the latent vector is too short, or `--bundle` has no runtime in it.
    """
    latent = job.spec.network.latent
    if latent < LATENT_MIN:
        raise ConfigError(f"--to web: a latent vector of {latent} numbers; at least {LATENT_MIN} are needed")
    path.mkdir()
    for file in PAGE_DIR.iterdir():
        if file.is_file():
            shutil.copyfile(file, path / file.name)
    onnx.write(job, path / MODEL_FILE)
    runtime = _referenced() if job.bundle is None else _bundled(job.bundle, path / RUNTIME_DIR)
    facts = _facts(job) | {"runtime": runtime}
    (path / FACTS_FILE).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
    (path / "README.md").write_text(job.card, encoding="utf-8")


def load(path: Path) -> Draw:
    """Load the page's model, in ONNX Runtime on this machine; the page itself compares once more."""
    return onnx.load(path / MODEL_FILE)


def _facts(job: Job) -> dict[str, Any]:
    spec = job.spec
    picture = job.original.images(job.original.latents([0]))[0]
    rgba = np.full((*picture.shape[:2], 4), 255, np.uint8)
    rgba[..., : max(3, spec.channels)] = picture
    about = [
        ("Trained on", clean(spec.source) or "unknown"),
        ("Licence of those pictures", clean(spec.licence or "not stated")),
        ("Recipe", f"{clean(spec.recipe)}, step {spec.step}"),
        ("Pictures", f"{spec.size} pixels, {MODES[spec.channels]}"),
        ("Made with", "bonsaigan, whose seeds these are"),
    ]
    directions = find_directions(job.original, min(DIRECTIONS, spec.network.latent // 2))
    return {
        "title": "Pictures that nobody has seen",
        "width": spec.size.width_px,
        "height": spec.size.height_px,
        "channels": spec.channels,
        "latent": spec.network.latent,
        "about": about,
        "directions": {
            "names": directions.names,
            "vectors": np.round(directions.vectors.numpy(), 6).tolist(),
            "step": STEP,
        },
        "check": {
            "seed": 0,
            "pixels": base64.b64encode(rgba.tobytes()).decode(),
            "tolerance": TOLERANCE_LEVELS["fp16"],
        },
    }


def _referenced() -> dict[str, Any]:
    return {
        key: {"url": RUNTIME_URL + name, "integrity": RUNTIME_HASHES[name]}
        for key, name in (("script", SCRIPT_FILE), ("wasm", WASM_FILE))
    }


def _bundled(bundle: Path, folder: Path) -> dict[str, Any]:
    """Copy the runtime's two files out of an npm package, wherever in `bundle` it lies."""
    dist = next((bundle / place for place in BUNDLE_PLACES if (bundle / place / SCRIPT_FILE).is_file()), None)
    if dist is None or not (dist / WASM_FILE).is_file():
        raise ConfigError(
            f"--bundle {str(bundle)!r}: no {SCRIPT_FILE} and {WASM_FILE} there; unpack the npm package "
            f"onnxruntime-web (npm pack onnxruntime-web), or leave --bundle out"
        )
    folder.mkdir()
    files = {}
    for key, name in (("script", SCRIPT_FILE), ("wasm", WASM_FILE)):
        shutil.copyfile(dist / name, folder / name)
        digest = base64.b64encode(hashlib.sha384((folder / name).read_bytes()).digest()).decode()
        files[key] = {"url": f"{RUNTIME_DIR}/{name}", "integrity": f"sha384-{digest}"}
    return files
