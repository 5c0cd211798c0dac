// The peer of the read API: the vendor's SDK, answering from Redis inside a Node HTTP server, as a service in front of
// other languages would be built.

import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { join } from 'node:path';

const fromModules = createRequire(join(process.env.BENCH_MODULES, 'package.json'));
const { LogLevel, Stigg } = fromModules('@stigg/node-server-sdk');

// An instance of a class: the SDK merges an object literal into the console, which would silence that.
const silent = new (class {
  error() {}
  log() {}
  debug() {}
})();
const stigg = Stigg.initialize({
  apiKey: 'bench',
  baseUri: 'http://127.0.0.1:9',
  baseEdgeUri: process.env.EDGE_API_URL,
  enableRemoteConfig: false,
  realtimeUpdatesEnabled: false,
  logConfiguration: { logger: silent, logLevel: LogLevel.ERROR },
  redis: { host: '127.0.0.1', port: Number(process.env.REDIS_PORT), db: 0, environmentPrefix: 'production', ttl: 604800 },
});
await stigg.waitForInitialization();

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const customerId = url.searchParams.get('customer');
  const answer =
    url.pathname === '/flag'
      ? await stigg.getMeteredEntitlement({ customerId, featureId: url.searchParams.get('feature') })
      : await stigg.getEntitlements(customerId);
  const body = JSON.stringify(answer);
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  response.end(body);
});
server.keepAliveTimeout = 75_000;
server.listen(Number(process.env.READ_PORT), '127.0.0.1', () => console.log('ready'));
