"""What a run shows and keeps while it trains: progress bar, samples, scores, logs, the best moment.

`Monitor` belongs to the process that writes and prints, `Helper` to the others of a training that several
processes share.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from torch import Tensor, nn

from bonsaigan.config import TrainConfig
from bonsaigan.data.prepare import to_float
from bonsaigan.data.selection import PictureArray, spread_out
from bonsaigan.errors import NotFiniteError, RunError
from bonsaigan.generator import GeneratorSpec, read_spec, save_generator, seed_latents
from bonsaigan.plots import save_grid
from bonsaigan.runs import BEST_DIR, METRICS_FILE, REALS_FILE, SAMPLES_DIR, typed, versions
from bonsaigan.training import shared, vitals
from bonsaigan.training.health import Change, Health
from bonsaigan.training.history import add_line, end_half_line, read_history
from bonsaigan.training.recipes import find

if TYPE_CHECKING:
    from bonsaigan.evaluation.scores import RealReference
    from bonsaigan.training.checkpoint import Progress
    from bonsaigan.training.trainer import StepStats, Trainer

FIRST_LOOK_STEP, LOOK_GROWTH, LOOK_EVERY_STEPS = 10, 1.5, 250
EVALUATE_SHARE = 0.05
"""Scores may take this share of the training time."""
FIRST_EVALUATION_SEC = 3.0
"""What a score is thought to cost before one was made."""
GRID_ROWS, GRID_COLUMNS = 8, 8
SUMMARY_COUNT, SUMMARY_ROWS, SUMMARY_COLUMNS = 50, 2, 3


class Monitor:
    """Told of every step by the loop; decides by itself when to look closer."""

    def __init__(
        self,
        config: TrainConfig,
        pictures: PictureArray,
        folder: Path,
        *,
        spec: GeneratorSpec,
        console: Console,
        more: bool = False,
    ):
        """
        Args:
            config: the run.
            pictures: uint8 (N, H, W, C), those trained on.
            folder: the run's folder.
            spec: what is known of the generator before training.
            console: where to print.
            more: whether the budget is another one than the run had before.
        """
        from torch.utils.tensorboard.writer import SummaryWriter

        self.config, self.pictures, self.folder, self.spec, self.console = (
            config,
            pictures,
            folder,
            spec,
            console,
        )
        self.more = more
        self.reference: RealReference | None = None
        self.board = SummaryWriter(str(folder))
        self.bar: tuple[ProgressBar, TaskID] | None = None
        self.evaluation_cost_sec = FIRST_EVALUATION_SEC
        self.scored_step: int | None = None
        end_half_line(folder / METRICS_FILE)
        self.health = Health(config, guessing_loss=_guessing_loss(config.recipe))
        self.steps_since_line: list[StepStats] = []
        self.leak_detector: vitals.LeakDetector | None = None
        self.real_spread: float | None = None
        self.stopped = False
        """Whether training ended because someone asked it to."""
        if not (folder / REALS_FILE).exists():
            save_grid(
                folder / REALS_FILE, spread_out(pictures, GRID_ROWS * GRID_COLUMNS), columns=GRID_COLUMNS
            )

    def step(self, trainer: Trainer, stats: StepStats) -> None:
        """Note a step; draw and score at the looking moments."""
        progress = trainer.progress
        self.steps_since_line.append(stats)
        now = progress.seen_nimg / max(progress.step_sec, 1e-9)
        if self.bar is not None:
            bar, task = self.bar
            left = progress.seconds_left(self.config.budget)
            bar.update(
                task, completed=progress.done_share(self.config.budget), status=_status(now, stats, left)
            )
        if is_look(progress.step):
            for name, value in dataclasses.asdict(stats).items():
                self.board.add_scalar(f"step/{name}", value, progress.step)
            means = _means(self.steps_since_line)
            self.steps_since_line.clear()
            self._note(
                {"kind": "step", **dataclasses.asdict(stats), **means, "pictures_per_sec": round(now, 2)},
                trainer,
            )
            self.look(trainer)

    def look(self, trainer: Trainer, *, last: bool = False) -> None:
        """Draw the grid of the first seeds, save the generator, and score it where the time allows.

        Raises:
            NotFiniteError: a weight is not finite; the generator saved before is kept.
        """
        started = time.monotonic()
        progress = trainer.progress
        trainer.check_finite()
        network = trainer.ema.calibrated(latent=self.config.network.latent)
        spec = dataclasses.replace(self.spec, step=progress.step)
        z = seed_latents(range(GRID_ROWS * GRID_COLUMNS), latent=self.config.network.latent)
        grid = shared.draw(network, z)
        name = f"{progress.step:06d}.png"
        save_grid(self.folder / SAMPLES_DIR / name, grid, columns=GRID_COLUMNS)
        save_generator(self.folder, network, spec)
        self._note({"kind": "look", **self._spread(grid)}, trainer)
        scores = last or self._can_afford(progress.train_sec, progress.evaluate_sec)
        if self.config.evaluate and shared.all_score(scores and progress.step != self.scored_step):
            self._evaluate(trainer, network, spec)
            self.scored_step = progress.step
            self.evaluation_cost_sec = time.monotonic() - started
            progress.evaluate_sec += self.evaluation_cost_sec

    def out_of_patience(self, progress: Progress) -> bool:
        """Whether `--patience` evaluations went by without a better score."""
        return 0 < self.config.patience <= progress.evaluations_since_best

    def warn(self, warning: str | None) -> None:
        """Say it, if there is something to say."""
        if warning:
            self.console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)

    def resumed(self, trainer: Trainer, warning: str | None) -> None:
        """Say where a run goes on."""
        self.warn(warning)
        self._take_up_best(trainer.progress)
        spent = self.out_of_patience(trainer.progress)
        if spent and self.more:
            trainer.progress.evaluations_since_best = 0
        step = trainer.progress.step
        self.console.print(f"going on from step {step}")
        if spent and not self.more:
            self.warn("--patience ended it before; for more, give another --minutes, --kimg or --steps")
        elif trainer.progress.done_share(self.config.budget) >= 1.0:
            self.warn(
                f"nothing is left to train of {self.config.budget}; for more, give a larger --minutes, "
                "--kimg or --steps"
            )
        history = read_history(self.folder / METRICS_FILE)
        self._tell(self.health.catch_up(line for line in history if line["step"] <= step), trainer)

    def finished(self, trainer: Trainer, *, stopped: bool) -> None:
        """Say how it ended and what comes next."""
        progress = trainer.progress
        self.stopped = stopped
        if not stopped:
            self._line({"kind": "end"}, trainer)
        self.board.close()
        name = typed(self.folder)
        minutes = progress.train_sec / 60
        verb = "stopped" if stopped else "trained"
        self.console.print(
            f"{verb} after {progress.step} steps, {minutes:.1f} minutes: {escape(str(self.folder))}",
            highlight=False,
        )
        if not stopped and self.out_of_patience(progress):
            self.console.print(f"--patience ended it: {self.config.patience} scores without a better one")
        for finding in self.health.standing:
            self._say_health(f"{finding.what} {finding.advice}")
        if progress.best_kid is not None:
            self.console.print(
                f"best moment: step {progress.best_step}, KID x1000 {progress.best_kid * 1000:.1f}",
                highlight=False,
            )
        if stopped:
            self.console.print(f"go on with: bonsaigan resume {escape(name)}", highlight=False)
        else:
            self.console.print(f"draw new pictures with: bonsaigan generate {escape(name)}", highlight=False)

    @contextlib.contextmanager
    def showing(self, trainer: Trainer) -> Iterator[None]:
        """Show the progress bar while the block runs; a console that is no terminal gets lines instead."""
        threads = torch.get_num_threads()
        self._line(
            {"kind": "begin", "versions": versions(), "device": str(trainer.device), "threads": threads},
            trainer,
        )
        try:
            with self._progress_bar(trainer.progress):
                yield
        except NotFiniteError as error:
            for change in self.health.failed(trainer.progress.step, _sentence(error)):
                self._line(change.line(), trainer)  # the error itself will say it
            raise

    @contextlib.contextmanager
    def _progress_bar(self, progress: Progress) -> Iterator[None]:
        if not self.console.is_terminal:
            yield
            return
        columns = (BarColumn(bar_width=None), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
        with ProgressBar(*columns, TextColumn("{task.fields[status]}"), console=self.console) as bar:
            starts = progress.step == 0 and self.config.components.first_steps > 0
            status = "learning the pictures' principal components" if starts else ""
            self.bar = (bar, bar.add_task("", total=1.0, status=status))
            yield
        self.bar = None

    # -----------------------------------------------------------------------------------------------------

    def _evaluate(self, trainer: Trainer, network: nn.Module, spec: GeneratorSpec) -> None:
        progress = trainer.progress
        if self.reference is None:
            self.reference = shared.real_reference(self.pictures, trainer.device)
        z, generated, features = shared.draw_and_embed(
            network, self.reference, latent=self.config.network.latent
        )
        score = self.reference.score(features)
        summary = self._performance_summary(trainer, z, generated)
        scores = {"kid": score.kid, "diversity": score.diversity, **summary}
        self._note({"kind": "evaluation", **scores, **self._leaks(generated)}, trainer)
        for key, value in scores.items():
            self.board.add_scalar(f"evaluation/{key}", value, progress.step)
        best = progress.best_kid is None or score.kid <= progress.best_kid
        if best:
            progress.best_kid, progress.best_step, progress.evaluations_since_best = (
                score.kid,
                progress.step,
                0,
            )
            save_generator(self.folder / BEST_DIR, network, dataclasses.replace(spec, scores=scores))
        else:
            progress.evaluations_since_best += 1
        self.console.print(
            f"step {progress.step:>6}  {progress.train_sec / 60:5.1f} min  KID x1000 {score.kid * 1000:6.1f}"
            f"{' *' if best else '  '}  diversity {score.diversity:.2f}  discriminator right on real "
            f"{summary['accuracy_real']:.0%}, on generated {summary['accuracy_fake']:.0%}",
            highlight=False,
        )

    def _take_up_best(self, progress: Progress) -> None:
        """A process that was killed may have kept a best moment that its last saved state does not know."""
        with contextlib.suppress(RunError):
            spec = read_spec(self.folder / BEST_DIR)
            kid = spec.scores.get("kid")
            known = math.inf if progress.best_kid is None else progress.best_kid
            if isinstance(kid, float) and -math.inf < kid < known:
                progress.best_kid, progress.best_step = kid, spec.step

    def _performance_summary(self, trainer: Trainer, z: Tensor, generated: np.ndarray) -> dict[str, float]:
        """The tutorial's "performance summary": accuracies on 50 and 50, and a 2 x 3 figure."""
        count = min(SUMMARY_COUNT, len(self.pictures))
        which = np.random.default_rng([trainer.config.seed, trainer.progress.step]).permutation(
            len(self.pictures)
        )
        real, fake = to_float(self.pictures[np.sort(which[:count])]), to_float(generated[:count])
        name = f"summary-{trainer.progress.step:06d}.png"
        shown = generated[: SUMMARY_ROWS * SUMMARY_COLUMNS]
        save_grid(self.folder / SAMPLES_DIR / name, shown, columns=SUMMARY_COLUMNS)
        right = trainer.told_apart(real, fake, z=z[:count].to(trainer.device))
        return {"accuracy_real": right[0], "accuracy_fake": right[1]}

    def _spread(self, grid: np.ndarray) -> dict[str, float]:
        if self.real_spread is None:
            self.real_spread = vitals.spread(spread_out(self.pictures, shared.REAL_MAX))
        return {"spread": vitals.spread(grid) / self.real_spread} if self.real_spread > 0 else {}

    def _leaks(self, generated: np.ndarray) -> dict[str, float]:
        if self.leak_detector is None:
            self.leak_detector = vitals.LeakDetector(self.pictures, self.config.augment)
        found = {}
        for name, leak in self.leak_detector.leaks(generated).items():
            found[f"leak_{name}"], found[f"leak_{name}_likeness"] = leak.share, leak.likeness
        return found

    def _note(self, values: dict[str, object], trainer: Trainer) -> None:
        self._tell(self.health.observe(self._line(values, trainer)), trainer)

    def _tell(self, changes: Sequence[Change], trainer: Trainer) -> None:
        for change in changes:
            self._line(change.line(), trainer)
            found = change.finding
            self._say_health(f"{found.name} has passed." if change.over else f"{found.what} {found.advice}")

    def _say_health(self, text: str) -> None:
        self.console.print(f"[yellow]health:[/] {escape(text)}", highlight=False)

    def _can_afford(self, train_sec: float, evaluate_sec: float) -> bool:
        return evaluate_sec + self.evaluation_cost_sec <= EVALUATE_SHARE * train_sec

    def _line(self, values: dict[str, object], trainer: Trainer) -> dict[str, object]:
        progress = trainer.progress
        line = {
            "step": progress.step,
            "kimg": progress.seen_nimg / 1000,
            "train_sec": round(progress.train_sec, 3),
            **{k: round(v, 6) if isinstance(v, float) and math.isfinite(v) else v for k, v in values.items()},
        }
        add_line(self.folder / METRICS_FILE, line)
        return line


class Helper:
    """The monitor of a process that neither writes nor prints: it makes its part of what is scored."""

    def __init__(self, config: TrainConfig, pictures: PictureArray):
        """See `Monitor`."""
        self.config, self.pictures = config, pictures
        self.reference: RealReference | None = None

    def step(self, trainer: Trainer, stats: StepStats) -> None:
        """Look when `Monitor` does."""
        if is_look(trainer.progress.step):
            self.look(trainer)

    def look(self, trainer: Trainer, *, last: bool = False) -> None:
        """Take part in the score if the first process makes one."""
        if self.config.evaluate and shared.all_score(False):
            if self.reference is None:
                self.reference = shared.real_reference(self.pictures, trainer.device)
            latent = self.config.network.latent
            shared.draw_and_embed(trainer.ema.calibrated(latent=latent), self.reference, latent=latent)

    def out_of_patience(self, progress: Progress) -> bool:
        """The first process knows."""
        return False

    def warn(self, warning: str | None) -> None:
        """The first process says it."""

    def resumed(self, trainer: Trainer, warning: str | None) -> None:
        """The first process says it."""

    def finished(self, trainer: Trainer, *, stopped: bool) -> None:
        """The first process says it."""

    def showing(self, trainer: Trainer) -> contextlib.AbstractContextManager[None]:
        """Nothing is shown."""
        return contextlib.nullcontext()


def is_look(step: int) -> bool:
    """Whether a step is a looking moment: a geometric sequence at first, then every 250 steps."""
    if step % LOOK_EVERY_STEPS == 0:
        return True
    moment = float(FIRST_LOOK_STEP)
    while moment < LOOK_EVERY_STEPS:
        if round(moment) == step:
            return True
        moment *= LOOK_GROWTH
    return False


def _means(steps: Sequence[StepStats]) -> dict[str, float]:
    names = ("loss_discriminator", "accuracy_real", "accuracy_fake")
    means = {f"mean_{name}": float(np.mean([getattr(stats, name) for stats in steps])) for name in names}
    return {"mean_steps": len(steps), **means}


def _guessing_loss(recipe: str) -> float:
    nothing = [torch.zeros(1, 1)]
    return find(recipe).loss.discriminator(nothing, nothing).item()


def _sentence(error: Exception) -> str:
    said = str(error).partition(";")[0]
    return f"{said[0].upper()}{said[1:]}."


def _status(rate: float, stats: StepStats, seconds_left: float) -> str:
    left = f"{seconds_left / 60:.0f} min" if seconds_left >= 90 else f"{seconds_left:.0f} s"
    return (
        f"{rate:.1f} pictures/s  G {stats.loss_generator:.2f}  D {stats.loss_discriminator:.2f}  right on "
        f"real {stats.accuracy_real:.0%}, generated {stats.accuracy_fake:.0%}  {left} left"
    )
