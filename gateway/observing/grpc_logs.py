"""What gRPC's Python part writes into the log, without what clients have sent: a broken header may be a key."""

import logging


def hide_what_clients_sent() -> None:
    logging.getLogger("grpc._cython.cygrpc").addFilter(_holds_nothing_sent)


def _holds_nothing_sent(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Invalid encoding")
