// Connects @modelcontextprotocol/client to a resource of the gateway:
//
//   node typescript_client.cjs '{"url": "https://gateway.example/external/login", "client_id": "…"}'
'use strict';

const { Client, StreamableHTTPClientTransport } = require('@modelcontextprotocol/client');

require('./node_client.cjs').run({ Client, StreamableHTTPClientTransport });
