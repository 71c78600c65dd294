import pytest

from app import MAX_TITLE, ago

SAME = {"Sec-Fetch-Site": "same-origin"}


def submit(client, path, **fields):
    return client.post(path, data=fields, headers=SAME)


def back(client, path, to="/", **fields):
    r = submit(client, path, **fields)
    assert (r.status_code, r.headers["Location"]) == (303, to)


def test_page_without_script(client):
    assert "Nothing to do yet" in client.get("/").text
    back(client, "/add", title="<b>bread</b>")
    page = client.get("/").text
    assert "&lt;b&gt;bread" in page and "<b>bread" not in page
    back(client, "/add", "/?status=open", title="milk", status="open")
    back(client, "/tick/2", done="true")
    back(client, "/tick/2", done="true")  # twice is once
    assert "milk" not in client.get("/?status=open").text
    assert 'aria-checked="true"' in client.get("/?status=done").text
    assert 'action="/edit/1"' in client.get("/?edit=1").text
    back(client, "/edit/1", title="rye")
    assert "rye" in client.get("/").text
    back(client, "/delete/1")
    back(client, "/delete/1")
    back(client, "/clear")
    page = client.get("/").text
    assert "Nothing to do yet" in page and "us-east-1b" in page and ">0123456<" in page


def test_what_was_refused_is_kept(client):
    submit(client, "/add", title="milk")
    long = "x" * (MAX_TITLE + 1)
    for path in ("/add", "/edit/1"):
        r = submit(client, path, title=long)
        assert r.status_code == 422 and "Title has 201 characters" in r.text and f'value="{long}"' in r.text
    assert submit(client, "/tick/7", done="true").status_code == 404
    assert submit(client, "/tick/1", done="maybe").status_code == 400


@pytest.mark.parametrize("headers, status", [
    ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403), ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403), ({"Origin": "http://localhost"}, 303), ({}, 303)])
def test_other_sites_change_nothing(client, headers, status):
    assert client.post("/add", data={"title": "spam"}, headers=headers).status_code == status


def test_headers(client, app):
    for path in ("/", "/tasks", "/nowhere"):
        h = client.get(path).headers
        assert "default-src 'none'" in h["Content-Security-Policy"] and h["X-Served-By"] == app.instance.host


def test_assets(client, app):
    page = client.get("/").text
    for name, (content, digest, kind) in app.assets.items():
        assert f"/static/{digest}/{name}" in page
        r = client.get(f"/static/{digest}/{name}")
        assert r.data == content and "immutable" in r.headers["Cache-Control"] and r.mimetype == kind
        assert client.get(f"/static/other/{name}").headers["Cache-Control"] == "no-store"
    assert client.get("/static/x/page.html").status_code == 404


def test_theme(client):
    submit(client, "/theme", theme="dark")
    assert 'data-theme="dark"' in client.get("/").text
    submit(client, "/theme", theme="auto")
    assert 'data-theme="auto"' in client.get("/").text


def test_long_list_has_pages(client, app):
    for _ in range(101):
        app.store.create("t")
    assert 'href="/?before=2"' in client.get("/").text
    assert 'id="t1"' in client.get("/?before=2").text
    back(client, "/tick/1", "/?before=2", done="true", before="2")


def test_ago():
    start = 1777896000  # 2026-05-04T12:00:00Z
    for seconds, words in ((0, "just now"), (60, "1 min ago"), (5400, "1 h ago"), (47 * 3600, "1 d ago"), (8 * 86400, "4 May 2026")):
        assert ago("2026-05-04T12:00:00.000Z", start + seconds) == words
