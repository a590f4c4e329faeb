"""What a store holds beside its artifacts, and how long."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping

from nearer.store.place import Place, is_claim, look, read_claim
from nearer.store.protocol import Leftover
from nearer.store.settle import drop, settle
from nearer.store.space import AREA, LEASE, TEMPORARY, Space, Stat

OLD_SECONDS = 14 * 24 * 3600.0
"""Unfinished work and caches that nobody touched for so long are leftovers. A guess: longer than any holiday."""
LIVE_SECONDS = 3600.0
"""Where no locks tell, work that somebody touched within this time may be going on. A guess: leases beat every 20 s."""
_TEMPORARY_SECONDS = 3600.0  # a guess: a claim is written in milliseconds


def collect(space: Space, root: str, *, remove: bool) -> tuple[Leftover, ...]:
    """Find, and if asked to remove, what no artifact under the root needs any more, largest first.

    These are: staging (uploads that were begun and not ended included) and scratch of dead processes, work areas whose
    artifact stands, work areas and caches untouched for two weeks, copies that were begun and not ended, and temporary
    files. Publications that were decided
    and not finished are finished. Artifacts, claims (a few hundred bytes each, they order publications for good), and
    whatever a live process holds stay.
    """
    area = f"{root.rstrip('/')}/{AREA}"
    places = _places(space, root, area)
    if remove:
        for place in places:
            settle(space, place)
    done = {state.manifest.fingerprint for place in places if (state := look(space, place)).manifest}
    found = [
        *_ended(space, root, area, "staging", remove=remove),
        *_ended(space, root, area, "scratch", remove=remove),
        *_temporary(space, area, remove=remove),
        *_old(space, area, "work", done, remove=remove),
        *_old(space, area, "cache", set(), remove=remove),
        *_begun(space, places, remove=remove),
    ]
    if remove:
        _tidy(space, area)
    return tuple(sorted(found, key=lambda leftover: (-leftover.size, leftover.key)))


def _places(space: Space, root: str, area: str) -> list[Place]:
    """All places that were ever claimed."""
    newest = {key.split("/")[0]: key for key in sorted(space.list(f"{area}/claims")) if is_claim(key)}
    claims = [read_claim(space, f"{area}/claims/{key}") for key in newest.values()]
    return [Place(address=f"{root.rstrip('/')}/{claim.address}", root=root) for claim in claims]


def _pending(space: Space, root: str, area: str) -> set[str]:
    """The attempts that won an address and are not wholly copied to it."""
    states = [look(space, place) for place in _places(space, root, area)]
    return {state.claim.attempt for state in states if state.staged and state.claim}


def _ended(space: Space, root: str, area: str, what: str, *, remove: bool) -> Iterator[Leftover]:
    begun = space.unfinished(f"{area}/{what}") if what == "staging" else {}
    found = _groups({**space.list(f"{area}/{what}"), **begun})
    for name, files in found.items():
        with space.alone(f"{area}/locks/{name}") as dead:
            # Claims are looked at under the lock: a process that just died may have claimed with its last breath.
            if dead and _age(files) >= space.grace_seconds and name not in _pending(space, root, area):
                reason = f"{what} of a process that ended"
                yield _leftover(space, f"{area}/{what}/{name}", files, reason, remove=remove)


def _tidy(space: Space, area: str) -> None:
    """Remove the lock files of killed processes, and the empty directories that they had made."""
    for name in space.list(f"{area}/locks"):
        with space.alone(f"{area}/locks/{name}") as dead:
            for what in ("staging", "scratch") if dead else ():
                if not space.list(f"{area}/{what}/{name}"):
                    space.clear(f"{area}/{what}/{name}")


def _temporary(space: Space, area: str, *, remove: bool) -> Iterator[Leftover]:
    for key, stat in space.list(f"{area}/claims").items():
        if TEMPORARY in key and _age([stat]) > _TEMPORARY_SECONDS:
            yield _leftover(space, f"{area}/claims/{key}", [stat], "temporary file", remove=remove)


def _old(space: Space, area: str, what: str, done: set[str], *, remove: bool) -> Iterator[Leftover]:
    found = {**space.list(f"{area}/{what}"), **space.unfinished(f"{area}/{what}")}
    leased = {key.partition("/")[0] for key in found if key.endswith(f"/{LEASE}")}
    for name, files in _groups(found).items():
        if name.endswith(".lock"):
            continue
        with space.alone(f"{area}/{what}/{name}.lock") as free:
            if name in leased and _age(files) < LIVE_SECONDS:
                continue
            if free and name in done:
                yield _leftover(space, f"{area}/{what}/{name}", files, "work whose artifact stands", remove=remove)
            elif free and _age(files) > OLD_SECONDS:
                yield _leftover(space, f"{area}/{what}/{name}", files, f"{what} untouched for two weeks", remove=remove)


def _begun(space: Space, places: list[Place], *, remove: bool) -> Iterator[Leftover]:
    """Copies to an address that a killed process had begun when somebody else finished the publication."""
    for place in places:
        files = list(space.unfinished(place.address).values())
        if files and _age(files) >= space.grace_seconds and not look(space, place).staged:
            if remove:
                space.abandon(place.address)
            size = sum(stat.size for stat in files)
            yield Leftover(key=place.address, size=size, reason="copies that were begun by a process that ended")


def _groups(listing: Mapping[str, Stat]) -> Mapping[str, list[Stat]]:
    groups: defaultdict[str, list[Stat]] = defaultdict(list)
    for key, stat in listing.items():
        groups[key.split("/")[0]].append(stat)
    return groups


def _age(files: list[Stat]) -> float:
    return time.time() - max(stat.modified for stat in files)


def _leftover(space: Space, key: str, files: list[Stat], reason: str, *, remove: bool) -> Leftover:
    if remove:
        drop(space, key)
    return Leftover(key=key, size=sum(stat.size for stat in files), reason=reason)
