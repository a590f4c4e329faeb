"""One training run through a sentence-transformers trainer: validate, keep the best, checkpoint, stop in time.

The trainer does the steps: forward, backward, clipping, AdamW, learning rate, autocast. What a step sees comes from a
`Schedule`, so to the trainer the whole run is one epoch of numbered steps. Its own evaluation and checkpoints are not
used: its checkpoints are visible before they are complete, hold the frozen weights too, and forget what was validated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers.base.training_args import BaseTrainingArguments
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from nearer import process
from nearer.errors import DoesNotFit, InputError, Interrupted
from nearer.progress import Progress
from nearer.store import WorkArea
from nearer.train.checkpoint import Checkpoints, Journal
from nearer.train.hardware import Precision
from nearer.train.measure import Measured

_STEPS_A_TRIM = 4
"""A CPU's heap grows by some 100 MB a step of the demo, because batches are of many lengths. Guessed: often enough to
bound it, and rarely enough that touching the pages anew costs little."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a run learns; the same for both models."""

    steps: int
    evaluate_at: Sequence[int]
    patience: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    max_grad_norm: float
    precision: Precision
    checkpoint_steps: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run went; the model holds the best weights."""

    history: dict[int, float]
    best_step: int
    steps: int
    cpu_seconds: float


def fit(
    model: Any,
    *,
    trainer_class: Any,
    arguments_class: type[BaseTrainingArguments],
    collator: Any,
    loss: torch.nn.Module,
    validate: Callable[[], Measured],
    recipe: Recipe,
    work: WorkArea,
    examples_per_step: float,
    base_may_win: bool,
    progress: Progress,
) -> Result:
    """Train a model, from its last checkpoint if there is one, and leave it with its best weights.

    The base model is validated first; when every step is worse by more than one standard error of that validation, the
    base weights are the best, unless they may not win.

    Args:
        model: a SentenceTransformer or CrossEncoder; some of its weights may be frozen.
        trainer_class: SentenceTransformerTrainer or CrossEncoderTrainer.
        arguments_class: its arguments.
        collator: makes the tensors of `[{"step": number}]`.
        loss: takes the trainer's features and labels.
        validate: the model's nDCG@10 now.
        recipe: how to learn.
        work: the run's own area; what it holds survives a kill.
        examples_per_step: rows or pairs, for the rate that is shown.
        base_may_win: false for a base model without a head of its own.
        progress: hears of it.

    Raises:
        Interrupted: SIGTERM came; a checkpoint was written.
        DoesNotFit: out of memory.
        InputError: the run diverged.
    """
    checkpoints = Checkpoints(work, warn=progress.warn)
    checkpoint = checkpoints.latest()
    journal = checkpoints.restore(checkpoint, model) if checkpoint else Journal(base_may_win=base_may_win)
    before = journal.cpu_seconds
    clock = _Clock(before)
    trainer = _trainer(model, trainer_class, arguments_class, collator, loss, recipe=recipe, work=work)
    run = _Run(
        trainer=trainer,
        checkpoints=checkpoints,
        journal=journal,
        validate=validate,
        recipe=recipe,
        clock=clock,
        progress=progress,
    )
    start = int(checkpoint.name.removeprefix("step-")) if checkpoint else 0
    if checkpoint:
        progress.say("going on from a checkpoint", step=start, of=recipe.steps)
    try:
        # A run that was stopped between a step and its validation makes up for it here.
        if start in (0, *recipe.evaluate_at) and start not in journal.history:
            run.evaluate(start)
        if start < recipe.steps and not journal.is_over(recipe.patience):
            run.bar = iter(progress.track(range(recipe.steps - start), what="training steps"))
            trainer.add_callback(_Follow(run))
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DoesNotFit(
            "training is out of memory",
            rule="weights, gradients, optimizer and one step's activations must fit",
            way_out="a smaller batch_size or fewer tokens; freeze.layers and freeze.embeddings help as well",
        ) from error
    finally:
        run.close()
    process.STOP.check()
    checkpoints.load_best(model)
    model.eval()
    steps = max(journal.history)
    seconds = clock.seconds()
    rate = (steps - start) * examples_per_step / run.training_seconds if run.training_seconds else 0.0
    progress.say("trained", steps=steps, cpu_seconds=round(seconds), examples_per_second=round(rate, 1))
    return Result(history=journal.history, best_step=journal.best_step, steps=steps, cpu_seconds=seconds)


class _Clock:
    """CPU seconds of this run: this process's since now, on top of those of its predecessors."""

    def __init__(self, before: float) -> None:
        self._offset = before - time.process_time()

    def seconds(self) -> float:
        return time.process_time() + self._offset


@dataclass(kw_only=True)
class _Run:
    trainer: Any
    checkpoints: Checkpoints
    journal: Journal
    validate: Callable[[], Measured]
    recipe: Recipe
    clock: _Clock
    progress: Progress
    bar: Iterator[int] | None = None
    training_seconds: float = 0.0
    step_began: float = 0.0

    def evaluate(self, step: int) -> None:
        with _in_full_precision(self.trainer.model):
            measured = self.validate()
        process.release_memory()  # validation's batches are larger than a step's
        value = measured.mean
        if not math.isfinite(value):
            raise InputError(
                f"training diverged: at step {step} the model's scores are no numbers",
                rule="a learning rate that the model stands",
                way_out="a smaller learning_rate, a longer warm-up, or precision fp32",
            )
        self.journal.history[step] = value
        if step == 0:
            self.journal.base_error = measured.error
        if self.journal.best_step == step:
            self.checkpoints.save_best(self.trainer.model)
        self.progress.say(
            "validation", step=step, of=self.recipe.steps, **{"nDCG@10": round(value, 4)}, best=self.journal.best_step
        )

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

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **_more: Any) -> None:
        self.run.step_began = time.monotonic()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_more: Any) -> None:
        run, step = self.run, state.global_step
        run.training_seconds += time.monotonic() - run.step_began
        next(run.bar or iter(()), None)
        if step % _STEPS_A_TRIM == 0:
            process.trim_heap()
        try:
            process.STOP.check()
            if step in run.recipe.evaluate_at:
                run.evaluate(step)
                control.should_training_stop |= run.journal.is_over(run.recipe.patience)
        except Interrupted:
            run.save()
            raise
        if step % run.recipe.checkpoint_steps == 0 and step < run.recipe.steps and not control.should_training_stop:
            run.save()


def _trainer(
    model: Any,
    trainer_class: Any,
    arguments_class: type[BaseTrainingArguments],
    collator: Any,
    loss: torch.nn.Module,
    *,
    recipe: Recipe,
    work: WorkArea,
) -> Any:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    arguments = arguments_class(
        output_dir=str(work.path / "trainer"),
        max_steps=recipe.steps,
        per_device_train_batch_size=1,  # one numbered step; the collator makes a batch of it
        batch_sampler=lambda dataset, **_: BatchSampler(SequentialSampler(dataset), batch_size=1, drop_last=False),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(recipe.warmup_share * recipe.steps),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=recipe.precision == "bf16",
        fp16=recipe.precision == "fp16",
        use_cpu=model.device.type == "cpu",
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    model.model_card_data.widget = [{"text": ""}]  # else examples for a card that nobody writes are computed
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"step": list(range(recipe.steps))}),
        data_collator=collator,
        loss=loss,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(trainer.model_card_callback_class)
    # The weights were put back before; the trainer would look for a whole model in the checkpoint.
    trainer._load_from_checkpoint = lambda _checkpoint: None  # noqa: SLF001
    return trainer
