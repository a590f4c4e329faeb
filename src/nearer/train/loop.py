"""One training run through a sentence-transformers trainer: validate, keep the best, checkpoint, stop in time.

The trainer does the steps: forward, backward, clipping, AdamW, learning rate, autocast. What a step sees comes from a
`Schedule`, so to the trainer the whole run is one epoch of numbered steps. Its own evaluation and checkpoints are not
used: its checkpoints are visible before they are complete, hold the frozen weights too (or, under ZeRO-3, none at all),
and forget what was validated.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.training_args import BaseTrainingArguments
from transformers import TrainerCallback

from nearer import process
from nearer.errors import InputError, Interrupted
from nearer.progress import Progress
from nearer.store import WorkArea
from nearer.train.checkpoint import Checkpoints, Journal
from nearer.train.collapse import refuse_collapsed
from nearer.train.measure import Measured
from nearer.train.recipe import Method, Recipe, Result
from nearer.train.steps import GroupedLoss
from nearer.train.trainer import make_trainer, rehearse, told_of_memory
from nearer.train.vocabulary import gathered_gradient
from nearer.train.world import World

_REPORTED = "eval_ndcg_at_10"
"""nDCG@10 in a name that MLflow takes."""

_STEPS_A_TRIM = 4
"""A CPU's heap grows by some 100 MB a step of the demo, because batches are of many lengths. Guessed: often enough to
bound it, and rarely enough that touching the pages anew costs little."""


def fit(
    model: Any,
    *,
    trainer_class: Any,
    arguments_class: type[BaseTrainingArguments],
    collator: Any,
    loss: GroupedLoss,
    validate: Callable[[], Measured],
    probe: Callable[[], list[float]],
    recipe: Recipe,
    method: Method,
    work: WorkArea,
    examples_per_step: float,
    base_may_win: bool,
    alike: bool,
    progress: Progress,
) -> Result:
    """Train a model, from its last checkpoint if there is one, and leave it with its best weights.

    The base model is validated first; when every step is worse by more than one standard error, the base weights are
    the best, unless they may not win.

    Args:
        model: a SentenceTransformer or CrossEncoder; some of its weights may be frozen.
        trainer_class: SentenceTransformerTrainer or CrossEncoderTrainer.
        arguments_class: its arguments.
        collator: makes the tensors of `[{"step": number}]`.
        loss: takes the trainer's features and labels.
        validate: the model's nDCG@10 now.
        probe: the model's scores now of a few texts, by which a saved model is known again.
        recipe: how to learn.
        method: how the processes share the work.
        work: the run's own area; what it holds survives a kill.
        examples_per_step: rows or pairs, for the rate that is shown.
        base_may_win: false for a base model without a head of its own.
        alike: the validation queries are of the kind that the test queries are.
        progress: hears of it.

    Raises:
        Interrupted: SIGTERM came; a checkpoint was written.
        DoesNotFit: out of memory.
        InputError: the run diverged.
        GateRefused: a reranker still gives every pair the same score.
    """
    if method.rehearse:
        return rehearse(model, trainer_class, arguments_class, collator, loss, recipe=recipe, method=method, work=work)
    world = method.world
    checkpoints = Checkpoints(work, warn=progress.warn, world=world)
    checkpoint = checkpoints.latest()
    journal = checkpoints.restore(checkpoint, model) if checkpoint else Journal(base_may_win=base_may_win, alike=alike)
    clock = _Clock(journal.cpu_seconds, world)
    start = int(checkpoint.name.removeprefix("step-")) if checkpoint else 0
    trainer = make_trainer(
        model, trainer_class, arguments_class, collator, loss, recipe=recipe, method=method, work=work, start=start
    )
    run = _Run(
        trainer=trainer,
        checkpoints=checkpoints,
        checkpoint=checkpoint,
        start=start,
        journal=journal,
        validate=validate,
        probe=probe,
        recipe=recipe,
        world=world,
        clock=clock,
        progress=progress,
    )
    if checkpoint:
        progress.say("going on from a checkpoint", step=start, of=recipe.steps)
    over = start >= recipe.steps or journal.is_over(recipe.patience)
    try:
        # Under DeepSpeed a model is measured as it will be trained, which is not before it is divided.
        if method.deepspeed is None or over:
            run.make_up()
            over = start >= recipe.steps or journal.is_over(recipe.patience)
        if not over:
            run.bar = iter(progress.track(range(recipe.steps - start), what="training steps"))
            trainer.add_callback(_Follow(run))
            once = method.plain and recipe.device == "cpu"
            with told_of_memory(), gathered_gradient(model) if once else nullcontext():
                trainer.train()
    finally:
        run.close()
    world.check_stop()
    if not method.launched:
        checkpoints.load_best(model)
        model.eval()
    steps = max(journal.history)
    seconds = clock.seconds()
    rate = (steps - start) * examples_per_step / run.training_seconds if run.training_seconds else 0.0
    progress.say("trained", steps=steps, cpu_seconds=round(seconds), examples_per_second=round(rate, 1))
    return Result(
        history=journal.history,
        best_step=journal.best_step,
        steps=steps,
        cpu_seconds=seconds,
        scores=journal.best_scores,
        base_scores=journal.base_scores,
    )


class _Clock:
    """CPU seconds of this run: those of all its processes since now, on top of those of their predecessors."""

    def __init__(self, before: float, world: World) -> None:
        self._before = before
        self._began = time.process_time()
        self._world = world

    def seconds(self) -> float:
        return self._before + sum(self._world.gather(time.process_time() - self._began))


@dataclass(kw_only=True)
class _Run:
    trainer: Any
    checkpoints: Checkpoints
    checkpoint: Path | None
    start: int
    journal: Journal
    validate: Callable[[], Measured]
    probe: Callable[[], list[float]]
    recipe: Recipe
    world: World
    clock: _Clock
    progress: Progress
    bar: Iterator[int] | None = None
    training_seconds: float = 0.0
    step_began: float = 0.0

    def make_up(self) -> None:
        """Measure the base model, or make up for a validation before which a run was stopped."""
        if self.start in (0, *self.recipe.evaluate_at) and self.start not in self.journal.history:
            self.evaluate(self.start)

    def evaluate(self, step: int) -> None:
        with _in_full_precision(self.trainer.model):
            measured = self.world.share(self.validate())
            scores = self.world.share(self.probe())
        process.trim_heap()  # validation's batches are larger than a step's
        value = measured.mean
        if not math.isfinite(value):
            raise InputError(
                f"training diverged: at step {step} the model's scores are no numbers",
                rule="a learning rate that the model stands",
                way_out="a smaller learning_rate, a longer warm-up, or precision fp32",
            )
        refuse_collapsed(measured.deviation, step=step, steps=self.recipe.steps)
        self.journal.note(step, measured)
        if step == 0:
            self.journal.base_scores = scores
        if self.journal.best_step == step:
            self.journal.best_scores = scores
            self.checkpoints.save_best(self.trainer.model)
        if step > self.start:
            self.report(step)
        self.progress.say(
            "validation", step=step, of=self.recipe.steps, **{"nDCG@10": round(value, 4)}, best=self.journal.best_step
        )

    def report(self, step: int) -> None:
        """Show a validation wherever the trainer shows its losses."""
        if self.recipe.report_to:
            self.trainer.log({_REPORTED: self.journal.history[step]})

    def save(self) -> None:
        self.journal.cpu_seconds = self.clock.seconds()
        self.checkpoints.save(self.trainer, self.journal)

    def close(self) -> None:
        if self.bar is not None and hasattr(self.bar, "close"):
            self.bar.close()


@contextmanager
def _in_full_precision(model: Any) -> Iterator[None]:
    """The model as `eval` will load it: once training began, accelerate has put autocast around its `forward`.

    Without this the base model, validated before, would be measured otherwise than what is compared with it, and a step
    otherwise than in a run that was resumed there.
    """
    plain = getattr(model, "_original_forward", None)
    if plain is None:
        yield
        return
    wrapped = model.forward
    model.forward = plain
    try:
        yield
    finally:
        model.forward = wrapped


class _Follow(TrainerCallback):  # type: ignore[misc]
    """What happens around each step of the trainer."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    def on_train_begin(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        """Stand where the checkpoint stood: everything is prepared now, and nothing has happened yet."""
        run = self.run
        state.global_step = run.start
        if run.checkpoint:
            run.checkpoints.resume(run.checkpoint, run.trainer)
        if args.deepspeed:
            run.make_up()
            control.should_training_stop |= run.journal.is_over(run.recipe.patience)
        if run.start in run.journal.history:  # measured before there was anybody to show it to
            run.report(run.start)

    def on_step_begin(self, args: Any, state: Any, _control: Any, **_more: Any) -> None:
        run = self.run
        if run.world.size > 1:  # dice that are a function of the step need not be kept
            torch.manual_seed(random.Random(f"{args.seed} {state.global_step} {run.world.rank}").getrandbits(63))
        elif run.checkpoint and state.global_step == run.start:  # after the data loader has thrown its own
            run.trainer._load_rng_state(str(run.checkpoint))  # noqa: SLF001 - the reader of what save wrote
        self.run.step_began = time.monotonic()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_more: Any) -> None:
        run, step = self.run, state.global_step
        run.training_seconds += time.monotonic() - run.step_began
        next(run.bar or iter(()), None)
        if step % _STEPS_A_TRIM == 0:
            process.trim_heap()
        try:
            run.world.check_stop()
            if step in run.recipe.evaluate_at:
                run.evaluate(step)
                control.should_training_stop |= run.journal.is_over(run.recipe.patience)
        except Interrupted:
            run.save()
            raise
        if step % run.recipe.checkpoint_steps == 0 and step < run.recipe.steps and not control.should_training_stop:
            run.save()
