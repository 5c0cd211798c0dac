// Lets the vendor's SDK write Redis: it serves an Edge API to it, and asks for what is not cached.
//
// stdin:  as reader.mjs, with "entitlements": [<GraphQL Entitlement>] in place of "edgeUrl": what the Edge API answers for
//         every customer and resource; optionally "delayMs": how long it takes to answer
// stdout: {"answers": [...], "requests": ["/v1/c/<customerId>/entitlements.json", ...]}, requests in order of arrival

import { createServer } from 'node:http';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { ask, connect, run } from './sdk.mjs';

const ENTITLEMENTS_PATH = /^\/v1\/c\/[^/]+\/entitlements\.json(\?|$)/;

await run(async ({ redis, queries, entitlements, delayMs = 0 }) => {
  const requests = [];
  const edge = createServer(async (request, response) => {
    requests.push(request.url);
    await sleep(delayMs);
    const known = ENTITLEMENTS_PATH.test(request.url);
    // The SDK asks for nothing else with these options; if a later one does, `requests` shows it.
    response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(known ? { data: { entitlements } } : {}));
  }).listen(0, '127.0.0.1');
  await once(edge, 'listening');

  const client = await connect(redis, `http://127.0.0.1:${edge.address().port}`);
  return { answers: await ask(client, queries), requests };
});
