"""The errors a user can cause, each said in one line.

The command line prints the message and exits with status 2; a program catches `BonsaiganError`. A message
names the value, the limit and the flag that changes it.
"""


class BonsaiganError(Exception):
    """The base of every error this package raises on purpose."""


class ConfigError(BonsaiganError):
    """A setting is out of its limits, or settings contradict each other."""


class DataError(BonsaiganError):
    """DATA cannot be found, read or used."""


class DownloadError(DataError):
    """A download failed; of a single file, what arrived so far is kept for the next try."""


class RunError(BonsaiganError):
    """A RUN cannot be found, is in use by another process, or is not what it says it is."""


class CheckpointError(RunError):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


class TrainingError(BonsaiganError):
    """Training cannot go on: memory ran out, or another process is gone."""


class NotFiniteError(TrainingError):
    """A loss or a weight stopped being a finite number."""


class MissingExtraError(BonsaiganError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, *, feature: str, extra: str):
        super().__init__(f"{feature} needs an extra: pip install 'bonsaigan[{extra}]'")


def first_line(error: object, *, otherwise: str = "") -> str:
    """What a library's error says first, for a message of one line; `otherwise` if it says nothing."""
    return (str(error).strip().splitlines() or [otherwise])[0]
