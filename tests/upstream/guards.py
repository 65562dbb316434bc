"""Decorators that authorize calls, with SimpleChat's refusals."""

import os
from functools import wraps

import jwt
import requests
from flask import jsonify, redirect, request, session, url_for

TENANT_ID = os.environ.get("TENANT_ID") or "11111111-1111-1111-1111-111111111111"
CLIENT_ID = os.environ.get("CLIENT_ID") or "22222222-2222-2222-2222-222222222222"
V1_ISSUER = os.environ.get("UPSTREAM_V1_ISSUER") or f"https://sts.windows.net/{TENANT_ID}/"
JWKS_URL = os.environ.get("UPSTREAM_JWKS_URL")

# Cached for the life of the worker and never fetched again, as in SimpleChat:
# after a key rotation it refuses valid tokens until it is restarted.
_jwks = {}


def _wants_json():
    accept = request.accept_mimetypes
    return (accept.accept_json and not accept.accept_html) or request.path.startswith("/api/")


def _forbidden(message):
    if _wants_json():
        return jsonify(error="Forbidden", message=message), 403
    return "Forbidden", 403


def login_required(view):
    """Require a session with a user in it, whatever the roles."""

    @wraps(view)
    def guarded(*args, **kwargs):
        if "user" in session:
            return view(*args, **kwargs)
        if _wants_json():
            return jsonify(error="Unauthorized", message="Authentication required"), 401
        return redirect(url_for("login"))

    return guarded


def user_required(view):
    """Require `User` or `Admin`. `in` on purpose: roles that are a string match by substring."""

    @wraps(view)
    def guarded(*args, **kwargs):
        user = session.get("user", {})
        if "roles" in user and ("User" in user["roles"] or "Admin" in user["roles"]):
            return view(*args, **kwargs)
        return _forbidden("Insufficient permissions (User/Admin role required)")

    return guarded


def admin_required(view):
    """Require `Admin`."""

    @wraps(view)
    def guarded(*args, **kwargs):
        user = session.get("user", {})
        if "roles" in user and "Admin" in user["roles"]:
            return view(*args, **kwargs)
        return _forbidden("Insufficient permissions (Admin role required)")

    return guarded


def user_id_required(view):
    """SimpleChat's handlers identify a user by `oid` only; `sub` does not replace it."""

    @wraps(view)
    def guarded(*args, **kwargs):
        if session["user"].get("oid"):
            return view(*args, **kwargs)
        return jsonify(error="User not authenticated"), 401

    return guarded


def _signing_keys():
    global _jwks
    if not _jwks and JWKS_URL:
        try:
            keys = requests.get(JWKS_URL, timeout=10).json()["keys"]
        except requests.exceptions.RequestException:
            return None
        _jwks = {key["kid"]: key for key in keys}
    return _jwks


def verify(token):
    """(True, claims) or (False, message for the caller). v1 tokens only."""
    try:
        keys = _signing_keys()
        if not keys:
            return False, "Failed to retrieve signing keys."
        kid = jwt.get_unverified_header(token).get("kid")
        if not kid or kid not in keys:
            return False, "Invalid or missing key ID."
        claims = jwt.decode(
            token,
            jwt.algorithms.RSAAlgorithm.from_jwk(keys[kid]),
            algorithms=["RS256"],
            audience=f"api://{CLIENT_ID}",
            issuer=V1_ISSUER,
        )
        return True, claims
    except jwt.ExpiredSignatureError:
        return False, "Token has expired."
    except jwt.InvalidAudienceError:
        return False, "Invalid audience."
    except jwt.InvalidIssuerError:
        return False, "Invalid issuer."
    except jwt.InvalidTokenError as error:
        return False, f"Invalid token: {error}"
    except Exception as error:  # for example a key that cannot be parsed
        return False, f"An unexpected error occurred during token validation: {error}"


def accesstoken_required(view):
    """SimpleChat's own check of bearer tokens, which is as lenient as the original."""

    @wraps(view)
    def guarded(*args, **kwargs):
        header = request.headers.get("Authorization")
        if not header:
            return jsonify(message="Authorization header missing"), 401
        if not header.startswith("Bearer "):
            return jsonify(message="Invalid Authorization header format"), 401
        good, found = verify(header.split(" ")[1])
        if not good:
            return jsonify(message=found), 401
        if "ExternalApi" not in (found.get("roles") or ()):
            return jsonify(message="Forbidden: ExternalApi role required"), 403
        return view(*args, **kwargs)

    return guarded
