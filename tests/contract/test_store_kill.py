"""SIGKILL and SIGSTOP at every change that publishing makes to the file system."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from nearer.errors import ArtifactExists, ArtifactMissing, Interrupted
from nearer.progress import Silent
from nearer.store import Built, produce, settle
from nearer.store.local import LocalStore

OLD = {"model.bin": b"old " * 100, "sub/config.json": b"{}", "only-old.txt": b"o", "name/inside.txt": b"a directory"}
NEW = {"model.bin": b"new!" * 100, "sub/config.json": b"[]", "only-new.txt": b"n", "name": b"a file"}
CHANGES = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock"}
UNTIL_DONE = 400  # more changes than any of these processes makes


def job(root, fingerprint, files, *, overwrite=False):
    def build(directory, work):
        for name, data in files.items():
            for path in (work.path / name, directory / name):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        return Built(metrics={"R@10": 0.5})

    return produce(
        LocalStore(str(root), overwrite=overwrite),
        Silent(),
        kind="embedder",
        name="train embedding",
        address="models/m",
        fingerprint=fingerprint,
        inputs={},
        settings={},
        build=build,
    )


def content(root, **missing):
    try:
        artifact = LocalStore(str(root)).open("models/m")
    except ArtifactMissing:
        return missing["missing"]
    found = {path.relative_to(artifact.path).as_posix(): path for path in artifact.path.rglob("*") if path.is_file()}
    del found["manifest.json"]
    return {name: path.read_bytes() for name, path in found.items()}


def on_change(number, action):
    """Call the action at the n-th change that this process makes to the file system."""
    seen = 0

    def hook(event, args):
        nonlocal seen
        if event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_CREAT | os.O_WRONLY)):
            seen += 1
            if seen == number:
                action()

    sys.addaudithook(hook)


def forked(work, *, number, signal_number, answers=None):
    """Run the work in a process of its own that sends itself a signal at the n-th change; gives its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        on_change(number, lambda: os.kill(os.getpid(), signal_number))
        work()
        code = 0
    except ArtifactExists as error:
        Path(answers).write_text(str(error))
        code = 20
    except Interrupted:
        code = 75
    except BaseException as error:  # noqa: BLE001 - the child must not come back into pytest
        sys.stderr.write(repr(error))
    finally:
        os._exit(code)


def killed(work, number):
    """Whether the n-th change came at all before the work was done."""
    _, status = os.waitpid(forked(work, number=number, signal_number=signal.SIGKILL), 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@pytest.fixture
def template():
    """A root with the old artifact, and one with none; in memory, as thousands of fsyncs tell nothing here."""
    memory = Path("/dev/shm")
    top = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    job(top / "old", "f1", OLD)
    (top / "none").mkdir()
    yield top
    shutil.rmtree(top)


def start(template, name, number):
    root = template / f"{name}-{number}"
    shutil.copytree(template / name, root)
    return root


def assert_whole_after_rerun(root, undisturbed):
    again = job(root, "f2", NEW, overwrite=True)
    assert again.files == undisturbed.files
    assert content(root) == NEW
    store = LocalStore(str(root))
    assert store.verify("models/m") == ()
    store.gc(remove=True)
    left = [path.relative_to(root / ".nearer").parts[0] for path in (root / ".nearer").rglob("*") if path.is_file()]
    assert set(left) == {"claims"}
    shutil.rmtree(root)


@pytest.mark.parametrize("before", ["none", "old"])
@pytest.mark.parametrize(
    ("step", "odd"), [(3, 1), pytest.param(1, 1, marks=pytest.mark.full), pytest.param(1, 0, marks=pytest.mark.full)]
)
def test_kill_at_every_change(template, before, step, odd):
    """After a kill anywhere a reader sees the old or the new artifact, and the same command completes the work."""
    undisturbed = job(template / "reference", "f2", NEW)
    seen = []
    for number in range(1, UNTIL_DONE, step):
        root = start(template, before, number)
        was_killed = killed(lambda root=root: job(root, "f2", NEW, overwrite=True), number)
        if number % 2 == odd:  # else the same command comes first
            seen.append(content(root, missing=None))
        assert_whole_after_rerun(root, undisturbed)
        if not was_killed:
            break
    assert 60 < number < UNTIL_DONE
    first = OLD if before == "old" else None
    turn = seen.index(NEW)
    assert seen == [first] * turn + [NEW] * (len(seen) - turn)
    assert 10 // step < turn < len(seen) - 5 // step  # kills came on both sides of the decision


def _kill_twice(template, undisturbed, pairs):
    for first, second in pairs:
        root = start(template, "old", first)
        killed(lambda root=root: job(root, "f2", NEW, overwrite=True), first)
        work = content if (first + second) % 2 else lambda root: job(root, "f2", NEW, overwrite=True)
        killed(lambda root=root, work=work: work(root), second)
        assert content(root) in (OLD, NEW)
        assert_whole_after_rerun(root, undisturbed)


def test_kill_twice_sampled(template):
    """A rerun, or a reader that rolls forward, may be killed as well."""
    undisturbed = job(template / "reference", "f2", NEW)
    draw = random.Random(13)
    _kill_twice(template, undisturbed, [(draw.randint(30, 110), draw.randint(1, 60)) for _ in range(20)])


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_kill_twice_at_every_change(template):
    """Every first kill point with every fifth second one, others each time."""
    undisturbed = job(template / "reference", "f2", NEW)
    last = next(
        n
        for n in range(1, UNTIL_DONE)
        if not killed(lambda n=n: job(start(template, "old", f"length-{n}"), "f2", NEW, overwrite=True), n)
    )
    pairs = [(first, second) for first in range(1, last) for second in range(1 + first % 5, last, 5)]
    print(f"{len(pairs)} pairs of kill points")
    _kill_twice(template, undisturbed, pairs)


def _stop_and_revive(template, number, *, overwrite):
    """One publisher stops at its n-th change; another comes and ends; the first goes on. Gives what became of both."""
    root = start(template, "none", number)
    answers = [template / f"answer-{number}-{name}" for name in "ab"]
    first = forked(
        lambda: job(root, "f1", OLD, overwrite=overwrite),
        number=number,
        signal_number=signal.SIGSTOP,
        answers=answers[0],
    )
    _, status = os.waitpid(first, os.WUNTRACED)
    stopped = os.WIFSTOPPED(status)
    second = forked(
        lambda: job(root, "f2", NEW, overwrite=overwrite),
        number=UNTIL_DONE,
        signal_number=signal.SIGKILL,
        answers=answers[1],
    )
    _, other = os.waitpid(second, 0)
    if stopped:
        os.kill(first, signal.SIGCONT)
        _, status = os.waitpid(first, 0)
    codes = os.WEXITSTATUS(status), os.WEXITSTATUS(other)
    return root, stopped, codes, [path.read_text() if path.exists() else "" for path in answers]


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.full)])
def test_a_paused_publisher_comes_back(template, monkeypatch, step):
    """Paused anywhere while another publishes: one of them wins, the other is told by whom, and nothing is mixed."""
    monkeypatch.setattr(settle, "PATIENCE_SECONDS", 0.2)
    outcomes = set()
    for number in range(1, UNTIL_DONE, step):
        root, stopped, codes, words = _stop_and_revive(template, number, overwrite=False)
        outcomes.add(codes)
        standing = LocalStore(str(root)).open("models/m").manifest.fingerprint
        assert content(root) == {"f1": OLD, "f2": NEW}[standing]
        winner = {(0, 20): "f1", (0, 75): "f1", (20, 0): "f2"}[codes]
        assert standing == winner
        if 20 in codes:
            assert f"the fingerprint there is {winner}" in words[codes.index(20)]
        shutil.rmtree(root)
        if not stopped:
            break
    assert {(20, 0), (0, 75), (0, 20)} == outcomes


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.full)])
def test_a_paused_overwriter_comes_back(template, monkeypatch, step):
    """The same with --overwrite: the one that claimed last stands, whole."""
    monkeypatch.setattr(settle, "PATIENCE_SECONDS", 0.2)
    outcomes = set()
    for number in range(1, UNTIL_DONE, step):
        root, stopped, codes, _ = _stop_and_revive(template, number, overwrite=True)
        standing = LocalStore(str(root)).open("models/m").manifest.fingerprint
        assert content(root) == {"f1": OLD, "f2": NEW}[standing]
        outcomes.add((codes, standing))
        shutil.rmtree(root)
        if not stopped:
            break
    # (0, 75) with f2: the first had copied all and was stopped before it let go of the lock. The claim of the second
    # stands, and the next reader finished its copy.
    assert outcomes - {((0, 75), "f2")} == {((0, 0), "f1"), ((0, 75), "f1"), ((0, 0), "f2")}
