"""Alias files: which generation queries use, and which it was before."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from nearer.errors import ArtifactCorrupt, InputError
from nearer.store import Store

GENERATIONS: Final = "generations"
_FOLDER: Final = "aliases"


class StoreAliases:
    """Aliases of one index as `<output_dir>/aliases/<alias>.json`, replaced atomically.

    The file says `generation`, `previous`, `changed_at`, and `history`: the generations that one can go back to, oldest
    first, the current one last.
    """

    def __init__(self, store: Store, output_dir: str) -> None:
        self.store = store
        self.output_dir = output_dir.rstrip("/")

    def address(self, generation: str) -> str:
        """Where a generation stands."""
        return f"{self.output_dir}/{GENERATIONS}/{generation}"

    def current(self, alias: str) -> str | None:
        """The generation that the alias points to; None: no such alias."""
        history = self._history(alias)
        return history[-1] if history else None

    def previous(self, alias: str) -> str | None:
        """The generation that `back` would go to; None: there is none."""
        history = self._history(alias)
        return history[-2] if len(history) > 1 else None

    def switch(self, alias: str, generation: str) -> None:
        """Point the alias to a generation; the one before can be gone back to."""
        history = [name for name in self._history(alias) if name != generation]
        self._write(alias, [*history, generation])

    def back(self, alias: str) -> str:
        """Point the alias to the generation before, and forget the current one.

        Raises:
            InputError: there is no alias, or no generation before.
        """
        history = self._history(alias)
        if len(history) < 2:
            what = f"has only ever pointed to {history[0]}" if history else "does not exist"
            raise InputError(
                f"cannot roll back: the alias {alias!r} {what}",
                where=self.store.resolve(self._file(alias)),
                rule="a generation before the current one",
                way_out="make another generation: `nearer reindex`",
            )
        self._write(alias, history[:-1])
        return history[-2]

    def _file(self, alias: str) -> str:
        return f"{self.output_dir}/{_FOLDER}/{alias}.json"

    def _history(self, alias: str) -> list[str]:
        text = self.store.read_text(self._file(alias))
        if text is None:
            return []
        try:
            return [str(name) for name in json.loads(text)["history"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactCorrupt(
                f"not an alias file: {error!r}",
                where=self.store.resolve(self._file(alias)),
                rule="JSON with the generations under `history`",
                way_out="remove the file and run `nearer reindex`: it checks the generation and writes it again",
            ) from error

    def _write(self, alias: str, history: list[str]) -> None:
        fields = {
            "alias": alias,
            "generation": history[-1],
            "previous": history[-2] if len(history) > 1 else None,
            "changed_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "history": history,
        }
        self.store.write_text(self._file(alias), json.dumps(fields, indent=2) + "\n")
