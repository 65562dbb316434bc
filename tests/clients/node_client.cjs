// Input and output that both TypeScript SDKs share.
'use strict';

const REDIRECT = 'http://127.0.0.1:33418/callback';

// Storage of one client. With a client id the client is registered beforehand, as Entra requires;
// without, the SDK has to register it. It stops where a browser would be opened, unless `signs_in`
// is true: then that page answers with a code.
class Provider {
  redirectUrl = REDIRECT;
  clientMetadata = {
    client_name: 'A test',
    redirect_uris: [REDIRECT],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  };
  authorize = null;

  constructor({ client_id, issuer, token }) {
    this.registered = client_id && { client_id, ...(issuer && { issuer }) };
    this.token = token && { access_token: token, token_type: 'Bearer', ...(issuer && { issuer }) };
    if (!client_id) this.saveClientInformation = () => {};
  }
  state() { return 'a-state'; }
  clientInformation() { return this.registered; }
  tokens() { return this.token; }
  saveTokens(token) { this.token = token; }
  saveCodeVerifier(verifier) { this.verifier = verifier; }
  codeVerifier() { return this.verifier; }
  redirectToAuthorization(url) { this.authorize = url.href; }
}

// Connects and lists the tools; the last line on stdout is one JSON object.
exports.run = async ({ Client, StreamableHTTPClientTransport }) => {
  const asked = JSON.parse(process.argv[2]);
  const requests = [];
  const recording = async (url, init) => {
    const answer = await fetch(url, init);
    requests.push([init?.method ?? 'GET', String(url), answer.status]);
    return answer;
  };
  const authProvider = new Provider(asked);
  const transport = () =>
    new StreamableHTTPClientTransport(new URL(asked.url), { authProvider, fetch: recording });
  const connect = async (over) => {
    const client = new Client({ name: 'a test', version: '1' });
    await client.connect(over);
    return (await client.listTools()).tools.map((tool) => tool.name);
  };
  let error = null;
  let tools = null;
  try {
    const first = transport();
    try {
      tools = await connect(first);
    } catch (thrown) {
      if (!asked.signs_in || !authProvider.authorize) throw thrown;
      await first.finishAuth('a-code');
      tools = await connect(transport());
    }
  } catch (thrown) {
    error = `${thrown.constructor.name}: ${thrown.message}`;
  }
  console.log(JSON.stringify({ authorize: authProvider.authorize, error, requests, tools }));
  process.exit(0);
};
