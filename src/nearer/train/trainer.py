"""The sentence-transformers trainer of one run: its arguments, and the step that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import torch
from datasets import Dataset, disable_progress_bars
from sentence_transformers.base.training_args import BaseTrainingArguments
from torch.utils.data import BatchSampler, SequentialSampler
from transformers.trainer_callback import PrinterCallback

from nearer.errors import DoesNotFit
from nearer.store import WorkArea
from nearer.train.recipe import Method, Recipe, Result
from nearer.train.steps import GroupedLoss, grouped_step

_REPORT_STEPS: Final = 10
"""Steps over which a loss that is reported is the mean."""


def make_trainer(
    model: Any,
    trainer_class: Any,
    arguments_class: type[BaseTrainingArguments],
    collator: Any,
    loss: GroupedLoss,
    *,
    recipe: Recipe,
    method: Method,
    work: WorkArea,
    start: int,
) -> Any:
    """A SentenceTransformerTrainer or CrossEncoderTrainer to which the run is one epoch of numbered steps.

    Its own evaluation and checkpoints are off, and so is its logging, unless it is to report somewhere.
    """
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
        optim=recipe.optimizer,
        bf16=recipe.precision == "bf16",
        fp16=recipe.precision == "fp16",
        use_cpu=recipe.device == "cpu",
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_strategy="steps" if recipe.report_to else "no",
        logging_steps=_REPORT_STEPS,
        logging_first_step=True,
        eval_strategy="no",
        save_strategy="no",
        report_to=list(recipe.report_to) or "none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        dataloader_drop_last=True,  # nothing is dropped of batches of one; several processes would say so
        deepspeed=method.deepspeed,
        # What the loss does not reach was frozen; several forward passes a step confuse the search for it.
        ddp_find_unused_parameters=False,
        # An encoder's buffers never change, and processes may make different numbers of forward passes.
        ddp_broadcast_buffers=False,
    )
    model.model_card_data.widget = [{"text": ""}]  # else examples for a card that nobody writes are computed
    trainer = trainer_class(
        model=model,
        args=arguments,
        # Batch n goes to process n modulo their number, and each is to have every step.
        train_dataset=Dataset.from_dict(
            {"step": [step for step in range(start, recipe.steps) for _ in range(method.world.size)]}
        ),
        data_collator=collator,
        loss=loss,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(trainer.model_card_callback_class)
    if not method.plain:
        chunked = method.separate or method.chunk is not None
        trainer.training_step = grouped_step(trainer, loss, world=method.world, chunked=chunked)
    return trainer


def rehearse(model: Any, *parts: Any, recipe: Recipe, method: Method, work: WorkArea) -> Result:
    """Train for two steps and forget it: the second has the optimizer's states beside its activations.

    Args:
        model: as for `make_trainer`.
        parts: likewise, in that order; the collator's texts are all as long as the longest.
        recipe: likewise.
        method: likewise.
        work: likewise.

    Raises:
        DoesNotFit: out of memory.
    """
    short = replace(recipe, steps=2, report_to=())
    trainer = make_trainer(model, *parts, recipe=short, method=method, work=work, start=0)
    with told_of_memory():
        trainer.train()
    return Result(history={}, best_step=0, steps=short.steps, cpu_seconds=0.0, scores=[], base_scores=[])


@contextmanager
def told_of_memory() -> Iterator[None]:
    """Out of memory in a step is told as such.

    Raises:
        DoesNotFit: it was.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DoesNotFit(
            "training is out of memory",
            rule="weights, gradients, optimizer and one step's activations must fit",
            way_out="a smaller chunk_size, batch_size or fewer tokens; activation_checkpointing, lora, freeze.layers "
            "and deepspeed help as well",
        ) from error
