"""A run of several processes that loses one of them, or is asked to stop, goes on as if nothing had happened."""

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file
from train_root import prepare

from .processes import Processes

SECTION = {
    "learning_rate": 2e-3,
    "batch_size": 6,
    "max_steps": 16,
    "epochs": 9,
    "val_split": 0.2,
    "negatives_per_query": 2,
    "evaluations_per_epoch": 2,
    "patience": 9,
    "checkpoint_steps": 5,
    "dropout": 0.3,
    "precision": "fp32",
}
ASSETS = Path(__file__).parents[1] / "assets"
BF16_STATES = {stage: str(ASSETS / f"zero{stage}-bf16-states.json") for stage in (2, 3)}
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("root"), "embedding")


class Undisturbed:
    """What a run that nothing disturbs leaves, for each kind of run."""

    def __init__(self, processes: Processes, root: Path, top: Path) -> None:
        self.processes, self.root, self.top = processes, root, top
        self.known: dict[str, Files] = {}

    def __call__(self, *, world: int, **more: Any) -> Files:
        name = f"{world}-{more}"
        if name not in self.known:
            work = self.top / str(len(self.known))
            codes = self.processes.train(self.root, "embedding", work, {**SECTION, **more}, world=world)
            assert codes == [0] * world, (work / "log").read_text()[-3000:]
            self.known[name] = left(work)
        return self.known[name]


def left(work: Path) -> Files:
    """The weights, and all that was measured on the way but for the time it took."""
    told = json.loads((work / "finished" / "trained.json").read_text())
    told["result"].pop("cpu_seconds")
    return {"weights": (work / "finished" / "best.safetensors").read_bytes(), "told": json.dumps(told).encode()}


@pytest.fixture(scope="module")
def undisturbed(processes: Processes, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(processes, root, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize(
    ("more", "how", "at"),
    [
        ({"deepspeed": "zero2", "chunk_size": 2}, "kill", 13),
        pytest.param({"deepspeed": "none"}, "kill", 13, marks=pytest.mark.full),
        pytest.param({"deepspeed": "zero3"}, "term evaluating", 7, marks=pytest.mark.full),
        ({"deepspeed": BF16_STATES[2], "precision": "bf16"}, "kill", 13),
        pytest.param({"deepspeed": BF16_STATES[3], "precision": "bf16"}, "kill", 13, marks=pytest.mark.full),
    ],
)
def test_two_processes_go_on_to_the_same_last_bit(
    processes: Processes, root: Path, undisturbed: Undisturbed, tmp_path: Path, more: dict[str, Any], how: str, at: int
) -> None:
    """One of them is killed, or one of them alone hears SIGTERM, in a validation: same weights, same measurements."""
    section = {**SECTION, **more}
    codes = processes.train(root, "embedding", tmp_path, section, world=2, how=how, at=at, rank=1)
    stopped = sorted(path.name for path in tmp_path.glob("step-*"))
    if how == "kill":
        assert codes[1] == -signal.SIGKILL
        assert codes[0] != 0
        assert stopped == ["step-10"]
    else:
        assert codes == [75, 75]
        assert stopped == ["step-8"]  # where the next validation was
    assert not (tmp_path / "finished").exists()
    codes = processes.train(root, "embedding", tmp_path, section, world=2)
    assert codes == [0, 0], (tmp_path / "log").read_text()[-3000:]
    assert left(tmp_path) == undisturbed(world=2, **more)


@pytest.mark.parametrize(
    "way",
    [
        [(2, "zero3"), (1, "none")],
        pytest.param([(1, "none"), (2, "zero2")], marks=pytest.mark.full),
        pytest.param([(2, "zero1_offload"), (2, "none")], marks=pytest.mark.full),
    ],
    ids=str,
)
def test_another_number_of_processes_goes_on(
    processes: Processes, root: Path, undisturbed: Undisturbed, tmp_path: Path, way: list[tuple[int, str]]
) -> None:
    """What two processes began under ZeRO-3 one ends alone, and the other way round: the same model but for rounding."""
    calm = {"dropout": 0.0, "learning_rate": 2e-4}
    expected = load(undisturbed(world=1, **calm)["weights"])
    for (world, method), how in zip(way, ("term", ""), strict=True):
        section = {**SECTION, **calm, "deepspeed": method}
        codes = processes.train(root, "embedding", tmp_path, section, world=world, how=how, at=8)
        assert codes == [75 if how else 0] * world, (tmp_path / "log").read_text()[-3000:]
        if how:
            halfway = load_file(tmp_path / "step-9" / "weights.safetensors")
    moved = distance(halfway, expected)
    assert moved > 0.01
    # Rounding, of which AdamW makes much where a gradient is all but nothing: 0.006. Without the moments it is 1.06.
    assert distance(load_file(tmp_path / "best.safetensors"), expected) < 0.03 * moved


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return sum(float((other[name] - value).pow(2).sum()) for name, value in one.items()) ** 0.5


@pytest.mark.full
@pytest.mark.parametrize("seed", range(50))
def test_any_interruption_leaves_no_trace(
    processes: Processes, root: Path, undisturbed: Undisturbed, tmp_path: Path, seed: int
) -> None:
    """SIGTERM and kill -9 at random steps, once or twice, on one and two processes, however they divide the work."""
    draw = random.Random(seed)
    world = draw.choice([1, 2, 2])
    method = (
        "none" if world == 1 else draw.choice(["none", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"])
    )
    more = {"deepspeed": method, "chunk_size": draw.choice([None, 2, 5]), "lora": draw.choice([None, {"rank": 2}])}
    section = {**SECTION, **more}
    told = []
    for _ in range(draw.randint(1, 2)):
        how, at, rank = draw.choice(["kill", "term", "term evaluating"]), draw.randrange(16), draw.randrange(world)
        codes = processes.train(root, "embedding", tmp_path, section, world=world, how=how, at=at, rank=rank)
        last = max([0, *(int(path.name[5:]) for path in tmp_path.glob("step-*[0-9]"))])
        told.append(f"{how} of rank {rank} at step {at}: {codes}, step-{last}")
        if any(codes):
            assert how == "kill" or codes == [75] * world
            assert last >= at // 5 * 5  # at most one interval is lost
    assert processes.train(root, "embedding", tmp_path, section, world=world) == [0] * world
    assert left(tmp_path) == undisturbed(world=world, **more)
    print(f"seed {seed}: {world} x {more}: {'; '.join(told)}")
    shutil.rmtree(tmp_path)
