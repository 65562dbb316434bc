"""Routes under /test/ and /external/test/ that SimpleChat does not have.

They show a test what arrived here, what the session contains and which worker
answered, and provoke what is hard to provoke otherwise: a request in progress,
an answer that does not arrive, a worker that dies. They are in a module of their
own so that the other modules contain nothing that only a test needs.
"""

import hashlib
import json
import os
import sys
import time

from flask import Response, request, session

from guards import login_required

CHUNK = bytes(range(256)) * 256  # 64 KiB with every byte value


def register(app, setup_is_done):
    """Register the helpers with the app; `setup_is_done` is true once the real store is in use."""

    def echo(rest=""):
        total, digest = 0, hashlib.sha256()
        while chunk := request.stream.read(64 * 1024):
            total += len(chunk)
            digest.update(chunk)
        environ = request.environ
        return {
            "method": request.method,
            "target": environ.get("RAW_URI"),
            "path": request.path,
            "protocol": environ.get("SERVER_PROTOCOL"),
            "scheme": request.scheme,
            "remote_addr": request.remote_addr,
            "headers": _headers(environ),
            "body_length": total,
            "body_sha256": digest.hexdigest(),
            "pid": os.getpid(),
        }

    # Flask's own `route` needs a list of methods; Werkzeug's rule accepts any.
    app.url_map.add(app.url_rule_class("/test/echo", endpoint="test_echo"))
    app.url_map.add(app.url_rule_class("/test/echo/<path:rest>", endpoint="test_echo"))
    app.view_functions["test_echo"] = echo

    @app.post("/test/journal")
    def test_journal():
        """Record the call in one write, which survives the death of the worker."""
        with open(os.environ["UPSTREAM_JOURNAL"], "ab", buffering=0) as journal:
            journal.write(request.args["id"].encode() + b"\n")
        return {"done": True}

    @app.route("/external/test/users", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def test_users():
        """Every user_id that Werkzeug finds, in any part of the request."""
        files = [file.read().decode("latin-1") for file in request.files.getlist("user_id")]
        return {
            "query": request.args.getlist("user_id"),
            "body": request.form.getlist("user_id") + files,
        }

    @app.get("/test/slow")
    @login_required
    def test_slow():
        """Take long enough for the session to be ended while this request runs."""
        print("a slow request began", file=sys.stderr, flush=True)
        time.sleep(_seconds())
        return {"slept": _seconds(), "pid": os.getpid()}

    @app.post("/test/user")
    def test_user():
        """Sign in the user that the body describes, without validation: claims of any form."""
        session["user"] = request.get_json()
        session["last_activity_epoch"] = int(time.time())
        return {"signed_in": True}

    @app.get("/test/session")
    def test_session():
        return {"sid": session.sid, "session": dict(session)}

    @app.get("/test/bytes")
    def test_bytes():
        return Response(_stream(request.args.get("n", 0, int)), mimetype="application/octet-stream")

    @app.route("/test/hang", methods=["GET", "POST"])
    def test_hang():
        print("a hanging request began", file=sys.stderr, flush=True)
        time.sleep(_seconds())
        return {"hung": _seconds()}

    @app.route("/test/die", methods=["GET", "POST"])
    def test_die():
        """End the worker: before the head, or after `after` bytes of a longer body."""
        after = request.args.get("after", None, int)
        if after is None:
            os._exit(1)

        def die_later():
            yield from _stream(after)
            os._exit(1)

        headers = {"Content-Length": str(after + 1)}
        return Response(die_later(), mimetype="application/octet-stream", headers=headers)

    app.wsgi_app = _EchoingSocket(_PidInFront(app.wsgi_app, setup_is_done))


class _PidInFront:
    """Answers /test/pid before Flask reads the request.

    A question about the first request of a worker must not be its first request.
    """

    def __init__(self, wsgi_app, setup_is_done):
        self.wsgi_app = wsgi_app
        self.setup_is_done = setup_is_done

    def __call__(self, environ, start_response):
        if environ.get("PATH_INFO") != "/test/pid":
            return self.wsgi_app(environ, start_response)
        body = json.dumps({"pid": os.getpid(), "initialized": self.setup_is_done()}).encode()
        start_response(
            "200 OK",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
        )
        return [body]


class _EchoingSocket:
    """Takes over /test/socket, as a WebSocket library does, and echoes what it receives."""

    def __init__(self, wsgi_app):
        self.wsgi_app = wsgi_app

    def __call__(self, environ, start_response):
        if environ.get("PATH_INFO") != "/test/socket":
            return self.wsgi_app(environ, start_response)
        connection = environ["gunicorn.socket"]
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        connection.sendall(head)
        while data := connection.recv(65536):
            connection.sendall(data)
        # gunicorn's threads interpret this as: the connection is finished.
        raise StopIteration


def _headers(environ):
    """Name and value of each header as in WSGI: order preserved, spelling lost."""
    found = []
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            found.append([key[5:].replace("_", "-").lower(), value])
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            found.append([key.replace("_", "-").lower(), value])
    return found


def _seconds():
    return request.args.get("seconds", 1, float)


def _stream(count):
    while count > 0:
        yield CHUNK[:count]
        count -= len(CHUNK)
