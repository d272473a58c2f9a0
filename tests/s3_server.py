"""A real S3 server on this machine, for tests: moto's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve an empty S3 with one bucket `audio`, with the environment pointing to it; yield its endpoint."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, f"http://{host}:{port}")
        client = boto3.session.Session().client("s3")
        client.create_bucket(Bucket="audio")
        try:
            yield f"http://{host}:{port}"
        finally:
            for item in client.list_objects_v2(Bucket="audio").get("Contents", []):
                client.delete_object(Bucket="audio", Key=item["Key"])
            client.delete_bucket(Bucket="audio")
            client.close()
            server.stop()


def point_to(patch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Set the environment that the AWS tools read."""
    patch.setenv("AWS_ENDPOINT_URL", endpoint)
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_MAX_ATTEMPTS", "2")
    patch.setenv("AWS_CONFIG_FILE", "/dev/null")
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        patch.delenv(name, raising=False)
