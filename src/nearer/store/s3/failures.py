"""What a store's refusal means for the user, in words. Nothing of a request but action, bucket and key is repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import botocore.exceptions as boto
from urllib3.exceptions import HTTPError

from nearer.errors import InputError, NearerError, NoPermission, OutOfReach
from nearer.store.s3.answers import UnreadableAnswer

UNREACHABLE: Final = (
    boto.ConnectionError,
    boto.HTTPClientError,  # timeouts, connections closed in the middle; SSLError is told apart
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    boto.FlexibleChecksumError,
    UnreadableAnswer,
    HTTPError,
)
"""What a request may end with when the wire is bad: worth trying again."""


class Words(NamedTuple):
    """An error as the user reads it; `{…}` is filled in."""

    what: str
    rule: str
    way_out: str
    kind: type[NearerError] = InputError


_BUSY: Final = Words(
    "the store is busy or broken: {code} at {action}",
    "an answer after all attempts",
    "run the same command again later; what was uploaded is found again",
    OutOfReach,
)
_SPOILT: Final = frozenset({
    "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody",
    "RequestTimeout",
})  # fmt: skip
_REFUSALS: Final[tuple[tuple[frozenset[str], Words], ...]] = (
    (
        frozenset({
            "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded",
            "InternalError", "RequestTimeout", "TooManyRequests", "BandwidthLimitExceeded", "OperationAborted",
            "ConditionalRequestConflict",
        }),
        _BUSY,
    ),
    (
        _SPOILT,
        Words(
            "the store received other bytes than were sent ({action}: {code})",
            "the bytes that were sent, by their MD5",
            "look for a broken proxy or network card; then run the same command again",
            OutOfReach,
        ),
    ),
    (
        frozenset({"NoSuchBucket"}),
        Words(
            "there is no bucket {bucket!r}",
            "an existing bucket; nearer makes none",
            "create it, or correct the address, endpoint or region",
        ),
    ),
    (
        frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}),
        Words(
            "the AWS credentials have expired",
            "credentials that are valid for the whole run, or that renew themselves (a role)",
            "get new ones, then run the same command again: it goes on from here",
        ),
    ),
    (
        frozenset({
            "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity", "AuthFailure",
            "UnrecognizedClientException",
        }),
        Words(
            "the store does not accept the credentials ({code})",
            "an access key that the store knows, and its secret",
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and `store.s3.profile`",
        ),
    ),
    (
        frozenset({
            "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
            "IncorrectEndpoint", "TemporaryRedirect", "301",
        }),
        Words(
            "the bucket {bucket!r} is in another region{region}",
            "the region that the bucket is in",
            "set `store.s3.region` or AWS_REGION",
        ),
    ),
    (
        frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"}),
        Words(
            "this machine's clock and the store's are too far apart",
            "less than 15 minutes",
            "set the clock (NTP)",
        ),
    ),
    (
        frozenset({
            "AccessDenied", "AccessDeniedException", "AllAccessDisabled", "403", "Forbidden", "KMS.AccessDenied",
        }),
        Words(
            "no permission for {permission}",
            "the credentials' policy and the bucket's policy allow it (and the KMS key's, if there is one)",
            "ask for the permission, or use another bucket or prefix",
            NoPermission,
        ),
    ),
    (
        frozenset({"NotImplemented", "501"}),
        Words(
            "the store does not know {action} as nearer needs it",
            "conditional writes (If-None-Match), multipart uploads, ranged reads",
            "use a newer version of the store",
        ),
    ),
    (
        frozenset({"400"}),
        Words(
            "the store refuses {action} without a reason (HTTP 400)",
            "a request that the store accepts",
            "the credentials may have expired: get new ones; else check the settings of `store`",
        ),
    ),
)  # fmt: skip
_OTHER_REFUSAL: Final = Words(
    "the store refuses {action}: {code} (HTTP {status})",
    "a request that the store accepts",
    "check the settings of `store`",
)
_NO_ANSWER: Final[tuple[tuple[tuple[type[Exception], ...], Words], ...]] = (
    (
        (boto.NoCredentialsError, boto.PartialCredentialsError),
        Words(
            "no AWS credentials were found",
            "boto3's chain: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a service account's role, …",
            "set them, or name `store.s3.profile`",
        ),
    ),
    (
        (boto.CredentialRetrievalError, boto.SSOError, boto.RefreshWithMFAUnsupportedError),
        Words(
            "AWS credentials could not be fetched ({error})",
            "the provider of the credentials answers",
            "log in again, or look at the role of the service account",
        ),
    ),
    (
        (boto.ProfileNotFound,),
        Words(
            "the AWS profile of the settings does not exist",
            "`store.s3.profile` or AWS_PROFILE names a profile of the shared configuration files",
            "correct the name",
        ),
    ),
    (
        (boto.SSLError,),
        Words(
            "the store's certificate is not trusted",
            "a certificate that the CA bundle vouches for",
            "set `store.s3.ca_bundle` or AWS_CA_BUNDLE to the file that holds your CA",
        ),
    ),
    (
        UNREACHABLE,
        Words(
            "the store does not answer ({error} at {action})",
            "an answer within the timeouts, after all attempts",
            "check `store.s3.endpoint`, region, proxy and network; then run the same command again",
            OutOfReach,
        ),
    ),
)
_OTHER_FAILURE: Final = Words(
    "the request could not be made: {error} at {action}",
    "settings of `store` and AWS environment variables that boto3 understands",
    "check endpoint, region and the bucket's name",
)
_PERMISSIONS: Final = {
    "CopyObject": "s3:GetObject and s3:PutObject",
    "UploadPartCopy": "s3:GetObject and s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "HeadObject": "s3:GetObject and s3:ListBucket",
    "GetObject": "s3:GetObject and s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "DeleteObjects": "s3:DeleteObject",
}


def code_of(error: boto.ClientError) -> str:
    """The store's error code; the HTTP status where there is none."""
    return str(error.response.get("Error", {}).get("Code") or status_of(error))


def status_of(error: boto.ClientError) -> int:
    """The HTTP status."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_missing(error: boto.ClientError) -> bool:
    """Whether there is no such key (a missing bucket is something else)."""
    return code_of(error) in {"NoSuchKey", "404", "NotFound"}


def is_refused_condition(error: boto.ClientError) -> bool:
    """Whether a conditional request found another state than it named."""
    return code_of(error) in {"PreconditionFailed", "412"}


def is_conflict(error: boto.ClientError) -> bool:
    """Whether another write of the same key was under way: to be asked again."""
    return status_of(error) == 409 and code_of(error) in {"ConditionalRequestConflict", "OperationAborted", "409"}


def is_spoilt(error: boto.ClientError) -> bool:
    """Whether the store received other bytes than were sent: to be sent again."""
    return code_of(error) in _SPOILT


@contextmanager
def in_words(action: str, bucket: str, key: str = "") -> Iterator[None]:
    """Turn what botocore raises inside into our errors.

    Raises:
        InputError: the settings, credentials or permissions are wrong.
        OutOfReach: the store does not answer, or is busy, after all attempts.
    """
    try:
        yield
    except (boto.BotoCoreError, boto.ClientError, HTTPError) as error:
        # Botocore's own text may repeat addresses with passwords in them, so the cause is cut off.
        raise told(error, action=action, bucket=bucket, key=key) from None


def told(error: Exception, *, action: str, bucket: str, key: str = "") -> NearerError:
    """The error in words.

    Args:
        error: of botocore or urllib3.
        action: the S3 operation.
        bucket: that was asked.
        key: or prefix.
    """
    if isinstance(error, boto.ClientError):
        code, status = code_of(error), status_of(error)
        other = _BUSY if status >= 500 and status != 501 else _OTHER_REFUSAL
        words = next((words for codes, words in _REFUSALS if code in codes), other)
    else:
        code, status = "", 0
        words = next((words for kinds, words in _NO_ANSWER if isinstance(error, kinds)), _OTHER_FAILURE)
    what = words.what.format(
        action=action,
        bucket=bucket,
        code=code,
        status=status,
        error=type(error).__name__,
        permission=_PERMISSIONS.get(action, f"s3:{action}"),
        region=_region(error),
    )
    where = f"s3://{bucket}/{key}" if key else f"s3://{bucket}"
    return words.kind(what, where=where, rule=words.rule, way_out=words.way_out)


def _region(error: Exception) -> str:
    """The region that the store names in its answer."""
    response = getattr(error, "response", None) or {}  # botocore's own errors have one that is None
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or response.get("Error", {}).get("Region")
    return f", {region}" if region else ""
