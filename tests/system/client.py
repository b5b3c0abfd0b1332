"""A bare HTTP client in its own process, to be killed. Imports little, so that it starts in a few milliseconds.

Usage: client.py PORT KEY BODY. Writes each piece of the answer to stdout as it arrives.
"""

import socket
import sys

port, key, body = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
connection = socket.create_connection(("127.0.0.1", port))
head = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
)
connection.sendall(head.encode() + body)
sys.stdout.write("sent\n")
sys.stdout.flush()
while piece := connection.recv(65536):
    sys.stdout.buffer.write(piece)
    sys.stdout.flush()
