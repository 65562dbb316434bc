"""SimpleChat's routes, by SimpleChat's names, with minimal handlers."""

import hashlib
import json
import os
import time
from datetime import datetime
from urllib.parse import urlencode

from flask import Response, jsonify, redirect, request, send_from_directory, session, url_for
from markupsafe import escape

from guards import (
    CLIENT_ID,
    TENANT_ID,
    accesstoken_required,
    admin_required,
    login_required,
    user_id_required,
    user_required,
)

AUTHORITY = f"https://login.microsoftonline.com/{TENANT_ID}"


def register(app):
    """Register every route with the app."""
    _pages(app)
    _sign_in(app)
    _api(app)
    _chat(app)
    _external(app)


def _page(title):
    name = session.get("user", {}).get("name") or "nobody"
    head = f"<!doctype html><title>{title}</title><h1>{title}</h1>"
    return f"{head}<p>Signed in: {escape(name)}</p>\n"


def _digest(stream):
    """(length, SHA-256 in hex) of the rest of a stream, which is not buffered."""
    total, digest = 0, hashlib.sha256()
    while chunk := stream.read(64 * 1024):
        total += len(chunk)
        digest.update(chunk)
    return total, digest.hexdigest()


def _files():
    """Files of a multipart body."""
    found = []
    for field, file in request.files.items(multi=True):
        size, digest = _digest(file.stream)
        found.append({"field": field, "filename": file.filename, "bytes": size, "sha256": digest})
    return found


def _pages(app):
    @app.get("/")
    def index():
        return _page("SimpleChat")

    @app.get("/chats")
    @login_required
    @user_required
    def chats():
        return _page("Chats")

    @app.route("/admin/settings", methods=["GET", "POST"])
    @login_required
    @admin_required
    def admin_settings():
        return _page("Admin settings")

    @app.get("/robots933456.txt")
    def robots():
        return send_from_directory(app.static_folder, "robots.txt")

    @app.get("/favicon.ico")
    def favicon():
        return send_from_directory(app.static_folder, "favicon.ico")


def _sign_in(app):
    @app.get("/login")
    def login():
        session.pop("user", None)
        session.pop("token_cache", None)
        query = urlencode(
            {
                "client_id": CLIENT_ID,
                "response_type": "code",
                # Always https and always the Host header, whatever the request had.
                "redirect_uri": url_for("authorized", _external=True, _scheme="https"),
                "scope": "User.Read offline_access openid profile",
            }
        )
        return redirect(f"{AUTHORITY}/oauth2/v2.0/authorize?{query}")

    @app.get("/getAToken")
    def authorized():
        """Sign in the user that the query names.

        Nothing is verified: Entra and MSAL would do that here. The session gets the
        shape and the order that an interactive sign-in produces.
        """
        now = int(time.time())
        oid = request.args.get("oid") or "33333333-3333-3333-3333-333333333333"
        username = request.args.get("preferred_username") or "test.user@example.com"
        roles = [role for role in request.args.get("roles", "").split(",") if role]
        claims = {
            "aud": CLIENT_ID,
            "iss": f"{AUTHORITY}/v2.0",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "name": request.args.get("name") or "Test User",
            "oid": oid,
            "preferred_username": username,
            "roles": roles,
            "sub": f"sub-{oid}",
            "tid": TENANT_ID,
            "ver": "2.0",
        }
        if not roles:
            del claims["roles"]  # Entra omits the claim
        account = {
            "home_account_id": f"{oid}.{TENANT_ID}",
            "environment": "login.microsoftonline.com",
            "realm": TENANT_ID,
            "username": username,
        }
        session["user"] = claims
        session["last_activity_epoch"] = now
        session["token_cache"] = json.dumps({"Account": {account["home_account_id"]: account}})
        return redirect(url_for("index"))

    @app.get("/logout/local")
    def local_logout():
        session.clear()
        return redirect(url_for("index"))


def _api(app):
    def users_api(path):
        """GET route of the user API, guarded in SimpleChat's order."""

        def put(view):
            guarded = login_required(user_required(user_id_required(view)))
            return app.get(path)(guarded)

        return put

    def listing(name):
        """Empty page of a list, with the arguments as parsed."""
        return {
            name: [],
            "page": request.args.get("page", 1, int),
            "page_size": request.args.get("page_size", 10, int),
            "search": request.args.get("search"),
            "total_count": 0,
        }

    @users_api("/api/get_conversations")
    def get_conversations():
        return {"conversations": []}

    @users_api("/api/get_messages")
    def get_messages():
        return {"messages": []}

    @users_api("/api/documents")
    def documents():
        return listing("documents") | {"needs_legacy_update_check": False}

    @users_api("/api/prompts")
    def prompts():
        return listing("prompts")

    @users_api("/api/groups")
    def groups():
        return listing("groups")

    @users_api("/api/public_workspaces")
    def public_workspaces():
        return listing("workspaces")

    @users_api("/api/group_documents")
    def group_documents():
        return {"error": "No active group selected"}, 400

    @users_api("/api/group_prompts")
    def group_prompts():
        return {"error": "No active group selected"}, 400

    @users_api("/api/public_documents")
    def public_documents():
        return {"error": "No active public workspace selected"}, 400

    @users_api("/api/public_prompts")
    def public_prompts():
        return {"error": "No active public workspace selected"}, 400

    @users_api("/api/user/settings")
    def user_settings():
        user = session["user"]
        return {
            "id": user["oid"],
            "email": user.get("preferred_username") or user.get("email"),
            "display_name": user.get("name"),
            "user": user,
        }

    @app.post("/api/session/heartbeat")
    @login_required
    def session_heartbeat():
        session["last_activity_epoch"] = int(time.time())
        limit = int(os.environ.get("UPSTREAM_IDLE_TIMEOUT_SECONDS") or 1800)
        return {"message": "Session refreshed", "idle_timeout_minutes": limit // 60}


def _chat(app):
    @app.post("/api/chat")
    @login_required
    @user_required
    @user_id_required
    def chat():
        asked = request.get_json()
        return {
            "reply": f"You said: {asked.get('message')}",
            "message": asked.get("message"),
            "conversation_id": asked.get("conversation_id"),
        }

    @app.post("/api/chat/stream")
    @login_required
    @user_required
    @user_id_required
    def chat_stream():
        events = request.args.get("events", 5, int)
        interval = request.args.get("interval", 0.1, float)

        def answer():
            for number in range(1, events + 1):
                if number > 1:
                    time.sleep(interval)
                event = {"content": f"word {number} ", "done": number == events}
                yield f"data: {json.dumps(event)}\n\n"

        return Response(
            answer(),
            mimetype="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    @app.post("/upload")
    @login_required
    @user_required
    def upload():
        return {"files": _files(), "fields": request.form.to_dict()}


def _external(app):
    @app.get("/external/healthcheck")
    def external_healthcheck():
        if os.environ.get("UPSTREAM_EXTERNAL_HEALTHCHECK", "").lower() == "off":
            return {"error": "Enable External Healthcheck is disabled."}, 400
        return datetime.now().strftime("%Y-%m-%d %H:%M:%S")

    @app.get("/external/public_documents")
    @accesstoken_required
    def external_list():
        return {
            "documents": [],
            "page": request.args.get("page", 1, int),
            "page_size": request.args.get("page_size", 10, int),
            "total_count": 0,
            "needs_legacy_update_check": False,
            "user_id": request.args.get("user_id"),
        }

    @app.post("/external/public_documents")
    @app.post("/external/public_documents/upload")
    @accesstoken_required
    def external_upload():
        return {"files": _files(), "user_id": request.form.get("user_id")}

    @app.get("/external/public_documents/<document_id>")
    @accesstoken_required
    def external_get(document_id):
        return {"id": document_id, "user_id": request.args.get("user_id")}

    @app.patch("/external/public_documents/<document_id>")
    @accesstoken_required
    def external_patch(document_id):
        return {"message": "Public document metadata updated successfully", "id": document_id}

    @app.delete("/external/public_documents/<document_id>")
    def external_delete(document_id):
        """Checks no token, as in SimpleChat."""
        return {"message": "Public document deleted successfully", "id": document_id}
