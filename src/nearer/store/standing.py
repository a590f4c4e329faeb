"""Reading what stands at an address, wherever its bytes live."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from nearer.errors import ArtifactCorrupt, ArtifactMissing, InputError, NoPermission
from nearer.store.manifest import MANIFEST, Manifest
from nearer.store.place import Place, look
from nearer.store.settle import being_replaced, settle
from nearer.store.space import Space

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_MAKERS = {
    "dataset": "nearer generate",
    "embedder": "nearer train embedding",
    "reranker": "nearer train reranker",
    "report": "nearer eval",
    "onnx": "nearer export-onnx",
    "index": "nearer reindex",
}


def made_by(kind: str | None) -> str:
    """What to run to have an artifact of a kind."""
    return f"run `{_MAKERS[kind]}` first" if kind in _MAKERS else "run the command that makes it"


def standing(space: Space, place: Place, address: str, *, kind: str | None = None) -> Manifest:
    """The manifest of the artifact that stands at a place, once a publication under way is finished.

    Args:
        space: the primitives.
        place: the address.
        address: as the user wrote it.
        kind: that it must be of; None: any.

    Raises:
        ArtifactMissing: there is none.
        ArtifactCorrupt: its manifest cannot be read.
        InputError: it is of another kind.
        Interrupted: it is just being replaced.
    """
    try:
        state = settle(space, place)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        raise being_replaced(place, "it is not finished, and this user may not finish it") from error
    except NoPermission as error:
        if look(space, place).staged is None:  # which would be refused as well, if reading were
            raise
        raise being_replaced(place, "it is not finished, and these credentials may not finish it") from error
    if state.broken:
        raise state.broken
    if state.manifest is None:
        there = " (files are there, but no manifest.json)" if space.list(place.address) else ""
        raise ArtifactMissing(
            f"no artifact at {address}{there}",
            where=place.address,
            rule="a directory with the manifest.json that nearer writes last",
            way_out=f"{made_by(kind)}, or correct the address",
        )
    if kind is not None and state.manifest.kind != kind:
        raise InputError(
            f"{address} is of kind {state.manifest.kind!r}, not {kind!r}",
            where=place.address,
            rule=f"an artifact of kind {kind!r}",
            way_out="correct the address",
        )
    return state.manifest


def was_replaced(space: Space, place: Place, manifest: Manifest) -> bool:
    """Whether the artifact is another one by now: then what was read of it may be a mixture."""
    now = look(space, place)
    return now.staged is not None or now.manifest is None or now.manifest.attempt != manifest.attempt


def corrupt(place: Place, address: str, problems: Sequence[str]) -> ArtifactCorrupt:
    """The error for bytes that are not those of the manifest."""
    return ArtifactCorrupt(
        f"the bytes of {address} are not those that were published: {'; '.join(problems[:3])}",
        where=place.address,
        rule="size and sha256 as in manifest.json",
        way_out="run the command that makes it with --overwrite, or fetch it again",
    )


def strays(space: Space, place: Place, manifest: Manifest) -> Iterator[str]:
    """Files at the address that the manifest does not name, as problems."""
    known = {MANIFEST, *(entry.path for entry in manifest.files)}
    return (f"{name}: not named by the manifest" for name in sorted(set(space.list(place.address)) - known))
