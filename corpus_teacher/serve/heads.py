"""What reads requests off the wire: httptools (llhttp) where it is installed, else h11.

httptools takes a quarter of h11's time. It bounds neither the target nor the headers of a request, as h11 does, so a
client could fill the memory with them; here it does.
"""

from __future__ import annotations

import asyncio
from typing import Any

HEAD_BYTES = 64 << 10
"""Of a request's target and headers together; h11's own bound under uvicorn."""


def protocol() -> str | type[asyncio.Protocol]:
    """What uvicorn takes as its `http`."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return "h11"

    class Bounded(HttpToolsProtocol):
        """uvicorn's protocol over httptools, which answers 400 to a head without end."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._messages = self._head_bytes = 0
            self._in_head = False

        def on_message_begin(self) -> None:
            self._messages += 1
            self._head_bytes, self._in_head = 0, True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            before = self._messages
            super().data_received(data)
            if self._in_head and before == self._messages and not self.transport.is_closing():  # all of it is head
                self._head_bytes += len(data)
                if self._head_bytes > HEAD_BYTES:
                    self.send_400_response("The head of this request is too long.")

    return Bounded
