// Google's Calendar API for the people of `server.mjs`: it takes their access tokens, and hands each request on to a `myworld`
// host with that host's own token of the same person, whose account is an address for mail.
import { buffer } from 'node:stream/consumers';
import { setTimeout as pause } from 'node:timers/promises';

const WORLD = 'calendars'; // the name in myworld/world.yaml

// As Google writes them: https://developers.google.com/workspace/calendar/api/guides/errors
const failure = (code, reason, message, status) => ({ error: { code, message, errors: [{ domain: 'global', reason, message }], status } });
const UNAUTHENTICATED = failure(401, 'authError', 'Request had invalid authentication credentials.', 'UNAUTHENTICATED');
const FORBIDDEN = failure(403, 'insufficientPermissions', 'Request had insufficient authentication scopes.', 'PERMISSION_DENIED');
const FULL_SYNC_REQUIRED = failure(410, 'fullSyncRequired', 'Sync token is no longer valid, a full sync is required.');
const UNAVAILABLE = failure(503, 'backendError', 'Backend Error', 'UNAVAILABLE');

// `find` gives an access token's payload, or nothing. `control` has `calendar_401`, `calendar_410`, `calendar_503` (so many
// requests that could be answered are not; 410 only those with a sync token) and `calendar_delay_ms`.
export function calendarApi({ myworld, control, find }) {
  let people;

  async function tokenOf(email) {
    people ??= Object.values((await (await fetch(`${myworld}/envs/${WORLD}`)).json()).credentials);
    return people.find((person) => person.email === email)?.google_access_token;
  }

  function isInjected(name) {
    if (control[name] <= 0) return false;
    control[name] -= 1;
    return true;
  }

  async function refusal(ctx) {
    const token = await find((ctx.get('authorization') ?? '').replace(/^Bearer /, ''));
    if (!token || isInjected('calendar_401')) return UNAUTHENTICATED;
    const scope = ctx.method === 'GET' ? 'calendar.' : 'calendar.write';
    ctx.state.theirs = await tokenOf(token.accountId);
    if (!(token.scope ?? '').includes(scope) || !ctx.state.theirs) return FORBIDDEN;
    if (isInjected('calendar_503')) return UNAVAILABLE;
    if (ctx.query.syncToken && isInjected('calendar_410')) return FULL_SYNC_REQUIRED;
    return undefined;
  }

  async function handOn(ctx) {
    const headers = { authorization: `Bearer ${ctx.state.theirs}` };
    for (const name of ['content-type', 'if-match']) if (ctx.get(name)) headers[name] = ctx.get(name);
    const body = ctx.method === 'GET' ? undefined : await buffer(ctx.req);
    const answer = await fetch(`${myworld}/gw/www.googleapis.com${ctx.url}`, { method: ctx.method, headers, body });
    ctx.body = Buffer.from(await answer.arrayBuffer());
    ctx.status = answer.status;
    if (answer.headers.has('content-type')) ctx.set('content-type', answer.headers.get('content-type'));
  }

  return async function answer(ctx) {
    await pause(control.calendar_delay_ms);
    const refused = await refusal(ctx);
    if (!refused) return handOn(ctx);
    ctx.status = refused.error.code;
    if (ctx.status === 401) ctx.set('WWW-Authenticate', 'Bearer error="invalid_token"');
    ctx.body = refused;
    return undefined;
  };
}
