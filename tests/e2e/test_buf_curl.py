"""A client with no proto files at all: buf curl, by reflection alone."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.rpc import error_details_pb2

BUF = shutil.which("buf", path=str(Path(sys.executable).parent)) or "buf"


def buf_curl(address: str, method: str, message: dict) -> subprocess.CompletedProcess[str]:
    url = f"http://{address}/qwen3.inference.v1.{method}"
    command = [
        BUF,
        "curl",
        "--http2-prior-knowledge",
        "--protocol",
        "grpc",
        "--reflect",
        "-d",
        json.dumps(message),
        url,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_embed_with_a_list_of_floats(address):
    message = {"inputs": ["hello"], "config": {"dimensions": 32, "encoding": "VECTOR_ENCODING_FLOAT_LIST"}}
    done = buf_curl(address, "EmbeddingService/Embed", message)
    assert done.returncode == 0, done.stderr
    (embedding,) = json.loads(done.stdout)["embeddings"]
    assert sum(value * value for value in embedding["values"]) == pytest.approx(1, abs=1e-5)


def test_rerank(address):
    message = {"query": "capital of China", "documents": ["Beijing", "gravity"], "topN": 1, "returnDocuments": True}
    done = buf_curl(address, "RerankService/Rerank", message)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert 0 < result["score"] < 1
    assert result["document"] == message["documents"][result.get("index", 0)]


def test_an_error_with_its_details(address):
    done = buf_curl(address, "EmbeddingService/Embed", {"inputs": ["a", " "]})
    assert done.returncode != 0
    error = json.loads(done.stderr)
    assert error["code"] == "invalid_argument"
    details = {detail["type"]: base64.b64decode(detail["value"] + "==") for detail in error["details"]}
    bad_request = error_details_pb2.BadRequest.FromString(details["google.rpc.BadRequest"])
    assert bad_request.field_violations[0].field == "inputs[1]"
    info = error_details_pb2.ErrorInfo.FromString(details["google.rpc.ErrorInfo"])
    assert (info.domain, info.reason) == ("qwen3.inference", "INVALID_FIELD")
