// A real OpenID provider for tests. `node server.mjs '{"port": 0, "jwks": {…}, "audiences": {…}, "clients": […]}'`
// Prints its port, and can be asked under /test/ how often what was asked, and be given other keys.
import { webcrypto } from 'node:crypto';
import { createServer } from 'node:http';
import { realpathSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

// Newer than Debian's Node, which runs the provider all the same.
globalThis.crypto ??= webcrypto;
URL.parse ??= (text, base) => {
  try {
    return new URL(text, base);
  } catch {
    return null;
  }
};

// Beside its node_modules, wherever those are.
const { default: Provider } = await import(
  pathToFileURL(realpathSync(`${process.env.PROVIDER_MODULES}/oidc-provider/lib/index.js`)).href
);
const settings = JSON.parse(process.argv[2]);
const counts = {};
let provider;

function makeProvider(jwks) {
  const made = new Provider(settings.issuer, {
    jwks,
    clients: settings.clients,
    cookies: { keys: ['test'] },
    scopes: ['openid', 'offline_access'],
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true, deviceInfo: () => ({}) },
      devInteractions: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => ({
          scope: 'generate read admin',
          audience: resource,
          accessTokenFormat: 'jwt',
          accessTokenTTL: settings.ttl_s,
          jwt: { sign: { alg: settings.audiences[resource] ?? 'RS256' } },
        }),
      },
    },
    extraTokenClaims: () => settings.claims,
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    rotateRefreshToken: true,
    ttl: { DeviceCode: 600, Session: 600, Interaction: 600, Grant: 600, IdToken: 600, RefreshToken: 600 },
  });
  made.use(async (ctx, next) => {
    await next();
    if (ctx.path === '/device/auth' && ctx.status === 200) ctx.body.interval = settings.interval_s;
  });
  made.on('server_error', (ctx, error) => console.error(error));
  return made.callback();
}

async function read(request) {
  let text = '';
  for await (const piece of request) text += piece;
  return JSON.parse(text);
}

const server = createServer(async (request, response) => {
  const path = request.url.split('?')[0];
  if (path === '/test/counts') {
    response.end(JSON.stringify(counts));
  } else if (path === '/test/jwks') {
    provider = makeProvider(await read(request));
    response.end();
  } else {
    counts[path] = (counts[path] ?? 0) + 1;
    provider(request, response);
  }
});
server.listen(settings.port, '127.0.0.1', () => {
  settings.issuer ??= `http://127.0.0.1:${server.address().port}`;
  provider = makeProvider(settings.jwks);
  console.log(JSON.stringify({ issuer: settings.issuer }));
});
