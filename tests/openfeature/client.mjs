// Asks flags by OpenFeature's Node SDK and its remote evaluation provider.
//
// stdin:  {"url", "key", "questions": [{"type": "boolean" | "integer" | "float" | "object", "flag", "default", "context"}],
//          "all": <context>}
// stdout: {"answers": [{"value", "variant", "reason", "errorCode", "metadata"}], "all": [<status>, <status>]}
//
// With "all", every flag is asked for twice, the second time with the ETag of the first answer.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.env.OPENFEATURE_DIR, 'npm', 'package.json'));
const { OpenFeature } = require('@openfeature/server-sdk');
const { OFREPProvider } = require('@openfeature/ofrep-provider');
const { OFREPApi } = require('@openfeature/ofrep-core');

const METHODS = { boolean: 'Boolean', integer: 'Number', float: 'Number', object: 'Object' };

const chunks = [];
for await (const chunk of process.stdin) {
  chunks.push(chunk);
}
const { url, key, questions, all } = JSON.parse(Buffer.concat(chunks));
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: url, headers: [['X-API-Key', key]] }));
const client = OpenFeature.getClient();
const answers = [];
for (const question of questions) {
  const method = `get${METHODS[question.type]}Details`;
  const { value, variant, reason, errorCode, flagMetadata } = await client[method](
    question.flag,
    question.default,
    question.context,
  );
  answers.push({ value, variant, reason, errorCode, metadata: flagMetadata });
}
const statuses = [];
if (all) {
  const api = new OFREPApi(url);
  const headers = [['Authorization', `Bearer ${key}`]];
  const first = await api.postBulkEvaluateFlags({ context: all }, { headers });
  headers.push(['If-None-Match', first.httpResponse.headers.get('etag')]);
  const second = await api.postBulkEvaluateFlags({ context: all }, { headers });
  statuses.push(first.httpStatus, second.httpStatus);
}
console.log(JSON.stringify({ answers, all: statuses }));
