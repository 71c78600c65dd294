"""A small list of things to do: a REST interface, a page, and a health check."""

import hashlib
import json
import logging
import os
import time
from urllib.parse import urlencode, urlsplit

from flask import Flask, Response, abort, g, jsonify, redirect, render_template, request
from werkzeug.exceptions import HTTPException

from instance import Instance
from store import NotFound, Store

MAX_TITLE = 200  # characters
MAX_BODY = 16 << 10  # bytes
PAGE_SIZE = 100  # tasks
STATUSES = ("all", "open", "done")
POLICY = ("default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
          "form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
log = logging.getLogger("todo")


class ApiError(Exception):
    def __init__(self, status, code, message, field=""):
        super().__init__(message)
        self.status, self.code, self.message, self.field = status, code, message, field


def invalid(field, message):
    return ApiError(400, "validation_failed", message, field)


def not_found(message="There is no such task."):
    return ApiError(404, "not_found", message)


def clean_title(value):
    """Trims a title and checks it: 1 to MAX_TITLE characters on one line."""
    if not isinstance(value, str):
        raise invalid("title", "title must be a string")
    value = value.strip()
    if not value:
        raise invalid("title", "title must not be empty")
    if len(value) > MAX_TITLE:
        raise invalid("title", f"title has {len(value)} characters; at most {MAX_TITLE} are allowed")
    if any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in value):
        raise invalid("title", "title must be one line without control characters")
    return value


def task_id(text):
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:20]) < 1 << 63:
        raise not_found(f"There is no task {text!r}; ids are whole numbers from 1.")
    return int(text)


def read_change():
    """Reads {"title": string, "done": bool}: nothing else, and no null."""
    if request.mimetype not in ("application/json", "application/merge-patch+json"):
        raise ApiError(415, "unsupported_media_type", "Content-Type must be application/json.")
    body = request.get_data()
    if not body.strip():
        raise ApiError(400, "invalid_json", "The body is empty; a JSON object is expected.")
    try:
        fields = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise ApiError(400, "invalid_json", "The body is not valid UTF-8.") from None
    except (ValueError, RecursionError) as e:
        raise ApiError(400, "invalid_json", f"The body is not JSON: {e}.") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "invalid_json", "The body must be one complete JSON object.")
    change = {}
    for name, value in fields.items():
        if name == "title":
            change[name] = clean_title(value)
        elif name == "done":
            if not isinstance(value, bool):
                raise invalid(name, "done must be true or false")
            change[name] = value
        else:
            raise invalid(name, f"unknown field {name!r}; a task has title and done")
    return change


def number(name, default, highest):
    text = request.args.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:20]) <= highest:
        raise invalid(name, f"{name} must be a whole number from 1 to {highest}, not {text!r}")
    return int(text)


def create_app(directory=None, database_url="", instance=None):
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.store = Store(directory or "data", database_url)
    app.instance = instance or Instance()
    app.assets = load_assets(os.path.join(app.root_path, "static"))
    app.stopping = False
    around(app)
    rest(app)
    page(app)
    return app


def around(app):
    """What every request gets: the origin check, headers, a line in the log, JSON errors."""

    @app.before_request
    def same_origin():
        g.start = time.perf_counter()
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        # Forms of other sites cannot change anything here.
        site = request.headers.get("Sec-Fetch-Site")
        origin = request.headers.get("Origin")
        if site is not None:
            good = site in ("same-origin", "none")
        else:
            good = origin is None or urlsplit(origin).netloc == request.host
        if not good:
            raise ApiError(403, "cross_origin", "Requests from other sites are refused.")
        # Older versions of Flask look at MAX_CONTENT_LENGTH for forms only.
        if request.content_length is None and "Transfer-Encoding" in request.headers:
            abort(411)
        if (request.content_length or 0) > MAX_BODY:
            abort(413)

    @app.after_request
    def headers(response):
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.update({
            "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
            "X-Served-By": app.instance.host, "X-Todo-Version": app.instance.version})
        if request.path != "/healthz" or response.status_code != 200:  # those are several a second, all alike
            log.log(logging.ERROR if response.status_code >= 500 else logging.INFO, "request", extra={"fields": {
                "method": request.method, "path": request.path, "status": response.status_code,
                "ms": round((time.perf_counter() - g.get("start", time.perf_counter())) * 1000, 3),
                "client": request.headers.get("X-Forwarded-For", request.remote_addr or "").split(",")[0].strip(),
                "trace": request.headers.get("X-Amzn-Trace-Id", "")}})
        return response

    @app.errorhandler(ApiError)
    def api_error(e):
        body = {"code": e.code, "message": e.message}
        if e.field:
            body["field"] = e.field
        return jsonify(error=body), e.status

    @app.errorhandler(NotFound)
    def no_task(_):
        return api_error(not_found())

    @app.errorhandler(HTTPException)
    def http_error(e):
        known = {404: ("not_found", f"There is nothing at {request.path}."),
                 405: ("method_not_allowed", f"{request.method} is not allowed here."),
                 411: ("length_required", "The request must say how long its body is."),
                 413: ("body_too_large", f"The body has more than {MAX_BODY} bytes.")}
        code, message = known.get(e.code, ("http_error", e.description))
        response, status = api_error(ApiError(e.code, code, message))
        if e.code == 405 and e.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(m for m in e.valid_methods if m != "OPTIONS"))
        return response, status

    @app.errorhandler(Exception)
    def internal(e):
        log.error("request failed: %r", e, exc_info=e, extra={"fields": {"path": request.path}})
        return api_error(ApiError(500, "internal", "The server could not do this; its log says why."))


def rest(app):
    store = app.store

    @app.get("/tasks")
    def list_tasks():
        for name in request.args:
            if name not in ("status", "before", "limit"):
                raise invalid(name, f"unknown parameter {name!r}; there are status, before and limit")
        status = request.args.get("status") or "all"
        if status not in STATUSES:
            raise invalid("status", f"status must be all, open or done, not {status!r}")
        tasks, following = store.list(status, number("before", 0, 1 << 62), number("limit", 100, 500))
        body = {"tasks": tasks, "counts": store.counts()}
        if following:
            body["next"] = following
        return jsonify(body)

    @app.post("/tasks")
    def create_task():
        change = read_change()
        if "title" not in change:
            raise invalid("title", "title is required")
        task = store.create(**change)
        return jsonify(task), 201, {"Location": f"/tasks/{task['id']}"}

    @app.get("/tasks/<id>")
    def get_task(id):
        return jsonify(store.get(task_id(id)))

    @app.put("/tasks/<id>")
    def put_task(id):
        number, change = task_id(id), read_change()
        if "title" not in change:
            raise invalid("title", "title is required; PATCH changes single fields")
        return jsonify(store.update(number, **{"done": False, **change}))

    @app.patch("/tasks/<id>")
    def patch_task(id):
        number, change = task_id(id), read_change()
        if not change:
            raise invalid("", "nothing to change: give title, done or both")
        return jsonify(store.update(number, **change))

    @app.delete("/tasks/<id>")
    def delete_task(id):
        store.delete(task_id(id))
        return "", 204

    @app.get("/healthz")
    def healthz():
        status, text = 200, "ok"
        try:
            store.check()
            if app.stopping:
                status, text = 503, "stopping"
        except Exception as e:  # whatever a database driver may raise
            log.error("health check failed: %r", e)
            status, text = 503, "database unavailable"
        i = app.instance
        # Written with json.dumps and no spaces: validate.sh looks for "version":"...".
        body = json.dumps({"status": text, "version": i.version, "instance": i.host, "zone": i.zone,
                           "database": store.engine}, separators=(",", ":"))
        return Response(body + "\n", status, mimetype="application/json")


def load_assets(directory):
    """Name -> (content, digest, type) of each file; the digest lets browsers keep it for ever."""
    kinds = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assets = {}
    for name in os.listdir(directory):
        with open(os.path.join(directory, name), "rb") as f:
            content = f.read()
        assets[name] = (content, hashlib.sha256(content).hexdigest()[:12], kinds[os.path.splitext(name)[1]])
    return assets


def here(status, before, **more):
    q = {k: v for k, v in (("status", status if status != "all" else ""), ("before", before)) if v}
    q.update(more)
    return "/?" + urlencode(q) if q else "/"


def where(values):
    """The part of the list that a form or a link was in; nonsense is the start."""
    status, before = values.get("status", "all"), values.get("before", "")
    return (status if status in STATUSES else "all",
            int(before) if before.isascii() and before.isdigit() and len(before) < 19 else 0)


def ago(created, now=None):
    """Roughly how long ago."""
    then = time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S")
    minutes = ((now or time.time()) - time.mktime(then) + time.timezone) / 60
    if minutes < 1:
        return "just now"
    for size, unit, limit in ((1, "min", 60), (60, "h", 24 * 60), (24 * 60, "d", 7 * 24 * 60)):
        if minutes < limit:
            return f"{int(minutes // size)} {unit} ago"
    return time.strftime("%d %b %Y", then).lstrip("0")


def page(app):
    store = app.store

    def asset(name):
        return f"/static/{app.assets[name][1]}/{name}"

    def render(values, code=200, edit=0, draft="", error="", error_id=0):
        status, before = where(values)
        tasks, following = store.list(status, before, PAGE_SIZE)
        theme = request.cookies.get("todo-theme", "")
        counts = store.counts()
        return render_template(
            "page.html", tasks=tasks, next=following, counts=counts, total=counts["open"] + counts["done"],
            status=status, before=before, edit=edit, draft=draft, error=error, error_id=error_id,
            theme=theme if theme in ("light", "dark") else "auto", instance=app.instance, max=MAX_TITLE,
            here=here, asset=asset, ago=ago), code

    def action(do, id="0"):
        """Runs what a form asks for and sends the browser back to the list; what was refused is shown with what was typed."""
        number = task_id(id) if id != "0" else 0
        try:
            do(number)
        except ApiError as e:
            if e.field != "title":
                raise
            return render(request.form, 422, number, request.form.get("title", ""), e.message[:1].upper() + e.message[1:] + ".", number)
        except NotFound:
            return render(request.form, 404, error="That task is gone: somebody else deleted it.")
        return redirect(here(*where(request.form)), 303)

    def title():
        return clean_title(request.form.get("title", ""))

    @app.get("/")
    def index():
        edit = request.args.get("edit", "")
        return render(request.args, edit=int(edit) if edit.isascii() and edit.isdigit() and len(edit) < 19 else 0)

    @app.post("/add")
    def add():
        return action(lambda _: store.create(title()))

    @app.post("/edit/<id>")
    def edit(id):
        return action(lambda n: store.update(n, title=title()), id)

    @app.post("/tick/<id>")
    def tick(id):
        done = request.form.get("done")
        if done not in ("true", "false"):
            raise ApiError(400, "invalid_form", "done must be true or false.")
        return action(lambda n: store.update(n, done=done == "true"), id)

    @app.post("/delete/<id>")
    def delete(id):
        def do(n):
            try:
                store.delete(n)
            except NotFound:
                pass  # somebody else was quicker, and it is gone as wished
        return action(do, id)

    @app.post("/clear")
    def clear():
        return action(lambda _: store.delete_done())

    @app.post("/theme")
    def theme():
        response = redirect(here(*where(request.form)), 303)
        if request.form.get("theme") in ("light", "dark"):
            response.set_cookie("todo-theme", request.form["theme"], max_age=365 * 24 * 3600, httponly=True, samesite="Lax")
        else:
            response.delete_cookie("todo-theme")
        return response

    @app.get("/static/<digest>/<name>")
    def static_file(digest, name):
        if name not in app.assets:
            abort(404)
        content, current, kind = app.assets[name]
        # During a deployment the page may be another version's: not to be kept under its address.
        keep = "public, max-age=31536000, immutable" if digest == current else "no-store"
        return Response(content, content_type=kind + "; charset=utf-8", headers={"Cache-Control": keep})

    @app.get("/favicon.ico")
    def favicon():
        return redirect(asset("icon.svg"), 302)
