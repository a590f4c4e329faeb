"""`nearer train` with several processes and several nodes: started, stopped, and told in one exit code."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from train_root import prepare

from nearer.errors import DoesNotFit, Interrupted, NearerError
from nearer.models.source import ModelSource
from nearer.progress import Silent
from nearer.settings.train import EmbeddingSettings
from nearer.store import WorkArea
from nearer.train import fit, launch
from nearer.train.orders import Task
from nearer.train.place import Place
from nearer.train.run import training_of

from .processes import free_port

SECTION = {
    "base_model": "base",
    "learning_rate": 2e-3,
    "batch_size": 8,
    "max_steps": 8,
    "val_split": 0.2,
    "evaluations_per_epoch": 1,
    "precision": "fp32",
    "checkpoint_steps": 2,
}
# What a worker does beside its work: read at its start, because Python imports this module then.
FAULTS = """
import os, sys
if "nearer.train.worker" in sys.orig_argv and os.environ.get("FAULT"):
    import signal
    from nearer import process
    from nearer.train import loop, loss
    what, rank = os.environ["FAULT"], int(os.environ["RANK"])
    begin = loop._Follow.on_step_begin
    outputs = loss.ContrastiveLoss.outputs

    def on_step_begin(self, args, state, control, **more):
        if rank == 1 and state.global_step == 5:
            if what == "term": os.kill(os.getppid(), signal.SIGTERM), process.STOP._event.wait(100)
            if what == "kill": os.kill(os.getpid(), signal.SIGKILL)
            if what == "kill launcher": os.kill(os.getppid(), signal.SIGKILL)
        begin(self, args, state, control, **more)

    def scarce(self, features):
        import torch
        if len(features["input_ids"]) > 3: raise torch.OutOfMemoryError("out of memory")
        return outputs(self, features)

    loop._Follow.on_step_begin = on_step_begin
    if what.startswith("memory"): loss.ContrastiveLoss.outputs = scarce
elif os.environ.get("FAULT") == "memory, tried":
    from nearer.train import fit, launch
    launch.wants_rehearsal = lambda task, place: True
"""


BASE = ModelSource(name="base", path=Path(), fingerprint="", origin="directory", revision="")
TASK = Task(
    training=training_of(EmbeddingSettings(batch_size=8, negatives_per_query=1)),
    base=BASE,
    dataset_path=Path(),
    seed=0,
)


class Command:
    """`nearer train embedding` in a directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root = prepare(root, "embedding")
        (root / "faults").mkdir()
        (root / "faults" / "sitecustomize.py").write_text(FAULTS)

    def start(self, *, fault: str = "", variables: dict[str, str] | None = None, **section: Any) -> Any:
        settings = {"artifacts": str(self.root), "seed": 7, "train": {"embedding": {**SECTION, **section}}}
        file = self.root / "nearer.yaml"
        file.write_text(yaml.safe_dump(settings))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "FAULT": fault}
        environment |= {"PYTHONPATH": ":".join([str(self.root / "faults"), *sys.path]), **(variables or {})}
        words = [sys.executable, "-m", "nearer.cli.app", "train", "embedding", "-c", str(file)]
        return subprocess.Popen(
            words, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    def end(self, process: Any) -> tuple[int, str]:
        try:
            out, _ = process.communicate(timeout=550)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
                alone = False
            except ProcessLookupError:
                alone = True
        assert alone, "a process was left behind"
        return process.returncode, out

    def run(self, **more: Any) -> tuple[int, str]:
        return self.end(self.start(**more))

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.root / ".nearer" / "work").glob("*/step-*"))

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "models/fine_tuned_embedding/manifest.json").read_text())
        return found

    def nodes(self, **more: Any) -> list[Any]:
        port = str(free_port())
        where = {"NNODES": "2", "NPROC_PER_NODE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [self.start(variables={**where, "NODE_RANK": str(node)}, **more) for node in range(2)]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_sigterm_ends_all_processes(command: Command) -> None:
    """Exit code 75 with a checkpoint of the step, and nobody left behind."""
    code, out = command.run(gpus_per_node=2, fault="term")
    assert code == 75, out
    assert command.checkpoints() == ["step-6"]
    assert "stopped by SIGTERM" in out


@pytest.mark.full
def test_two_nodes_go_on(command: Command) -> None:
    """They take up what two processes of one machine began, train to the end, and both say 0."""
    assert command.run(gpus_per_node=2, fault="term")[0] == 75
    first, second = command.nodes()
    (code_2, out_2), (code_1, out_1) = command.end(second), command.end(first)
    assert (code_1, code_2) == (0, 0), out_1 + out_2
    assert '"step": 6' in out_1
    assert "the model is there" in out_2
    assert command.manifest()["metrics"]["steps"] == 8
    assert command.manifest()["metrics"]["processes"] == 2
    assert command.checkpoints() == []


@pytest.mark.full
def test_an_index_that_comes_late_finds_the_model(command: Command) -> None:
    """The other node was lost after the last step: it ends with 0 alone, without anybody to meet."""
    assert command.run()[0] == 0
    _, second = command.nodes()
    code, out = command.end(second)
    command.end(_)
    assert code == 0, out
    assert "the model is there" in out or "already done" in out


@pytest.mark.full
def test_a_process_that_is_killed_ends_the_run(command: Command) -> None:
    """Exit code 75, nobody left behind; the same command goes on and ends as if nothing had happened."""
    code, out = command.run(gpus_per_node=2, fault="kill")
    assert code == 75, out
    assert command.checkpoints() == ["step-4"]
    assert "another process of this run has gone" in out or "was lost" in out
    assert command.run(gpus_per_node=2)[0] == 0
    weights = command.manifest()["files"]
    other = Command(command.root / "other")
    assert other.run(gpus_per_node=2)[0] == 0
    assert other.manifest()["files"] == weights


@pytest.mark.full
def test_workers_do_not_outlive_their_launcher(command: Command) -> None:
    """It is killed: they go too, before somebody else takes the work up."""
    code, _ = command.run(gpus_per_node=2, fault="kill launcher")
    assert code == -signal.SIGKILL
    assert command.run(gpus_per_node=2)[0] == 0


@pytest.mark.full
def test_a_node_that_is_lost_ends_the_others(command: Command) -> None:
    """Both say 75 or are dead; together again they go on from the checkpoint."""
    first, second = command.nodes(fault="kill")
    codes = [command.end(each)[0] for each in (second, first)]
    assert codes == [75, 75]
    assert command.checkpoints() == ["step-4"]
    first, second = command.nodes()
    ended = [command.end(each) for each in (second, first)]
    assert [code for code, _ in ended] == [0, 0], ended
    assert '"step": 4' in ended[1][1]


@pytest.mark.full
def test_out_of_memory_goes_on_with_smaller_chunks(command: Command) -> None:
    """Eight texts, then four, then two at a time; it is said each time, and the model is made."""
    code, out = command.run(gpus_per_node=2, fault="memory")
    assert code == 0, out
    assert "with 4 texts at a time" in out
    assert "with 2 texts at a time" in out


@pytest.mark.full
@pytest.mark.parametrize("deepspeed", ["none", "zero2", "zero3"])
def test_the_longest_texts_are_tried_first(command: Command, deepspeed: str) -> None:
    """Chunks that do not fit are known before the run begins, which then is never interrupted; nothing is left of it."""
    code, out = command.run(gpus_per_node=2, fault="memory, tried", deepspeed=deepspeed)
    assert code == 0, out
    tried = [json.loads(line)["chunk_size"] for line in out.splitlines() if "trying steps of the longest" in line]
    assert tried == [None, 4, 2]
    assert "going on" not in out
    assert out.count('"processes that train together"') == 1
    assert command.manifest()["metrics"]["steps"] == 8


@pytest.mark.parametrize(
    ("place", "share", "wanted"),
    [
        (Place(processes=2, cuda=True), 0.6, True),
        (Place(processes=2, cuda=True), 0.4, False),
        (Place(processes=1, cuda=True), None, True),
        (Place(processes=2), 0.9, False),
        (Place(processes=1, nodes=2, cuda=True), 0.9, False),
    ],
)
def test_room_to_spare_needs_no_trial(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Place, share: float | None, wanted: bool
) -> None:
    """What the plan leaves half free, or what there is no GPU for, begins at once."""
    monkeypatch.setattr(fit, "planned_share", lambda _demand: share)
    (tmp_path / "config.json").write_text("{}")
    assert launch.wants_rehearsal(replace(TASK, base=replace(BASE, path=tmp_path)), place) == wanted


def test_a_loss_without_progress_is_no_interruption(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lost at the start, after a checkpoint, and after it again: 75, 75, and then 1, which a Job counts."""

    def once(*_: object, **__: object) -> None:
        raise Interrupted("lost")

    monkeypatch.setattr(launch, "_once", once)
    work, codes = WorkArea(path=tmp_path), []
    for checkpoint in ("", "step-5", "step-5"):
        (tmp_path / checkpoint).mkdir(exist_ok=True)
        with pytest.raises(NearerError) as raised:
            launch.launch(TASK, Place(processes=2), work=work, chunk=None, progress=Silent())
        codes.append(raised.value.code)
    assert codes == [75, 75, 1]


@pytest.mark.parametrize(
    ("fits", "at_first", "tried", "ends"),
    [
        (2, False, [None, 4, 2], True),
        (0, False, [None, 4, 2, 1], False),
        (2, True, ["trial None", "trial 4", "trial 2", 2], True),
        (0, True, ["trial None", "trial 4", "trial 2", "trial 1"], False),
    ],
)
def test_the_chunk_is_halved_down_to_one(
    monkeypatch: pytest.MonkeyPatch, fits: int, at_first: bool, tried: list[int | str | None], ends: bool
) -> None:
    """From all texts of a process; when not even one fits, it is exit 4."""
    seen: list[int | str | None] = []

    def once(*_: object, chunk: int | None, rehearse: bool = False, **__: object) -> None:
        seen.append(f"trial {chunk}" if rehearse else chunk)
        if chunk is None or chunk > fits:
            raise DoesNotFit("out of memory")

    monkeypatch.setattr(launch, "_once", once)
    monkeypatch.setattr(launch, "wants_rehearsal", lambda _task, _place: at_first)
    place = Place(processes=2)
    if ends:
        launch.launch(TASK, place, work=None, chunk=None, progress=Silent())
    else:
        with pytest.raises(DoesNotFit):
            launch.launch(TASK, place, work=None, chunk=None, progress=Silent())
    assert seen == tried
