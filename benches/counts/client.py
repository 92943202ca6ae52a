"""A client that asks over one kept connection, one request at a time, and an application that answers: with as little as
possible that could differ from one run to the next. Each request is one write, and each answer is read whole and judged.
"""

import contextlib
import socket
import ssl
import threading

DEADLINE = 60
BODY = b"x" * 1024
# As nginx answers for a file.
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 01 Mar 2026 12:00:00 GMT\r\nContent-Type: text/html\r\n"
    b"Content-Length: 1024\r\nLast-Modified: Sun, 01 Feb 2026 12:00:00 GMT\r\nConnection: keep-alive\r\n"
    b'ETag: "697f3d40-400"\r\nAccept-Ranges: bytes\r\n\r\n' + BODY
)


class Application:
    """Answers every request with 1 KiB."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    @staticmethod
    def serve(connection):
        read = b""
        with connection, contextlib.suppress(ConnectionError):
            while (some := connection.recv(65536)):
                read += some
                while b"\r\n\r\n" in read:
                    read = read.partition(b"\r\n\r\n")[2]
                    connection.sendall(ANSWER)


class Http1:
    """Asks for `/app/page` over HTTP/1.1."""

    def __init__(self, port, token=None, expected=200, tls=False):
        self.expected = expected
        self.socket = connect(port, "http/1.1" if tls else None)
        fields = {"Host": "apps.example.com", "User-Agent": "counts", "Accept": "*/*"}
        if token:
            fields["Authorization"] = f"Bearer {token}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.request = f"GET {path(token, expected)} HTTP/1.1\r\n{lines}\r\n".encode()
        self.read = b""

    def ask(self):
        self.socket.sendall(self.request)
        while b"\r\n\r\n" not in self.read:
            self.more()
        head, _, self.read = self.read.partition(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").lower().split("\r\n")
        [length] = [int(field.partition(":")[2]) for field in fields if field.startswith("content-length:")]
        while len(self.read) < length:
            self.more()
        body, self.read = self.read[:length], self.read[length:]
        assert status.split()[1] == str(self.expected), f"{status} for {self.expected}: {body.decode()}"
        assert self.expected != 200 or body == BODY, "another body"

    def more(self):
        some = self.socket.recv(65536)
        assert some, "the gateway has closed the connection"
        self.read += some


class Http2:
    """The same over HTTP/2 and TLS. The fields of a request stand in the table that both ends keep, as those of a browser
    do: the first request puts them there (RFC 7541, sections 6.1 and 6.2.1)."""

    def __init__(self, port, token):
        self.socket = connect(port, "h2")
        self.stream, self.read = 1, b""
        fields = [(":path", path(token, 200)), (":authority", "apps.example.com"), ("user-agent", "counts"), ("accept", "*/*"),
                  ("authorization", f"Bearer {token}")]
        # `:method: GET` and `:scheme: https` stand in the table of the standard.
        self.block = b"\x82\x87" + b"".join(b"\x40" + string(name) + string(value) for name, value in fields)
        self.kept = b"\x82\x87" + bytes(0x80 | FIRST_OF_OURS + place for place in reversed(range(len(fields))))
        settings, window = frame(SETTINGS, 0, 0, b""), frame(WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big"))
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + window)

    def ask(self):
        self.socket.sendall(frame(HEADERS, END_STREAM | END_HEADERS, self.stream, self.block))
        self.block, body, status = self.kept, b"", None
        while True:
            kind, flags, stream, payload = self.next_frame()
            if kind == SETTINGS and not flags & ACK:
                self.socket.sendall(frame(SETTINGS, ACK, 0, b""))
            assert kind not in (RST_STREAM, GOAWAY), f"the gateway has ended stream {stream}: {payload}"
            if stream != self.stream:
                continue
            if kind == HEADERS:
                # `:status: 200` of the standard's table stands first, but for a new size of our table.
                status = next(byte for byte in payload if byte >> 5 != 1)
            if kind == DATA:
                body += payload
            if flags & END_STREAM:
                break
        assert status == STATUS_200 and body == BODY, f"another answer: {status}, {body}"
        self.stream += 2

    def next_frame(self):
        while len(self.read) < 9 or len(self.read) < 9 + int.from_bytes(self.read[:3], "big"):
            some = self.socket.recv(65536)
            assert some, "the gateway has closed the connection"
            self.read += some
        length = int.from_bytes(self.read[:3], "big")
        kind, flags, stream = self.read[3], self.read[4], int.from_bytes(self.read[5:9], "big")
        payload, self.read = self.read[9:9 + length], self.read[9 + length:]
        return kind, flags, stream, payload


def path(token, expected):
    return "/app/page" if token or expected != 200 else "/public/page"


def connect(port, protocol):
    """With TLS if a protocol is named."""
    plain = socket.create_connection(("127.0.0.1", port), DEADLINE)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if protocol is None:
        return plain
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([protocol])
    wrapped = context.wrap_socket(plain, server_hostname="localhost")
    assert wrapped.selected_alpn_protocol() == protocol, "another protocol"
    return wrapped


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def string(text):
    """Without Huffman's code; a length of 127 and more goes on in bytes of seven bits (RFC 7541, section 5.1)."""
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, length = len(data) - 127, bytearray([127])
    while rest >= 128:
        length.append(rest % 128 | 128)
        rest //= 128
    return bytes(length) + bytes([rest]) + data


DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 7, 8
END_STREAM = ACK = 1
END_HEADERS = 4
STATUS_200 = 0x88
# Places 1 to 61 are the standard's; what came last stands first.
FIRST_OF_OURS = 62
