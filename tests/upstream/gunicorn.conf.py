"""gunicorn as SimpleChat runs it, plus what a test needs to find and read it.

The values below are SimpleChat's own; they matter, because worker recycling
(`max_requests`) makes the anonymous first request of a worker recur.
"""

import os
import socket

from gunicorn.glogging import Logger


def _number(name, default):
    return int(os.environ.get(name) or default)


# The application is named here, so that `gunicorn -c <this file>` works from
# any directory without changing it (relative paths stay the caller's).
pythonpath = os.path.dirname(os.path.abspath(__file__))
wsgi_app = "app:app"

bind = os.environ.get("GUNICORN_BIND") or "127.0.0.1:5000"
worker_class = "gthread"
workers = _number("UPSTREAM_WORKERS", 2)
threads = _number("UPSTREAM_THREADS", 8)
timeout = 900
graceful_timeout = _number("UPSTREAM_GRACEFUL_TIMEOUT", 60)
keepalive = 75
max_requests = _number("UPSTREAM_MAX_REQUESTS", 500)
max_requests_jitter = max_requests // 10  # 50 for SimpleChat's 500

accesslog = os.environ.get("UPSTREAM_ACCESS_LOG") or "-"
access_log_format = '"%(r)s" %(s)s'
errorlog = "-"


class logger_class(Logger):
    """Logs on stderr: stdout has only the address line below."""

    def _set_handler(self, log, output, fmt, stream=None):
        super()._set_handler(log, output, fmt, stream=None)


def when_ready(server):
    """Print the address of the server, with the port that `:0` became."""
    listener = server.LISTENERS[0]
    name = listener.getsockname()
    if listener.FAMILY == socket.AF_UNIX:
        where = name
    elif listener.FAMILY == socket.AF_INET6:
        where = f"[{name[0]}]:{name[1]}"
    else:
        where = f"{name[0]}:{name[1]}"
    print(f"upstream listening on {where}", flush=True)


def post_worker_init(worker):
    """Have Flask emit spans, if a test needs them."""
    if os.environ.get("UPSTREAM_TRACED"):
        import traced

        traced.instrument(worker.app.wsgi())
