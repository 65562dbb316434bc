"""The login in Flask: the least that does the same work, with libraries SimpleChat has.

A bearer token is verified with a signing key that is kept, and its claims become a session in Redis
that Flask-Session writes.
"""

import os

import jwt
import redis
import requests
from flask import Flask, jsonify, request, session
from flask_session import Session

app = Flask(__name__)
app.config.update(
    SECRET_KEY="bench",
    SESSION_TYPE="redis",
    SESSION_REDIS=redis.Redis.from_url(os.environ["REDIS_URL"]),
)
Session(app)
KEYS = {key["kid"]: jwt.PyJWK(key).key for key in requests.get(os.environ["KEYS"], timeout=5).json()["keys"]}


@app.post("/external/login")
def login():
    token = request.headers["Authorization"].split(" ")[1]
    key = KEYS[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(
        token, key, algorithms=["RS256"], audience=os.environ["CLIENT_ID"], issuer=os.environ["ISSUER"]
    )
    if "ExternalApi" not in claims.get("roles", []):
        return jsonify(error="forbidden"), 403
    session.permanent = True
    session["user"] = claims
    return jsonify(session_created=True, session_id=session.sid, claims=claims)
