// An OpenID Connect issuer on loopback, from the package oauth2-mock-server. It prints its address, signs with RS256, and
// takes another key for each line on its standard input.
//
// A token is what its request asks for: `scope` has words `resource,LEVEL`, or a level alone for everything, and becomes
// permissions as Keycloak writes them; `audience` and `lifetime` (seconds, also fewer than none) replace the usual ones.
import { createInterface } from "node:readline";
import { OAuth2Server } from "oauth2-mock-server";

const server = new OAuth2Server();
await server.issuer.keys.generate("RS256");
await server.start(0, "127.0.0.1");
server.service.on("beforeTokenSigning", (token, request) => {
  const { audience, lifetime, scope } = request.body;
  token.payload.aud = audience ?? "pravega-controller";
  if (lifetime !== undefined) {
    token.payload.exp = token.payload.iat + Number(lifetime);
  }
  const permissions = scope.split(" ").map((word, index) => {
    const [rsname, level] = word.includes(",") ? word.split(",") : ["prn::*", word];
    return { rsname, rsid: String(index), scopes: [level] };
  });
  token.payload.authorization = { permissions };
});
console.log(JSON.stringify({ issuer: server.issuer.url }));
createInterface({ input: process.stdin })
  .on("line", async () => {
    const before = server.issuer.keys.toJSON().map((key) => key.kid);
    const key = await server.issuer.keys.generate("RS256");
    console.log(JSON.stringify({ key: key.kid, before }));
  })
  .on("close", () => process.exit(0));
