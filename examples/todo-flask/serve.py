"""Runs the application with the best server that is installed.

gunicorn, if it is there; else the threaded server that comes with Flask, which is
enough behind nginx for a demonstration and no more. TODO_SERVER names one of them
(gunicorn, werkzeug). The other settings are those of the Go example: TODO_ADDR, TODO_DATA, DATABASE_URL, TODO_LOG, TODO_VERSION, TODO_ZONE,
AWS_EC2_METADATA_DISABLED. SIGTERM lets requests under way finish.
"""

import importlib.util
import json
import logging
import logging.handlers
import os
import signal
import sys
import threading
import time

from app import create_app, log


class JsonLines(logging.Formatter):
    def format(self, record):
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": at, "level": record.levelname, "msg": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def open_log(path):
    # WatchedFileHandler opens the file anew when it was rotated away.
    handler = logging.handlers.WatchedFileHandler(path) if path else logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def data_directory(environ):
    shared = "/var/lib/todo"
    return environ.get("TODO_DATA") or (shared if os.access(shared, os.W_OK) else "data")


def choose(wanted):
    names = [wanted] if wanted else ["gunicorn", "werkzeug"]
    for name in names:
        if name in ("gunicorn", "werkzeug") and importlib.util.find_spec(name):
            return name
    sys.exit(f"todo: TODO_SERVER={wanted}: not installed; gunicorn and werkzeug are known")


def with_gunicorn(app, host, port, started):
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):
        def load_config(self):
            # One process with threads: idle memory matters more here than many cores.
            for name, value in {"bind": f"{host}:{port}", "workers": 1, "threads": 8, "keepalive": 75,
                                "graceful_timeout": 10, "accesslog": None, "loglevel": "warning"}.items():
                self.cfg.set(name, value)

        def load(self):  # in the worker: a thread of the master would not be in it
            started()
            return app

    Application().run()


def with_werkzeug(app, host, port, started):
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.0"  # a connection each: no idle thread is waited for at the end
        timeout = 30

        def log(self, *_):
            pass  # the application writes a line for each request itself

    server = make_server(host, int(port), app, threaded=True, request_handler=Handler)
    server.daemon_threads = False  # server_close waits for the requests under way

    def stop(*_):
        app.stopping = True
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    started()
    server.serve_forever(poll_interval=0.02)
    server.server_close()


def main(environ=os.environ):
    open_log(environ.get("TODO_LOG"))
    host, _, port = environ.get("TODO_ADDR", "127.0.0.1:5000").rpartition(":")
    server = choose(environ.get("TODO_SERVER"))
    try:
        app = create_app(data_directory(environ), environ.get("DATABASE_URL", ""))
    except Exception as e:
        log.error("cannot start: %r", e)
        sys.exit(f"todo: {e}")

    def started():
        if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
            app.instance.find_zone(environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254")

    log.info("serving", extra={"fields": {"address": f"{host}:{port}", "server": server, "version": app.instance.version,
                                          "instance": app.instance.host, "database": app.store.engine}})
    {"gunicorn": with_gunicorn, "werkzeug": with_werkzeug}[server](app, host, port, started)
    log.info("stopped")


if __name__ == "__main__":
    main()
