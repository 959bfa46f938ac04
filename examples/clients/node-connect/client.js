// Embed, rerank, errors, a deadline and a stream. Usage: node client.js HOST:PORT [MODEL_WITHOUT_WORKER]

import { setTimeout as sleep } from 'node:timers/promises';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from './gen/google/rpc/error_details_pb.js';
import { EmbeddingService, InputType } from './gen/qwen3/inference/v1/embedding_pb.js';
import { RerankService } from './gen/qwen3/inference/v1/rerank_pb.js';

const QUERY = 'What is the capital of China?';
const DOCUMENTS = ['The capital of China is Beijing.', 'Gravity attracts two bodies.'];
const TIMEOUT_MS = 30_000;
const MAX_ATTEMPTS = 5;
const INITIAL_BACKOFF_MS = 100;

function connect(target) {
  const transport = createGrpcTransport({
    baseUrl: `http://${target}`,
    defaultTimeoutMs: TIMEOUT_MS,
    interceptors: [retrying],
  });
  return { embedding: createClient(EmbeddingService, transport), rerank: createClient(RerankService, transport) };
}

/**
 * What gRPC's libraries do by service config: UNAVAILABLE is the server's word for "not begun: come back", and it says
 * when. CANCELLED is gRPC's own, of calls that reach a server in the moment in which it stops. The deadline is that of
 * all attempts together.
 */
function retrying(next) {
  return async (request) => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await next(request);
      } catch (error) {
        const isNotBegun = [Code.Unavailable, Code.Canceled].includes(ConnectError.from(error).code);
        if (request.stream || request.signal.aborted || attempt === MAX_ATTEMPTS || !isNotBegun) throw error;
        await sleep(waitMs(error, attempt), undefined, { signal: request.signal });
      }
    }
  };
}

function waitMs(error, attempt) {
  const pushbackMs = ConnectError.from(error).metadata.get('grpc-retry-pushback-ms');
  return pushbackMs === null ? INITIAL_BACKOFF_MS * 2 ** (attempt - 1) * Math.random() : Number(pushbackMs);
}

/** The float32 values of a vector, which are little-endian, as every machine that runs Node. */
function unpack({ packed }) {
  // A typed array wants an aligned start, which a slice of a message need not have: copied.
  return new Float32Array(packed.slice().buffer);
}

function dot(a, b) {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

/** What a refused call says of itself. */
function refusalOfCall(error) {
  const details = (schema) => error.findDetails(schema)[0];
  return refusalOf(error.code, details(ErrorInfoSchema), details(BadRequestSchema), details(RetryInfoSchema));
}

/** The same of a chunk, whose details are a field of the answer. */
function refusalOfChunk(error) {
  const details = (schema) => error.details.map((detail) => anyUnpack(detail, schema)).find(Boolean);
  return refusalOf(error.code, details(ErrorInfoSchema), details(BadRequestSchema), details(RetryInfoSchema));
}

function refusalOf(code, info, badRequest, retry) {
  return {
    code: Code[code],
    reason: info?.reason ?? '',
    field: badRequest?.fieldViolations[0].field ?? '',
    retry_s: retry ? Number(retry.retryDelay.seconds) + retry.retryDelay.nanos / 1e9 : 0,
  };
}

async function embed(client, inputs, inputType) {
  const { embeddings } = await client.embed({ config: { inputType }, inputs });
  return embeddings.map(unpack);
}

/** The messages of one stream: the config, then `chunks`, a Map of texts by chunk id. */
async function* messages(config, chunks) {
  yield { payload: { case: 'config', value: config } };
  for (const [chunkId, inputs] of chunks) yield { payload: { case: 'chunk', value: { chunkId, inputs } } };
}

function show(name, fields) {
  // 64-bit integers are bigint here.
  const line = { call: name, ...fields };
  console.log(JSON.stringify(line, (_, value) => (typeof value === 'bigint' ? Number(value) : value)));
}

async function showEmbed({ embedding }) {
  const [query] = await embed(embedding, [QUERY], InputType.QUERY);
  const documents = await embed(embedding, DOCUMENTS, InputType.DOCUMENT);
  const similarities = documents.map((document) => dot(query, document));
  show('embed', { dimensions: query.length, first_values: [...query.slice(0, 2)], similarities });
}

async function showRerank({ rerank }) {
  const { results } = await rerank.rerank({ query: QUERY, documents: DOCUMENTS });
  for (const { index, score } of results) show('rerank', { index, score });
}

async function showRefused({ embedding }) {
  const error = await embed(embedding, ['a text', ' '], InputType.DOCUMENT).catch(ConnectError.from);
  show('refused', refusalOfCall(error));
}

async function showDeadline({ embedding }) {
  const error = await embedding.embed({ inputs: ['too late'] }, { timeoutMs: 1 }).catch(ConnectError.from);
  show('deadline', { code: Code[error.code] });
}

async function showStream({ embedding }) {
  const chunks = new Map([[10n, DOCUMENTS], [20n, [' ']], [30n, [QUERY]]]);
  // Answers come in any order.
  const outcomes = new Map();
  for await (const { chunkId, outcome } of embedding.embedStream(messages({ inputType: InputType.DOCUMENT }, chunks))) {
    outcomes.set(chunkId, outcome);
  }
  for (const chunkId of chunks.keys()) {
    const { case: kind, value } = outcomes.get(chunkId);
    const fields =
      kind === 'error'
        ? refusalOfChunk(value)
        : { num_vectors: value.embeddings.length, first_value: unpack(value.embeddings[0])[0] };
    show('stream', { chunk_id: chunkId, ...fields });
  }
}

async function showUnavailable({ embedding }, model) {
  const error = await embedding.embed({ config: { model }, inputs: ['a text'] }).catch(ConnectError.from);
  show('unavailable', refusalOfCall(error));
}

const [target, modelWithoutWorker] = process.argv.slice(2);
if (!target) {
  console.error('usage: node client.js HOST:PORT [MODEL_WITHOUT_WORKER]');
  process.exit(2);
}
const clients = connect(target);
await showEmbed(clients);
await showRerank(clients);
await showRefused(clients);
await showDeadline(clients);
await showStream(clients);
if (modelWithoutWorker) await showUnavailable(clients, modelWithoutWorker);
