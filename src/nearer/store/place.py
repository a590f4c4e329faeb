"""An address, who claimed it, and what is there."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from nearer.errors import ArtifactCorrupt
from nearer.store.manifest import MANIFEST, Manifest
from nearer.store.space import AREA, Space

_CLAIM = re.compile(r"(.*/)?\d{8}\.json")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Which attempt has an address."""

    generation: int
    attempt: str
    fingerprint: str
    address: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """An address, and the area that holds its claims and stagings.

    The area is the root's for all that is under the root. A literal address elsewhere has its own beside it, so that
    publishers with different roots still meet at the same claims.
    """

    address: str
    root: str

    @property
    def base(self) -> str:
        """The directory or prefix that the area stands in."""
        if self.address.startswith(self.root.rstrip("/") + "/"):
            return self.root.rstrip("/")
        return self.address.rpartition("/")[0]

    @property
    def area(self) -> str:
        """Where staging, claims and locks are."""
        return f"{self.base}/{AREA}"

    @property
    def name(self) -> str:
        """The address relative to the base; it stays the same when the whole root is moved or mounted elsewhere."""
        return self.address.removeprefix(self.base).lstrip("/")

    @property
    def claims(self) -> str:
        """The prefix of this address's claims."""
        return f"{self.area}/claims/{hashlib.sha256(self.name.encode()).hexdigest()[:32]}"

    def staging(self, attempt: str) -> str:
        """The prefix of an attempt's files."""
        return f"{self.area}/staging/{attempt}"


@dataclass(frozen=True, kw_only=True)
class State:
    """What is at an address.

    Args:
        claim: the highest claim.
        manifest: of the artifact at the address.
        staged: of the winner, while it is not, or not wholly, at the address.
        broken: why the manifest at the address cannot be read.
    """

    claim: Claim | None = None
    manifest: Manifest | None = None
    staged: Manifest | None = None
    broken: ArtifactCorrupt | None = None

    @property
    def decided(self) -> Manifest | None:
        """The manifest that stands, or will stand once the copy is finished."""
        return self.staged or self.manifest


def look(space: Space, place: Place) -> State:
    """What is at the address, now; touches nothing.

    The staging is read before the address, because step 4 follows step 3; the claim is read again at the end, because
    a new generation may have started meanwhile.
    """
    claim = _top_claim(space, place)
    while True:
        staged = read_manifest(space, place.staging(claim.attempt)) if claim else None
        manifest, broken = None, None
        try:
            manifest = read_manifest(space, place.address)
        except ArtifactCorrupt as error:
            broken = error
        if (again := _top_claim(space, place)) != claim:
            claim = again
            continue
        if staged and manifest and manifest.attempt == staged.attempt:
            staged = None
        return State(claim=claim, manifest=manifest, staged=staged, broken=None if staged else broken)


def is_claim(name: str) -> bool:
    """Whether a name in the claims is that of a claim: there are locks, too."""
    return _CLAIM.fullmatch(name) is not None


def read_claim(space: Space, key: str) -> Claim:
    """The claim that was listed.

    Raises:
        ArtifactCorrupt: it cannot be read.
    """
    data = space.read(key)
    try:
        return Claim(**json.loads(data or b""))
    except (ValueError, TypeError) as error:
        raise ArtifactCorrupt(
            f"not a claim that this version reads: {error}",
            where=key,
            rule="written by nearer and never changed",
            way_out="if no other process is publishing here, remove this file",
        ) from error


def read_manifest(space: Space, prefix: str) -> Manifest | None:
    """The manifest of the files below the prefix; None: there is none.

    Raises:
        ArtifactCorrupt: it cannot be read.
    """
    data = space.read(f"{prefix}/{MANIFEST}")
    if data is None:
        return None
    return Manifest.from_json(data.decode(errors="replace"), where=f"{prefix}/{MANIFEST}")


def _top_claim(space: Space, place: Place) -> Claim | None:
    names = [name for name in space.list(place.claims) if is_claim(name)]
    return read_claim(space, f"{place.claims}/{max(names)}") if names else None
