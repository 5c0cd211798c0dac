// Opens the status page of a real worker, between a real Redis and a local SQS, in a headless browser.
// Usage: node tests/page/page.mjs <path of the binary>     (script/page builds it and installs what this needs)

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const TOOLS = join(ROOT, '.tools');
const SHOTS = join(ROOT, 'target/page');
const BINARY = resolve(process.argv[2] ?? 'target/debug/entitlement-sync');
const { chromium } = createRequire(join(TOOLS, 'page/package.json'))('playwright-core');
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const SIZES = { phone: { width: 360, height: 740 }, desktop: { width: 1280, height: 900 } };

const folder = mkdtempSync(join(tmpdir(), 'page-'));
const children = [];
let passed = 0, failed = 0;

function check(good, what, detail) {
  good ? passed++ : failed++;
  if (!good) console.log(`FAIL  ${what}${detail === undefined ? '' : `: ${detail}`}`);
}

const freePort = () => new Promise(done => {
  const server = createServer().listen(0, '127.0.0.1', () => { const { port } = server.address(); server.close(() => done(port)); });
});

function start(name, command, args, env) {
  const log = openSync(join(folder, `${name}.log`), 'a');
  const child = spawn(command, args, { env: { PATH: process.env.PATH, HOME: folder, TMPDIR: folder, ...env }, cwd: folder, stdio: ['ignore', log, log] });
  child.on('error', error => { console.log(`FAIL  ${name}: ${error.message}`); process.exitCode = 1; });
  children.push(child);
  return child;
}

async function until(what, condition, timeout = 20_000) {
  const end = Date.now() + timeout;
  while (Date.now() < end) {
    if (await Promise.resolve().then(condition).catch(() => false)) return true;
    await new Promise(done => setTimeout(done, 100));
  }
  check(false, `waited ${timeout / 1000} s in vain: ${what}`);
  return false;
}

// SQS's JSON protocol; the local server checks no signature.
async function sqs(port, action, body) {
  const answer = await fetch(`http://127.0.0.1:${port}/`, {
    method: 'POST', body: JSON.stringify(body),
    headers: {
      'content-type': 'application/x-amz-json-1.0', 'x-amz-target': `AmazonSQS.${action}`,
      authorization: 'AWS4-HMAC-SHA256 Credential=test/20250101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0',
    },
  });
  if (!answer.ok) throw new Error(`${action}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

// A worker that has been busy for long, with everything as long as it gets.
function busy(status) {
  const wave = at => 40 + 30 * Math.sin(at / 9) + (at % 7);
  const history = [];
  for (let ago = 890; ago >= 0; ago -= 10) {
    if (ago > 500 && ago < 560) continue;
    const slow = ago < 200 && ago > 120 ? 8 : 1;
    history.push({ secs_ago: ago, messages: Math.round(wave(ago / 10) * 10), lag_p50_ms: Math.round(slow * (18 + ago % 13)), lag_p99_ms: Math.round(slow * (60 + ago % 90)) });
  }
  const states = ['receiving', 'working', 'working', 'sleeping', 'sleeping', 'waiting_for_room', 'backing_off', 'working', 'receiving', 'sleeping'];
  return {
    ...status, uptime_secs: 400_000, history, consumers: 9,
    lag: { window_secs: 300, messages: 13_000, p50_ms: 21, p95_ms: 96, p99_ms: 1_240 },
    queue: { ...status.queue, depth: { visible: 12_345, in_flight: 1_234, delayed: 0 } },
    counters: { ...status.counters, applied: 12_345_678, stale: 45_678, skipped: 91_234, redelivered: 321, invalid: 17, dead_lettered: 3, unrecognised: 1_234 },
    consumer_states: states.map((state, at) => ({ state, since_secs: at * 17, messages: 1_234_567 + at, ...(state === 'backing_off' ? { last_error: 'throttled: RequestThrottled: Rate exceeded.' } : {}) })),
    reads: {
      tracking: false, tracking_reason: 'NOPERM this user has no permissions to run the … command', redis: true, upstream: false,
      copies: 123_456, copy_bytes: 201_326_592, copy_bytes_limit: 268_435_456, evictions: 98_765, invalidations: 12_345_678, joined: 4_321,
      questions: { fresh: 123_456_789, redis: 2_345_678, upstream: 34_567, stale: 12_345, cannot_tell: 321, denied: 12, refused: 3 },
      upstream_requests: { found: 34_567, not_found: 123, refused: 0, failed: 45, skipped: 6 },
    },
    recent_errors: [
      { at_ms: Date.now() - 5_000, level: 'WARN', message: 'receiving from the queue failed', cause: 'throttled: RequestThrottled: Rate exceeded.' },
      { at_ms: Date.now() - 65_000, level: 'ERROR', message: 'gave up on a message; it is left for the dead-letter queue', cause: `entitlements_updated: ${'customerId'.repeat(20)}` },
      { at_ms: Date.now() - 165_000, level: 'ERROR', message: '<img src=x onerror="document.title=1">', cause: 'text, not markup' },
    ],
  };
}

async function open(browser, origin, size, colorScheme, answer) {
  const context = await browser.newContext({ viewport: SIZES[size], colorScheme, deviceScaleFactor: size === 'phone' ? 2 : 1 });
  const page = await context.newPage();
  const seen = { errors: [], requests: [] };
  page.on('console', message => { if (message.type() === 'error') seen.errors.push(message.text()); });
  page.on('pageerror', error => seen.errors.push(error.message));
  page.on('request', request => seen.requests.push(request.url()));
  if (answer) await page.route('**/status', route => route.fulfill({ json: answer }));
  await page.goto(origin);
  await page.waitForFunction(() => document.querySelector('#tiles b'));
  return { context, page, seen };
}

const text = (page, selector) => page.locator(selector).first().innerText();
const tile = async (page, name) => Number((await page.locator('.tile', { hasText: new RegExp(`${name}$`) }).locator('b').innerText()).replaceAll(',', ''));
const alarms = (page, name) => page.locator('.tile', { hasText: new RegExp(`${name}$`) }).evaluate(it => it.classList.contains('bad'));

async function checkLook(page, size, what) {
  const wide = await page.evaluate(() => {
    const most = document.documentElement.clientWidth;
    const wider = [...document.querySelectorAll('body *')].filter(it => !it.closest('svg') && it.getBoundingClientRect().right > most + 0.5);
    wider.push(...[...document.querySelectorAll('.tile, .tile b, h1, h2, dd')].filter(it => it.scrollWidth > it.clientWidth + 1 && getComputedStyle(it).display !== 'inline'));
    return { scroll: document.documentElement.scrollWidth - most, wider: wider.slice(0, 5).map(it => it.outerHTML.slice(0, 80)) };
  });
  check(wide.scroll <= 0 && wide.wider.length === 0, `${what}: nothing is wider than the screen`, JSON.stringify(wide));
  // Contrast of each piece of text against what is behind it, as WCAG AA has it.
  const faint = await page.evaluate(() => {
    const rgb = colour => colour.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(it => it / 255).map(it => it <= .03928 ? it / 12.92 : ((it + .055) / 1.055) ** 2.4).reduce((sum, it, at) => sum + it * [.2126, .7152, .0722][at], 0);
    const behind = it => { for (; it; it = it.parentElement) { const colour = rgb(getComputedStyle(it).backgroundColor); if (colour.length < 4 || colour[3] > 0) return colour; } return [255, 255, 255]; };
    const own = it => [...it.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    return [...document.querySelectorAll('body *')].filter(it => own(it) && !it.closest('script')).filter(it => {
      const [one, other] = [light(rgb(getComputedStyle(it).color)), light(behind(it))].sort((a, b) => b - a);
      return (one + .05) / (other + .05) < 4.5;
    }).map(it => it.outerHTML.slice(0, 80));
  });
  check(faint.length === 0, `${what}: text can be read`, faint.join('\n'));
}

try {
  mkdirSync(SHOTS, { recursive: true });
  const [redisPort, sqsPort, port] = [await freePort(), await freePort(), await freePort()];
  const redis = start('redis', 'redis-server', ['--port', String(redisPort), '--bind', '127.0.0.1', '--save', '']);
  start('sqs', join(TOOLS, 'ministack/bin/ministack'), [], {
    SERVICES: 'sqs', BIND_HOST: '127.0.0.1', GATEWAY_PORT: String(sqsPort), LOG_LEVEL: 'WARNING', STATE_DIR: folder,
    DOCKER_HOST: 'unix:///nonexistent',
  });
  await until('the local SQS answers', async () => (await fetch(`http://127.0.0.1:${sqsPort}/_ministack/health`)).ok);
  const { QueueUrl } = await sqs(sqsPort, 'CreateQueue', { QueueName: 'page' });
  const worker = start('worker', BINARY, [], {
    AWS_REGION: 'us-east-1', AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test', AWS_EC2_METADATA_DISABLED: 'true',
    QUEUE_URL: QueueUrl, SERVER_API_KEY: 'page-canary-key', EDGE_API_URL: 'http://127.0.0.1:1', DISABLE_SENTRY: '1',
    REDIS_HOST: '127.0.0.1', REDIS_PORT: String(redisPort), BATCH_SIZE: '10', PORT: String(port),
  });
  const origin = `http://127.0.0.1:${port}/`;
  await until('the worker is ready', async () => (await fetch(`${origin}readyz`)).ok);
  const send = async (from, to) => {
    for (let at = from; at < to; at++) {
      await sqs(sqsPort, 'SendMessage', { QueueUrl, MessageBody: JSON.stringify({ type: 'entitlements.updated', timestamp: '2025-11-14T20:00:00.000Z', customerId: `canary-${at}`, entitlements: [] }) });
    }
  };

  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
  const views = [];
  for (const size of ['phone', 'desktop']) {
    for (const scheme of ['light', 'dark']) views.push({ name: `${size}-${scheme}`, size, ...await open(browser, origin, size, scheme) });
  }

  await send(0, 20);
  for (const { name, page } of views) {
    check(await text(page, '#state') === 'UP', `${name}: the state is UP`);
    check(await text(page, '#reason') === '', `${name}: no reason is shown while it is UP`);
    check(await page.locator('#reads').isHidden() && await page.locator('.of-queue:visible').count() === 5, `${name}: no answers are shown where none are given`);
    await until(`${name}: 20 are applied`, async () => await tile(page, 'applied') === 20);
    check(await tile(page, 'unrecognised') === 0 && !await alarms(page, 'unrecognised'), `${name}: nothing is unrecognised, and that is no alarm`);
  }
  await send(20, 45);
  // Known to nobody: kept, counted, and shown.
  for (let at = 0; at < 3; at++) await sqs(sqsPort, 'SendMessage', { QueueUrl, MessageBody: JSON.stringify({ type: 'page.new', customerId: `canary-${at}` }) });
  for (const { name, page } of views) {
    await until(`${name}: the numbers move`, async () => await tile(page, 'applied') === 45);
    await until(`${name}: the unrecognised are counted`, async () => await tile(page, 'unrecognised') === 3);
    check(await alarms(page, 'unrecognised'), `${name}: what is unrecognised stands out`);
    check(/^\d/.test(await text(page, '#tiles b')), `${name}: there is a lag`);
    check(/10 of 10 in use/.test(await text(page, '#in-use')), `${name}: the consumers in use`, await text(page, '#in-use'));
  }
  const first = views[0].page;
  await until('the rate is drawn', async () => /\d/.test(await first.locator('#rate path').last().getAttribute('d') ?? ''), 15_000);
  for (const { name, size, page } of views) {
    await page.locator('details').evaluateAll(all => all.forEach(it => { it.open = true; }));
    const body = await text(page, 'body');
    check(!/page-canary-key|canary-\d/.test(body), `${name}: no secret and no customer is shown`);
    check(/ENVIRONMENT_PREFIX/.test(body), `${name}: the configuration is shown`);
    await checkLook(page, size, name);
    await page.screenshot({ path: join(SHOTS, `${name}-up.png`), fullPage: true });
  }

  // A process that only answers.
  const [readPort, ownPort] = [await freePort(), await freePort()];
  const reader = start('reader', BINARY, ['serve'], {
    SERVER_API_KEY: 'page-canary-key', EDGE_API_URL: 'http://127.0.0.1:1', DISABLE_SENTRY: '1', REDIS_HOST: '127.0.0.1',
    REDIS_PORT: String(redisPort), PORT: String(ownPort), READ_PORT: String(readPort),
  });
  await until('the reader is ready', async () => (await (await fetch(`http://127.0.0.1:${readPort}/readyz`)).json()).redis === 'CONNECTED');
  for (const size of ['phone', 'desktop']) {
    const name = `${size}-light-answers`;
    const { context, page, seen } = await open(browser, `http://127.0.0.1:${ownPort}/`, size, 'light');
    for (let at = 0; at < 2; at++) await fetch(`http://127.0.0.1:${readPort}/v1/c/canary-1/entitlements.json`, { headers: { 'x-api-key': 'page-canary-key' } });
    await until(`${name}: two were answered`, async () => /\b(2|4) (fresh|redis)|1 fresh/.test(await text(page, '#reads-legend')));
    check(await text(page, '#reads-from') === 'from Redis, Edge API, memory', `${name}: whom is asked`, await text(page, '#reads-from'));
    check(/notified by Redis: \d/.test(await text(page, '#reads-facts')), `${name}: Redis notifies changes`, await text(page, '#reads-facts'));
    check(await page.locator('.of-queue').count() === 5 && await page.locator('.of-queue:visible').count() === 0, `${name}: nothing of a queue is shown`);
    check(!/page-canary-key|canary-\d/.test(await text(page, 'body')), `${name}: no secret and no customer is shown`);
    await checkLook(page, size, name);
    await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
    check(seen.errors.length === 0, `${name}: no error in the console`, seen.errors.join('\n'));
    await context.close();
  }
  reader.kill('SIGTERM');

  // A process that holds the state itself: nothing names Redis, and the page warns if nothing keeps the state.
  for (const kept of [false, true]) {
    const [readPort, ownPort] = [await freePort(), await freePort()];
    const { QueueUrl: own } = await sqs(sqsPort, 'CreateQueue', { QueueName: `memory-${kept}` });
    const inMemory = start(`memory-${kept}`, BINARY, [], {
      STORE: 'memory', AWS_REGION: 'us-east-1', AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test', AWS_EC2_METADATA_DISABLED: 'true',
      QUEUE_URL: own, SERVER_API_KEY: 'page-canary-key', EDGE_API_URL: 'http://127.0.0.1:1', DISABLE_SENTRY: '1', PORT: String(ownPort), READ_PORT: String(readPort),
      ...(kept ? { SNAPSHOT_PATH: join(folder, 'state'), SNAPSHOT_KEY: 'page-canary-key-of-snapshots' } : {}),
    });
    const at = `http://127.0.0.1:${ownPort}/`;
    await until('the process in memory mode is ready', async () => (await fetch(`${at}readyz`)).ok);
    await sqs(sqsPort, 'SendMessage', { QueueUrl: own, MessageBody: JSON.stringify({ type: 'entitlements.updated', timestamp: '2025-11-14T20:00:00.000Z', customerId: 'canary-1', entitlements: [] }) });
    for (const size of ['phone', 'desktop']) {
      const name = `${size}-light-memory-${kept ? 'kept' : 'unkept'}`;
      const { context, page, seen } = await open(browser, at, size, 'light');
      await until(`${name}: the message is applied`, async () => await tile(page, 'applied') === 1);
      await until(`${name}: the state is proven`, async () => await text(page, '#memory-proven') === 'proven by the queue');
      await page.locator('details').evaluateAll(all => all.forEach(it => { it.open = true; }));
      const body = await text(page, 'body');
      check(!/redis/i.test(body), `${name}: nothing names Redis`, body.match(/.*redis.*/ig)?.join('\n'));
      check(/until it is applied/.test(body) && /state in memory/.test(body), `${name}: it names the state`);
      const warning = await text(page, '#warning');
      check(kept ? warning === '' : /a restart begins with nothing/.test(warning), `${name}: the danger of a state that nothing keeps`, warning);
      check(/1, \d+ KiB of/.test(await text(page, '#memory-facts')), `${name}: the state is counted`, await text(page, '#memory-facts'));
      check(!/page-canary-key|canary-\d/.test(body), `${name}: no secret and no customer is shown`);
      await checkLook(page, size, name);
      await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
      check(seen.errors.length === 0, `${name}: no error in the console`, seen.errors.join('\n'));
      await context.close();
    }
    inMemory.kill('SIGTERM');
  }

  redis.kill('SIGTERM');
  for (const { name, size, page } of views) {
    await until(`${name}: the state is DOWN`, async () => await text(page, '#state') === 'DOWN');
    check(/^redis: \S+/.test(await text(page, '#reason')), `${name}: the reason is shown`, await text(page, '#reason'));
    await checkLook(page, size, `${name} while DOWN`);
    await page.screenshot({ path: join(SHOTS, `${name}-down.png`) });
  }
  for (const { name, seen } of views) {
    check(seen.errors.length === 0, `${name}: no error in the console`, seen.errors.join('\n'));
    const foreign = seen.requests.filter(url => !url.startsWith(origin));
    check(foreign.length === 0 && seen.requests.length > 2, `${name}: nobody else is asked`, foreign.join(' '));
    check(new Set(seen.requests).size === 2, `${name}: the page and /status are all that is asked`, [...new Set(seen.requests)].join(' '));
  }

  const status = await (await fetch(`${origin}status`)).json();
  const long = busy({ ...status, status: 'UP', redis: 'CONNECTED', unready_reason: undefined });
  for (const size of ['phone', 'desktop']) {
    for (const scheme of ['light', 'dark']) {
      const name = `${size}-${scheme}-busy`;
      const { context, page, seen } = await open(browser, origin, size, scheme, long);
      await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
      await page.locator('details').evaluateAll(all => all.forEach(it => { it.open = true; }));
      await checkLook(page, size, name);
      const reads = await text(page, '#reads');
      for (const part of ['from Redis, memory', '123.5M fresh', '321 cannot tell', '98.1 %', 'not notified by Redis: NOPERM', '123,456, 192 MiB of 256 MiB', '34,567 found, 123 not found, 45 failed, 6 skipped']) {
        check(reads.includes(part), `${name}: the answers show ${part}`, reads);
      }
      await page.locator('#lag').hover();
      check(/ago: p50 .* p99 /.test(await text(page, '#lag-at')), `${name}: the chart tells its values`, await text(page, '#lag-at'));
      check(await page.locator('#errors img').count() === 0, `${name}: what is shown is text, not markup`);
      check(seen.errors.length === 0, `${name}: no error in the console`, seen.errors.join('\n'));
      await context.close();
    }
  }

  worker.kill('SIGKILL');
  await until('no answer is shown', async () => await text(first, '#state') === 'NO ANSWER');
  await first.screenshot({ path: join(SHOTS, 'phone-light-no-answer.png') });
  await browser.close();
} catch (error) {
  check(false, error.stack ?? String(error));
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
