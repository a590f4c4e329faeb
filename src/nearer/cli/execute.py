"""What every command does around its one call: settings, store, dry run, result, exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from nearer import process
from nearer.cli.show import plan_text
from nearer.cli.stores import store_of
from nearer.errors import DoesNotFit, InputError, NearerError, from_os_error
from nearer.progress import Progress, choose
from nearer.settings import Loaded, Settings, load
from nearer.store import Manifest, Store


class Context:
    """What the termination message of this process says when it ends."""

    stage: str = ""
    manifest: Manifest | None = None


def execute(
    command: str,
    *,
    config: Path | None,
    assignments: Sequence[str] | None,
    dry_run: bool,
    overwrite: bool,
    steps: Callable[[Settings], Sequence[tuple[str, dict[str, Any]]]],
    show: Callable[[Manifest, Store, Settings], None] | None = None,
) -> None:
    """Run jobs one after the other, or print their plans.

    Args:
        command: name of the command, for the termination message and for job files that name another.
        config: settings or job file.
        assignments: `--set` values.
        dry_run: print plans only.
        overwrite: replace other artifacts.
        steps: the job packages to run and the extra keyword arguments of each `run` and `plan`.
        show: prints the result for a person.

    Raises:
        typer.Exit: with the outcome's exit code when it is not 0; no further step is run.
    """
    Context.stage = command
    loaded = load(config, assignments=assignments or ())
    _check_command(loaded, command)
    progress = choose()
    for warning in loaded.warnings:
        progress.warn(warning)
    settings = loaded.settings
    store = store_of(settings, overwrite=overwrite, progress=progress)
    for package, arguments in steps(settings):
        job = importlib.import_module(f"nearer.{package}.run")
        if dry_run:
            typer.echo(plan_text(job.plan(settings, store, **arguments)))
            continue
        _run(job, settings=settings, store=store, progress=progress, arguments=arguments, show=show)


def _run(
    job: Any,
    *,
    settings: Settings,
    store: Store,
    progress: Progress,
    arguments: dict[str, Any],
    show: Callable[[Manifest, Store, Settings], None] | None,
) -> None:
    manifest: Manifest = job.run(settings, store, progress, **arguments)
    Context.manifest = manifest
    if show:
        show(manifest, store, settings)
    if manifest.outcome.code:
        typer.echo(f"refused: {manifest.outcome.reason}", err=True)
        raise typer.Exit(manifest.outcome.code)


def _check_command(loaded: Loaded, command: str) -> None:
    if loaded.command and loaded.command.split()[0] != command.split(maxsplit=1)[0]:
        raise InputError(
            f"this job file is for `nearer {loaded.command}`, not `nearer {command}`",
            where=loaded.file,
            way_out=f"nearer {loaded.command} -c {loaded.file}",
        )


def guarded(call: Callable[[], int]) -> int:
    """Run the command line, turn every failure into words and its exit code, and leave the termination message."""
    reason = "done"
    try:
        code = call()
        if code and Context.manifest:
            reason = Context.manifest.outcome.reason
    except NearerError as error:
        code, reason = error.code, error.what
        sys.stderr.write(f"error: {error}\n")
    except KeyboardInterrupt:
        code, reason = 130, "interrupted from the keyboard"
        sys.stderr.write("interrupted: run the same command again, it goes on from the last checkpoint\n")
    except BrokenPipeError:
        code, reason = 1, "the reader of the output went away"  # what was to be done after the output was not done
    except (OSError, MemoryError, RuntimeError) as error:
        told = _told(error)
        if told is None:
            code, reason = 1, f"{type(error).__name__}: {error}"
            _report_fault(error)
        else:
            code, reason = told.code, told.what
            sys.stderr.write(f"error: {told}\n")
    except Exception as error:  # noqa: BLE001 - the last line of defence: a traceback and how to report it
        code, reason = 1, f"{type(error).__name__}: {error}"
        _report_fault(error)
    manifest = Context.manifest
    process.write_termination_message(
        {
            "stage": Context.stage,
            "code": code,
            "reason": reason,
            "artifact": manifest.address if manifest else "",
            "metrics": dict(manifest.metrics) if manifest else {},
        }
    )
    return code


def _told(error: OSError | MemoryError | RuntimeError) -> NearerError | None:
    """The failures of the machine that a user can do something about."""
    if isinstance(error, OSError):
        return from_os_error(error)
    text = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return DoesNotFit(
            f"out of memory: {text.splitlines()[0] if text else 'the system gave no more'}",
            way_out="a smaller batch_size, shorter max_*_tokens, fewer batch_tokens, or a machine with more memory",
        )
    return None


def _report_fault(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.write(
        "\nThis is a fault of nearer's own. Please report it with these lines, `nearer --version` and the settings.\n"
    )
