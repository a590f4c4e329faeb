"""What an API server refuses although the schemas allow it, and Pod Security `restricted`, over rendered objects.

Each rule yields sentences about what is wrong; no sentence is no objection. The rules are those of Kubernetes' own
validation (pkg/apis/batch/validation, pkg/apis/core/validation), as far as this chart can come near them.
"""

import re
from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_1035_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
QUALIFIED_NAME = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|[MGTPE]|[KMGTPE]i)?")
FACTORS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
           "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}  # fmt: skip


def violations(objects: list[Object]) -> list[str]:
    """All that is wrong with the objects of one release."""
    found: list[str] = []
    for each in objects:
        found += metadata(each)
        if each["kind"] == "Job":
            found += job(each)
            found += pod(each["spec"]["template"]["spec"])
        if each["kind"] == "Service":
            found += service(each)
        if each["kind"] == "ConfigMap":
            found += config_map(each)
    found += references(objects)
    return found


def metadata(each: Object) -> Iterator[str]:
    """Names and labels."""
    name = each["metadata"]["name"]
    if not DNS_SUBDOMAIN.fullmatch(name):
        yield f"{each['kind']}: the name {name!r}"
    templates = [each, each["spec"]["template"]] if each["kind"] == "Job" else [each]
    for one in templates:
        for key, value in one["metadata"].get("labels", {}).items():
            if not QUALIFIED_NAME.fullmatch(key) or not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
                yield f"{each['kind']}: the label {key}={value!r}"
        for key, value in one["metadata"].get("annotations", {}).items():
            if not QUALIFIED_NAME.fullmatch(key) or not isinstance(value, str):
                yield f"{each['kind']}: the annotation {key}={value!r}"


def job(each: Object) -> Iterator[str]:
    """Fields of a Job that exclude or demand each other."""
    name, spec, template = each["metadata"]["name"], each["spec"], each["spec"]["template"]["spec"]
    indexed = spec.get("completionMode") == "Indexed"
    completions, parallelism = spec.get("completions"), spec.get("parallelism")
    if "selector" in spec or "manualSelector" in spec:
        yield "a selector, which the Job controller makes itself"
    if template.get("restartPolicy") not in {"Never", "OnFailure"}:
        yield f"restartPolicy {template.get('restartPolicy')}"
    if "podFailurePolicy" in spec and template.get("restartPolicy") != "Never":
        yield "podFailurePolicy without restartPolicy Never"
    if "podFailurePolicy" in spec and spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield "podFailurePolicy with another podReplacementPolicy than Failed"
    if indexed and completions is None:
        yield "Indexed without completions"
    if not indexed and {"backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"} & set(spec):
        yield "limits per index without Indexed"
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield "maxFailedIndexes without backoffLimitPerIndex"
    if spec.get("maxFailedIndexes", 0) > (completions or 0):
        yield "maxFailedIndexes above completions"
    if indexed and parallelism > 100_000:
        yield "parallelism of an Indexed Job above 100000"
    longest = f"{name}-{completions - 1}" if indexed else name
    if not DNS_LABEL.fullmatch(longest):
        yield f"{longest} is no host name"
    if not LABEL_VALUE.fullmatch(name):
        yield f"{name} is no value of the label job-name"
    for field in ("activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit", "backoffLimitPerIndex"):
        value = spec.get(field, 0)
        if not isinstance(value, int) or value < 0:
            yield f"{field} is {value!r}"
    yield from failure_policy(spec.get("podFailurePolicy", {"rules": []}), template, indexed=indexed)


def failure_policy(policy: Object, template: Object, *, indexed: bool) -> Iterator[str]:
    """Rules of podFailurePolicy: one requirement each, exit codes in order, no 0 with In."""
    containers = {container["name"] for container in template["containers"]}
    if len(policy["rules"]) > 20:
        yield "more than 20 rules"
    for rule in policy["rules"]:
        if rule["action"] not in {"FailJob", "Ignore", "Count", *(["FailIndex"] if indexed else [])}:
            yield f"the action {rule['action']}"
        if ("onExitCodes" in rule) == ("onPodConditions" in rule):
            yield f"a rule needs exit codes or conditions, and not both: {rule}"
        if codes := rule.get("onExitCodes"):
            if codes["operator"] not in {"In", "NotIn"}:
                yield f"the operator {codes['operator']}"
            if codes["values"] != sorted(set(codes["values"])) or not 0 < len(codes["values"]) <= 255:
                yield f"exit codes not in order, twice, none or too many: {codes['values']}"
            if codes["operator"] == "In" and 0 in codes["values"]:
                yield "exit code 0 with In"
            if "containerName" in codes and codes["containerName"] not in containers:
                yield f"exit codes of an unknown container {codes['containerName']}"
        for condition in rule.get("onPodConditions", []):
            if condition.get("status") not in {"True", "False", "Unknown"}:
                yield f"a condition's status is {condition.get('status')!r}, and must be a word"


def pod(spec: Object) -> Iterator[str]:
    """Volumes, mounts, environment, resources, and Pod Security `restricted`."""
    names = [volume["name"] for volume in spec.get("volumes", [])]
    if len(names) != len(set(names)):
        yield f"volumes with one name: {names}"
    for volume in spec.get("volumes", []):
        if not DNS_LABEL.fullmatch(volume["name"]) or len(volume) != 2:
            yield f"the volume {volume}"
        if (size := volume.get("emptyDir", {}).get("sizeLimit")) and not quantity(size):
            yield f"the size {size}"
    for container in spec["containers"]:
        yield from environment(container)
        yield from resources(container.get("resources", {}))
        mounts = container.get("volumeMounts", [])
        yield from (f"no volume {mount['name']!r}" for mount in mounts if mount["name"] not in names)
        paths = [mount["mountPath"] for mount in mounts]
        if len(paths) != len(set(paths)) or not all(path.startswith("/") and ":" not in path for path in paths):
            yield f"mount paths: {paths}"
    if spec.get("subdomain") is not None and not DNS_LABEL.fullmatch(spec["subdomain"]):
        yield f"the subdomain {spec['subdomain']!r}"
    if not isinstance(spec.get("terminationGracePeriodSeconds", 30), int):
        yield "terminationGracePeriodSeconds is no whole number"
    for toleration in spec.get("tolerations", []):
        if toleration.get("operator", "Equal") == "Exists" and toleration.get("value"):
            yield f"a toleration with Exists and a value: {toleration}"
        if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
            yield f"tolerationSeconds without NoExecute: {toleration}"
    for constraint in spec.get("topologySpreadConstraints", []):
        if "minDomains" in constraint and constraint["whenUnsatisfiable"] != "DoNotSchedule":
            yield f"minDomains without DoNotSchedule: {constraint}"


def environment(container: Object) -> Iterator[str]:
    """Names once each, values as words."""
    names = [variable["name"] for variable in container.get("env", [])]
    yield from (f"the variable {name} stands twice" for name in {name for name in names if names.count(name) > 1})
    for variable in container.get("env", []):
        if not ENV_NAME.fullmatch(variable["name"]):
            yield f"the variable's name {variable['name']!r}"
        if not isinstance(variable.get("value", ""), str) or ("value" in variable and "valueFrom" in variable):
            yield f"the variable {variable}"


def resources(given: Object) -> Iterator[str]:
    """Quantities; requests within limits; extended resources whole and the same on both sides."""
    requests, limits = given.get("requests", {}), given.get("limits", {})
    for name, value in [*requests.items(), *limits.items()]:
        if not quantity(str(value)):
            yield f"the quantity {name}: {value!r}"
        if not QUALIFIED_NAME.fullmatch(name):
            yield f"the resource {name!r}"
    for name, value in requests.items():
        if name in limits and amount(str(value)) > amount(str(limits[name])):
            yield f"{name}: requests {value} above limits {limits[name]}"
    for name in {*requests, *limits}:
        if "/" in name and requests.get(name) != limits.get(name):
            yield f"{name}: an extended resource with requests other than limits"
        if "/" in name and not float(amount(str(limits.get(name, 0)))).is_integer():
            yield f"{name}: a part of an extended resource"


def quantity(text: str) -> bool:
    """Whether it is a quantity."""
    return QUANTITY.fullmatch(text) is not None


def amount(text: str) -> float:
    """The number behind a quantity."""
    found = QUANTITY.fullmatch(text)
    return float(found[1]) * FACTORS.get(found[2] or "", 1) if found else 0.0


def restricted(spec: Object) -> Iterator[str]:
    """Pod Security Standards, profile `restricted`, and what goes with it here: a read-only root, no token."""
    own = spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    if own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0:
        yield "the pod may run as root"
    if own.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "no seccomp profile"
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in spec["volumes"]:
        if not set(volume) - {"name"} <= allowed:
            yield f"the volume {volume}"
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield "privileges can be had"
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            yield "capabilities are kept"
        if context.get("readOnlyRootFilesystem") is not True:
            yield "the root file system can be written to"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield "a host port"
    if spec.get("automountServiceAccountToken") is not False:
        yield "a token is mounted"
    if spec.get("enableServiceLinks") is not False:
        yield "service links leak other services into the environment"


def service(each: Object) -> Iterator[str]:
    """A Service's name starts with a letter, and a headless one is found by its pods before they are ready."""
    if not DNS_1035_LABEL.fullmatch(each["metadata"]["name"]):
        yield f"the service's name {each['metadata']['name']!r}"
    if each["spec"]["clusterIP"] != "None" or each["spec"]["publishNotReadyAddresses"] is not True:
        yield "a service that pods cannot find each other by"
    if not each["spec"].get("selector") or not each["spec"].get("ports"):
        yield "a service without selector or ports"


def config_map(each: Object) -> Iterator[str]:
    """Small, and words only."""
    if sum(len(value) for value in each["data"].values()) > 1 << 20:
        yield "a ConfigMap above 1 MiB"
    if each.get("immutable") is not True:
        yield "a ConfigMap that can change under a run"


def references(objects: list[Object]) -> Iterator[str]:
    """What objects of one release say about each other."""
    (run,) = [each for each in objects if each["kind"] == "Job"]
    labels = run["spec"]["template"]["metadata"]["labels"]
    maps = {each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap"}
    spec = run["spec"]["template"]["spec"]
    settings = next(volume for volume in spec["volumes"] if volume["name"] == "settings")
    if settings["configMap"]["name"] not in maps:
        yield f"the settings come from {settings}, which is not there"
    for each in objects:
        if each["kind"] == "Service":
            if not each["spec"]["selector"].items() <= labels.items():
                yield "the service does not select the pods"
            if spec.get("subdomain") != each["metadata"]["name"]:
                yield "the pods' subdomain is not the service"
        if each["kind"] == "NetworkPolicy" and not each["spec"]["podSelector"]["matchLabels"].items() <= labels.items():
            yield "the network policy does not select the pods"
    accounts = {each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"}
    if accounts and spec["serviceAccountName"] not in accounts:
        yield "the service account that is made is not the one that is used"
    if "subdomain" in spec and not any(each["kind"] == "Service" for each in objects):
        yield "a subdomain without its service"
