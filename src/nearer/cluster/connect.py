"""From a kubeconfig, or a pod's own token, to a client of the API server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer.errors import InputError

_CONNECTIONS = 256
"""One for each pod that is followed, and some; urllib3 complains on stderr when there are more."""

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A client, and what the user calls the place it leads to."""

    client: Any
    namespace: str
    context: str

    @property
    def where(self) -> str:
        """Namespace and context, for error texts."""
        return f"namespace {self.namespace}, {self.context}"


def configured() -> bool:
    """Whether anything says which cluster: a kubeconfig, or a pod's own token."""
    return bool(_kubeconfigs()) or (_ACCOUNT / "token").is_file()


def connect(*, context: str | None = None, namespace: str | None = None) -> Connection:
    """Read the configuration and make a client; nothing is asked of the cluster yet.

    Args:
        context: of the kubeconfig; None: its current one.
        namespace: None: that of the context, or of the pod, or `default`.

    Raises:
        InputError: the package is not installed, no cluster is configured, the kubeconfig is broken, no such context.
    """
    kubernetes = _package()
    import urllib3

    configuration = kubernetes.client.Configuration()
    found = _kubeconfigs()
    if found or context:
        name, own = _from_kubeconfig(kubernetes, configuration, context=context, found=found)
    elif (_ACCOUNT / "token").is_file():
        kubernetes.config.load_incluster_config(client_configuration=configuration)
        name, own = "inside the cluster", (_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    else:
        raise InputError(
            "no cluster is configured",
            where=os.environ.get("KUBECONFIG") or "~/.kube/config",
            rule="a kubeconfig, or a pod with a service account's token",
            way_out="KUBECONFIG=path/to/kubeconfig nearer …; try it with kubectl get pods",
        )
    configuration.connection_pool_maxsize = _CONNECTIONS
    configuration.retries = urllib3.Retry(0)  # we count attempts ourselves, and urllib3's would multiply every timeout
    client = kubernetes.client.ApiClient(configuration)
    return Connection(client=client, namespace=namespace or own or "default", context=name)


def _from_kubeconfig(
    kubernetes: Any, configuration: Any, *, context: str | None, found: list[str]
) -> tuple[str, str | None]:
    shown = os.pathsep.join(found) or "~/.kube/config"
    try:
        contexts, current = kubernetes.config.list_kube_config_contexts(config_file=os.pathsep.join(found) or None)
        names = [each["name"] for each in contexts]
        if context and context not in names:
            raise InputError(
                f"no context {context!r}", where=shown, rule=f"known contexts: {', '.join(names) or 'none'}"
            )
        chosen = next((each for each in contexts if each["name"] == context), current)
        kubernetes.config.load_kube_config(
            config_file=os.pathsep.join(found) or None, context=chosen["name"], client_configuration=configuration
        )
    except kubernetes.config.ConfigException as error:
        raise InputError(
            f"the kubeconfig cannot be used: {error}", where=shown, way_out="try it with kubectl get pods"
        ) from error
    return f"context {chosen['name']}", (chosen.get("context") or {}).get("namespace")


def _kubeconfigs() -> list[str]:
    named = [path for path in os.environ.get("KUBECONFIG", "").split(os.pathsep) if path]
    candidates = [Path(path).expanduser() for path in named] or [Path("~/.kube/config").expanduser()]
    return [str(path) for path in candidates if path.is_file()]


def _package() -> Any:
    try:
        import kubernetes
        import kubernetes.client
        import kubernetes.config
    except ImportError as error:
        raise InputError(
            "the Python package `kubernetes` is not installed", way_out="pip install 'nearer[cluster]'"
        ) from error
    return kubernetes
