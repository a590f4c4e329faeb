"""Processes that publish and read at the same time."""

from __future__ import annotations

import multiprocessing

import pytest

from nearer.errors import ArtifactExists, ArtifactMissing, Interrupted
from nearer.store import Manifest
from nearer.store.local import LocalStore

FORK = multiprocessing.get_context("fork")


def files_of(fingerprint):
    return {"model.bin": fingerprint.encode() * 500, f"{fingerprint}.txt": b"1", "sub/a": fingerprint.encode()}


def publish(root, address, fingerprint, *, overwrite=False):
    store = LocalStore(root, overwrite=overwrite)
    with store.scratch() as directory:
        for name, data in files_of(fingerprint).items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_bytes(data)
        return store.publish(address, directory, Manifest(kind="embedder", name="m", fingerprint=fingerprint))


def content(artifact):
    return {entry.path: (artifact.path / entry.path).read_bytes() for entry in artifact.manifest.files}


def _compete(root, fingerprint, rounds, barrier, results):
    for number in range(rounds):
        barrier.wait(30)
        try:
            publish(root, f"models/{number}", fingerprint)
            results.put((number, fingerprint, "won", ""))
        except ArtifactExists as error:
            results.put((number, fingerprint, "lost", str(error)))


@pytest.mark.parametrize("rounds", [25, pytest.param(1000, marks=pytest.mark.full)])
def test_of_racing_publishers_exactly_one_wins(tmp_path, rounds):
    """Three processes publish other content at once: one wins, the losers are told its fingerprint, it verifies."""
    names = ["aaaa", "bbbb", "cccc"]
    barrier, results = FORK.Barrier(len(names)), FORK.Queue()
    processes = [
        FORK.Process(daemon=True, target=_compete, args=(str(tmp_path), n, rounds, barrier, results)) for n in names
    ]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in range(rounds * len(names))]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    store = LocalStore(str(tmp_path))
    for number in range(rounds):
        mine = [answer for answer in answers if answer[0] == number]
        [winner] = [name for _, name, how, _ in mine if how == "won"]
        losers = [words for _, _, how, words in mine if how == "lost"]
        assert len(losers) == 2
        assert all(f"the fingerprint there is {winner}" in words for words in losers)
        artifact = store.open(f"models/{number}")
        assert artifact.manifest.fingerprint == winner
        assert content(artifact) == files_of(winner)
        assert store.verify(f"models/{number}") == ()
    assert store.gc(remove=False) == ()


def _overwrite(root, rounds, name, done, enough):
    """So often, and until the reader, whom the system may let wait, has seen enough."""
    number = 0
    while number < rounds or not enough.is_set():
        publish(root, "m", f"{name}{number % 3}", overwrite=True)
        number += 1
    done.set()


@pytest.mark.parametrize("rounds", [30, pytest.param(200, marks=pytest.mark.full)])
def test_readers_never_see_a_mixture(tmp_path, rounds):
    """While two processes overwrite again and again, what a reader opens is one artifact, until it is replaced."""
    publish(str(tmp_path), "m", "x0")
    finished, enough = [FORK.Event(), FORK.Event()], FORK.Event()
    writers = [
        FORK.Process(daemon=True, target=_overwrite, args=(str(tmp_path), rounds, name, done, enough))
        for name, done in zip("xy", finished, strict=True)
    ]
    for writer in writers:
        writer.start()
    store = LocalStore(str(tmp_path))
    opened = set()
    while not all(event.is_set() for event in finished) and all(writer.exitcode in (None, 0) for writer in writers):
        try:
            artifact = store.open("m")
        except Interrupted:  # being replaced
            continue
        try:
            found = content(artifact)
        except FileNotFoundError:
            found = None
        if found != files_of(artifact.manifest.fingerprint):
            assert store.manifest("m").attempt != artifact.manifest.attempt, "mixed, and not replaced meanwhile"
        opened.add(artifact.manifest.attempt)
        if len(opened) > 5:
            enough.set()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(opened) > 5
    artifact = store.open("m")
    assert content(artifact) == files_of(artifact.manifest.fingerprint)
    assert store.verify("m") == ()
    with pytest.raises(ArtifactMissing):
        store.open("n")
