"""The bytes of files past boto3's layers: what is sent that way, that it is the same, and when boto3 takes over."""

from __future__ import annotations

import boto3
import pytest
from botocore.config import Config
from fault_proxy import proxied
from s3_machine import quick, space_at

from nearer.store.s3 import direct
from nearer.store.s3.client import make_client
from nearer.store.s3.direct import Direct
from nearer.store.s3.options import S3Options
from nearer.store.s3.wire import split

PART = 5 << 20
KEY = "models/빈 문서 #1+~(a)=&.bin"


@pytest.fixture
def by_boto3(s3_endpoint, s3_root, monkeypatch):
    """Primitives at an endpoint, and the operations that boto3 itself carried out."""
    quick(monkeypatch)

    def opened(endpoint=s3_endpoint, **options):
        space, seen = space_at(endpoint, **options), []
        events = space.wire.client(split(s3_root)[0]).meta.events
        events.register("before-call.s3", lambda model, **_: seen.append(model.name))
        return space, seen

    return opened


def up_and_down(space, root, tmp_path, data):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    space.upload(source, f"{root}/{KEY}")
    space.download(f"{root}/{KEY}", target, space.list(root)[KEY])
    return target.read_bytes()


@pytest.mark.parametrize("data", [b"bytes" * 1000, bytes(range(256)) * ((PART + 4096) // 256)], ids=["whole", "parts"])
def test_the_bytes_of_files_go_past_boto3(by_boto3, s3_root, tmp_path, data):
    """Bodies and ranges are sent directly; what begins, ends, lists and decides is sent by boto3."""
    space, seen = by_boto3()
    assert up_and_down(space, s3_root, tmp_path, data) == data
    assert not {"PutObject", "UploadPart", "GetObject"} & set(seen)
    assert ("CompleteMultipartUpload" in seen) == (len(data) > PART)
    assert space.create(f"{s3_root}/claim", b"{}")
    assert seen[-1] == "PutObject"


@pytest.mark.parametrize(
    ("options", "left"),
    [({"direct": False}, {"PutObject", "GetObject"}), ({"checksums": "when_supported"}, {"PutObject"})],
    ids=["switched off", "checksums"],
)
def test_what_boto3_alone_does_is_left_to_it(by_boto3, s3_root, tmp_path, options, left):
    """`direct: false` leaves everything to boto3, and a CRC32 leaves it the uploads."""
    space, seen = by_boto3(**options)
    assert up_and_down(space, s3_root, tmp_path, b"bytes") == b"bytes"
    assert {"PutObject", "GetObject"} & set(seen) == left


@pytest.mark.parametrize("fault", ["503", "reset-before", "truncate", "wrong-body"])
def test_boto3_takes_over_what_does_not_succeed(by_boto3, s3_endpoint, s3_root, tmp_path, fault):
    """One bad answer to a direct request: the bytes arrive all the same."""
    with proxied(s3_endpoint) as (proxy, through):
        space, _ = by_boto3(through)
        hit = []

        def plan(_number, method):
            wanted = method == ("PUT" if fault == "wrong-body" else "GET") and not hit
            return hit.append(fault) or fault if wanted else None

        proxy.reset(plan)
        assert up_and_down(space, s3_root, tmp_path, b"bytes" * 1000) == b"bytes" * 1000
        assert proxy.done == {fault: 1}


def test_after_a_busy_answer_the_rate_is_boto3s(by_boto3, s3_endpoint, s3_root, tmp_path, monkeypatch):
    """A store that says SlowDown gets no direct requests for a while."""
    monkeypatch.setattr(direct, "_REST_SECONDS", 60.0)
    with proxied(s3_endpoint) as (proxy, through):
        space, seen = by_boto3(through)
        proxy.reset(lambda number, _method: "503" if number == 1 else None)
        for _ in range(2):
            assert up_and_down(space, s3_root, tmp_path, b"bytes") == b"bytes"
    assert seen.count("PutObject") == seen.count("GetObject") == 2


@pytest.mark.parametrize(
    ("region", "endpoint", "addressing", "bucket"),
    [
        ("us-east-1", None, "auto", "lake"),
        ("ap-northeast-2", None, "virtual", "lake"),
        ("ap-northeast-2", None, "auto", "my.lake"),
        ("us-east-1", "https://store.example.com:9000/below", "virtual", "lake"),
        ("us-east-1", "http://127.0.0.1:9000", "auto", "lake"),
    ],
)
def test_direct_requests_go_where_boto3s_would(monkeypatch, region, endpoint, addressing, bucket):
    """Scheme, host, path, signature's scope and unsigned payload are boto3's, whatever the addressing."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    options = S3Options(region=region, endpoint=endpoint, addressing=addressing)
    client, past_it = make_client(options, bucket=bucket)
    sent = []

    class Sent(Exception):
        pass

    def keep(request, **_):
        sent.append(request)
        raise Sent

    client.meta.events.register("before-send.s3", keep)
    monkeypatch.setattr(past_it._session, "send", keep)
    with pytest.raises(Sent):
        client.get_object(Bucket=bucket, Key=f"{KEY}?%20", Range="bytes=0-9", IfMatch='"tag"')
    with pytest.raises(Sent):
        past_it.call("GetObject", bucket, f"{KEY}?%20", {"Range": "bytes=0-9", "IfMatch": '"tag"'})
    theirs, ours = sent
    assert (ours.method, ours.url) == (theirs.method, theirs.url)
    for name in ("Range", "If-Match", "X-Amz-Content-SHA256", "X-Amz-Security-Token", "User-Agent"):
        assert _text(ours.headers[name]) == _text(theirs.headers[name]), name
    scopes = [_text(request.headers["Authorization"]).partition(", ")[0] for request in sent]
    assert scopes[0] == scopes[1]
    assert f"/{region}/s3/" in scopes[0]


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def test_credentials_that_renew_themselves_are_asked_each_time(monkeypatch):
    """A direct request is signed with what the provider has now, as a role's credentials change under way."""
    client = boto3.client("s3", region_name="us-east-1", config=Config(signature_version="s3v4"))
    past_it, keys = Direct(client, S3Options(), verify=None), []
    monkeypatch.setattr(
        past_it._session, "send", lambda request: keys.append(_text(request.headers["Authorization"])) or 1 / 0
    )
    credentials = past_it._route("lake").signer._credentials
    for key in ("AKIDONE", "AKIDTWO"):
        credentials.access_key = key
        with pytest.raises(ZeroDivisionError):
            past_it.call("GetObject", "lake", "key", {"Range": "bytes=0-9"})
    assert ["AKIDONE" in keys[0], "AKIDTWO" in keys[1]] == [True, True]
