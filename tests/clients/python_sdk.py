"""Connects the Python package `mcp` to a resource of the gateway.

    python python_sdk.py '{"url": "https://gateway.example/external/login", "client_id": "..."}'

With a client id the client is registered beforehand, as Entra requires; without,
the SDK has to register it. It stops where a browser would be opened, unless
`"signs_in"` is true: then that page answers with a code. Once connected it lists
the tools. The last line on stdout is one JSON object.
"""

import asyncio
import json
import logging
import sys
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

REDIRECT = "http://127.0.0.1:33418/callback"


class Memory:
    """Token and client storage of one client."""

    def __init__(self, client_id=None, issuer=None, token=None):
        self.client = client_id and OAuthClientInformationFull(
            client_id=client_id,
            redirect_uris=[REDIRECT],
            token_endpoint_auth_method="none",
            issuer=issuer,
        )
        self.token = token and OAuthToken(access_token=token)

    async def get_tokens(self):
        return self.token

    async def set_tokens(self, token):
        self.token = token

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


class BrowserWouldOpen(Exception):
    """Raised where the SDK would open a browser."""


async def connect(url, signs_in=False, **remembered):
    """Connect; return the result as a dict."""
    outcome = {"authorize": None, "error": None, "requests": [], "tools": None}

    async def open_browser(authorize):
        outcome["authorize"] = authorize

    async def wait_for_callback():
        if not signs_in:
            raise BrowserWouldOpen
        asked = parse_qs(urlsplit(outcome["authorize"]).query)
        return AuthorizationCodeResult(code="a-code", state=asked["state"][0])

    async def note(response):
        request = response.request
        outcome["requests"].append([request.method, str(request.url), response.status_code])

    metadata = OAuthClientMetadata(
        client_name="A test", redirect_uris=[REDIRECT], token_endpoint_auth_method="none"
    )
    auth = OAuthClientProvider(
        url, metadata, Memory(**remembered), open_browser, wait_for_callback
    )
    async with httpx2.AsyncClient(auth=auth, event_hooks={"response": [note]}) as http:
        try:
            async with Client(streamable_http_client(url, http_client=http)) as client:
                outcome["tools"] = [tool.name for tool in (await client.list_tools()).tools]
        except Exception as error:
            outcome["error"] = told(error)
    return outcome


def told(error):
    """Innermost errors as text."""
    if isinstance(error, ExceptionGroup):
        return "; ".join(told(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    # The SDK also logs what it raises.
    logging.disable(logging.CRITICAL)
    print(json.dumps(asyncio.run(connect(**json.loads(sys.argv[1])))))
