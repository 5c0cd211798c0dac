// Asks the vendor's SDK for entitlements, the way a customer's process does.
//
// stdin:  {"redis": {"host", "port", "db", "environmentPrefix"}, "edgeUrl": "http://127.0.0.1:<port>",
//          "queries": [{"method": "getBooleanEntitlement", "args": {"customerId", "resourceId", "featureId", "options"}},
//                      {"method": "getEntitlements", "args": ["<customerId>", "<resourceId>"]}]}
// stdout: {"answers": [...]}, in the order of the queries
//
// A query that Redis cannot answer makes the SDK ask `edgeUrl`, and write to Redis what a successful response holds.
// Counting the requests there tells hits from misses; answering 404 keeps the misses quick and Redis untouched.

import { ask, connect, run } from './sdk.mjs';

await run(async ({ redis, edgeUrl, queries }) => {
  const client = await connect(redis, edgeUrl);
  return { answers: await ask(client, queries) };
});
