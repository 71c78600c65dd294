import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from store import Store

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WRITER = """
import sys
from store import Store
s = Store(sys.argv[1])
for i in range(25):
    t = s.create(f"{sys.argv[2]}-{i}")
    s.update(t["id"], done=True)
    print(t["title"])
"""


def test_processes_share_one_file(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), f"w{i}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
               for i in range(3)]
    said = [line for w in writers for line in w.communicate(timeout=60)[0].split()]
    assert [w.returncode for w in writers] == [0, 0, 0]
    assert sorted(said) == sorted(t["title"] for t in Store(tmp_path).list("done", 0, 500)[0])
    assert len(said) == 75


def test_newer_schema_is_no_hindrance(tmp_path):
    old = Store(tmp_path)
    with old._connection() as db:
        db.execute("ALTER TABLE tasks ADD COLUMN priority TEXT NOT NULL DEFAULT 'normal'")
        db.execute("INSERT INTO schema_migrations VALUES (99, 0)")
    for store in (old, Store(tmp_path)):
        assert store.get(store.create("a")["id"])["title"] == "a"


def test_unknown_database(tmp_path):
    with pytest.raises(ValueError) as e:
        Store(tmp_path, "mysql://user:secret@db")
    assert "secret" not in str(e.value)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Metadata(http.server.BaseHTTPRequestHandler):
    """What an instance asks its metadata service for."""

    def answer(self, text):
        self.send_response(200 if text else 401)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self):
        self.answer("token" if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else "")

    def do_GET(self):
        self.answer("eu-west-1c" if self.headers["X-aws-ec2-metadata-token"] == "token" else "")

    def log_message(self, *_):
        pass


@pytest.fixture
def metadata():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("server", ["werkzeug", "gunicorn"])
def test_server_starts_and_stops(tmp_path, server, metadata):
    """SIGTERM lets the request under way finish."""
    if server != "werkzeug":
        pytest.importorskip(server)
    port = free_port()
    env = {**os.environ, "TODO_ADDR": f"127.0.0.1:{port}", "TODO_DATA": str(tmp_path), "TODO_SERVER": server,
           "TODO_LOG": str(tmp_path / "app.log"), "AWS_EC2_METADATA_DISABLED": "", "TODO_ZONE": "",
           "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata}
    p = subprocess.Popen([sys.executable, os.path.join(ROOT, "serve.py")], env=env)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as r:
                    if json.load(r)["zone"] == "eu-west-1c":
                        break
                assert time.monotonic() < deadline
            except OSError:
                assert p.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            s.sendall(b'POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{"title"')
            # The answer to a later connection shows that the earlier one was taken.
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
            p.send_signal(signal.SIGTERM)
            s.sendall(b':"slow"}')
            answer = b""
            while chunk := s.recv(4096):
                answer += chunk
            assert b" 201 " in answer.split(b"\r\n")[0]
        assert p.wait(timeout=15) == 0
        assert [t["title"] for t in Store(tmp_path).list()[0]] == ["slow"]
    finally:
        if p.poll() is None:
            p.kill()
            p.wait()
