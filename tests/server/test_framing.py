import socket
from urllib.parse import urlsplit

from tests.server.live import ENDPOINT, LiveServer


def test_a_body_with_two_lengths_is_refused_and_the_connection_closed(server: LiveServer) -> None:
    url = urlsplit(server.url)
    head = (
        f"POST /queue/{ENDPOINT} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: {server.headers['Authorization']}\r\n"
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        "GET /health/live HTTP/1.1\r\nHost: smuggled\r\n\r\n"
    )
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"must not have both" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
