"""A submitter, a cluster and a life in it, for the tests of `nearer submit`."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_double import Object, Server
from kubernetes_life import Life

from nearer.cluster.patience import Patience
from nearer.cluster.session import Request, Session

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs" / "train-reranker.yaml"
MESSAGE = {"stage": "train reranker", "code": 0, "reason": "done", "artifact": "models/reranker",
           "metrics": {"nDCG@10": 0.71}}  # fmt: skip
QUICK = Patience(
    connect_seconds=30,
    answer_seconds=30,
    attempts=4,
    pause_seconds=0.01,
    longest_pause_seconds=0.05,
    watch_seconds=20,
    silence_seconds=30,
    explain_seconds=0.02,
    lost_seconds=60,
    drain_seconds=60,
)


def submitter_rules() -> list[Object]:
    """The rights of the manifest in docs/."""
    text = (ROOT / "docs" / "submitter-rbac.yaml").read_text(encoding="utf-8")
    (role,) = [each for each in yaml.safe_load_all(text) if each["kind"] == "Role"]
    rules: list[Object] = role["rules"]
    return rules


@dataclass
class Case:
    """One cluster, and `nearer submit` in front of it."""

    api: Server
    kubeconfig: Path
    capsys: pytest.CaptureFixture[str]

    def session(self, *assignments: str, patience: Patience = QUICK, job: Path = JOB, **request: Any) -> Session:
        """What the command line makes of its options."""
        return Session(
            Request(job=job, assignments=assignments, **request),
            out=print,
            say=lambda text: print(f"nearer: {text}", file=sys.stderr),
            patience=patience,
        )

    def lives(self, *lives: Callable[[Life], None]) -> None:
        """Each Job that is made lives one of these; the last one again and again."""
        left = list(lives)

        def begin(job: Object) -> None:
            life = left.pop(0) if len(left) > 1 else left[0]
            threading.Thread(target=life, args=(Life(self.api, job),), daemon=True).start()

        self.api.on_job = begin

    def follow(self, *assignments: str, **options: Any) -> tuple[int, str, str]:
        """`nearer submit --follow`: exit code, stdout, stderr."""
        self.capsys.readouterr()
        code = self.session(*assignments, **options).submit(follow=True, on_interrupt="detach")
        out, err = self.capsys.readouterr()
        return code, out, err

    def lines(self, out: str) -> list[str]:
        """The log lines in it."""
        return [line for line in out.splitlines() if line.startswith("[")]


def well(life: Life) -> None:
    """Runs and ends well."""
    pod = life.pod("aaaaa")
    life.start(pod)
    life.write(pod, "hello", "bye")
    life.read(pod, 2)
    life.end(pod, 0, message=MESSAGE)
    life.complete()
