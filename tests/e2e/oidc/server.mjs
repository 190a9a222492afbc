// npm oidc-provider as an upstream for tests: strict rotation (a refresh token that is used twice ends its grant), PKCE,
// and people who log in and consent at once.
//
//   PORT            on loopback; 0 takes a free one
//   REDIRECT_URIS   where codes may be sent to, separated by commas
//   AT_TTL          seconds that an access token lives
//   ROTATE          0: refresh tokens stay the same
//   MYWORLD         where a host of calendars is: its API is then here too, below /calendar/v3, for our access tokens
//
// Prints `listening on <issuer>` once it answers, and ends when its standard input does, so that it outlives no test run.
// GET /_ctl reports what happened; POST /_ctl with JSON changes what happens next: see `control` and `steer`.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { setTimeout as pause } from 'node:timers/promises';
import { exportJWK, generateKeyPair } from 'jose';
import { Provider, errors } from 'oidc-provider';
import { calendarApi } from './calendar.mjs';

const control = {
  access_token_ttl: Number(process.env.AT_TTL ?? 60), // seconds, of those issued from now on
  rotate: process.env.ROTATE !== '0',
  deny: false, // people refuse to consent
  delay_ms: 0, // before every token request is looked at
  fail_next: 0, // so many token requests are answered with 503, unprocessed
  drop_next: 0, // so many token requests are processed, and their answers lost
  calendar_delay_ms: 0, // before every calendar request is looked at
  calendar_401: 0, // so many calendar requests with a good token are answered as with a bad one
  calendar_410: 0, // so many with a sync token are told to begin anew
  calendar_503: 0,
};
const arrived = {}; // token requests by grant type, counted on arrival
const refreshes = {}; // how refreshes ended: granted, refused, failed (by fail_next), dropped (by drop_next)
const calendar = {}; // answers to calendar requests, as `GET 200`, or `GET incremental 200` for those with a sync token
const count = (counters, name) => { counters[name] = (counters[name] ?? 0) + 1; };

// The stock adapter in memory forgets what is beyond 1,000 entries; this one forgets nothing.
const entries = new Map();
class Entries {
  constructor(kind) { this.kind = kind; }
  key(id) { return `${this.kind}:${id}`; }
  async upsert(id, payload) { entries.set(this.key(id), payload); }
  async find(id) { return entries.get(this.key(id)); }
  async findByUid(uid) { return [...entries.values()].find((entry) => entry.kind === this.kind && entry.uid === uid); }
  async consume(id) { entries.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { entries.delete(this.key(id)); }
  async revokeByGrantId(grantId) {
    for (const [key, entry] of entries) if (entry.grantId === grantId) entries.delete(key);
  }
}

async function signingKey() {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  return { ...await exportJWK(privateKey), alg: 'RS256', use: 'sig' };
}

function client(client_id, client_secret, token_endpoint_auth_method) {
  return {
    client_id, client_secret, token_endpoint_auth_method,
    redirect_uris: process.env.REDIRECT_URIS.split(','),
    response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token'],
  };
}

async function configuration() {
  return {
    adapter: Entries,
    jwks: { keys: [await signingKey()] },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    clients: [
      client('broker', 'secret of broker', 'client_secret_basic'),
      client('broker-post', 'secret of broker-post', 'client_secret_post'),
    ],
    scopes: ['openid', 'email', 'offline_access', 'calendar.read', 'calendar.write'],
    claims: { openid: ['sub'], email: ['email'] },
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id, email: id }) }),
    pkce: { required: () => true },
    ttl: {
      AccessToken: () => control.access_token_ttl,
      AuthorizationCode: 60, Grant: 86400, IdToken: 300, Interaction: 600, RefreshToken: 86400, Session: 86400,
    },
    clockTolerance: 0, // by default an access token works for 15 s longer than it says
    rotateRefreshToken: () => control.rotate,
    features: {
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
    },
  };
}

// Whoever is asked logs in as the one who is expected, and consents to everything (or refuses, with `deny`).
async function interact(ctx) {
  const { grantId, params, prompt, session } = await provider.interactionDetails(ctx.req, ctx.res);
  let result;
  if (control.deny) {
    result = { error: 'access_denied' };
  } else if (prompt.name === 'login') {
    result = { login: { accountId: params.login_hint ?? 'somebody' } };
  } else {
    const given = grantId && await provider.Grant.find(grantId);
    const grant = given || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    result = { consent: { grantId: await grant.save() } };
  }
  ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result));
}

async function takeTokenRequest(ctx, next) {
  ctx.req.body = await text(ctx.req); // read here already, to know what it is before it is delayed
  const grantType = new URLSearchParams(ctx.req.body).get('grant_type');
  count(arrived, grantType);
  await pause(control.delay_ms);
  const outcome = await answer(ctx, next);
  if (grantType === 'refresh_token') count(refreshes, outcome);
}

async function answer(ctx, next) {
  if (control.fail_next > 0) {
    control.fail_next -= 1;
    ctx.status = 503;
    ctx.body = '<html>not now</html>';
    return 'failed';
  }
  await next();
  if (control.drop_next > 0) {
    control.drop_next -= 1;
    ctx.respond = false;
    ctx.req.socket.destroy();
    return 'dropped';
  }
  return ctx.status === 200 ? 'granted' : 'refused';
}

async function steer(ctx) {
  if (ctx.method === 'POST') {
    const { revoke, ...changes } = JSON.parse(await text(ctx.req));
    const unknown = Object.keys(changes).filter((name) => !(name in control));
    if (unknown.length) throw new errors.InvalidRequest(`no such control: ${unknown}`);
    Object.assign(control, changes);
    if (revoke !== undefined) withdraw(revoke);
  }
  ctx.body = { arrived, refreshes, calendar, refresh_tokens: unspent('RefreshToken') };
}

// A person withdraws all consent, as in their account's settings: the grants are gone, and with them their tokens.
function withdraw(accountId) {
  for (const [key, entry] of entries) {
    if (entry.accountId === accountId && entry.kind !== 'Session') entries.delete(key);
  }
}

const unspent = (kind) => [...entries.values()].filter((entry) => entry.kind === kind && !entry.consumed).map((entry) => entry.jti);

async function takeCalendarRequest(ctx) {
  await answerCalendar(ctx);
  count(calendar, `${ctx.method} ${ctx.query.syncToken ? 'incremental ' : ''}${ctx.status}`);
}

async function route(ctx, next) {
  if (ctx.path === '/_ctl') return steer(ctx);
  if (ctx.path.startsWith('/interaction/')) return interact(ctx);
  if (ctx.path.startsWith('/calendar/v3/') && process.env.MYWORLD) return takeCalendarRequest(ctx);
  if (ctx.path === '/token') return takeTokenRequest(ctx, next);
  return next();
}

const server = createServer();
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, await configuration());
const answerCalendar = calendarApi({ myworld: process.env.MYWORLD, control, find: (token) => provider.AccessToken.find(token) });
provider.use(route);
provider.on('server_error', (_ctx, error) => console.error(error));
server.on('request', provider.callback());
process.stdin.on('end', () => process.exit()).resume();
console.log(`listening on ${issuer}`);
