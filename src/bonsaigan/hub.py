"""Generators on the Hugging Face hub: `hf:OWNER/NAME` fetched, exports uploaded.

A repository is a stranger's. Two files of it are fetched, no larger than a generator can be, and read as any
other generator's: checked, bounded, and never executed.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from bonsaigan.errors import ConfigError, DownloadError, MissingExtraError, RunError, first_line

FILE_LIMITS_BYTES = {"generator.json": 16 << 20, "generator.safetensors": 1 << 30}
"""What is fetched, and how large it may be."""
OWNER_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""What a repository's name looks like."""


def check_name(name: str, *, flag: str) -> None:
    """Check that a name has the form OWNER/NAME.

    Raises:
        ConfigError: it has not.
    """
    if not OWNER_NAME.fullmatch(name):
        raise ConfigError(f"{flag} {name!r}: expected OWNER/NAME")


def fetch(name: str) -> Path:
    """A folder with the generator of the repository `OWNER/NAME`: the newest, or offline the cached one.

    Raises:
        ConfigError: the name has another form.
        RunError: the repository has no generator, or one of its files is too large.
        DownloadError: the hub cannot be reached and nothing is cached, or it refuses.
        MissingExtraError: the extra `hub` is not installed.
    """
    check_name(name, flag="hf:")
    client = _client(f"RUN of the form hf:{name}")
    description, weights = FILE_LIMITS_BYTES
    try:
        revision = _look(client, name)
        # The weights as looked at; then the other by its branch, which offline leads to both from now on.
        client.hf_hub_download(name, weights, revision=revision)
        path = client.hf_hub_download(name, description)
    except RunError:
        raise
    except Exception as error:  # the client raises errors of several libraries
        try:
            path = client.hf_hub_download(name, description, local_files_only=True)
            client.hf_hub_download(name, weights, local_files_only=True)
        except Exception:
            raise DownloadError(f"hf:{name}: {_said(error)}. Check the name and the network") from None
    return Path(path).parent


def push(folder: Path, name: str) -> str:
    """Upload an export's folder to the repository `OWNER/NAME`, made if it is not there.

    Returns:
        Its address.

    Raises:
        RunError: the hub cannot be reached or refuses.
        MissingExtraError: the extra `hub` is not installed.
    """
    check_name(name, flag="--push")
    api = _client("--push").HfApi()
    try:
        address = api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="A generator made with bonsaigan")
    except Exception as error:  # as above
        raise RunError(
            f"--push {name}: {_said(error)}. The export is kept in {folder}; log in with: hf auth login"
        ) from None
    return str(address)


def _look(client: Any, name: str) -> str:
    """The repository's newest revision, once its files are known to be there and of a fitting size."""
    info = client.HfApi().model_info(name, files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings}
    for file, limit in FILE_LIMITS_BYTES.items():
        if file not in sizes:
            raise RunError(f"hf:{name}: no generator of bonsaigan: it has no {file}")
        if sizes[file] is None or sizes[file] > limit:
            raise RunError(
                f"hf:{name}: {file} is larger than {limit >> 20} MiB, which no generator of ours is"
            )
    return info.sha


def _client(feature: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise MissingExtraError(feature=feature, extra="hub") from None


def _said(error: Exception) -> str:
    from bonsaigan.data.files import printable

    return printable(first_line(error, otherwise=type(error).__name__).rstrip("."))
