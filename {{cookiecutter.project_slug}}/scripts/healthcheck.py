"""Ask the app in this container whether it is alive: exit code 0 if so. The image has no curl."""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("UVICORN_PORT", "8000")), timeout=3)
try:
    connection.request("GET", "/health")
    sys.exit(connection.getresponse().status != http.HTTPStatus.OK)
except OSError as error:
    sys.exit(f"/health: {error}")
