// oidc-provider with one public client: node openid_provider.mjs PORT PAGE AUDIENCE [LIFETIME] [WISH]
// WISH is "granted" where a token is for AUDIENCE without a word, "asked" where the page must name it each time.

import { Provider } from "oidc-provider";

const [port, page, audience, lifetime = "600", wish = "granted"] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const isGranted = wish === "granted";

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "chat-page",
      token_endpoint_auth_method: "none",
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      redirect_uris: [page],
      post_logout_redirect_uris: [page],
    },
  ],
  pkce: { required: () => true },
  scopes: ["openid", "offline_access"],
  clientBasedCORS: (_, origin, client) => client.redirectUris.some((uri) => new URL(uri).origin === origin),
  ttl: {
    AccessToken: Number(lifetime),
    IdToken: 600, AuthorizationCode: 60, RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 600,
  },
  features: {
    devInteractions: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (_, client, oneOf) => oneOf ?? (isGranted ? audience : undefined),
      useGrantedResource: () => isGranted,
      getResourceServerInfo: () => ({
        scope: "", audience, accessTokenTTL: Number(lifetime), accessTokenFormat: "jwt",
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});

for (const event of ["grant.success", "grant.error", "authorization.error", "end_session.success", "server_error"]) {
  provider.on(event, (ctx, error) => console.log(event, ctx.oidc?.params?.grant_type ?? "", error?.error_description ?? error?.message ?? ""));
}
provider.listen(Number(port), "127.0.0.1", () => console.log(`issuer ${issuer}`));
