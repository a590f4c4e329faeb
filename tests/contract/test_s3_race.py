"""Processes that publish to one address in S3 at once; losers that are paused at every request and come back."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from s3_machine import around_requests, forked, machine, space_at
from store_work import content, publish

from nearer.errors import ArtifactExists

FORK = multiprocessing.get_context("fork")
FULL = pytest.mark.full, pytest.mark.timeout(3600)
UNTIL_DONE = 400  # more requests than any of these processes makes
WINNER = "the fingerprint there is"


def files_of(fingerprint):
    return {"model.bin": fingerprint.encode() * 500, f"{fingerprint}.txt": b"1", "sub/a": fingerprint.encode()}


@pytest.fixture
def clean(s3_endpoint):
    return space_at(s3_endpoint)


def assert_stands(root, clean, disk, fingerprint):
    reader = machine(root, clean, disk)
    assert reader.manifest("models/m").fingerprint == fingerprint
    assert content(reader) == files_of(fingerprint)
    assert reader.verify("models/m") == ()


def _compete(root, endpoint, disk, fingerprint, rounds, barrier, results):
    space = space_at(endpoint, requests_at_once=4)
    for number in range(rounds):
        barrier.wait(60)
        try:
            publish(machine(f"{root}/{number}", space, disk), "models/m", files_of(fingerprint), fingerprint)
            results.put((number, fingerprint, "won", ""))
        except ArtifactExists as error:
            results.put((number, fingerprint, "lost", str(error)))


@pytest.mark.parametrize("rounds", [4, pytest.param(100, marks=FULL)])
def test_of_racing_publishers_exactly_one_wins(s3_endpoint, s3_root, clean, tmp_path, rounds):  # noqa: PLR0917, RUF100
    """Three processes publish other content at once: one wins, the losers are told its fingerprint, it verifies."""
    names = ["aaaa", "bbbb", "cccc"]
    barrier, results = FORK.Barrier(len(names)), FORK.Queue()
    processes = [
        FORK.Process(
            daemon=True, target=_compete, args=(s3_root, s3_endpoint, tmp_path / name, name, rounds, barrier, results)
        )
        for name in names
    ]
    for process in processes:
        process.start()
    answers = [results.get(timeout=120) for _ in range(rounds * len(names))]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    won = Counter()
    for number in range(rounds):
        mine = [answer for answer in answers if answer[0] == number]
        [winner] = [name for _, name, how, _ in mine if how == "won"]
        losers = [words for _, _, how, words in mine if how == "lost"]
        assert len(losers) == 2
        assert all(f"{WINNER} {winner}" in words for words in losers)
        assert_stands(f"{s3_root}/{number}", clean, tmp_path / "reader", winner)
        won[winner] += 1
    print(f"{rounds} races of three, won by {dict(won)}")


def _overwrite(root, endpoint, disk, name, rounds):
    store = machine(root, space_at(endpoint, requests_at_once=4), disk, overwrite=True)
    for number in range(rounds):
        publish(store, "models/m", files_of(f"{name}{number}"), f"{name}{number}")


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=FULL)])
def test_after_racing_overwriters_one_whole_artifact_stands(s3_endpoint, s3_root, clean, tmp_path, rounds):  # noqa: PLR0917, RUF100
    """Two processes overwrite again and again, none fails, and what stands in the end is of one of them, whole."""
    processes = [
        FORK.Process(target=_overwrite, args=(s3_root, s3_endpoint, tmp_path / name, name, rounds)) for name in "xy"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    last = machine(s3_root, clean, tmp_path / "reader").manifest("models/m").fingerprint
    assert last in {f"x{rounds - 1}", f"y{rounds - 1}"}
    assert_stands(s3_root, clean, tmp_path / "reader", last)


def _outcome(status, answer):
    assert os.WIFEXITED(status)
    return os.WEXITSTATUS(status), answer.read_text() if answer.exists() else ""


def _pause_and_revive(root, endpoint, disk, clean, number, when, *, overwrite):
    """The first stops at its n-th request, the second publishes, the first goes on; gives both outcomes."""
    answer = Path(disk, "answer")

    def first():
        publish(
            machine(root, space_at(endpoint), disk / "first", overwrite=overwrite), "models/m", files_of("f1"), "f1"
        )

    process = forked(first, number=number, when=when, signal_number=signal.SIGSTOP, answer=answer)
    _, status = os.waitpid(process, os.WUNTRACED)
    stopped = os.WIFSTOPPED(status)
    try:
        publish(machine(root, clean, disk / "second", overwrite=overwrite), "models/m", files_of("f2"), "f2")
        second = ""
    except ArtifactExists as error:
        second = str(error)
    if stopped:
        os.kill(process, signal.SIGCONT)
        _, status = os.waitpid(process, 0)
    return stopped, _outcome(status, answer), second


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("step", [31, pytest.param(1, marks=FULL)])
def test_a_paused_publisher_comes_back(s3_endpoint, s3_root, clean, tmp_path, overwrite, step):
    """Paused before or after any request while another publishes: one wins, the other is told, the winner verifies."""
    points = itertools.product(range(1, UNTIL_DONE), ("before", "after"))
    outcomes, paused = Counter(), 0
    for number, when in itertools.islice(points, 3, None, step):
        root, disk = f"{s3_root}/{number}-{when}", tmp_path / f"{number}-{when}"
        disk.mkdir()
        stopped, (code, words), second = _pause_and_revive(
            root, s3_endpoint, disk, clean, number, when, overwrite=overwrite
        )
        paused += stopped
        standing = machine(root, clean, disk / "reader").manifest("models/m").fingerprint
        assert_stands(root, clean, disk / "reader", standing)
        if overwrite:
            assert (code, second) == (0, "")
        elif second:
            assert code == 0
            assert f"{WINNER} f1" in second
            assert standing == "f1"
        else:
            assert code == 102 or not stopped
            assert f"{WINNER} f2" in words
            assert standing == "f2"
        outcomes[f"first {code}, second {'told' if second else 'done'}, {standing} stands"] += 1
        shutil.rmtree(disk)
        if not stopped:
            break
    print(f"{paused} pauses {'of an overwriter' if overwrite else 'of a publisher'}: {dict(outcomes)}")
    assert {name.split(", ")[2] for name in outcomes} == {"f1 stands", "f2 stands"}


def test_two_pauses_and_a_third_publisher(s3_endpoint, s3_root, clean, tmp_path):
    """Two publishers are paused, a third overwrites, both come back: whoever claimed last stands, whole."""
    with around_requests() as requests:
        publish(machine(f"{s3_root}/length", clean, tmp_path / "length"), "models/m", files_of("f1"), "f1")
    copies = [n for n, request in enumerate(requests, 1) if request.method == "PUT" and "/models/" in request.key]
    assert len(copies) == 4
    last = []
    for place in copies[1:3]:
        later = place + 30 * (place % 2)  # the second has the first one's artifact to finish before it claims
        root = f"{s3_root}/{place}"
        processes = []
        for name, number in (("f1", place), ("f2", later)):

            def work(name=name, root=root):
                store = machine(root, space_at(s3_endpoint), tmp_path / f"{place}-{name}", overwrite=True)  # noqa: B023
                publish(store, "models/m", files_of(name), name)

            processes.append(forked(work, number=number, signal_number=signal.SIGSTOP))
            os.waitpid(processes[-1], os.WUNTRACED)
        decided = len(clean.list(f"{root}/.nearer/claims"))
        publish(machine(root, clean, tmp_path / f"{place}-3", overwrite=True), "models/m", files_of("f3"), "f3")
        for process in processes:
            os.kill(process, signal.SIGCONT)
            _, status = os.waitpid(process, 0)
            assert os.WEXITSTATUS(status) == 0
        assert_stands(root, clean, tmp_path / f"{place}-reader", "f3" if decided == 2 else "f2")
        last.append(decided)
    assert set(last) == {1, 2}  # the second was paused on both sides of its claim
