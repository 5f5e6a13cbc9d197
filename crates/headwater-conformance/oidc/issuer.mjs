// An OpenID Connect issuer on loopback, from the package oauth2-mock-server. It prints its address, signs with RS256, and
// takes another key for each line on its standard input.
//
// A token is what its request asks for: `scope` has words `resource,LEVEL`, or a level alone for everything, and becomes
// permissions as Keycloak writes them; `audience` and `lifetime` (seconds, also fewer than none) replace the usual ones.
//
// The first argument, a JSON object, makes it answer clients of Keycloak besides: client → {secret, grants, lifetime}. A
// client proves itself, gets a token that grants nothing, and for that one with its permissions (grant type
// `uma-ticket`), from the address where a realm of Keycloak has it.
import { createInterface } from "node:readline";
import { OAuth2Server } from "oauth2-mock-server";

const AUDIENCE = "pravega-controller";
const server = new OAuth2Server();
await server.issuer.keys.generate("RS256");
await server.start(0, "127.0.0.1");

const permissions = (grants) =>
  grants.split(" ").map((word, index) => {
    const [rsname, level] = word.includes(",") ? word.split(",") : ["prn::*", word];
    return { rsname, rsid: String(index), scopes: [level] };
  });
server.service.on("beforeTokenSigning", (token, request) => {
  const { audience, lifetime, scope } = request.body;
  token.payload.aud = audience ?? AUDIENCE;
  if (lifetime !== undefined) {
    token.payload.exp = token.payload.iat + Number(lifetime);
  }
  token.payload.authorization = { permissions: permissions(scope) };
});

const clients = JSON.parse(process.argv[2] ?? "{}");
// Access tokens that were given out, and to whom.
const given = new Map();
// Servers allow for clocks that differ by half a minute; `lifetime` counts to where they refuse.
const SKEW_SECONDS = 30;
const tokenOf = (client, more) =>
  server.issuer.buildToken({
    expiresIn: clients[client].lifetime - SKEW_SECONDS,
    scopesOrTransform: (_header, payload) => Object.assign(payload, { sub: client, azp: client }, more),
  });
server.service.addRoute("POST", "/realms/headwater/protocol/openid-connect/token", async (request, response) => {
  const form = request.body;
  const answer = (status, body) => {
    response.writeHead(status, { "Content-Type": "application/json" });
    response.end(JSON.stringify(body));
  };
  if (form.grant_type === "client_credentials") {
    const client = form.client_id;
    if (!Object.hasOwn(clients, client) || clients[client].secret !== form.client_secret) {
      return answer(401, { error: "invalid_client" });
    }
    const token = await tokenOf(client, { aud: "account" });
    given.set(token, client);
    return answer(200, { access_token: token, expires_in: clients[client].lifetime });
  }
  const client = given.get(request.headers.authorization?.replace(/^Bearer /, ""));
  if (form.grant_type !== "urn:ietf:params:oauth:grant-type:uma-ticket" || client === undefined) {
    return answer(403, { error: "access_denied" });
  }
  const granted = permissions(clients[client].grants);
  const token = await tokenOf(client, { aud: form.audience, authorization: { permissions: granted } });
  console.log(JSON.stringify({ ticket: client }));
  answer(200, { access_token: token, expires_in: clients[client].lifetime });
});

console.log(JSON.stringify({ issuer: server.issuer.url }));
createInterface({ input: process.stdin })
  .on("line", async () => {
    const before = server.issuer.keys.toJSON().map((key) => key.kid);
    const key = await server.issuer.keys.generate("RS256");
    console.log(JSON.stringify({ key: key.kid, before }));
  })
  .on("close", () => process.exit(0));
