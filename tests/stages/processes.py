"""Runs trainings of one or more processes, forked from one that has imported everything already."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

RUNNER = """
import faulthandler, json, os, signal, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # libraries print
from dataclasses import replace
from pathlib import Path
import torch, deepspeed, peft, peft.tuners.lora, datasets, accelerate, transformers.integrations.deepspeed
import transformers.models.bert.modeling_bert, transformers.models.gpt_neox.modeling_gpt_neox
from nearer import process
from nearer.models.source import find_model
from nearer.progress import Silent
from nearer.settings import resolve
from nearer.settings.model import Settings
from nearer.store import WorkArea, open_store
from nearer.train import checkpoint, embedding, loop, orders, publish, reranker, task, zero
from nearer.train.run import training_of
from nearer.train.world import ALONE, World

signal.signal(signal.SIGTERM, lambda *_: process.STOP.set())

def train(case, rank):
    kind, root, work = case["model"], case["root"], Path(case["work"])
    kill = lambda number: os.kill(os.getpid(), number)
    begin, save, evaluate = loop._Follow.on_step_begin, checkpoint.Checkpoints.save, loop._Run.evaluate

    def on_step_begin(self, args, state, control, **more):
        if case["rank"] == rank and state.global_step == case["at"]:
            kill(signal.SIGKILL if case["how"] == "kill" else signal.SIGTERM)
        begin(self, args, state, control, **more)

    def evaluating(self, step):
        if case["how"] == "term evaluating" and case["rank"] == rank and step >= case["at"]: kill(signal.SIGTERM)
        evaluate(self, step)

    if case["how"] in ("kill", "term"): loop._Follow.on_step_begin = on_step_begin
    loop._Run.evaluate = evaluating
    # The last weights are the best ones, so that every step up to the end shows in the bytes.
    checkpoint.Journal.best_step = property(lambda self: max(self.history, default=0))
    recipe_of = task._recipe
    if case["optimizer"]:
        task._recipe = lambda *a, **k: replace(recipe_of(*a, **k), optimizer=case["optimizer"])
    settings = Settings.model_validate({"artifacts": root, "seed": 7, "train": {kind: case["section"]}})
    store = open_store(root)
    section = settings.train.embedding if kind == "embedding" else settings.train.reranker
    work_task = orders.Task(training=training_of(section), base=find_model("base", store=store),
                          dataset_path=store.open("datasets/dataset").path, seed=7,
                          retriever=find_model(section.retriever, store=store) if getattr(section, "retriever", None) else None)
    plain = case["world"] == 1 and section.deepspeed in ("auto", "none")
    if not plain:  # else accelerate would make a group of one, and wrap the model
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(case["world"]),
                          LOCAL_WORLD_SIZE=str(case["world"]), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(case["port"]))
    world = ALONE if plain else World.join(cuda=False)
    zero.prepare_cpu()
    loaded = task.load(work_task, device="cpu")
    hidden = loaded.tuned.model.transformers_model.config.hidden_size
    method = "none" if section.deepspeed == "auto" else section.deepspeed
    settings = zero.configure(method, precision=section.precision, max_grad_norm=section.max_grad_norm, hidden=hidden, cuda=False)
    if settings: settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0  # tiny weights are divided too
    way = loop.Method(world=world, deepspeed=settings, chunk=section.chunk_size, launched=True)
    area = WorkArea(path=work if rank == 0 else work / f"rank-{rank}")
    trained = task.train(work_task, loaded, method=way, device="cpu", work=area, progress=Silent())
    if world.main: publish.leave(trained, area)
    World.leave()
    if world.main and case["publish"]:
        transformers.integrations.deepspeed.unset_hf_deepspeed_config()
        loaded, trained = publish.take_up(work_task, area)
        publish.publish(work_task, loaded, trained, Path(case["publish"]), progress=Silent())

for line in sys.stdin:
    case, children = json.loads(line), []
    for rank in range(case["world"]):
        child = os.fork()
        if child == 0:
            out = os.open(case["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1), os.dup2(out, 2)
            code = 0
            faulthandler.register(signal.SIGALRM, chain=True)  # where it hangs
            signal.alarm(400)
            try:
                train(case, rank)
            except BaseException as error:
                traceback.print_exc()
                code = getattr(error, "code", 1)
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
        children.append(child)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), file=answers, flush=True)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Processes:
    """Trains in processes of their own."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment |= {"PYTHONPATH": ":".join(sys.path), "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def train(
        self,
        root: Path,
        model: str,
        work: Path,
        section: dict[str, Any],
        *,
        world: int = 1,
        optimizer: str = "",
        how: str = "",
        at: int = -1,
        rank: int = 0,
        publish: str = "",
    ) -> list[int]:
        """Exit codes of all processes, in the order of their ranks."""
        work.mkdir(parents=True, exist_ok=True)
        case = {
            "root": str(root), "model": model, "work": str(work), "section": {"base_model": "base", **section},
            "world": world, "optimizer": optimizer, "how": how, "at": at, "rank": rank, "port": free_port(),
            "log": str(work / "log"), "publish": publish,
        }  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        codes: list[int] = json.loads(self.process.stdout.readline())
        return codes

    def close(self) -> None:
        self.process.communicate("")
