"""The server behind `python -m library.report --watch FOLDER`: this machine only, pages only, nothing is changed."""

from __future__ import annotations

import logging
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from library.errors import UserError
from library.report.all_runs.pages import comparison_page, overview_page, stored_page
from library.report.page import POLICY

logger = logging.getLogger(__name__)
HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")


def watch_server(root: Path, port: int) -> ThreadingHTTPServer:
    """A server of the pages below `root`, not yet serving. Raises `UserError` where the port is taken."""
    folder = root.resolve()
    if not folder.is_dir():
        raise UserError(f"`{root}` is not a folder; give one with the output folders of runs in it")

    class Pages(_Pages):
        root = folder

    try:
        return ThreadingHTTPServer((HOST, port), Pages)
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}); give another one with --port") from None


class _Pages(BaseHTTPRequestHandler):
    root: Path
    server_version = "pivot-scripts"
    sys_version = ""

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in HOSTS:  # a page of elsewhere that calls itself ours
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        try:
            page = self._page()
        except (UserError, OSError) as error:
            logger.warning("the page of %s cannot be made: %s", self.path, error)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content = page.encode("utf-8", "backslashreplace")
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", POLICY),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _page(self) -> str | None:
        asked = urlsplit(self.path)
        if asked.path == "/":
            return overview_page(self.root)
        if asked.path.startswith("/page/"):
            return stored_page(self.root, unquote(asked.path.removeprefix("/page/")))
        if asked.path == "/compare":
            query = parse_qs(asked.query)
            return comparison_page(self.root, query.get("a", [""])[0], query.get("b", [""])[0])
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a page that reloads itself would fill the terminal."""
