"""Conversation of SimpleChat's MCP server with SimpleChat.

It uses the same library, in the same order: one login with the caller's bearer
token, then every call with both the token and the cookie from the login. The
last line on stdout is one JSON object; the exit code is 0 if the login was
answered 200, which is all that the MCP server itself checks.

    MCP_BEARER=eyJ... python mcp_server_conversation.py https://gateway.example
"""

import argparse
import json
import os
import sys

import requests

# Method, path, query or body, in the order of the MCP server's tools.
CALLS = (
    ("GET", "/api/get_conversations", None),
    ("GET", "/api/get_messages", {"conversation_id": "conversation-1"}),
    ("GET", "/api/documents", {"page": 1, "page_size": 10, "search": "héllo wörld"}),
    ("GET", "/api/prompts", {"page": 1, "page_size": 10}),
    ("GET", "/api/groups", None),
    ("GET", "/api/group_documents", {"page": 1, "page_size": 10}),
    ("GET", "/api/group_prompts", {"page": 1, "page_size": 10}),
    ("GET", "/api/public_workspaces", None),
    ("GET", "/api/public_documents", {"page": 1, "page_size": 10}),
    ("GET", "/api/public_prompts", {"page": 1, "page_size": 10}),
    # SimpleChat answers this one with 500 if there is no conversation.
    ("POST", "/api/chat", {"message": "héllo", "conversation_id": "conversation-1"}),
)


def converse(base_url, bearer, ca):
    """Log in and make every call; return the results as a dict."""
    client = requests.Session()
    bearer_header = {"Authorization": f"Bearer {bearer}"}
    # Set per request: a session-wide `verify` yields to REQUESTS_CA_BUNDLE.
    verify = ca or True

    login = client.post(
        f"{base_url}/external/login", headers=bearer_header, json={}, timeout=30, verify=verify
    )
    outcome = {"login": login.status_code, "user": None, "cookie_sent": False, "calls": {}}
    if login.status_code != 200:
        print(f"SimpleChat login failed ({login.status_code}): {login.text}", file=sys.stderr)
        return outcome

    answer = login.json()
    user = answer["user"]
    outcome["user"] = {name: user[name] for name in ("userId", "displayName", "email")}
    if not isinstance(answer["claims"], dict):
        raise TypeError("claims of the login are not an object")

    cookies = []
    for method, path, content in CALLS:
        reply = client.request(
            method,
            f"{base_url}{path}",
            headers=bearer_header,
            params=content if method == "GET" else None,
            json=content if method == "POST" else None,
            timeout=120 if path == "/api/chat" else 30,
            verify=verify,
        )
        outcome["calls"][path] = reply.status_code
        cookies.append("Cookie" in reply.request.headers)
    outcome["cookie_sent"] = all(cookies)
    return outcome


def main():
    """Read the command line, run the conversation, print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", help="origin of SimpleChat, or of the gateway before it")
    parser.add_argument("--ca", metavar="FILE", help="certificate authority to trust")
    arguments = parser.parse_args()
    bearer = os.environ.get("MCP_BEARER")
    if not bearer:
        parser.error("the environment variable MCP_BEARER must hold the bearer token")

    outcome = converse(arguments.base_url.rstrip("/"), bearer, arguments.ca)
    print(json.dumps(outcome))
    return 0 if outcome["login"] == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
