"""WSGI application that reports how gunicorn and Werkzeug read a request target.

The body of the answer: PATH_INFO as hexadecimal digits, the path that Werkzeug matches
likewise, and its routing: under /external/ ("external"), redirected to such a route
("redirect"), or neither ("open").
"""

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect, Rule

ROUTES = Map(
    [
        Rule("/external", endpoint="external"),
        Rule("/external/", endpoint="external"),
        Rule("/external/<path:rest>", endpoint="external"),
        Rule("/api/<path:rest>", endpoint="api"),
    ]
)


def app(environ, start_response):
    path_info = environ["PATH_INFO"].encode("latin-1")
    matched = b"/" + path_info.lstrip(b"/")
    adapter = ROUTES.bind("gw.example")
    try:
        endpoint, _ = adapter.match(path_info.decode(errors="replace"), "GET")
        verdict = "external" if endpoint == "external" else "open"
    except RequestRedirect as redirect:
        verdict = "redirect" if "gw.example/external" in redirect.new_url else "open"
    except HTTPException:
        verdict = "open"
    body = f"{path_info.hex()} {matched.hex()} {verdict}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
