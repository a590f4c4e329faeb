"""kill -9 during any stage, then the same command: it completes, and the result equals an undisturbed run's.

A child process counts what it does to the file system (Python's audit events) and kills itself at a chosen count, so
that kill points are enumerated and repeatable instead of timed.
"""

import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from forked import Ended, processes, run

STAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "generate": (("generate",), "datasets/d"),
    "train embedding": (("train", "embedding"), "models/e"),
    "train reranker": (("train", "reranker"), "models/r"),
    "eval": (("eval",), "reports/r"),
    "export-onnx": (("export-onnx",), "models/o"),
    "reindex": (("reindex",), "indexes/i"),
}
CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.move"}


def die(directory: str, at: int, count: Any) -> None:
    """SIGKILL at the given number of changes below the directory (0: never); counts them."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if not writes and event not in CHANGES:
            return
        if not str(args[0] if isinstance(args[0], str | os.PathLike) else "").startswith(
            (directory, "./", "models", "datasets")
        ):
            return
        count.value += 1
        if count.value == at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run_child(directory: Path, arguments: tuple[str, ...], kill_at: int = 0) -> tuple[Ended, int]:
    """How it ended, and how many changes it made."""
    count = processes.RawValue("i", 0)
    ended = run(directory, *arguments, prepare=partial(die, str(directory), kill_at, count))
    return ended, count.value


def result(directory: Path, address: str) -> dict[str, dict[str, str]]:
    """sha256 by file of each artifact at or below an address."""
    return {
        str(path.parent.relative_to(directory)): {
            entry["path"]: entry["sha256"] for entry in json.loads(path.read_text())["files"]
        }
        for path in sorted((directory / address).rglob("manifest.json"))
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, made: Path) -> Path:
    """All stages run once, in order, each from what the one before made; `before-N` is what stood before stage N."""
    top = tmp_path_factory.mktemp("undisturbed")
    current = top / "0"
    shutil.copytree(made, current)
    for name in ("datasets/d", "models/e", ".nearer"):
        shutil.rmtree(current / name, ignore_errors=True)
    for number, (arguments, _) in enumerate(STAGES.values(), 1):
        following = top / str(number)
        shutil.copytree(current, following)
        ended, changes = run_child(following, arguments)
        assert ended.code == 0, ended.said
        (following / "changes").write_text(str(changes))
        current = following
    return top


def check(undisturbed: Path, tmp_path: Path, stage: str, shares: list[float]) -> int:
    number = list(STAGES).index(stage) + 1
    arguments, address = STAGES[stage]
    expected = result(undisturbed / str(number), address)
    assert expected
    changes = int((undisturbed / str(number) / "changes").read_text())
    assert changes > 5
    points = sorted({max(1, round(share * changes)) for share in shares})
    for point in points:
        directory = tmp_path / str(point)
        shutil.copytree(undisturbed / str(number - 1), directory)
        killed, _ = run_child(directory, arguments, kill_at=point)
        assert killed.code == -signal.SIGKILL, killed.said
        again, _ = run_child(directory, arguments)
        assert again.code == 0, again.said
        assert result(directory, address) == expected, f"killed at change {point} of {changes}"
        shutil.rmtree(directory)
    return len(points)


def test_a_killed_stage_run_again_gives_the_same_result(undisturbed: Path, tmp_path: Path) -> None:
    """In the middle of each stage's work; while it is published, the store's own tests kill at every change.

    All stages in one test, because what they are held against is made once for each process of tests.
    """
    for stage in STAGES:
        check(undisturbed, tmp_path / stage, stage, [0.45])


@pytest.mark.full
@pytest.mark.parametrize("stage", STAGES)
def test_every_part_of_a_stage_survives_a_kill(undisturbed: Path, tmp_path: Path, stage: str) -> None:
    """Thirty kill points spread over each stage."""
    count = check(undisturbed, tmp_path, stage, [(index + 0.5) / 30 for index in range(30)])
    print(f"{stage}: {count} kill points")
