"""Who looks at the viewer's live page, without a browser: it asks for what the page asks for."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import suppress


class Looker:
    """Looks at all tiles of the live page, as the page itself does; or asks for them, and then `reads` nothing."""

    def __init__(self, tiles: int, *, reads: bool) -> None:
        self.pictures = 0
        """That came."""
        self._tiles = tiles
        self._reads = reads
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, url: str) -> None:
        """Look, from now on."""
        self._thread = threading.Thread(target=self._look, args=(url,))
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self, url: str) -> None:
        # Here, as only the viewer's extra brings it.
        from websockets.exceptions import ConnectionClosed
        from websockets.sync.client import connect
        from websockets.typing import Origin

        address, _, token = url.partition("/?token=")
        opened = http.client.HTTPConnection(address.removeprefix("http://"))
        opened.request("GET", f"/?token={token}")
        cookie = str(opened.getresponse().headers["set-cookie"]).partition(";")[0]
        with suppress(ConnectionClosed), connect(
            f"{address.replace('http', 'ws')}/ws", additional_headers={"Cookie": cookie}, origin=Origin(address)
        ) as page:  # fmt: skip
            page.send(json.dumps({"type": "subscribe", "after": None}))
            workers: list[str] = []
            while len(workers) < self._tiles:
                said = json.loads(page.recv())
                workers = [worker["id"] for worker in said["workers"]] if said["type"] == "workers" else workers
            page.send(json.dumps({"type": "watch", "workers": workers, "fps": 10}))
            if not self._reads:
                self._over.wait()
            while self._reads:
                received = page.recv()
                if isinstance(received, bytes):
                    self.pictures += 1
                    header = json.loads(received[4 : 4 + int.from_bytes(received[:4], "little")])
                    page.send(json.dumps({"type": "ack", "picture": header["picture"]}))
