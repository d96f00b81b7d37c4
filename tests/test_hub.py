"""Generators on the hub: fetched with the real client from a small local server, uploaded to a stand-in."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import bonsaigan
from bonsaigan import cli, hub, runs
from bonsaigan.errors import BonsaiganError, ConfigError, DownloadError, MissingExtraError, RunError
from bonsaigan.export.targets import export
from bonsaigan.generator import save_generator
from tests.test_export import generator_of

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as answers for one repository, me/trees, whose files lie in a folder."""

    folder: Path
    sizes: dict[str, int]  # what it claims, where that is not so

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:4] == ["api", "models", "me", "trees"]:
            files = [
                {"rfilename": p.name, "size": self.sizes.get(p.name, p.stat().st_size)}
                for p in self.folder.iterdir()
            ]
            about = {"id": "me/trees", "modelId": "me/trees", "sha": REVISION, "siblings": files}
            self._send(json.dumps(about | {"private": False, "tags": [], "downloads": 0}).encode(), body=body)
        elif parts[:3] == ["me", "trees", "resolve"] and (self.folder / parts[-1]).is_file():
            self._send((self.folder / parts[-1]).read_bytes(), body=body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, content: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    """A repository with an export in it, and the environment in which the client finds it."""
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    folder = export(generator_of("fastgan", "48x32"), to="safetensors", out=tmp_path / "repo").path

    class Here(Hub):
        pass

    Here.folder, Here.sizes = folder, {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    yield (
        Here,
        {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"},
    )
    server.shutdown()
    server.server_close()


def command(*arguments: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "bonsaigan", *arguments]
    return subprocess.run(whole, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=240)


def test_pictures_of_a_repository(served: tuple[type[Hub], dict[str, str]], tmp_path: Path) -> None:
    repository, env = served
    done = command("generate", "hf:me/trees", "-n", "2", "--seed", "7", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "generator-trees" / "generated" / "seed000007.png") as picture:
        drawn = np.asarray(picture)
    generator = bonsaigan.load(repository.folder)
    np.testing.assert_array_equal(drawn, generator.images(generator.latents([7]))[0])
    # Without a network, what was fetched is still there.
    offline = env | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    done = command("export", "hf:me/trees", "--out", "again", cwd=tmp_path, env=offline)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again" / "README.md").read_text(encoding="utf-8").startswith("---\nlicense")


@pytest.mark.slow
def test_what_is_refused_is_one_line(served: tuple[type[Hub], dict[str, str]], tmp_path: Path) -> None:
    repository, env = served
    repository.sizes = {"generator.safetensors": 2 << 30}
    for name, said in (
        ("hf:me/trees", "larger than 1024 MiB"),
        ("hf:me/other", "hf:me/other"),
        ("hf:me", "OWNER/NAME"),
    ):
        done = command("generate", name, cwd=tmp_path, env=env)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "hf").rglob("*.safetensors"))
    repository.sizes = {}
    (repository.folder / "generator.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    done = command("generate", "hf:me/trees", cwd=tmp_path, env=env)
    assert (done.returncode, "no usable generator" in done.stderr) == (2, True)


# ---------------------------------------------------------------------------------------------------------
# With a stand-in for the client


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, **behaviour: Any) -> dict[str, Any]:
    """A stand-in for `huggingface_hub` that keeps what was uploaded under `folder`."""
    seen: dict[str, Any] = {}

    class HfApi:
        def model_info(self, name: str, *, files_metadata: bool) -> Any:
            assert files_metadata
            files = [types.SimpleNamespace(rfilename=k, size=v) for k, v in behaviour["files"].items()]
            return types.SimpleNamespace(sha=REVISION, siblings=files)

        def create_repo(self, name: str, *, exist_ok: bool) -> str:
            if "error" in behaviour:
                raise behaviour["error"]
            return f"https://hub/{name}"

        def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
            seen.update(repo_id=repo_id)
            shutil.copytree(folder_path, folder / repo_id)

    def hf_hub_download(name: str, file: str, **_: Any) -> str:
        raise OSError("no network\nat all")

    module = types.ModuleType("huggingface_hub")
    vars(module).update(HfApi=HfApi, hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return seen


def test_an_export_is_uploaded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = pretend(monkeypatch, tmp_path / "up")
    generator = generator_of("article", "32")
    folder = export(generator, to="safetensors", out=tmp_path / "out", half=True, card="# Trees\n").path
    assert hub.push(folder, "me/trees") == "https://hub/me/trees"
    assert seen["repo_id"] == "me/trees"
    again = bonsaigan.load(tmp_path / "up" / "me" / "trees")
    assert (
        np.abs(again.images(again.latents([3])).astype(int) - generator.images(generator.latents([3]))).max()
        <= 2
    )
    pretend(monkeypatch, tmp_path, error=OSError("401 Client Error.\nlong story"))
    with pytest.raises(RunError, match=r"--push me/trees: 401 Client Error\. The export is kept in"):
        hub.push(folder, "me/trees")


def test_a_run_is_uploaded_with_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tmp_path / "up")
    generator = generator_of("article", "32")
    save_generator(tmp_path / "run", generator.network, generator.spec)
    result = CliRunner().invoke(cli.app, ["export", str(tmp_path / "run"), "--half", "--push", "me/trees"])
    assert result.exit_code == 0, result.output
    assert "uploaded: https://hub/me/trees" in result.output
    assert 'bonsaigan.load("hf:me/trees")' in (tmp_path / "up/me/trees/README.md").read_text()
    assert bonsaigan.load(tmp_path / "up/me/trees").spec.recipe == "article"


@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        ({"pytorch_model.bin": 5}, RunError, "it has no generator.json"),
        ({"generator.json": 9, "generator.safetensors": 2 << 30}, RunError, "larger than 1024 MiB"),
        ({"generator.json": 1 << 30, "generator.safetensors": 9}, RunError, "larger than 16 MiB"),
        ({"generator.json": 9, "generator.safetensors": None}, RunError, "larger than"),
        ({"generator.json": 9, "generator.safetensors": 9}, DownloadError, "no network. Check the name"),
    ],
)
def test_repositories_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict, error: type[BonsaiganError], said: str
) -> None:
    pretend(monkeypatch, tmp_path, files=files)
    with pytest.raises(error, match=said):
        hub.fetch("a/b")


def test_a_generator_of_the_hub_is_called_by_its_address(tmp_path: Path) -> None:
    kept = tmp_path / "models--me--old--trees" / "snapshots" / ("0" * 40)
    kept.mkdir(parents=True)
    assert runs.title(kept) == "hf:me/old--trees"
    assert runs.title(tmp_path / "mine") == "mine"


def test_names_and_the_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for name in ("trees", "../trees", "a/b/c", "a/\x1b[31m", "-a/b"):
        with pytest.raises(ConfigError, match="OWNER/NAME"):
            bonsaigan.load(f"hf:{name}")
    with pytest.raises(MissingExtraError, match=r"bonsaigan\[hub\]"):
        bonsaigan.load("hf:a/b")
