"""URLs as the stores' own libraries sign them, and an origin that checks the signatures of S3."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import os
import time
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit

import boto3
from azure.storage.blob import BlobSasPermissions, generate_blob_sas
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as Keys
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.storage import Client  # type: ignore[import-untyped]
from google.oauth2.service_account import Credentials as ServiceAccount

from tests.origins import Behaviour, ScriptedOrigin

REGION = "us-east-1"
# The key that every Azurite has, published with it.
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def s3(endpoint: str, who: str = "k", *, version: str = "s3v4", expires: int = 600, **params: Any) -> str:
    """Of `bucket/set/a.bin`, as boto3 signs it; `version` is `s3` or `s3v4`."""
    client: Any = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=who,
        aws_secret_access_key="s",
        aws_session_token=f"session-{who}",
        config=Config(signature_version=version, s3={"addressing_style": "path"}),
    )
    asked = {"Bucket": "bucket", "Key": "set/a.bin", **params}
    return str(client.generate_presigned_url("get_object", Params=asked, ExpiresIn=expires))


@cache
def _service_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *form).decode()


def gcs(who: str = "a", *, version: str = "v4", expires: int = 600, **options: Any) -> str:
    """Of `bucket/set/a.bin`, as Google's library signs it; `version` is `v2` or `v4`."""
    account: Any = ServiceAccount.from_service_account_info(  # type: ignore[no-untyped-call]
        {"client_email": f"{who}@p.iam", "token_uri": "https://h/t", "private_key": _service_key()}
    )
    blob: Any = Client(project="p", credentials=account).bucket("bucket").blob("set/a.bin")
    until = datetime.timedelta(seconds=expires)
    return str(blob.generate_signed_url(version=version, expiration=until, **options))


def azure(
    endpoint: str, *, expires: int = 600, key: str = AZURE_KEY, name: str = "a.bin", **options: Any
) -> str:
    """Of a blob in `container`, as Azure's library signs it."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=expires)
    sas = generate_blob_sas(
        account_name="devstoreaccount1",
        container_name="container",
        blob_name=name,
        account_key=key,
        permission=BlobSasPermissions(read=True),
        expiry=until,
        **options,
    )
    return f"{endpoint}/container/{quote(name)}?{sas}"


def _hmac(text: str) -> str:
    return base64.b64encode(hmac.new(b"s", text.encode(), hashlib.sha1).digest()).decode()


def keyed(url: str, key_name: str, *, expires: int = 600, **more: str) -> str:
    """As OSS (v1), OBS and others sign: a key's name, a time, a signature."""
    until = str(int(time.time()) + expires)
    fields = {key_name: f"id-{os.urandom(4).hex()}", "Expires": until, **more}
    fields["Signature"] = _hmac(f"GET\n{until}\n{urlsplit(url).path}")
    return f"{url}{'&' if '?' in url else '?'}{urlencode(fields)}"


def oss4(url: str) -> str:
    """As OSS signs in its version 4."""
    fields = {
        "x-oss-signature-version": "OSS4-HMAC-SHA256",
        "x-oss-credential": f"id-{os.urandom(4).hex()}/20261130/cn-hangzhou/oss/aliyun_v4_request",
        "x-oss-date": f"20261130T0{os.urandom(1)[0] % 10}0000Z",
        "x-oss-expires": "600",
        "x-oss-security-token": os.urandom(8).hex(),
        "x-oss-signature": os.urandom(32).hex(),
    }
    return f"{url}{'&' if '?' in url else '?'}{urlencode(fields)}"


def cos(url: str) -> str:
    """As Tencent's COS signs."""
    now = int(time.time()) + os.urandom(1)[0]
    fields = {
        "q-sign-algorithm": "sha1",
        "q-ak": os.urandom(8).hex(),
        "q-sign-time": f"{now};{now + 600}",
        "q-key-time": f"{now};{now + 600}",
        "q-header-list": "host",
        "q-url-param-list": "",
        "q-signature": os.urandom(20).hex(),
        "x-cos-security-token": os.urandom(8).hex(),
    }
    return f"{url}{'&' if '?' in url else '?'}{urlencode(fields)}"


class SigningOrigin(ScriptedOrigin):
    """One object of S3 at `bucket/set/a.bin`: 403 to whoever has no valid signature (version 4) for it.

    `now` is the time by which signatures expire.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(behaviour)
        self.now: Callable[[], float] = time.time
        self.refused = 0
        self.queries: list[str] = []

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.queries.append(urlsplit(handler.path).query)
        if self._signed(handler):
            super().answer(handler)
            return
        self.refused += 1
        handler.send_response(403)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _signed(self, handler: BaseHTTPRequestHandler) -> bool:
        parts = urlsplit(handler.path)
        given = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if not {"X-Amz-Signature", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Credential"} <= given.keys():
            return False
        begun = datetime.datetime.strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%S%z").timestamp()
        if self.now() > begun + int(given["X-Amz-Expires"]):
            return False
        fields = [(n, v) for n, v in parse_qsl(parts.query, keep_blank_values=True) if n != "X-Amz-Signature"]
        host = handler.headers["Host"]
        asked: Any = AWSRequest("GET", f"http://{host}{parts.path}?{urlencode(fields, quote_via=quote)}")
        asked.headers["host"] = host
        asked.context["timestamp"] = given["X-Amz-Date"]
        who = given["X-Amz-Credential"].partition("/")[0]
        auth: Any = S3SigV4QueryAuth(Keys(who, "s"), "s3", REGION)
        right = auth.signature(auth.string_to_sign(asked, auth.canonical_request(asked)), asked)
        return hmac.compare_digest(right, given["X-Amz-Signature"])
