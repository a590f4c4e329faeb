"""`nearer submit` from the job file to the exit code."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nearer import process
from nearer.cluster import display as displays
from nearer.cluster import github, state
from nearer.cluster.answers import Refusal, Unreachable, told
from nearer.cluster.api import Cluster
from nearer.cluster.connect import configured, connect
from nearer.cluster.ending import Ending, ending, report
from nearer.cluster.follow import Follow
from nearer.cluster.jobfile import JobFile, ignored_environment, read_job
from nearer.cluster.patience import Patience
from nearer.cluster.render import Run, release_name, render
from nearer.cluster.submit import Submitted, active_siblings, ask_server, cancel, submit
from nearer.cluster.transport import Object
from nearer.errors import Interrupted, NearerError


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for.

    Args:
        job: the job file.
        values: values files over it.
        assignments: `--set`.
        name: release name; None: the job file's.
        namespace: None: that of the context.
        context: of the kubeconfig; None: its current one.
    """

    job: Path
    values: tuple[Path, ...] = ()
    assignments: tuple[str, ...] = ()
    name: str | None = None
    namespace: str | None = None
    context: str | None = None

    def command(self, *options: str) -> str:
        """The command line that asks the same, with other options."""
        words = ["nearer", "submit", str(self.job)]
        words += [word for path in self.values for word in ("-f", str(path))]
        words += [word for text in self.assignments for word in ("--set", text)]
        for option, value in (("--name", self.name), ("-n", self.namespace), ("--context", self.context)):
            words += [option, value] if value else []
        return shlex.join([*words, *options])


class Session:
    """One `nearer submit`.

    Args:
        request: what was asked for.
        out: prints a line of the result.
        say: prints a line about the way there.
        patience: how long to wait for the cluster.
    """

    def __init__(
        self,
        request: Request,
        *,
        out: Callable[[str], None],
        say: Callable[[str], None],
        patience: Patience | None = None,
    ) -> None:
        self._request = request
        self._out = out
        self._say = say
        self._patience = patience or Patience()

    def dry_run(self) -> int:
        """Check everything that can be checked without touching anything, and print what would be made.

        The cluster is asked to validate the objects if one is configured, and told to keep nothing.
        """
        if not configured():
            run = self._render(self._read(), cluster=None)
            self._out(_plan(run, namespace=self._request.namespace or "default"))
            self._out("  not checked by a cluster: none is configured (KUBECONFIG)")
            return 0
        run, cluster = self._prepare()
        self._out(_plan(run, namespace=cluster.namespace))
        try:
            job = cluster.get("Job", run.name)
        except (Refusal, Unreachable) as error:
            raise told(error, doing=f"look for {run.name}", where=cluster.where) from error
        self._warn(ask_server(run, cluster))
        self._out(f"  in {cluster.where}: {_standing(job)}; the server's own dry run takes all objects")
        return 0

    def cancel(self) -> int:
        """End the run that the same words would start."""
        run, cluster = self._prepare()
        self._out(cancel(run, cluster))
        return 0

    def submit(self, *, follow: bool, on_interrupt: Literal["detach", "cancel"]) -> int:
        """Submit, and follow to the end if asked to; the exit code."""
        run, cluster = self._prepare()
        submitted: Submitted | None = None
        try:
            submitted = self._submit(run, cluster)
            if submitted.how == "stored":
                return self._finish(self._stored(submitted.job, cluster), run, cluster)
            if not follow:
                self._out(f"follow it:  {self._request.command('--follow')}")
                self._out(f"end it:     {self._request.command('--cancel')}")
                return 0
            annotate = github.annotate if github.is_here() else None
            watched = Follow(cluster, submitted.job, displays.choose(annotate=annotate), stopped=process.STOP.is_set)
            return self._finish(watched.run(), run, cluster)
        except (KeyboardInterrupt, Interrupted):
            return self._interrupted(run, cluster, stands=submitted is not None, on_interrupt=on_interrupt)

    def _read(self) -> JobFile:
        request = self._request
        job = read_job(request.job, values=request.values, assignments=request.assignments)
        self._warn(job.loaded.warnings)
        if names := ignored_environment():
            self._warn([f"{', '.join(names)} is set here, and is no part of the run: --set it, or pod.env"])
        return job

    def _prepare(self) -> tuple[Run, Cluster]:
        job = self._read()
        request = self._request
        cluster = Cluster(
            lambda: connect(context=request.context, namespace=request.namespace), patience=self._patience
        )
        return self._render(job, cluster=cluster), cluster

    def _render(self, job: JobFile, *, cluster: Cluster | None) -> Run:
        release = release_name(self._request.job.stem, self._request.name)
        if cluster is None:
            return render(job, release=release, namespace=self._request.namespace or "default")
        try:
            version = cluster.version()
        except (Refusal, Unreachable) as error:
            raise told(error, doing="ask for its version", where=cluster.where) from error
        return render(job, release=release, namespace=cluster.namespace, version=version)

    def _submit(self, run: Run, cluster: Cluster) -> Submitted:
        self._warn(ask_server(run, cluster))
        submitted = submit(run, cluster, say=self._say)
        words = {
            "created": "is submitted",
            "recreated": "is submitted again",
            "attached": "is there already, and active",
            "stored": "was done already",
        }
        self._say(f"{run.name} (nearer {run.command}) {words[submitted.how]}, in {cluster.where}")
        if submitted.how in {"created", "recreated"}:
            try:
                siblings = active_siblings(run, cluster)
            except (Refusal, Unreachable):
                siblings = []  # only a hint hangs on it
            self._warn([f"{name} of the same name, with other settings, is still active" for name in siblings])
        return submitted

    def _stored(self, job: Object, cluster: Cluster) -> Ending:
        meta = job["metadata"]
        try:
            pods, _ = cluster.find("Pod", labels=f"batch.kubernetes.io/controller-uid={meta['uid']}")
        except (Refusal, Unreachable) as error:
            raise told(error, doing=f"read the result of {meta['name']}", where=cluster.where) from error
        return ending(job, pods)

    def _finish(self, found: Ending, run: Run, cluster: Cluster) -> int:
        for line in report(found):
            self._out(line)
        if github.is_here():
            github.publish(found, namespace=cluster.namespace, command=run.command)
        return found.code

    def _interrupted(
        self, run: Run, cluster: Cluster, *, stands: bool, on_interrupt: Literal["detach", "cancel"]
    ) -> int:
        if on_interrupt == "cancel":
            # An interrupted job of GitHub Actions has 7.5 seconds: two requests at most, three seconds each.
            quick = replace(cluster.patience, connect_seconds=1.0, answer_seconds=2.0, attempts=1)
            hurry = cluster.with_patience(quick)
            try:
                self._say(f"interrupted: {cancel(run, hurry)}")
                self._say(f"go on later: {self._request.command('--follow')}")
            except NearerError as error:
                self._say(f"interrupted, and {run.name} could not be ended: {error.what}")
                self._say(f"end it: {self._request.command('--cancel')}")
        else:
            what = "goes on without being followed" if stands else "may be half made; submitted again it is made whole"
            self._say(f"interrupted: {run.name} {what}")
            self._say(f"follow it: {self._request.command('--follow')}")
            self._say(f"end it:    {self._request.command('--cancel')}")
        return Interrupted.code if process.STOP.is_set() else 130

    def _warn(self, texts: object) -> None:
        for text in texts if isinstance(texts, list | tuple) else [texts]:
            self._say(f"warning: {text}")
            if github.is_here():
                github.annotate("warning", str(text))


def _standing(job: Object | None) -> str:
    if job is None:
        return "not there yet, would be made"
    if state.is_leaving(job):
        return "being deleted, would be made again after that"
    if state.is_complete(job):
        return "done already, its stored result would be told"
    return "failed, would be made again" if state.failure(job) else "active already, would be attached to"


def _plan(run: Run, *, namespace: str) -> str:
    """What would be made, and what it needs."""
    container, pod, spec = run.container, run.pod, run.job["spec"]
    resources = container.get("resources", {})
    asked = {**resources.get("limits", {}), **resources.get("requests", {})}
    secrets = [each["secretRef"]["name"] for each in container.get("envFrom", [])]
    secrets += [
        each["valueFrom"]["secretKeyRef"]["name"]
        for each in container.get("env", [])
        if "secretKeyRef" in each.get("valueFrom", {})
    ]
    claims = [each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if "persistentVolumeClaim" in each]
    rows = {
        "image": container["image"],
        "pods": str(spec["completions"]),
        "each": ", ".join(f"{name} {value}" for name, value in asked.items()),
        "queue": (run.job["metadata"]["labels"]).get("kueue.x-k8s.io/queue-name", ""),
        "secrets": ", ".join(dict.fromkeys(secrets)),
        "claims": ", ".join(claims),
        "at most": f"{spec['activeDeadlineSeconds']} s",
    }
    lines = [f"nearer {run.command}", f"  -> {namespace}/{run.name}: {', '.join(each['kind'] for each in run.objects)}"]
    lines += [f"  {name:<8} {text}" for name, text in rows.items() if text]
    return "\n".join(lines)
