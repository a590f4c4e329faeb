"""Uploads and copies in parts that somebody else finishes, aborts or spoils meanwhile."""

from __future__ import annotations

import hashlib
import itertools
import threading

import pytest
from fault_proxy import proxied
from s3_machine import around_requests, machine, quick, space_at
from store_work import content, publish

from nearer.errors import InputError, OutOfReach
from nearer.store.s3 import tags, transfer

PART = 5 << 20
BIG = bytes(range(256)) * ((2 * PART + 4096) // 256)
OTHER = bytes(reversed(BIG))


@pytest.fixture
def clean(s3_endpoint, monkeypatch):
    quick(monkeypatch)
    return space_at(s3_endpoint)


@pytest.fixture
def in_parts(monkeypatch):
    """Copies of more than a mebibyte are made in parts."""
    monkeypatch.setattr(transfer, "_COPY_WHOLE_BYTES", 1 << 20)
    monkeypatch.setattr(transfer, "_COPY_PART_BYTES", PART)


def before(space, monkeypatch, action, act, *, nth=1):
    """Do something just before the n-th request of a kind."""
    method = "send" if action == "UploadPart" else "call"  # bodies need not be sent by way of `call`
    original, count = getattr(space.wire, method), 0

    def wrapped(name, *args, **arguments):
        nonlocal count
        count += name == action
        if name == action and count == nth:
            act()
        return original(name, *args, **arguments)

    monkeypatch.setattr(space.wire, method, wrapped)


def sha256_at(space, key):
    return hashlib.sha256(space.read(key)).hexdigest()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_an_upload_that_another_process_finished_is_finished(s3_endpoint, s3_root, clean, tmp_path, monkeypatch, nth):
    """Whoever takes up a live upload sends the same bytes and completes it: its owner finds its object done."""
    source = tmp_path / "big.bin"
    source.write_bytes(BIG)
    other = space_at(s3_endpoint)

    def take_over():
        other.upload(source, f"{s3_root}/b/big.bin", other.remains(s3_root)["big.bin"])

    before(clean, monkeypatch, "UploadPart", take_over, nth=nth)
    clean.upload(source, f"{s3_root}/a/big.bin")
    for name in "ab":
        assert sha256_at(clean, f"{s3_root}/{name}/big.bin") == hashlib.sha256(BIG).hexdigest()
    assert not clean.unfinished(s3_root)


@pytest.mark.parametrize("nth", [1, 2])
def test_an_upload_that_ends_while_it_is_taken_up(s3_endpoint, s3_root, clean, tmp_path, monkeypatch, nth):
    """What an earlier attempt left may be aborted by its owner at any moment: the file is sent anew."""
    source = tmp_path / "big.bin"
    source.write_bytes(BIG)
    begun = clean.wire.call("CreateMultipartUpload", *split_of(s3_root, "a/big.bin"))["UploadId"]
    clean.wire.send("UploadPart", *split_of(s3_root, "a/big.bin"), BIG[:PART], UploadId=begun, PartNumber=1)
    other = space_at(s3_endpoint)
    before(clean, monkeypatch, "UploadPart", lambda: other.abandon(s3_root), nth=nth)
    clean.upload(source, f"{s3_root}/b/big.bin", clean.remains(s3_root)["big.bin"])
    assert sha256_at(clean, f"{s3_root}/b/big.bin") == hashlib.sha256(BIG).hexdigest()


def split_of(root, name):
    bucket, _, key = f"{root}/{name}".removeprefix("s3://").partition("/")
    return bucket, key


def test_an_object_that_is_not_made_of_its_parts_is_told(s3_root, clean, tmp_path, monkeypatch):
    """A list of parts that was spoilt on the way makes another object: its ETag tells."""
    source = tmp_path / "big.bin"
    source.write_bytes(BIG)
    call = clean.wire.call

    def spoilt(name, *args, **arguments):
        if name == "CompleteMultipartUpload":
            arguments["MultipartUpload"] = {"Parts": arguments["MultipartUpload"]["Parts"][:2]}
        return call(name, *args, **arguments)

    monkeypatch.setattr(clean.wire, "call", spoilt)
    with pytest.raises(OutOfReach, match="other bytes than were sent"):
        clean.upload(source, f"{s3_root}/a/big.bin")


def test_a_claim_that_arrived_spoilt_is_written_right(s3_root, clean, monkeypatch):
    """The create had its effect, with other bytes: it is repaired by who made it, and counts as made."""
    key, client = f"{s3_root}/claim", clean.wire.client(split_of(s3_root, "")[0])
    client = getattr(client, "boto3", client)
    put, spoil = client.put_object, [b"spoilt"]

    def once_spoilt(**arguments):
        return put(**arguments | ({"Body": spoil.pop(), "ContentMD5": "XrY7u+Ae7tCTyyK7j1rNww=="} if spoil else {}))

    monkeypatch.setattr(client, "put_object", once_spoilt)
    assert clean.create(key, b"right")
    assert clean.read(key) == b"right"
    assert not clean.create(key, b"another")


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_copy_that_a_slower_claimant_ended_is_begun_again(
    s3_endpoint, s3_root, clean, in_parts, tmp_path, monkeypatch, nth
):
    """A publisher that prepares to claim a generation that is taken ends the winner's copy: the winner copies anew."""
    publish(machine(s3_root, clean, tmp_path / "a"), "models/m", {"big.bin": OTHER}, "f1")
    other = space_at(s3_endpoint)
    before(clean, monkeypatch, "UploadPartCopy", lambda: other.abandon(f"{s3_root}/models/m"), nth=nth)
    publish(machine(s3_root, clean, tmp_path / "a", overwrite=True), "models/m", {"big.bin": BIG}, "f2")
    reader = machine(s3_root, other, tmp_path / "b")
    assert content(reader) == {"big.bin": BIG}
    assert not other.unfinished(s3_root)


@pytest.mark.parametrize("action", ["UploadPartCopy", "CompleteMultipartUpload"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_copier_that_was_paused_does_not_write_over_a_later_generation(
    s3_endpoint, s3_root, clean, in_parts, tmp_path, monkeypatch, action, nth
):
    """Paused inside a copy in parts, revived after the address was overwritten twice: what stands, stands."""
    if action == "CompleteMultipartUpload":
        nth += 2  # the first two are of the uploads
    reached, revived = threading.Event(), threading.Event()

    def wait():
        reached.set()
        assert revived.wait(60)

    before(clean, monkeypatch, action, wait, nth=nth)
    paused = threading.Thread(
        target=lambda: publish(
            machine(s3_root, clean, tmp_path / "a", overwrite=True),
            "models/m",
            {"big.bin": OTHER, "a.bin": OTHER},
            "f1",
        )
    )
    paused.start()
    assert reached.wait(60)
    other = space_at(s3_endpoint)
    for number, data in ((2, BIG), (3, BIG[::-1][: PART + 9])):
        publish(machine(s3_root, other, tmp_path / "b", overwrite=True), "models/m", {"big.bin": data}, f"f{number}")
    revived.set()
    paused.join(60)
    reader = machine(s3_root, other, tmp_path / "c")
    assert content(reader) == {"big.bin": BIG[::-1][: PART + 9]}
    assert reader.verify("models/m") == ()
    assert not other.unfinished(s3_root)


def test_the_same_work_done_by_another_does_not_reach_the_cache_as_ours(s3_root, clean, tmp_path):
    """Two runs of the same work may differ in bytes: what is opened afterwards are those that stand."""
    publish(machine(s3_root, clean, tmp_path / "a"), "models/m", {"model.bin": b"one"}, "f1")
    second = machine(s3_root, clean, tmp_path / "b")
    publish(second, "models/m", {"model.bin": b"two"}, "f1")
    assert content(second) == {"model.bin": b"one"}


@pytest.mark.parametrize("data", [b"documents" * 100, BIG], ids=["whole", "in parts"])
def test_a_users_own_object_that_arrives_wrong_is_read_again(s3_endpoint, s3_root, clean, tmp_path, data):
    """No sha256 is known of it: its ETag tells, or that the same bytes came twice."""
    source = tmp_path / "documents.jsonl"
    source.write_bytes(data)
    clean.upload(source, f"{s3_root}/data/documents.jsonl")
    with proxied(s3_endpoint) as (proxy, through):
        gets = itertools.count(1)
        store = machine(s3_root, space_at(through), tmp_path / "a")
        proxy.reset(lambda _number, method: "wrong-answer" if method == "GET" and next(gets) in (2, 3, 4) else None)
        assert store.raw("data/documents.jsonl").read_bytes() == data
        assert proxy.done["wrong-answer"] == 3
        gets = itertools.count(1)
        proxy.reset(lambda _number, method: "wrong-answer" if method == "GET" and next(gets) > 1 else None)
        with pytest.raises(OutOfReach, match="other bytes come each time"):
            machine(s3_root, space_at(through), tmp_path / "b").raw("data/documents.jsonl")


def test_a_users_own_object_whose_tag_says_nothing_is_read_twice(s3_root, clean, tmp_path, monkeypatch):
    """Under a KMS key an ETag is no MD5."""
    clean.put(f"{s3_root}/data/d.jsonl", b"documents")
    monkeypatch.setattr(tags, "agrees", lambda *_args, **_options: False)
    store = machine(s3_root, clean, tmp_path / "a")
    with around_requests() as requests:
        assert store.raw("data/d.jsonl").read_bytes() == b"documents"
    assert sum(request.method == "GET" and request.key.endswith("d.jsonl") for request in requests) == 2


@pytest.mark.parametrize("times", [1, 9])
def test_a_users_own_object_that_changes_while_it_is_read(s3_endpoint, s3_root, clean, tmp_path, monkeypatch, times):
    """It is listed anew; if that does not end, the error is one in words."""
    other, versions = space_at(s3_endpoint), itertools.count()
    other.put(f"{s3_root}/data/d.jsonl", b"first")

    def written_anew(*args, **options):
        if (number := next(versions)) < times:
            other.put(f"{s3_root}/data/d.jsonl", b"version %d" % number)
        return download(*args, **options)

    download = clean.download
    monkeypatch.setattr(clean, "download", written_anew)
    store = machine(s3_root, clean, tmp_path / "a")
    if times == 1:
        assert store.raw("data/d.jsonl").read_bytes() == b"version 0"
    else:
        with pytest.raises(InputError, match="changes while it is read"):
            store.raw("data/d.jsonl")
