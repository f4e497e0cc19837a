"""Takes what OpenTelemetry sends and throws it away: ``receiver.py PORT``."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers each POST with 200."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read it all, since the sender keeps the connection."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library's own name
        """Say nothing."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
