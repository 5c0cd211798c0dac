// What the programs here share: finding the vendor's SDK, starting it, and speaking JSON over stdin and stdout.

import { Console } from 'node:console';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const CONNECT_TIMEOUT_MS = 10_000;

// stdout holds nothing but our own lines: the SDK logs to the global console, and so may its dependencies.
globalThis.console = new Console(process.stderr, process.stderr);

// The SDK's HTTP client obeys these, and would then ask the proxy for the loopback address.
for (const name of ['http_proxy', 'https_proxy', 'all_proxy']) {
  delete process.env[name];
  delete process.env[name.toUpperCase()];
}

const sdkDir = resolve(
  process.env.ENTITLEMENT_SYNC_SDK_DIR || fileURLToPath(new URL('../../.tools/sdk', import.meta.url)),
);
const requireFromDir = createRequire(join(sdkDir, 'package.json'));

/** Loads a file of the SDK's `dist`, such as `index` or `utils/CacheMapper`. */
export function loadSdk(file) {
  return required(requireFromDir, `@stigg/node-server-sdk/dist/${file}.js`);
}

/** Loads a dependency of the SDK, such as `ioredis`, from where the SDK itself finds it. */
export function loadDependency(name) {
  return required(createRequire(requireFromDir.resolve('@stigg/node-server-sdk')), name);
}

export function sdkVersion() {
  return required(requireFromDir, '@stigg/node-server-sdk/package.json').version;
}

function required(require, id) {
  try {
    return require(id);
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') {
      throw error;
    }
    throw new Error(
      `the Stigg SDK is not installed in ${sdkDir} (ENTITLEMENT_SYNC_SDK_DIR names the directory that holds its node_modules): ` +
        error.message.split('\n')[0],
    );
  }
}

/**
 * The SDK reports most failures to its logger only and answers with a fallback, so errors are kept and shown on stderr.
 * An instance of a class, not an object literal: the SDK merges a literal into the global console, which changes that.
 */
export class ErrorLog {
  messages = [];

  error(message, extra) {
    const reason = extra instanceof Object ? (extra.message ?? JSON.stringify(extra)) : (extra ?? '');
    const [firstLine] = reason.split('\n');
    const text = message.includes(firstLine) ? message : `${message} ${firstLine}`;
    this.messages.push(text);
    console.error(text);
  }

  log() {}

  debug() {}
}

/** SDK options under which it talks to Redis, if it has one, and `edgeUrl`, and to no other address. */
export function sdkOptions(redis, edgeUrl, log = new ErrorLog(), enableRemoteConfig = false) {
  const url = edgeUrl.replace(/\/+$/, '');
  return {
    apiKey: 'server-test-key',
    // All three, or the SDK derives the missing ones from its defaults, which are public hosts.
    baseUri: url,
    baseEdgeUri: url,
    wsUrl: url.replace(/^http/, 'ws'),
    // Any option of ioredis may stand beside the SDK's own `environmentPrefix` and `ttl` (seconds).
    redis,
    // With it, the SDK asks for its configuration, and does not start without an answer.
    enableRemoteConfig,
    realtimeUpdatesEnabled: false,
    logConfiguration: { logger: log, logLevel: loadSdk('index').LogLevel.ERROR },
  };
}

/** Initialises the SDK, and waits until it is connected to Redis, if it has one. */
export async function connect(redis, edgeUrl, remoteConfig = false) {
  const { Stigg } = loadSdk('index');
  const client = Stigg.initialize(sdkOptions(redis, edgeUrl, new ErrorLog(), remoteConfig));
  await client.waitForInitialization();
  if (redis) {
    await connected(client.entitlementsService.cacheService, redis);
  }
  return client;
}

/** The SDK's own wait gives up after 250 ms, and a query without a connection is answered with a fallback. */
export async function connected(cacheService, redis) {
  const deadline = Date.now() + CONNECT_TIMEOUT_MS;
  while (!cacheService.isClientConnected()) {
    if (Date.now() > deadline) {
      throw new Error(`no connection to Redis at ${redis.host}:${redis.port} within ${CONNECT_TIMEOUT_MS} ms`);
    }
    await sleep(5);
  }
}

/** Answers of the SDK to `[{method, args}]`, asked one after another; `args` is an array, or the only argument. */
export async function ask(client, queries) {
  const answers = [];
  for (const { method, args } of queries) {
    try {
      if (typeof client[method] !== 'function') {
        throw new Error(`the SDK has no method ${method}`);
      }
      answers.push((await client[method](...(Array.isArray(args) ? args : [args]))) ?? null);
    } catch (error) {
      answers.push({ error: error.message });
    }
  }
  return answers;
}

export function printLine(text) {
  return new Promise((done) => process.stdout.write(`${text}\n`, done));
}

/** Runs `program` with the JSON document on stdin, prints what it returns as one line of JSON, and ends the process. */
export async function run(program) {
  try {
    const chunks = [];
    for await (const chunk of process.stdin) {
      chunks.push(chunk);
    }
    await printLine(JSON.stringify(await program(JSON.parse(Buffer.concat(chunks)))));
    // Not by itself: open connections keep the process alive, and the SDK's close() cannot be awaited.
    process.exit(0);
  } catch (error) {
    console.error(error.stack);
    process.exit(1);
  }
}
