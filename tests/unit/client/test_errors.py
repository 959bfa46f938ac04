import pickle

import grpc
import pytest

from qwen3_client import InvalidRequestError, Qwen3Error
from qwen3_client.errors import error_of


@pytest.mark.parametrize("code", grpc.StatusCode, ids=lambda code: code.name)
def test_every_status_is_one_of_our_exceptions_also_without_details(code):
    bare = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "a proxy's words")
    error = error_of(bare)
    assert isinstance(error, Qwen3Error)
    assert (error.code, error.reason, error.message) == (code.name, "", "a proxy's words")


def test_errors_survive_pickling():
    error = InvalidRequestError("no", code="INVALID_ARGUMENT", field_violations=(("inputs", "none"),))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
