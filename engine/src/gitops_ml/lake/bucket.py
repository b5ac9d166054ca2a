"""Sources that are objects of an S3-compatible bucket.

    s3://bucket/folder      every .parquet and .csv object below
    s3://bucket/file.csv    one object

Identity and endpoint are those of the AWS tools: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a
profile, or a role), AWS_DEFAULT_REGION, and AWS_ENDPOINT_URL for a bucket elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from gitops_ml.lake.address import name_of, told
from gitops_ml.lake.errors import LakeError, needed
from gitops_ml.lake.upstream import DATA_SUFFIXES, Fetched, Item, check_page

SCHEME = "s3://"
_OPTIONS = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}


def bucket_items(address: str) -> list[Item]:
    """The data objects below an address, or the one that it names.

    Raises:
        LakeError: If the bucket cannot be read, or holds none.
    """
    s3fs = needed("s3fs", "s3://")
    address = address.rstrip("/")
    key = address.removeprefix(SCHEME)
    if "@" in key.partition("/")[0]:
        raise LakeError(
            "s3://: the address must hold no credentials; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    with _explained(address):
        bucket = s3fs.S3FileSystem(config_kwargs=_OPTIONS, skip_instance_cache=True)
        found: dict[str, dict[str, Any]] = bucket.find(key, detail=True)
    items = [
        _item(bucket, name, entry.get("ETag"), key)
        for name, entry in sorted(found.items())
        if PurePosixPath(name).suffix.lower() in DATA_SUFFIXES and entry.get("size")
    ]
    if not items:
        raise LakeError(f"{address}: is empty: no .parquet or .csv object is below it")
    return items


def _item(bucket: Any, name: str, tag: str | None, key: str) -> Item:
    source = SCHEME + name
    below = PurePosixPath(name)
    relative = below.name if name == key else below.relative_to(key).as_posix()

    def fetch(folder: Path, _: str | None) -> Fetched:
        path = folder / f"object{below.suffix.lower()}"
        with _explained(source):
            bucket.get_file(name, str(path))
        check_page(path, source)
        return Fetched(path, tag)

    return Item(name_of(relative), source, fetch, validator=tag)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Say in whose hands an error is.

    Raises:
        LakeError: In the place of what s3fs and botocore raise.
    """
    botocore = needed("botocore.exceptions", "s3://")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    where = f"{address} (endpoint {endpoint})" if endpoint else address
    try:
        yield
    except FileNotFoundError as error:
        raise LakeError(f"{where}: no such bucket or object: {told(error)}") from error
    except (PermissionError, botocore.NoCredentialsError, botocore.ClientError) as error:
        raise LakeError(
            f"{where}: access is refused: {told(error)}; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY of somebody who may list and read it"
        ) from error
    except botocore.BotoCoreError as error:
        raise LakeError(
            f"{where}: cannot be reached: {told(error)}; check AWS_ENDPOINT_URL and the network"
        ) from error
