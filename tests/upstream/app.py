"""Stand-in for SimpleChat: the parts of it that a gateway in front can observe.

This module has the code that SimpleChat runs around every request: the set-up of
the session store (twice) and the idle timeout. The order of the two
`before_request` functions, and the time of the second set-up, matter: see
`finish_session_setup`.
"""

import os
import threading
import time

from flask import Flask, jsonify, redirect, request, session, url_for
from flask_session import Session
from redis import Redis

import later
import routes
import test_routes

# Settings of Flask and Flask-Session that an operator may have set. Absent
# ones have the libraries' defaults.
TEXT_SETTINGS = (
    "SESSION_FILE_DIR",
    "SESSION_KEY_PREFIX",
    "SESSION_SERIALIZATION_FORMAT",
    "SESSION_COOKIE_NAME",
    "SESSION_COOKIE_PATH",
    "SESSION_COOKIE_DOMAIN",
    "SESSION_COOKIE_SAMESITE",
)
TRUE = ("1", "true", "yes", "on")

IDLE_EXEMPT_PATHS = (
    "/login",
    "/logout",
    "/logout/local",
    "/getAToken",
    "/getATokenApi",
    "/robots933456.txt",
    "/favicon.ico",
)
IDLE_EXEMPT_PREFIXES = ("/static/", "/health", "/api/health")

app = Flask(__name__, static_url_path="/static", static_folder="static")
app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY") or "dev-secret-key-change-in-production"
app.config["SESSION_USE_SIGNER"] = os.environ.get("SESSION_USE_SIGNER", "").lower() in TRUE
for name in TEXT_SETTINGS:
    if os.environ.get(name):
        app.config[name] = os.environ[name]

# First set-up, while the module is imported: always files.
app.config["SESSION_TYPE"] = "filesystem"
Session(app)

_setup_lock = threading.Lock()
_setup_done = False


def setup_is_done():
    """True if this worker already uses its real session store."""
    return _setup_done


def _real_session_type():
    """Redis if it is configured and answers, else files: SimpleChat falls back too."""
    if os.environ.get("SESSION_TYPE", "filesystem").lower() != "redis":
        return "filesystem"
    try:
        client = Redis.from_url(
            os.environ["REDIS_URL"], socket_connect_timeout=5, socket_timeout=5
        )
        client.ping()
    except Exception as error:  # SimpleChat continues without Redis after any error
        app.logger.warning("Redis connection failed, falling back to files: %s", error)
        return "filesystem"
    app.config["SESSION_REDIS"] = client
    return "redis"


@app.before_request
def finish_session_setup():
    """Second set-up, inside the first request that a worker serves.

    By now Flask has opened this request's session with the interface made at
    import. When the real store is Redis, that interface never read the caller's
    id: the first request of each worker is anonymous, and so is every other that
    arrived meanwhile. When the real store is the same directory of files, both
    interfaces read the same session and the set-up has no visible effect.
    """
    global _setup_done
    with _setup_lock:
        if not _setup_done:
            app.config["SESSION_TYPE"] = _real_session_type()
            Session(app)
            _setup_done = True


def _epoch(value):
    """Stored time of last activity, or None if it is not a time."""
    try:
        return int(float(value))
    except (TypeError, ValueError):
        return None


def _touch(now):
    session["last_activity_epoch"] = now
    session.modified = True


@app.before_request
def keep_idle_timeout():
    """Reads the session on every request, hence `Vary: Cookie` on nearly all.

    Calls to /api/ are no activity while the timeout is on: a busy client that
    calls nothing else still loses its session.
    """
    if "user" not in session:
        return None
    path = request.path
    if (
        request.method == "OPTIONS"
        or path in IDLE_EXEMPT_PATHS
        or path.startswith(IDLE_EXEMPT_PREFIXES)
    ):
        return None

    now = int(time.time())
    last = _epoch(session.get("last_activity_epoch"))
    limit = os.environ.get("UPSTREAM_IDLE_TIMEOUT_SECONDS")
    if not limit:
        if last is None or last > now or now - last >= 60:
            _touch(now)
        return None

    if last is not None and now - last >= int(limit):
        session.clear()
        if path.startswith("/api/"):
            return jsonify(
                error="Session expired",
                message="Your session expired due to inactivity. Please sign in again.",
                requires_reauth=True,
            ), 401
        return redirect(url_for("local_logout"))

    valid = last is not None and last <= now + 60
    if not valid or not path.startswith("/api/"):
        _touch(now)
    return None


routes.register(app)
if later.is_on():
    later.register(app)
test_routes.register(app, setup_is_done)
