"""Greedy clients of a dashboard: more streams than it has, and a steady rain of requests."""

import asyncio
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus

AGAIN_S = 0.5
"""A greedy client asks again this soon, whatever `Retry-After` says."""
CONNECTIONS = 20
"""Kept-alive connections that the requests are spread over."""
PATIENCE_S = 10.0
WRITE_EVERY = 20
"""Every so many requests one is a write."""
PATHS = ("/api/settings", "/api/state", "/readyz", "/api/settings")


@dataclass(slots=True)
class Load:
    """What the clients met: seconds each request took, and statuses; -1 is a broken connection."""

    took_s: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    streams: Counter[int] = field(default_factory=Counter)
    stream_bytes: int = 0


def _request(host: str, path: str, body: bytes | None = None) -> bytes:
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {host}"]
    if body is not None:
        lines += [
            f"Origin: http://{host}", "X-Requested-With: fer-dashboard",
            "Content-Type: application/json", f"Content-Length: {len(body)}",
        ]  # fmt: skip
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


async def _head(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Status and length of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = head.partition("content-length: ")[2].partition("\r\n")[0]
    return int(head.split()[1]), int(length or 0)


async def _stream(host: str, path: str, reads: bool, load: Load) -> None:
    """One client that always wants a stream; one that does not read only holds it."""
    name, _, port = host.partition(":")
    while True:
        plain = socket.socket()
        plain.setblocking(False)
        if not reads:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(plain, (name, int(port)))
            reader, writer = await asyncio.open_connection(sock=plain, limit=2**16)
            try:
                writer.write(_request(host, path))
                status, _ = await _head(reader)
                load.streams[status] += 1
                while status == HTTPStatus.OK:
                    if not reads:
                        writer.transport.pause_reading()  # type: ignore[attr-defined]
                        await asyncio.sleep(PATIENCE_S)
                        break
                    data = await reader.read(2**16)
                    load.stream_bytes += len(data)
                    if not data:
                        break
            finally:
                writer.close()
        except (OSError, EOFError):
            load.streams[-1] += 1
        await asyncio.sleep(AGAIN_S)


class _Asker:
    """One kept-alive connection for requests, one at a time."""

    def __init__(self, host: str, load: Load) -> None:
        self._host, self._load = host, load
        self._free = asyncio.Lock()
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, number: int, due_s: float) -> None:
        """Send request `number`; its time counts from when it was due."""
        path, body = PATHS[number % len(PATHS)], None
        if number % WRITE_EVERY == 0:
            path, body = "/api/settings", b'{"set": {"raw_view": false}}'
        async with self._free:
            try:
                if self._open is None:
                    name, _, port = self._host.partition(":")
                    self._open = await asyncio.open_connection(name, int(port))
                reader, writer = self._open
                writer.write(_request(self._host, path, body))
                status, length = await asyncio.wait_for(_head(reader), PATIENCE_S)
                await reader.readexactly(length)
            except (OSError, EOFError, TimeoutError):
                status, self._open = -1, None
        self._load.answers[status] += 1
        self._load.took_s.append(time.monotonic() - due_s)

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()


async def press(host: str, *, streams: int, rate: float, seconds: float) -> Load:
    """So many stream clients and requests a second for so long, against `host` (`name:port`).

    Of the streams every second is pictures, and every fifth client does not read. Requests are sent
    when they are due, whether or not those before were answered.
    """
    load = Load()
    greedy = [
        asyncio.create_task(
            _stream(host, ("/events", "/stream.mjpg")[k % 2], reads=k % 5 != 0, load=load)
        )
        for k in range(streams)
    ]
    askers = [_Asker(host, load) for _ in range(CONNECTIONS)]
    begun, asked = time.monotonic(), []
    for number in range(round(seconds * rate)):
        due_s = begun + number / rate
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        asked.append(asyncio.create_task(askers[number % CONNECTIONS].ask(number, due_s)))
    await asyncio.gather(*asked)
    for task in greedy:
        task.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)
    for asker in askers:
        asker.close()
    return load
