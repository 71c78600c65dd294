import pytest

from app import MAX_BODY, MAX_TITLE
from conftest import COMMIT


def test_life_of_a_task(client):
    r = client.post("/tasks", json={"title": "  buy bread "})
    assert (r.status_code, r.headers["Location"], r.json["title"], r.json["done"]) == (201, "/tasks/1", "buy bread", False)
    r = client.patch("/tasks/1", json={"done": True})
    assert (r.status_code, r.json["title"], r.json["done"]) == (200, "buy bread", True)
    r = client.put("/tasks/1", json={"title": "rye bread"})
    assert (r.json["title"], r.json["done"]) == ("rye bread", False)
    assert client.get("/tasks/1").json["title"] == "rye bread"
    r = client.delete("/tasks/1")
    assert (r.status_code, r.data) == (204, b"")
    assert client.get("/tasks/1").status_code == client.delete("/tasks/1").status_code == 404
    assert client.post("/tasks", json={"title": "next"}).json["id"] == 2  # ids are not used again


@pytest.mark.parametrize("query, titles, following", [
    ("", "cba", None), ("?status=open", "ca", None), ("?status=done", "b", None),
    ("?limit=2", "cb", 2), ("?before=2", "a", None), ("?before=1", "", None)])
def test_listing(client, query, titles, following):
    for title, done in (("a", False), ("b", True), ("c", False)):
        client.post("/tasks", json={"title": title, "done": done})
    r = client.get("/tasks" + query)
    assert "".join(t["title"] for t in r.json["tasks"]) == titles
    assert r.json["counts"] == {"open": 2, "done": 1}
    assert r.json.get("next") == following


@pytest.mark.parametrize("method, path, body, status, code, field, message", [
    ("POST", "/tasks", "{}", 400, "validation_failed", "title", "required"),
    ("POST", "/tasks", '{"title":" "}', 400, "validation_failed", "title", "empty"),
    ("POST", "/tasks", '{"title":null}', 400, "validation_failed", "title", "string"),
    ("POST", "/tasks", '{"title":"a\\nb"}', 400, "validation_failed", "title", "one line"),
    ("POST", "/tasks", '{"title":"\\ud800"}', 400, "validation_failed", "title", "one line"),
    ("POST", "/tasks", '{"title":"' + "ä" * (MAX_TITLE + 1) + '"}', 400, "validation_failed", "title", "201 characters"),
    ("POST", "/tasks", '{"title":"a","done":1}', 400, "validation_failed", "done", "true or false"),
    ("POST", "/tasks", '{"title":"a","urgent":true}', 400, "validation_failed", "urgent", "unknown field"),
    ("POST", "/tasks", '{"title":"a"', 400, "invalid_json", None, "not JSON"),
    ("POST", "/tasks", '{"title":"a"} {}', 400, "invalid_json", None, "not JSON"),
    ("POST", "/tasks", '["a"]', 400, "invalid_json", None, "object"),
    ("POST", "/tasks", "[" * 9000, 400, "invalid_json", None, "not JSON"),
    ("POST", "/tasks", " ", 400, "invalid_json", None, "empty"),
    ("POST", "/tasks", b'{"title":"\xff"}', 400, "invalid_json", None, "UTF-8"),
    ("POST", "/tasks", '{"title":"' + "a" * MAX_BODY + '"}', 413, "body_too_large", None, "16384"),
    ("PUT", "/tasks/1", '{"done":true}', 400, "validation_failed", "title", "PATCH"),
    ("PATCH", "/tasks/1", "{}", 400, "validation_failed", None, "nothing to change"),
    ("PATCH", "/tasks/99", '{"done":true}', 404, "not_found", None, ""),
    ("GET", "/tasks/0", None, 404, "not_found", None, "whole numbers"),
    ("GET", "/tasks/one", None, 404, "not_found", None, "whole numbers"),
    ("GET", "/tasks/99999999999999999999", None, 404, "not_found", None, ""),
    ("GET", "/tasks?status=late", None, 400, "validation_failed", "status", "open or done"),
    ("GET", "/tasks?limit=501", None, 400, "validation_failed", "limit", "500"),
    ("GET", "/tasks?page=2", None, 400, "validation_failed", "page", "unknown parameter"),
    ("DELETE", "/tasks", None, 405, "method_not_allowed", None, ""),
    ("GET", "/nowhere", None, 404, "not_found", None, "/nowhere")], ids=lambda v: str(v)[:24])
def test_bad_requests(client, method, path, body, status, code, field, message):
    client.post("/tasks", json={"title": "a"})
    r = client.open(path, method=method, data=body, content_type="application/json" if body else None)
    e = r.json["error"]
    assert (r.status_code, e["code"], e.get("field")) == (status, code, field)
    assert message in e["message"]
    if status == 405:
        assert r.headers["Allow"]
    assert client.get("/tasks").json["counts"] == {"open": 1, "done": 0}


def test_only_json(client):
    r = client.post("/tasks", data={"title": "a"})
    assert (r.status_code, r.json["error"]["code"]) == (415, "unsupported_media_type")


def test_health(app, client):
    r = client.get("/healthz")
    assert r.status_code == 200
    assert r.json["zone"] == "us-east-1b"
    assert f'"version":"{COMMIT}"' in r.text  # what validate.sh looks for
    app.stopping = True
    assert client.get("/healthz").status_code == 503


def test_no_database(app, client, monkeypatch):
    def broken():
        raise OSError("disk on fire")

    monkeypatch.setattr(app.store, "_open", broken)
    assert client.get("/healthz").status_code == 503
    r = client.get("/tasks")
    assert r.status_code == 500 and "fire" not in r.text
