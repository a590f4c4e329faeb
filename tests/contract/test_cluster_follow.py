"""A run is followed to its end, whatever happens on the way: no line twice, none lost without a word."""

from collections.abc import Callable

import pytest
from cluster_case import MESSAGE, QUICK, Case, well
from kubernetes_double import Answer
from kubernetes_life import Life, disruption

from nearer.cluster.display import Plain
from nearer.cluster.follow import Follow
from nearer.errors import OutOfReach


def said(message: str, *, code: int) -> dict[str, object]:
    """What nearer leaves for the kubelet."""
    return {"stage": "train reranker", "code": code, "reason": message, "artifact": "", "metrics": {}}


def test_a_run_that_goes_well(case: Case) -> None:
    """Its lines with the pod's name, its end with code, artifact and metrics; exit 0."""
    case.lives(well)
    code, out, err = case.follow()
    assert code == 0
    assert case.lines(out) == ["[aaaaa] hello", "[aaaaa] bye"]
    assert "exit 0, done" in out
    assert "models/reranker" in out
    assert "nDCG@10 0.71" in out
    assert "aaaaa runs on node-1" in err
    assert "gap" not in err


def test_it_says_why_a_pod_is_pending(case: Case) -> None:
    """In the scheduler's words, once; then it runs."""
    words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.unschedulable(pod, words)
        life.asked("events", 4)
        life.start(pod)
        life.end(pod, 0, message=MESSAGE)
        life.complete()

    case.lives(life)
    code, _, err = case.follow()
    assert code == 0
    assert err.count(words) == 1
    assert f"waiting: aaaaa: Unschedulable: {words}" in err


def test_an_image_that_cannot_be_pulled(case: Case) -> None:
    """The kubelet's words while it waits; exit 2 when the deadline ends it."""
    words = 'Back-off pulling image "nearer:0.1.0": ErrImagePull: not found'

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.waits(pod, "ImagePullBackOff", words)
        life.event("pods", pod, reason="Failed", message="Error: ErrImagePull")
        life.asked("events", 4)
        life.fail("DeadlineExceeded", "Job was active longer than specified deadline")
        life.vanish(pod)

    case.lives(life)
    code, out, err = case.follow()
    assert code == 2
    assert f"waiting: aaaaa: ImagePullBackOff: {words}" in err
    assert "waiting: aaaaa: Failed: Error: ErrImagePull" in err
    assert "no container ever started" in out
    assert words in out
    assert "DeadlineExceeded" in out


def test_a_quota_that_is_used_up(case: Case) -> None:
    """No pod is there to ask; the Job's events say it."""
    words = 'Error creating: pods "x" is forbidden: exceeded quota: gpus, requested: 1, used: 4, limited: 4'

    def life(life: Life) -> None:
        life.event("jobs", life.run, reason="FailedCreate", message=words)
        life.asked("events", 4)
        well(life)

    case.lives(life)
    code, _, err = case.follow()
    assert code == 0
    assert err.count(f"waiting: FailedCreate: {words}") == 1


def test_a_queue_that_does_not_admit_it(case: Case) -> None:
    """Kueue's own words about the workload; nearer never touches `suspend`."""
    words = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a100, 1 more needed"

    def life(life: Life) -> None:
        condition = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": words}
        meta = {"name": "job-x", "labels": {"kueue.x-k8s.io/job-uid": life.uid}}
        workload = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload", "metadata": meta}
        case.api.put("workloads", {**workload, "status": {"conditions": [condition]}}, how="ADDED")
        life.asked("workloads", 3)
        assert case.api.objects["jobs", life.run]["spec"]["suspend"] is True
        life.admit()
        well(life)

    case.lives(life)
    code, _, err = case.follow("queue=gpus")
    assert code == 0
    assert err.count(f"waiting: queue gpus: not admitted yet: {words}") == 1


def test_an_eviction_and_the_pod_that_replaces_it(case: Case) -> None:
    """Told in the kubelet's words; the second pod's lines follow the first one's; exit 0."""
    words = "The node was low on resource: memory."

    def life(life: Life) -> None:
        first = life.pod("aaaaa")
        life.start(first)
        life.write(first, "step 1", "step 2")
        life.end(first, 137, reason="Error", conditions=disruption("TerminationByKubelet", words))
        life.status(first, reason="Evicted", message=words)
        second = life.pod("bbbbb")
        life.start(second)
        life.write(second, "from step 2")
        life.end(second, 0, message=MESSAGE)
        life.complete()

    case.lives(life)
    code, out, err = case.follow()
    assert code == 0
    assert sorted(case.lines(out)) == ["[aaaaa] step 1", "[aaaaa] step 2", "[bbbbb] from step 2"]
    assert "aaaaa ended with exit 137" in err
    assert words in err


@pytest.mark.parametrize(
    ("code", "reason", "message", "words"),
    [
        (1, "Error", said("ZeroDivisionError: x", code=1), ["a fault of nearer's own", "ZeroDivisionError"]),
        (2, "Error", said("no dataset at datasets/help", code=2), ["settings or input are wrong", "no dataset"]),
        (3, "Error", said("the verdict is no", code=3), ["a gate refused the result", "the verdict is no"]),
        (4, "Error", said("out of memory", code=4), ["does not fit", "out of memory"]),
        (69, "Error", said("s3 does not answer", code=69), ["out of reach", "s3 does not answer"]),
        (137, "OOMKilled", "", ["SIGKILL", "OOMKilled", "pod.resources.limits.memory"]),
        (137, "Error", "", ["SIGKILL", "killed by signal 9"]),
        (139, "Error", "Fatal Python error: Segmentation fault\n", ["SIGSEGV", "Fatal Python error"]),
        (143, "Error", "", ["SIGTERM", "killed by signal 15"]),
        (42, "Error", "last line\n", ["not in nearer's table", "last line"]),
    ],
    ids=str,
)
def test_the_container_s_exit_code_is_the_command_s(
    case: Case, code: int, reason: str, message: object, words: list[str]
) -> None:
    """With its meaning, the container's own message or last lines, and the platform's reason."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "working")
        life.end(pod, code, reason=reason, message=message)
        life.fail("PodFailurePolicy", f"Container nearer for pod rag/{pod} failed with exit code {code}")

    case.lives(life)
    got, out, _ = case.follow()
    assert got == code
    assert f"exit {code}," in out
    for word in words:
        assert word in out
    assert case.lines(out) == ["[aaaaa] working"]


def test_a_run_that_was_stopped_and_went_on(case: Case) -> None:
    """75, and then 0, is 0."""

    def life(life: Life) -> None:
        for suffix, code in (("aaaaa", 75), ("bbbbb", 0)):
            pod = life.pod(suffix)
            life.start(pod)
            life.write(pod, f"{suffix} works")
            life.end(pod, code, message={**MESSAGE, "code": code})
        life.complete()

    case.lives(life)
    code, out, err = case.follow()
    assert code == 0
    assert "aaaaa ended with exit 75" in err
    assert set(case.lines(out)) == {"[aaaaa] aaaaa works", "[bbbbb] bbbbb works"}


def test_a_deadline_that_ends_it(case: Case) -> None:
    """Stopped with its checkpoint: 75, and how to go on."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "step 1")
        life.end(pod, 75, message=said("stopped by SIGTERM", code=75))
        life.fail("DeadlineExceeded", "Job was active longer than specified deadline")

    case.lives(life)
    code, out, _ = case.follow()
    assert code == 75
    assert "DeadlineExceeded: Job was active longer" in out
    assert "raise activeDeadlineSeconds" in out


def test_of_several_nodes_the_first_that_failed_counts(case: Case) -> None:
    """Not its peers, which were only taken along: earlier with 75, later with 143."""

    def life(life: Life) -> None:
        pods = [life.pod("aaaaa", index=number) for number in range(3)]
        for pod in pods:
            life.start(pod)
            life.write(pod, "hello")
        life.end(pods[2], 75, message=said("lost a peer", code=75))
        life.end(pods[1], 3, message=said("the gate says no", code=3))
        life.end(pods[0], 143)
        life.fail("FailedIndexes", "Job has failed indexes")

    case.lives(life)
    code, out, _ = case.follow("nodes=3")
    assert code == 3
    assert "the gate says no" in out
    assert sorted(case.lines(out)) == [f"[{number}-aaaaa] hello" for number in range(3)]


def test_of_one_node_the_last_attempt_counts(case: Case) -> None:
    """Two attempts did not reach the store, the third was refused by its gate: 3."""

    def life(life: Life) -> None:
        for suffix, code in (("aaaaa", 69), ("bbbbb", 69), ("ccccc", 3)):
            pod = life.pod(suffix)
            life.start(pod)
            life.end(pod, code, message=said(suffix, code=code))
        life.fail("PodFailurePolicy", "…")

    case.lives(life)
    code, out, _ = case.follow()
    assert code == 3
    assert "ccccc" in out


@pytest.mark.parametrize("tear", ["cut_every", "close_every"])
def test_a_log_stream_that_ends_every_three_lines(case: Case, tear: str) -> None:
    """Each line once, in order: torn in the middle of a line, or ended as if nothing were wrong; lines that are the
    same to the nanosecond count as often as they were said."""
    texts = [f"line {number}" for number in range(40)]

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        # Always beyond the lines of the overlap, as a stream that never gets further than what was read would never end.
        setattr(case.api.logs[pod], tear, 3)
        life.start(pod)
        for first in range(0, 40, 2):
            life.write(pod, *texts[first : first + 2], seconds=2)
        with case.api.changed:
            case.api.logs[pod].lines += [case.api.logs[pod].lines[-1]] * 2  # said three times in one nanosecond
            setattr(case.api.logs[pod], tear, 7)
        life.read(pod, 40)
        life.end(pod, 0, message=MESSAGE)
        setattr(case.api.logs[pod], tear, None)
        life.complete()

    case.lives(life)
    code, out, err = case.follow()
    assert code == 0
    assert case.lines(out) == [f"[aaaaa] {text}" for text in [*texts, texts[-1], texts[-1]]]
    assert "gap" not in err


def test_a_last_line_without_an_end(case: Case) -> None:
    """It is a line all the same, and a carriage return is no way to talk to the CI."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "10%\r20%\r::error::no")
        case.api.logs[pod].open_end = f"{life.now()} killed in the middle of"
        life.end(pod, 137)
        life.fail("BackoffLimitExceeded", "Job has reached the specified backoff limit")

    case.lives(life)
    code, out, _ = case.follow()
    assert code == 137
    assert case.lines(out) == [
        "[aaaaa] 10%", "[aaaaa] 20%", "[aaaaa] ::error::no", "[aaaaa] killed in the middle of",
    ]  # fmt: skip


def test_a_watch_that_is_too_old(case: Case) -> None:
    """410: listed again; what happened in between is not missed."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "one")
        life.read(pod, 1)
        case.api.forget()
        life.write(pod, "two")
        life.read(pod, 2)
        case.api.forget()
        life.end(pod, 0, message=MESSAGE)
        case.api.forget()
        life.complete()
        case.api.forget()

    case.lives(life)
    code, out, err = case.follow()
    assert code == 0
    assert case.lines(out) == ["[aaaaa] one", "[aaaaa] two"]
    assert "warning" not in err


def test_a_pod_that_was_gone_before_its_log_was_read(case: Case) -> None:
    """What is lost is said to be lost; the exit code is known all the same."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        case.api.logs[pod].answer = Answer(500, "InternalError", "dial tcp 10.0.0.1:10250: connect: no route to host")
        life.start(pod)
        life.write(pod, "never seen")
        life.asked("pods/log", 2)
        life.end(pod, 137, conditions=disruption("DeletionByPodGC", "PodGC: node not found"))
        life.vanish(pod)
        second = life.pod("bbbbb")
        life.start(second)
        life.write(second, "seen")
        life.end(second, 2, message=said("no", code=2))
        life.fail("PodFailurePolicy", "…")

    case.lives(life)
    code, out, err = case.follow()
    assert code == 2
    assert case.lines(out) == ["[bbbbb] seen"]
    assert "aaaaa: gap: the pod is gone; its lines are lost" in err


def test_a_pod_that_nobody_ever_saw(case: Case) -> None:
    """The Job has counted it: its log is lost, and that is told."""

    def life(life: Life) -> None:
        pod = life.pod("bbbbb")
        life.start(pod)
        life.end(pod, 0, message=MESSAGE)
        life.job(failed=1)
        life.complete()

    case.lives(life)
    code, _, err = case.follow()
    assert code == 0
    assert "gap: 1 of its pods were gone before they were seen" in err


def test_a_pod_that_went_away_in_the_middle_of_its_log(case: Case) -> None:
    """The gap names the last moment that was seen."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "seen")
        life.read(pod, 1)
        case.api.logs[pod].answer = Answer(500, "InternalError", "the node is gone")
        life.end(pod, 75)
        life.vanish(pod)
        second = life.pod("bbbbb")
        life.start(second)
        life.end(second, 0, message=MESSAGE)
        life.complete()

    case.lives(life)
    code, out, err = case.follow()
    assert code == 0
    assert case.lines(out) == ["[aaaaa] seen"]
    assert "aaaaa: gap: the pod is gone; lines after 2026-11-25T09:00:10.25" in err


@pytest.mark.parametrize(
    ("set_up", "words"),
    [
        (
            lambda log: setattr(log, "words", "unable to retrieve container logs for containerd://1"),
            "gap: the node says about its log: unable to retrieve container logs",
        ),
        (
            lambda log: setattr(log, "answer", Answer(500, "InternalError", "no route to host")),
            "gap: the rest of its log cannot be read (no route to host); its lines are lost",
        ),
        (
            lambda log: setattr(log, "answer", Answer(403, "Forbidden", "pods/log is forbidden")),
            "gap: its log may not be read (pods/log): pods/log is forbidden",
        ),
    ],
)
def test_a_log_that_cannot_be_had(case: Case, set_up: Callable[[object], None], words: str) -> None:
    """The reason is told, nothing is made up, and the run's end counts."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        set_up(case.api.logs[pod])
        life.start(pod)
        life.end(pod, 3, message=said("no", code=3))
        life.fail("PodFailurePolicy", "…")

    case.lives(life)
    code, out, err = case.follow()
    assert code == 3
    assert case.lines(out) == []
    assert words in err


def test_a_log_that_was_rotated(case: Case) -> None:
    """Between the last line that was read and the first that is left there is a gap, and it is told."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "one")
        life.read(pod, 1)
        life.rotate(pod)
        life.write(pod, "two", "three", seconds=60)
        life.read(pod, 3)
        life.end(pod, 0, message=MESSAGE)
        life.complete()

    case.lives(life)
    code, out, err = case.follow()
    assert code == 0
    assert case.lines(out) == ["[aaaaa] one", "[aaaaa] two", "[aaaaa] three"]
    assert err.count("gap: its log was rotated: lines between 2026-11-25T09:00:10") == 1


def test_a_long_silence(case: Case) -> None:
    """A stream without a byte is opened anew, as often as it takes; nothing is doubled, nothing is said about it."""
    patience = QUICK.__class__(**{**QUICK.__dict__, "silence_seconds": 0.05})

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "one")
        life.read(pod, 5)  # read, and five times found to be still the last one
        life.write(pod, "two")
        life.end(pod, 0, message=MESSAGE)
        life.complete()

    case.lives(life)
    code, out, err = case.follow(patience=patience)
    assert code == 0
    assert case.lines(out) == ["[aaaaa] one", "[aaaaa] two"]
    assert "warning" not in err


def test_an_api_server_that_goes_away_for_a_while(case: Case) -> None:
    """Told once, and once that it is back; then all goes on."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "one")
        life.read(pod, 1)
        case.api.fail_next += [("list", "pods", None)] * 5
        case.api.forget()
        case.api.wait(lambda: not case.api.fail_next, "the list asked for again")
        watched = len([each for each in case.api.requests if each[:2] == ("watch", "pods")])
        life.asked("pods", watched + 1, verb="watch")
        life.write(pod, "two")
        life.end(pod, 0, message=MESSAGE)
        life.complete()

    case.lives(life)
    code, out, err = case.follow()
    assert code == 0
    assert case.lines(out) == ["[aaaaa] one", "[aaaaa] two"]
    assert err.count("the cluster does not answer") == 1
    assert err.count("the cluster answers again") == 1


def test_an_api_server_that_stays_away(case: Case) -> None:
    """Exit 69; the run goes on, and the same command follows it again."""
    patience = QUICK.__class__(**{**QUICK.__dict__, "lost_seconds": 0.2})

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "one")
        life.read(pod, 1)
        case.api.down = True
        case.api.notify()

    case.lives(life)
    with pytest.raises(OutOfReach, match="goes on without being followed"):
        case.follow(patience=patience)


def test_a_job_that_somebody_deletes(case: Case) -> None:
    """What its pods still say is shown; 75, since it can go on."""

    def life(life: Life) -> None:
        pod = life.pod("aaaaa")
        life.start(pod)
        life.write(pod, "one")
        life.read(pod, 1)
        life.asked("jobs", 1, verb="watch")
        case.api.on_delete_job = lambda _: life.end(pod, 75, message=said("stopped by SIGTERM", code=75))
        case.api.delete("jobs", life.run, {"propagationPolicy": "Foreground"})

    case.lives(life)
    code, out, err = case.follow()
    assert code == 75
    assert case.lines(out) == ["[aaaaa] one"]
    assert "the Job was deleted" in out
    assert "is being deleted" in err


def test_a_job_that_is_gone_before_anybody_looked(case: Case) -> None:
    """It was there when it was submitted, so it was deleted: 75, and no waiting for ever."""
    session = case.session()
    run, cluster = session._prepare()
    job = session._submit(run, cluster).job
    case.api.remove("jobs", job["metadata"]["name"])
    found = Follow(cluster, job, Plain()).run()
    assert found.code == 75
    assert found.reason == "the Job was deleted"


def test_without_the_right_to_watch_it_says_so(case: Case) -> None:
    """Which right, and where the manifest is."""
    case.lives(lambda _: None)
    case.api.rules = [rule for rule in case.api.rules or [] if rule["resources"] != ["pods"]]
    with pytest.raises(Exception, match="may not follow") as raised:
        case.follow()
    assert 'cannot list resource "pods"' in str(raised.value)
    assert "docs/submitter-rbac.yaml" in str(raised.value)
