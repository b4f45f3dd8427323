"""Messages between the engine, the zygote and a contained child: length-prefixed JSON, never pickle."""

import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")


def send_message(connection: socket.socket, message: Any) -> None:
    payload = json.dumps(message).encode()
    connection.sendall(_LENGTH.pack(len(payload)) + payload)


def receive_message(connection: socket.socket) -> Any:
    """The next message. Raises EOFError when the other side is gone."""
    (length,) = _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size))
    return json.loads(_receive_exactly(connection, length))


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise EOFError("the other side closed the connection")
        received += piece
    return bytes(received)
