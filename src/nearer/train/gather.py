"""The machines of a run find each other before any process starts.

torchrun's rendezvous can be neither stopped nor told anything while it waits, and a machine waits as long as a Job's
back-off keeps another one away. So they meet here first: SIGTERM is heard, a machine that has other settings is
refused, and one that comes when all is done is not kept.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from nearer import process
from nearer.errors import InputError, Interrupted
from nearer.progress import Progress
from nearer.train.place import Place

JOIN_SECONDS: Final = 20 * 60.0
"""A Job makes a pod that failed anew after 10 s, 20 s, 40 s, …, 6 min; then it must be placed, and fetch its image."""
_ANSWER_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 1.0


def gather(
    place: Place,
    *,
    fingerprint: str,
    done: Callable[[], bool],
    progress: Progress,
    seconds: float = JOIN_SECONDS,
) -> bool:
    """Wait until all machines are there.

    Args:
        place: this machine's.
        fingerprint: of the work; all machines must mean the same.
        done: whether the result is there already, so that the first machine will never come.
        progress: hears whom it waits for.
        seconds: how long.

    Returns:
        False when the result is there already.

    Raises:
        Interrupted: SIGTERM, or somebody did not come in time.
        InputError: a machine has other settings, or as many processes as no other.
    """
    if place.nodes == 1:
        return True
    until = time.monotonic() + seconds
    card = {"fingerprint": fingerprint, "processes": place.processes, "nodes": place.nodes}
    if place.node:
        return _join(place, {**card, "node": place.node}, until=until, done=done, progress=progress)
    _receive(place, card, until=until, progress=progress)
    return True


def _receive(place: Place, card: dict[str, Any], *, until: float, progress: Progress) -> None:
    guests: dict[int, socket.socket] = {}
    missing = set(range(1, place.nodes))
    progress.say("waiting for the other nodes", missing=sorted(missing))
    try:
        with socket.create_server(("", place.port), backlog=place.nodes) as door:
            door.settimeout(_PAUSE_SECONDS)
            while missing:
                _still(until, f"nodes {sorted(missing)} have not come")
                # One that went away again, and its successor, must be noticed before all are sent to work.
                for node in [node for node, guest in guests.items() if _gone(guest)]:
                    guests.pop(node).close()
                    missing.add(node)
                with suppress(TimeoutError, ValueError, OSError):
                    guest, _ = door.accept()
                    guest.settimeout(_ANSWER_SECONDS)
                    said = _read(guest)
                    if any(said.get(key) != value for key, value in card.items()):
                        _send(guest, {"mine": card})
                        guest.close()
                        raise _different(place, card, said)
                    if (node := said["node"]) in guests:
                        guests.pop(node).close()
                    guests[node] = guest
                    missing.discard(node)
        for guest in guests.values():
            with suppress(OSError):
                _send(guest, {"go": True})
    finally:
        for guest in guests.values():
            guest.close()
    progress.say("all nodes are there", nodes=place.nodes)


def _join(place: Place, card: dict[str, Any], *, until: float, done: Callable[[], bool], progress: Progress) -> bool:
    progress.say("looking for the first node", where=f"{place.master}:{place.port}")
    while not done():
        _still(until, f"the first node does not answer at {place.master}:{place.port}")
        with suppress(OSError, ValueError), socket.create_connection((place.master, place.port), timeout=5.0) as door:
            _send(door, card)
            door.settimeout(_PAUSE_SECONDS)
            while True:
                _still(until, "some node has not come")
                try:
                    said = _read(door)
                except TimeoutError:
                    continue
                break
            if said.get("go"):
                return True
            if "mine" in said:
                raise _different(place, card, said["mine"])
        time.sleep(_PAUSE_SECONDS)
    return False


def _still(until: float, what: str) -> None:
    process.STOP.check()
    if time.monotonic() > until:
        raise Interrupted(
            what, rule="all nodes train together", way_out="see why they do not start, and run them again"
        )


def _gone(guest: socket.socket) -> bool:
    """Whether the other end has closed: nothing is ever to be read from a guest."""
    guest.setblocking(False)
    try:
        return guest.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        with suppress(OSError):
            guest.setblocking(True)


def _send(end: socket.socket, card: dict[str, Any]) -> None:
    end.sendall(json.dumps(card).encode() + b"\n")


def _read(end: socket.socket) -> dict[str, Any]:
    text = b""
    while not text.endswith(b"\n"):
        part = end.recv(4096)
        if not part:
            raise ConnectionResetError
        text += part
    found = json.loads(text)
    if isinstance(found, dict):
        return found
    raise ValueError


def _different(place: Place, mine: dict[str, Any], theirs: dict[str, Any]) -> InputError:
    keys = [key for key in ("fingerprint", "nodes", "processes") if mine.get(key) != theirs.get(key)]
    return InputError(
        "the nodes of this run do not mean the same: "
        + "; ".join(f"{key} {mine.get(key)!r} on one, {theirs.get(key)!r} on the other" for key in keys),
        where=f"node {place.node}",
        rule="the same settings, inputs and number of GPUs on all nodes",
        way_out="give all of them the same settings file and base model",
    )
