// Embed, rerank, errors, a deadline and a stream. Usage: node client.js HOST:PORT [MODEL_WITHOUT_WORKER]

import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { BadRequest, ErrorInfo, RetryInfo } from 'nice-grpc-error-details';

const PROTOS = fileURLToPath(new URL('../../../protos', import.meta.url));
const QUERY = 'What is the capital of China?';
const DOCUMENTS = ['The capital of China is Beijing.', 'Gravity attracts two bodies.'];
const TIMEOUT_MS = 30_000;

// UNAVAILABLE is the server's word for "not begun: come back"; grpc-js waits as long as the server says. CANCELLED is
// gRPC's own, of calls that reach a server in the moment in which it stops.
const SERVICE_CONFIG = {
  loadBalancingConfig: [],
  methodConfig: [
    {
      name: [{ service: 'qwen3.inference.v1.EmbeddingService' }, { service: 'qwen3.inference.v1.RerankService' }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: '0.1s',
        maxBackoff: '5s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE', 'CANCELLED'],
      },
    },
  ],
};
const CHANNEL_OPTIONS = {
  'grpc.service_config': JSON.stringify(SERVICE_CONFIG),
  // A call that outgrows this is not tried again; the default is 1 MiB.
  'grpc.per_rpc_retry_buffer_size': 16 * 1024 * 1024,
};

// Fields are camelCase here. One with a misspelt name is not refused but left out: a reason to use generated types.
const definition = protoLoader.loadSync(
  ['qwen3/inference/v1/embedding.proto', 'qwen3/inference/v1/rerank.proto'],
  { includeDirs: [PROTOS], longs: Number, enums: String, defaults: true, oneofs: true },
);
const { EmbeddingService, RerankService } = grpc.loadPackageDefinition(definition).qwen3.inference.v1;
// It has the wire form of google.rpc.Status, so it reads the details of a whole call too.
const ChunkError = definition['qwen3.inference.v1.ChunkError'];

function connect(target) {
  const clientOf = (Service) => new Service(target, grpc.credentials.createInsecure(), CHANNEL_OPTIONS);
  return { embedding: clientOf(EmbeddingService), rerank: clientOf(RerankService) };
}

/** Calls a unary method; rejects with a grpc.ServiceError. */
function call(client, method, request, timeoutMs = TIMEOUT_MS) {
  return promisify(client[method]).call(client, request, { deadline: Date.now() + timeoutMs });
}

/** The float32 values of a vector, which are little-endian, as every machine that runs Node. */
function unpack({ packed }) {
  // A typed array wants an aligned start, which a slice of a message need not have: copied.
  return new Float32Array(Uint8Array.from(packed).buffer);
}

function dot(a, b) {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

/** What a refusal says of itself: of a chunk, or of a call by its `grpc-status-details-bin`. */
function refusalOf({ code, details }) {
  const refusal = { code: grpc.status[code], reason: '', field: '', retry_s: 0 };
  for (const { type_url: type, value } of details) {
    if (type.endsWith('/google.rpc.ErrorInfo')) {
      refusal.reason = ErrorInfo.decode(value).reason;
    } else if (type.endsWith('/google.rpc.BadRequest')) {
      refusal.field = BadRequest.decode(value).fieldViolations[0].field;
    } else if (type.endsWith('/google.rpc.RetryInfo')) {
      const { seconds, nanos } = RetryInfo.decode(value).retryDelay;
      refusal.retry_s = Number(seconds) + nanos / 1e9;
    }
  }
  return refusal;
}

function refusalOfCall(error) {
  // Missing where the error is the library's own, such as a deadline that passed on this side.
  const [encoded] = error.metadata.get('grpc-status-details-bin');
  return refusalOf({ code: error.code, details: encoded ? ChunkError.deserialize(encoded).details : [] });
}

async function embed(client, inputs, inputType) {
  const { embeddings } = await call(client, 'Embed', { config: { inputType }, inputs });
  return embeddings.map(unpack);
}

/** The answers to `chunks`, a Map of texts by chunk_id, as a Map by chunk_id; they come in any order. */
async function embedStream(client, config, chunks) {
  const stream = client.EmbedStream({ deadline: Date.now() + TIMEOUT_MS });
  const answers = new Map();
  const reading = (async () => {
    for await (const answer of stream) answers.set(answer.chunkId, answer);
  })();
  stream.write({ config });
  for (const [chunkId, inputs] of chunks) {
    const hasRoom = stream.write({ chunk: { chunkId, inputs } });
    // The server takes a few chunks at a time.
    if (!hasRoom) await Promise.race([new Promise((resolve) => stream.once('drain', resolve)), reading]);
  }
  stream.end();
  await reading;
  return answers;
}

function show(name, fields) {
  console.log(JSON.stringify({ call: name, ...fields }));
}

async function showEmbed({ embedding }) {
  const [query] = await embed(embedding, [QUERY], 'INPUT_TYPE_QUERY');
  const documents = await embed(embedding, DOCUMENTS, 'INPUT_TYPE_DOCUMENT');
  const similarities = documents.map((document) => dot(query, document));
  show('embed', { dimensions: query.length, first_values: [...query.slice(0, 2)], similarities });
}

async function showRerank({ rerank }) {
  const { results } = await call(rerank, 'Rerank', { query: QUERY, documents: DOCUMENTS });
  for (const { index, score } of results) show('rerank', { index, score });
}

async function showRefused({ embedding }) {
  const error = await embed(embedding, ['a text', ' '], 'INPUT_TYPE_DOCUMENT').catch((refused) => refused);
  show('refused', refusalOfCall(error));
}

async function showDeadline({ embedding }) {
  const error = await call(embedding, 'Embed', { inputs: ['too late'] }, 1).catch((late) => late);
  show('deadline', { code: grpc.status[error.code] });
}

async function showStream({ embedding }) {
  const chunks = new Map([[10, DOCUMENTS], [20, [' ']], [30, [QUERY]]]);
  const answers = await embedStream(embedding, { inputType: 'INPUT_TYPE_DOCUMENT' }, chunks);
  for (const chunkId of chunks.keys()) {
    const { result, error } = answers.get(chunkId);
    const outcome = error
      ? refusalOf(error)
      : { num_vectors: result.embeddings.length, first_value: unpack(result.embeddings[0])[0] };
    show('stream', { chunk_id: chunkId, ...outcome });
  }
}

async function showUnavailable({ embedding }, model) {
  const error = await call(embedding, 'Embed', { config: { model }, inputs: ['a text'] }).catch((refused) => refused);
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
for (const client of Object.values(clients)) client.close();
