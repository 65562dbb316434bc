"""Login in Flask: the minimum that does the same work, with libraries that SimpleChat has.

A bearer token is verified with a cached signing key, and its claims become a session in Redis
that Flask-Session writes. As in the gateway, metadata of the session is written under its own key, and
the session is counted among its subject's, in one round trip.
"""

import json
import os
import time

import jwt
import redis
import requests
from flask import Flask, jsonify, request, session
from flask_session import Session

app = Flask(__name__)
# Active sessions of one subject.
LIMIT = int(os.environ["GATEWAY_SESSIONS_PER_SUBJECT"])
STORE = redis.Redis.from_url(os.environ["REDIS_URL"])
app.config.update(SECRET_KEY="bench", SESSION_TYPE="redis", SESSION_REDIS=STORE)
Session(app)
KEYS = {key["kid"]: jwt.PyJWK(key).key for key in requests.get(os.environ["KEYS"], timeout=5).json()["keys"]}


def note_session(sid, claims):
    subject = f"bench:subject:{claims['oid']}"
    with STORE.pipeline(transaction=False) as pipeline:
        note = {"subject": claims["oid"], "client": claims.get("azp"), "expires_at": claims["exp"]}
        pipeline.set(f"bench:note:{sid}", json.dumps(note), ex=3600, nx=True)
        pipeline.zadd(subject, {sid: time.time()})
        pipeline.expire(subject, 100_800)
        pipeline.zadd("bench:expiries", {sid: claims["exp"]})
        pipeline.zcard(subject)
        *_, live = pipeline.execute()
    if live > LIMIT:
        for oldest in STORE.zpopmin(subject, live - LIMIT):
            STORE.delete(b"session:" + oldest[0])


@app.post("/external/login")
def login():
    token = request.headers["Authorization"].split(" ")[1]
    key = KEYS[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(
        token, key, algorithms=["RS256"], audience=os.environ["CLIENT_ID"], issuer=os.environ["ISSUER"]
    )
    if "ExternalApi" not in claims.get("roles", []):
        return jsonify(error="forbidden"), 403
    note_session(session.sid, claims)
    session.permanent = True
    session["user"] = claims
    return jsonify(session_created=True, session_id=session.sid, claims=claims)
