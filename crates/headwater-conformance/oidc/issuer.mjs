// An OpenID Connect issuer on loopback, from the package oauth2-mock-server. It prints its address, signs with RS256, and
// takes another key for each line on its standard input. A token grants what its request has as `scope`, in the form that
// Keycloak gives to permissions.
import { createInterface } from "node:readline";
import { OAuth2Server } from "oauth2-mock-server";

const server = new OAuth2Server();
await server.issuer.keys.generate("RS256");
await server.start(0, "127.0.0.1");
server.service.on("beforeTokenSigning", (token, request) => {
  token.payload.aud = "pravega-controller";
  token.payload.authorization = {
    permissions: [{ rsname: "prn::*", rsid: "1", scopes: [request.body.scope] }],
  };
});
console.log(JSON.stringify({ issuer: server.issuer.url }));
createInterface({ input: process.stdin })
  .on("line", async () => {
    const before = server.issuer.keys.toJSON().map((key) => key.kid);
    const key = await server.issuer.keys.generate("RS256");
    console.log(JSON.stringify({ key: key.kid, before }));
  })
  .on("close", () => process.exit(0));
