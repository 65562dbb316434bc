"""Additions of SimpleChat 0.250 and later, as far as a gateway in front can observe them.

An MCP endpoint of its own, `POST /api/mcp`, with bearer tokens; protected resource
metadata (RFC 9728) for it under three paths and authorization server metadata
(RFC 8414), both without authentication; a health probe without sign-in. Only with
`UPSTREAM_LATER=on`.
"""

import os
from datetime import datetime

from flask import Response, jsonify, request

from guards import CLIENT_ID, TENANT_ID, verify

AUTHORITY = os.environ.get("UPSTREAM_AUTHORITY") or f"https://login.microsoftonline.com/{TENANT_ID}"
SCOPE = f"api://{CLIENT_ID}/DelegatedMcpServerAccess"
ENDPOINT = "/api/mcp"
METADATA = "/.well-known/oauth-protected-resource"
METADATA_ALIASES = (f"{METADATA}/api/mcp", METADATA, f"{METADATA}/mcp")
AUTHORIZATION_SERVER = "/.well-known/oauth-authorization-server"
LOCAL = ("localhost", "127.0.0.1", "::1")
PROTOCOLS = ("2025-11-25", "2025-06-18", "2025-03-26")
TOOLS = [
    {
        "name": "list_conversations",
        "title": "List conversations",
        "description": "The signed-in user's conversations.",
        "inputSchema": {"type": "object", "properties": {}, "additionalProperties": False},
    }
]


def is_on():
    return os.environ.get("UPSTREAM_LATER", "").lower() == "on"


def register(app):
    """Register the later routes with the app."""
    _metadata(app)
    _endpoint(app)

    @app.get("/external/healthcheckz")
    def external_healthcheckz():
        if os.environ.get("UPSTREAM_EXTERNAL_HEALTHCHECK", "").lower() == "off":
            return {"error": "Enable No Auth External Healthcheck is disabled."}, 400
        return {"status": "ok", "time": datetime.now().strftime("%Y-%m-%d %H:%M:%S")}


def _public_base_url():
    """Scheme of `X-Forwarded-Proto`, host of `Host`; anything but a local host is https."""
    forwarded = request.headers.get("X-Forwarded-Proto", "").split(",", 1)[0].strip()
    scheme = forwarded if forwarded in ("http", "https") else request.scheme
    host = request.host
    if scheme == "http" and host.split(":", 1)[0] not in LOCAL:
        scheme = "https"
    return f"{scheme}://{host}"


def _resource():
    """`api://CLIENT_ID`, as in 0.250.098; with `UPSTREAM_MCP_RESOURCE=url` a URL (RFC 9728)."""
    if os.environ.get("UPSTREAM_MCP_RESOURCE") == "url":
        return f"{_public_base_url()}{ENDPOINT}"
    return f"api://{CLIENT_ID}"


def _unauthorized():
    """Answer to a request without a valid token, or None."""
    header = request.headers.get("Authorization", "")
    if not header:
        error, message = "bearer_token_required", "A bearer token is required."
    elif not header.startswith("Bearer ") or not verify(header.split(" ", 1)[1])[0]:
        error, message = "invalid_token", "The bearer token is invalid."
    else:
        return None
    answer = jsonify(error=error, message=message)
    url = f"{_public_base_url()}{METADATA}{ENDPOINT}"
    answer.headers["WWW-Authenticate"] = f'Bearer resource_metadata="{url}"'
    return answer, 401


def _open_to_get(view):
    """Allow `GET` without authentication; `HEAD` needs a token there."""

    def guarded():
        return view() if request.method == "GET" else _unauthorized() or view()

    guarded.__name__ = view.__name__
    return guarded


def _metadata(app):
    @_open_to_get
    def protected_resource():
        return {
            "resource": _resource(),
            "authorization_servers": [_public_base_url()],
            "scopes_supported": [SCOPE],
            "bearer_methods_supported": ["header"],
            "mcp_endpoint": ENDPOINT,
            "metadata_aliases": METADATA_ALIASES,
        }

    for path in METADATA_ALIASES:
        strict = path != METADATA
        app.add_url_rule(path, view_func=protected_resource, strict_slashes=strict)

    @app.get(AUTHORIZATION_SERVER)
    @_open_to_get
    def authorization_server():
        return {
            "issuer": _public_base_url(),
            "authorization_endpoint": f"{AUTHORITY}/oauth2/v2.0/authorize",
            "token_endpoint": f"{AUTHORITY}/oauth2/v2.0/token",
            "jwks_uri": f"{AUTHORITY}/discovery/v2.0/keys",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "scopes_supported": ["openid", "profile", "offline_access", SCOPE],
            "resource": _resource(),
        }


def _endpoint(app):
    @app.get(f"{ENDPOINT}/health")
    def mcp_health():
        return _unauthorized() or {"status": "ok", "enabled_tools": len(TOOLS)}

    @app.get(ENDPOINT)
    def mcp_stream():
        error = {"error": "mcp_sse_stream_not_supported", "message": "Use POST /api/mcp."}
        return _unauthorized() or (error, 405, {"Allow": "POST"})

    @app.post(ENDPOINT)
    def mcp():
        # gunicorn may take the next request on a connection for the rest of an unread
        # body; clients reuse their connections here.
        request.get_data()
        refused = _unauthorized()
        if refused:
            return refused
        asked = request.get_json(silent=True)
        if not isinstance(asked, dict):
            return {"error": "invalid_mcp_request"}, 400
        method, params = asked.get("method"), asked.get("params") or {}
        if method == "notifications/initialized" and asked.get("id") is None:
            return Response("", status=202)
        if method == "initialize":
            wanted = params.get("protocolVersion")
            result = {
                "protocolVersion": wanted if wanted in PROTOCOLS else PROTOCOLS[0],
                "capabilities": {"tools": {"listChanged": False}},
                "serverInfo": {"name": "simplechat-inbound-mcp", "version": "0.250.098"},
            }
        elif method == "tools/list":
            result = {"tools": TOOLS}
        else:
            # Every JSON-RPC error has status 200.
            error = {"code": -32601, "message": "Unsupported inbound MCP method."}
            return {"jsonrpc": "2.0", "id": asked.get("id"), "error": error}
        return {"jsonrpc": "2.0", "id": asked.get("id"), "result": result}
