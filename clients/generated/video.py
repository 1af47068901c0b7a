"""Makes a video with the clients of openapi-python-client, once for each document: python video.py SERVER KEY"""

import sys
from typing import Any
from uuid import UUID

import own_client
import queue_client
from own_client.api.queue import (
    read_result_owner_alias_path_requests_request_id_get,
    read_status_owner_alias_path_requests_request_id_status_get,
    submit_owner_alias_path_post,
)
from own_client.models import QueueStatus as OwnStatus
from own_client.models import (
    ReadResultOwnerAliasPathRequestsRequestIdGetResponse200,
    SubmitOwnerAliasPathPostBody,
)
from queue_client.api.default import read_output, read_status, submit
from queue_client.models import LtxVideoLoraMulticonditioningInput as Input
from queue_client.models import LtxVideoLoraMulticonditioningOutput as Output
from queue_client.models import QueueStatus, QueueStatusStatus

APPLICATION = ("fal-ai", "ltx-video-lora", "multiconditioning")


def by_queue_document(server: str, key: str) -> str:
    client = queue_client.AuthenticatedClient(f"{server}/queue", key, prefix="Key")
    submitted = submit.sync(client=client, body=Input(prompt="a fox"))
    assert isinstance(submitted, QueueStatus)
    request_id = UUID(submitted.request_id)
    while True:
        status = read_status.sync(request_id, client=client, logs=1)
        assert isinstance(status, QueueStatus)
        if status.status is QueueStatusStatus.COMPLETED:
            break
    assert isinstance(status.logs, list)
    print("; ".join(line.message for line in status.logs))
    output = read_output.sync(request_id, client=client)
    assert isinstance(output, Output)
    return output.video.url


def by_own_document(server: str, key: str) -> Any:
    client = own_client.AuthenticatedClient(server, key, prefix="Key")
    body = SubmitOwnerAliasPathPostBody.from_dict({"prompt": "a fox"})
    submitted = submit_owner_alias_path_post.sync(*APPLICATION, client=client, body=body)
    assert isinstance(submitted, OwnStatus)
    request = (*APPLICATION, submitted.request_id)
    while True:
        status = read_status_owner_alias_path_requests_request_id_status_get.sync(*request, client=client)
        assert isinstance(status, OwnStatus)
        if status.status == "COMPLETED":
            break
    output = read_result_owner_alias_path_requests_request_id_get.sync(*request, client=client)
    assert isinstance(output, ReadResultOwnerAliasPathRequestsRequestIdGetResponse200)
    return output["video"]["url"]


if __name__ == "__main__":
    print(by_queue_document(*sys.argv[1:]))
    print(by_own_document(*sys.argv[1:]))
