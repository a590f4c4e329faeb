"""Whether the result of some work may stand at an address."""

from __future__ import annotations

import json
from collections.abc import Iterator

from nearer.errors import ArtifactCorrupt, ArtifactExists, InputError
from nearer.store.manifest import Manifest
from nearer.store.place import Place, State, look, read_manifest
from nearer.store.settle import settle
from nearer.store.space import AREA, Space


def admit(space: Space, place: Place, ours: Manifest, *, overwrite: bool) -> tuple[State, Manifest | None]:
    """Settle the address and say whether this work's result may stand there; see `Store.admit`.

    Returns:
        What is there, and the manifest of the same work if it is that.
    """
    require_place(space, place)
    while True:
        state = settle(space, place)
        try:
            return state, _admit(space, place, ours, overwrite=overwrite, state=state)
        except InputError:
            # If there is a new claim, what was refused are the first files of the attempt that won it meanwhile.
            if look(space, place).claim == state.claim:
                raise


def foresee(space: Space, place: Place, fingerprint: str | None, *, overwrite: bool) -> str:
    """What `admit` would say, in words; touches nothing."""
    state = look(space, place)
    try:
        require_place(space, place)
        if fingerprint is None and state.decided:
            return "an artifact is there; whether it is this one shows when the inputs are made"
        ours = Manifest(kind="", name="", fingerprint=fingerprint or "")
        done = _admit(space, place, ours, overwrite=overwrite, state=state)
    except InputError as error:
        return f"refused: {error.what}"
    if done:
        return f"already done ({done.outcome.reason})" if done.outcome.code else "already done"
    return "would replace the artifact that is there" if state.decided or state.broken else "would be made"


def require_place(space: Space, place: Place) -> None:
    """Refuse an address that must not be written to, whatever is there.

    Raises:
        InputError: it is the root, holds the root, is nearer's own area, or is inside an artifact.
    """
    if place.address == place.root or place.root.startswith(place.address.rstrip("/") + "/"):
        raise InputError(
            f"{place.address} is, or holds, the artifacts root",
            where=place.root,
            rule="an artifact has a directory of its own under the root",
            way_out="give it a name, as in models/my-model",
        )
    if AREA in place.name.split("/"):
        raise InputError(
            f"{place.address} is in {AREA}/",
            rule=f"{AREA}/ is the store's own",
            way_out="choose another address",
        )
    for parent in _parents(place.address):
        if _is_artifact(space, Place(address=parent, root=place.root)):
            raise InputError(
                f"{place.address} is inside another artifact",
                where=parent,
                rule="an artifact is never written into: its files are those that its manifest names",
                way_out="choose an address beside it",
            )


def _admit(space: Space, place: Place, ours: Manifest, *, overwrite: bool, state: State) -> Manifest | None:
    there = state.decided
    if there and there.fingerprint == ours.fingerprint:
        return there
    if there:
        if overwrite:
            return None
        raise ArtifactExists(
            f"another artifact stands at {place.address}: {_difference(there, ours)}",
            where=f"{place.address} ({there.kind}, made {there.created_at})",
            rule=f"the fingerprint there is {there.fingerprint}, that of this run {ours.fingerprint}",
            way_out="--overwrite replaces it; another output address keeps both",
        )
    if state.broken and state.claim:
        if overwrite:
            return None
        raise state.broken
    if files := space.list(place.address):
        shown = ", ".join(sorted(files)[:3]) or "a file"
        raise InputError(
            f"{place.address} is not an artifact and holds {shown}{', …' if len(files) > 3 else ''}",
            where=place.address,
            rule="nearer writes only where nothing is, or where it wrote itself",
            way_out="choose another output address, or move these files away",
        )
    return None


def _is_artifact(space: Space, place: Place) -> bool:
    try:
        if read_manifest(space, place.address):
            return True
    except (ArtifactCorrupt, PermissionError):
        return False  # other programs have a manifest.json, too
    return place.address.startswith(place.root.rstrip("/") + "/") and look(space, place).staged is not None


def _parents(address: str) -> Iterator[str]:
    scheme, slashes, rest = address.rpartition("://")
    while "/" in rest:
        rest = rest.rpartition("/")[0]
        yield f"{scheme}{slashes}{rest}"


def _difference(there: Manifest, ours: Manifest) -> str:
    """What makes two manifests' fingerprints differ, as far as their records tell."""
    said = [f"it is a {there.kind}, this a {ours.kind}"] if there.kind != ours.kind and ours.kind else []
    for name in sorted({*there.settings, *ours.settings} if ours.settings else ()):
        old, new = (json.dumps(side.settings.get(name), ensure_ascii=False, default=str) for side in (there, ours))
        if old != new:
            said.append(f"{name} was {old[:60]}, is {new[:60]}")
    for name in sorted({*there.inputs, *ours.inputs} if ours.inputs else ()):
        before, after = there.inputs.get(name), ours.inputs.get(name)
        if before is None or after is None or before.fingerprint != after.fingerprint:
            said.append(f"another {name}")
    return "; ".join(said) or "made by another version of the job, or with another seed"
