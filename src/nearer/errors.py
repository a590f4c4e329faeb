"""The errors that a user may meet, and the exit code of each.

NearerError                1   a fault of nearer's own
├── InputError             2   settings or input are wrong; nothing was touched
│   ├── SettingsError          several problems of one settings document at once
│   ├── ArtifactMissing        no artifact at an address
│   ├── ArtifactExists         another artifact stands at the address
│   ├── ArtifactCorrupt        its bytes are not those that its manifest names
│   ├── NoPermission           the credentials may not do that
│   └── ContractMismatch       a model meets an index or dataset made by another contract
├── GateRefused            3   the work ran, and a gate refused the result
├── DoesNotFit             4   out of memory even at the smallest chunk
├── OutOfReach            69   store, hub or endpoint out of reach after retries
└── Interrupted           75   temporary: SIGTERM; the last complete checkpoint stands
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class ExitCode:
    """One line of the exit-code table: the number, what it means, what a Kubernetes Job does about it."""

    code: int
    meaning: str
    in_a_job: str


EXIT_CODES: Final[tuple[ExitCode, ...]] = (
    ExitCode(code=0, meaning="done, or already done", in_a_job="succeeds"),
    ExitCode(code=1, meaning="a fault of nearer's own", in_a_job="counts, retried up to the limit"),
    ExitCode(code=2, meaning="settings or input are wrong", in_a_job="fails at once"),
    ExitCode(code=3, meaning="the work ran, and a gate refused the result", in_a_job="fails at once"),
    ExitCode(code=4, meaning="does not fit into memory even at the smallest chunk", in_a_job="fails at once"),
    ExitCode(code=69, meaning="store, hub or endpoint out of reach after retries", in_a_job="counts, retried"),
    ExitCode(code=75, meaning="temporary; the last complete checkpoint stands", in_a_job="ignored, resumes"),
    ExitCode(code=130, meaning="killed from outside (SIGINT)", in_a_job="counts"),
    ExitCode(code=137, meaning="killed from outside (SIGKILL)", in_a_job="DisruptionTarget ignored, else counts"),
    ExitCode(code=139, meaning="killed by a memory fault (SIGSEGV)", in_a_job="counts"),
    ExitCode(code=143, meaning="killed from outside (SIGTERM)", in_a_job="DisruptionTarget ignored, else counts"),
)


class NearerError(Exception):
    """A failure told in words: what, where, the rule that was broken, and the way out.

    Args:
        what: the thing and its value, one sentence.
        where: file and line, settings path, or address.
        rule: what would have been right.
        way_out: what the user can do now.
    """

    code: int = 1

    def __init__(
        self, what: str, *, where: str | None = None, rule: str | None = None, way_out: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.rule = rule
        self.way_out = way_out

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  where:   {self.where}"] if self.where else []
        lines += [f"  rule:    {self.rule}"] if self.rule else []
        lines += [f"  way out: {self.way_out}"] if self.way_out else []
        return "\n".join(lines)


class InputError(NearerError):
    """Settings or input are wrong; nothing was touched."""

    code = 2


class SettingsError(InputError):
    """Several problems of one settings document, shown at once."""

    def __init__(self, problems: Sequence[NearerError], *, where: str) -> None:
        count = len(problems)
        super().__init__(f"{count} problem{'s' * (count > 1)} in the settings", where=where)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        shown = ("- " + str(problem).replace("\n", "\n  ") for problem in self.problems)
        return "\n".join([super().__str__(), *shown])


class ArtifactMissing(InputError):
    """Nothing stands at an address: no artifact, or none of the user's own files."""


class ArtifactExists(InputError):
    """Another artifact stands at the address that was to be written."""


class ArtifactCorrupt(InputError):
    """An artifact's bytes are not those that its manifest names."""


class NoPermission(InputError):
    """The credentials may not do that."""


class ContractMismatch(InputError):
    """A model meets an index or dataset that was made by another contract."""


class GateRefused(NearerError):
    """The work ran, and a gate refused the result."""

    code = 3


class DoesNotFit(NearerError):
    """Out of GPU or container memory even at the smallest chunk."""

    code = 4


class OutOfReach(NearerError):
    """A store, hub or endpoint is out of reach after retries."""

    code = 69


class Interrupted(NearerError):
    """Ended by a signal; the last complete checkpoint stands."""

    code = 75


_OS_RULES: Final = {
    errno.ENOSPC: ("no space left on the device", "free some space or choose another `artifacts` root, then run again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or choose another `artifacts` root, then run again"),
    errno.EFBIG: (
        "the file would be larger than this process may write",
        "raise the limit (ulimit -f), then run again",
    ),
    errno.EACCES: ("this user may not do that here", "change the permissions or choose another path, then run again"),
    errno.EPERM: ("this user may not do that here", "change the permissions or choose another path, then run again"),
    errno.EROFS: ("the file system is read-only", "choose a writable `artifacts` root, then run again"),
    errno.ENOENT: ("the file must exist", "correct the path"),
    errno.EISDIR: ("a file is expected, this is a directory", "correct the path"),
    errno.ENOTDIR: ("a directory is expected, a part of this path is a file", "correct the path"),
    errno.ENAMETOOLONG: ("the path is longer than the file system allows", "shorten the path"),
}


def from_os_error(error: OSError) -> InputError | None:
    """The user's side of an operating system error (disk full, no permission, …); None if it is none of those."""
    if error.errno not in _OS_RULES:
        return None
    rule, way_out = _OS_RULES[error.errno]
    path = str(error.filename) if error.filename is not None else None
    return InputError(f"{error.strerror or 'operating system error'}", where=path, rule=rule, way_out=way_out)
