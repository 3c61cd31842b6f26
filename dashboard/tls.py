"""TLS for a server that has none: a listening socket whose connections are read in the clear.

Waitress knows nothing of TLS, so each connection it accepts here is one end of a socket pair. What
goes through the other end is encrypted by asyncio, in one thread for all of them. Neither end holds
more than some buffers, so a client that stops reading stops the server's thread as without TLS, and
one that leaves is noticed as without TLS.
"""

import asyncio
import logging
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from contract.errors import UserError
from contract.tls import server_context

HANDSHAKE_S = 5.0
GOODBYE_S = 2.0
"""How long a client may take to answer the end of a connection."""
CHUNK_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class TlsListener(socket.socket):
    """Takes over a bound socket and serves TLS on it with a certificate, until `end`.

    The certificate is read anew when its file changes; while it cannot be used, the one before
    stays. Raises `UserError` for files that are no certificate with its key.
    """

    def __init__(self, bound: socket.socket, certificate: Path, key: Path | None) -> None:
        self._certificate, self._key = certificate, key
        self._context = server_context(certificate, key)
        self._stamp = self._changed()
        super().__init__(bound.family, bound.type, bound.proto, bound.detach())
        # A loop knows its tasks weakly only: without this, some would be collected while they wait.
        self._carried: set[Future[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="tls", daemon=True)
        self._thread.start()

    def accept(self) -> tuple[socket.socket, object]:
        """A connection in the clear, and the address of the client."""
        client, address = super().accept()
        if self._changed() != self._stamp:
            self._renew()
        clear, ours = socket.socketpair()
        carried = asyncio.run_coroutine_threadsafe(self._carry(client, ours), self._loop)
        self._carried.add(carried)
        carried.add_done_callback(self._carried.discard)
        return clear, address

    def end(self) -> None:
        """Drop what is connected still."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)

    def _run(self) -> None:
        # `RuntimeError` is how it says that it was stopped.
        with suppress(RuntimeError), asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(asyncio.Event().wait())

    def _changed(self) -> list[int]:
        """When the files were last written to."""
        files = [self._certificate, *([self._key] if self._key else [])]
        try:
            return [file.stat().st_mtime_ns for file in files]
        except OSError:
            return []

    def _renew(self) -> None:
        self._stamp = self._changed()
        try:
            self._context = server_context(self._certificate, self._key)
            log.warning("the renewed TLS certificate is in use")
        except UserError as error:
            log.warning("the TLS certificate in use stays: %s", error)

    async def _carry(self, client: socket.socket, ours: socket.socket) -> None:
        """Pass bytes on between a client and the server, until one of them ends it."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(CHUNK_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        client.setblocking(False)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, client, ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S, ssl_shutdown_timeout=GOODBYE_S,
            )  # fmt: skip
        except OSError:  # no TLS, none that we speak, or none in time
            ours.close()
            return
        transport.set_write_buffer_limits(CHUNK_BYTES)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        clear_reader, clear_writer = await asyncio.open_unix_connection(
            sock=ours, limit=CHUNK_BYTES
        )
        both = [
            asyncio.create_task(_pass_on(reader, clear_writer)),
            asyncio.create_task(_pass_on(clear_reader, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            clear_writer.close()
            writer.close()  # after what is still to be sent
            await asyncio.gather(*both, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # it has left
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
