"""What a page tells about the machine that served it."""

import os
import socket
import threading
import time
import urllib.request
import zlib


class Instance:
    def __init__(self, environ=os.environ):
        self.host = socket.gethostname()
        self.version = environ.get("TODO_VERSION") or read_version()
        self.zone = environ.get("TODO_ZONE", "")

    @property
    def short(self):
        """The version as people write it: the first seven digits of a commit."""
        v = self.version
        return v[:7] if len(v) >= 40 and not v.strip("0123456789abcdef") else v

    @property
    def hue(self):
        """One of twelve colours by host name: another instance's answer is seen at a glance."""
        return zlib.crc32(self.host.encode()) % 12

    def find_zone(self, endpoint="http://169.254.169.254"):
        """Asks the metadata service beside the server; no page waits for it."""
        if not self.zone:
            threading.Thread(target=self._find_zone, args=(endpoint.rstrip("/"),), daemon=True).start()

    def _find_zone(self, endpoint):
        for attempt in range(3):
            try:
                token = ask(endpoint + "/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
                self.zone = ask(endpoint + "/latest/meta-data/placement/availability-zone", "GET",
                                {"X-aws-ec2-metadata-token": token})
                return
            except (OSError, ValueError):
                time.sleep(attempt + 1)


def ask(url, method, headers):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, method=method, headers=headers), timeout=1) as r:
        text = r.read(1024).decode("ascii").strip()
    if not text or any(c in text for c in "<>\r\n"):
        raise ValueError("not what a metadata service answers")
    return text


def read_version():
    try:
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "VERSION")) as f:
            return f.read().strip() or "dev"
    except OSError:
        return "dev"
