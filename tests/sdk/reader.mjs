// Asks the vendor's SDK for entitlements, the way a customer's process does.
//
// stdin:  {"redis": {"host", "port", "db", "environmentPrefix"}, "edgeUrl": "http://127.0.0.1:<port>", "remoteConfig": false,
//          "queries": [{"method": "getBooleanEntitlement", "args": {"customerId", "resourceId", "featureId", "options"}},
//                      {"method": "getEntitlements", "args": ["<customerId>", "<resourceId>"]}]}
// stdout: {"answers": [...]}, in the order of the queries
//
// Without "redis" the SDK asks `edgeUrl` for each query. With "remoteConfig" it asks there for its configuration first, as it
// does in production.
//
// A query that Redis cannot answer makes the SDK ask `edgeUrl`, and write to Redis what a successful response holds.
// Counting the requests there tells hits from misses; answering 404 keeps the misses quick and Redis untouched.

import { ask, connect, run } from './sdk.mjs';

await run(async ({ redis, edgeUrl, queries, remoteConfig }) => {
  const client = await connect(redis, edgeUrl, remoteConfig);
  return { answers: await ask(client, queries) };
});
