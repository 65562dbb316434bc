// Connects @modelcontextprotocol/sdk to a resource of the gateway:
//
//   node typescript_sdk.cjs '{"url": "https://gateway.example/external/login", "client_id": "…"}'
'use strict';

const { Client } = require('@modelcontextprotocol/sdk/client/index.js');
const {
  StreamableHTTPClientTransport,
} = require('@modelcontextprotocol/sdk/client/streamableHttp.js');

require('./node_client.cjs').run({ Client, StreamableHTTPClientTransport });
