"""Where a run's processes are, and how its machines find each other."""

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nearer import process
from nearer.errors import InputError, Interrupted
from nearer.progress import Silent
from nearer.train.gather import gather
from nearer.train.place import Place, find_place

POD = {"NNODES": "3", "NODE_RANK": "2", "NPROC_PER_NODE": "8", "MASTER_ADDR": "run-0.run", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("more", "variables", "expected"),
    [
        ({}, {}, Place()),
        ({"gpus": 4}, {}, Place(processes=4, cuda=True)),
        ({"gpus": 4, "processes": 2}, {}, Place(processes=2, cuda=True)),
        ({"processes": 2}, {}, Place(processes=2)),
        ({"gpus": 8}, POD, Place(nodes=3, node=2, processes=8, master="run-0.run", port=29500, cuda=True)),
        (
            {"gpus": 8},
            {**{name: value for name, value in POD.items() if name != "NODE_RANK"}, "JOB_COMPLETION_INDEX": "1"},
            Place(nodes=3, node=1, processes=8, master="run-0.run", port=29500, cuda=True),
        ),
        ({"nodes": 1, "gpus": 8}, POD, Place(processes=8, cuda=True)),
    ],
)
def test_settings_come_before_what_the_pod_says_and_what_is_there(
    more: dict[str, int], variables: dict[str, str], expected: Place
) -> None:
    """One process a GPU, one without; an Indexed Job's variables; settings first."""
    given: dict[str, Any] = {"nodes": None, "processes": None, "gpus": 0, **more}
    assert find_place(**given, environment=variables) == expected


@pytest.mark.parametrize(
    ("more", "variables", "said"),
    [
        ({"gpus": 2, "processes": 3}, {}, "gpus_per_node: 2"),
        ({"nodes": 2}, {}, "MASTER_ADDR"),
        ({}, {**POD, "NODE_RANK": "3"}, "from 0 to 2"),
        ({}, {**POD, "NNODES": "many"}, "NNODES is 'many'"),
    ],
)
def test_a_place_that_cannot_be_is_refused(more: dict[str, int], variables: dict[str, str], said: str) -> None:
    """More processes than GPUs; a node that does not know where it is."""
    given: dict[str, Any] = {"nodes": None, "processes": None, "gpus": 0, **more}
    with pytest.raises(InputError) as raised:
        find_place(**given, environment=variables)
    assert said in str(raised.value)


def places(count: int) -> list[Place]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [Place(nodes=count, node=node, master="127.0.0.1", port=port) for node in range(count)]


def meet(place: Place, *, fingerprint: str = "f", done: bool = False, seconds: float = 60.0) -> Any:
    try:
        return gather(place, fingerprint=fingerprint, done=lambda: done, progress=Silent(), seconds=seconds)
    except (InputError, Interrupted) as error:
        return error


def test_all_nodes_go_together() -> None:
    """In whatever order they come, each is sent to work."""
    with ThreadPoolExecutor() as threads:
        assert list(threads.map(meet, reversed(places(3)))) == [True, True, True]


def test_nodes_with_other_settings_are_refused() -> None:
    """Both are told what differs: exit 2, not a hang."""
    first, second = places(2)
    with ThreadPoolExecutor() as threads:
        other = threads.submit(meet, second, fingerprint="g")
        errors = [meet(first), other.result()]
    assert all(isinstance(error, InputError) and "fingerprint" in str(error) for error in errors)


def test_a_node_that_finds_the_model_does_not_wait() -> None:
    """The first node has published and will never come again."""
    assert meet(places(2)[1], done=True) is False


def test_nobody_waits_for_ever() -> None:
    """Who does not come in time ends the others with exit 75, which a Job tries again."""
    for place in places(2):
        error = meet(place, seconds=0.1)
        assert isinstance(error, Interrupted)
        assert "not" in error.what


def test_sigterm_is_heard_while_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that is evicted before the others came ends with 75 at once."""
    flag = process.StopFlag()
    flag.set()
    monkeypatch.setattr(process, "STOP", flag)
    for place in places(2):
        error = meet(place)
        assert isinstance(error, Interrupted)
        assert "SIGTERM" in error.what
