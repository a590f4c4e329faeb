"""Whether an answer can be believed: bytes that went wrong on the way make lists shorter and names others.

Files are compared with their sha256, but a listing carries no hash. What it says twice is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import botocore.exceptions as boto
from botocore.parsers import ResponseParserError

T = TypeVar("T")
_ITEMS: Final = {
    "ListObjectsV2": ("Contents", ("Key", "Size", "LastModified")),
    "ListMultipartUploads": ("Uploads", ("Key", "UploadId", "Initiated")),
    "ListParts": ("Parts", ("PartNumber", "Size", "LastModified", "ETag")),
}
_NEXT: Final = {
    "ListObjectsV2": "NextContinuationToken",
    "ListMultipartUploads": "NextKeyMarker",
    "ListParts": "NextPartNumberMarker",
}
_FIELDS: Final = {"CreateMultipartUpload": "UploadId", "UploadPartCopy": "CopyPartResult"}


class UnreadableAnswer(boto.BotoCoreError):  # type: ignore[misc]
    """The store's answer is damaged."""

    fmt = "the answer is damaged"


def readable(action: str, arguments: Mapping[str, Any], call: Callable[[], T]) -> T:
    """What the call gives.

    Raises:
        UnreadableAnswer: botocore cannot read it, or it contradicts itself.
    """
    try:
        answer = call()
    except (ResponseParserError, ValueError, KeyError, TypeError, AttributeError):
        # Botocore has no error of its own for times, numbers and nesting that it cannot parse.
        raise UnreadableAnswer from None
    if isinstance(answer, dict) and not _is_sound(action, arguments, answer):
        raise UnreadableAnswer
    return answer


def _is_sound(action: str, arguments: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    if _FIELDS.get(action, "Key") not in {"Key", *answer}:
        return False
    if action not in _ITEMS:
        return True
    name, wanted = _ITEMS[action]
    items = answer.get(name, [])
    if any(field not in item for item in items for field in wanted):
        return False
    if any(not item["Key"].startswith(arguments.get("Prefix", "")) for item in items if "Key" in item):
        return False
    if answer.get("IsTruncated") and not answer.get(_NEXT[action]):
        return False
    return action != "ListObjectsV2" or answer.get("KeyCount") in (None, len(items))
