import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import com.qwen3.inference.v1.ChunkError;
import com.qwen3.inference.v1.EmbedChunk;
import com.qwen3.inference.v1.EmbedConfig;
import com.qwen3.inference.v1.EmbedRequest;
import com.qwen3.inference.v1.EmbedStreamRequest;
import com.qwen3.inference.v1.EmbedStreamResponse;
import com.qwen3.inference.v1.Embedding;
import com.qwen3.inference.v1.EmbeddingServiceGrpc;
import com.qwen3.inference.v1.InputType;
import com.qwen3.inference.v1.RerankRequest;
import com.qwen3.inference.v1.RerankServiceGrpc;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.nio.ByteOrder;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** Embed, rerank, errors, a deadline and a stream. Usage: client HOST:PORT [MODEL_WITHOUT_WORKER] */
public final class Client {
  private static final String QUERY = "What is the capital of China?";
  private static final List<String> DOCUMENTS =
      List.of("The capital of China is Beijing.", "Gravity attracts two bodies.");
  private static final int TIMEOUT_MS = 30_000;

  /**
   * UNAVAILABLE is the server's word for "not begun: come back"; gRPC waits as long as the server says. CANCELLED is
   * gRPC's own, of calls that reach a server in the moment in which it stops.
   */
  private static final Map<String, ?> SERVICE_CONFIG =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name",
                  List.of(
                      Map.of("service", EmbeddingServiceGrpc.SERVICE_NAME),
                      Map.of("service", RerankServiceGrpc.SERVICE_NAME)),
                  "retryPolicy",
                  Map.of(
                      "maxAttempts", 5.0,
                      "initialBackoff", "0.1s",
                      "maxBackoff", "5s",
                      "backoffMultiplier", 2.0,
                      "retryableStatusCodes", List.of("UNAVAILABLE", "CANCELLED")))));

  private final EmbeddingServiceGrpc.EmbeddingServiceBlockingStub embedding;
  private final EmbeddingServiceGrpc.EmbeddingServiceStub embeddingStreams;
  private final RerankServiceGrpc.RerankServiceBlockingStub rerank;

  private Client(ManagedChannel channel) {
    embedding = EmbeddingServiceGrpc.newBlockingStub(channel);
    embeddingStreams = EmbeddingServiceGrpc.newStub(channel);
    rerank = RerankServiceGrpc.newBlockingStub(channel);
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length == 0) {
      System.err.println("usage: client HOST:PORT [MODEL_WITHOUT_WORKER]");
      System.exit(2);
    }
    ManagedChannel channel =
        ManagedChannelBuilder.forTarget(arguments[0])
            .usePlaintext()
            .defaultServiceConfig(SERVICE_CONFIG)
            .enableRetry()
            // A call that outgrows this is not tried again; the default is 1 MiB.
            .perRpcBufferLimit(16 << 20)
            .build();
    try {
      Client client = new Client(channel);
      client.showEmbed();
      client.showRerank();
      client.showRefused();
      client.showDeadline();
      client.showStream();
      if (arguments.length > 1) {
        client.showUnavailable(arguments[1]);
      }
    } finally {
      channel.shutdownNow();
    }
  }

  private void showEmbed() {
    float[] query = embed(List.of(QUERY), InputType.INPUT_TYPE_QUERY).get(0);
    List<float[]> documents = embed(DOCUMENTS, InputType.INPUT_TYPE_DOCUMENT);
    JsonObject line = line("embed");
    line.addProperty("dimensions", query.length);
    line.add("first_values", new Gson().toJsonTree(List.of(query[0], query[1])));
    line.add("similarities", new Gson().toJsonTree(documents.stream().map(vector -> dot(query, vector)).toList()));
    System.out.println(line);
  }

  private List<float[]> embed(List<String> texts, InputType inputType) {
    EmbedRequest request =
        EmbedRequest.newBuilder()
            .setConfig(EmbedConfig.newBuilder().setInputType(inputType))
            .addAllInputs(texts)
            .build();
    return embed(request, TIMEOUT_MS);
  }

  private List<float[]> embed(EmbedRequest request, int timeoutMs) {
    return embedding
        .withDeadlineAfter(timeoutMs, TimeUnit.MILLISECONDS)
        .embed(request)
        .getEmbeddingsList()
        .stream()
        .map(Client::unpack)
        .toList();
  }

  /** The values of a vector, which is sent as little-endian float32. */
  private static float[] unpack(Embedding embedding) {
    var packed = embedding.getPacked().asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    float[] values = new float[packed.remaining()];
    packed.get(values);
    return values;
  }

  private static float dot(float[] a, float[] b) {
    float sum = 0;
    for (int i = 0; i < a.length; i++) {
      sum += a[i] * b[i];
    }
    return sum;
  }

  private void showRerank() {
    RerankRequest request = RerankRequest.newBuilder().setQuery(QUERY).addAllDocuments(DOCUMENTS).build();
    var response = rerank.withDeadlineAfter(TIMEOUT_MS, TimeUnit.MILLISECONDS).rerank(request);
    for (var result : response.getResultsList()) {
      JsonObject line = line("rerank");
      line.addProperty("index", result.getIndex());
      line.addProperty("score", result.getScore());
      System.out.println(line);
    }
  }

  private void showRefused() throws InvalidProtocolBufferException {
    try {
      embed(List.of("a text", " "), InputType.INPUT_TYPE_DOCUMENT);
    } catch (StatusRuntimeException refused) {
      System.out.println(describe(line("refused"), StatusProto.fromThrowable(refused)));
    }
  }

  private void showUnavailable(String model) throws InvalidProtocolBufferException {
    EmbedRequest request =
        EmbedRequest.newBuilder().setConfig(EmbedConfig.newBuilder().setModel(model)).addInputs("a text").build();
    try {
      embed(request, TIMEOUT_MS);
    } catch (StatusRuntimeException refused) {
      System.out.println(describe(line("unavailable"), StatusProto.fromThrowable(refused)));
    }
  }

  private void showDeadline() {
    try {
      embed(EmbedRequest.newBuilder().addInputs("too late").build(), 1);
    } catch (StatusRuntimeException late) {
      JsonObject line = line("deadline");
      line.addProperty("code", late.getStatus().getCode().name());
      System.out.println(line);
    }
  }

  private void showStream() throws Exception {
    List<EmbedChunk> chunks =
        List.of(
            EmbedChunk.newBuilder().setChunkId(10).addAllInputs(DOCUMENTS).build(),
            EmbedChunk.newBuilder().setChunkId(20).addInputs(" ").build(),
            EmbedChunk.newBuilder().setChunkId(30).addInputs(QUERY).build());
    EmbedConfig config = EmbedConfig.newBuilder().setInputType(InputType.INPUT_TYPE_DOCUMENT).build();
    ChunkCall call = new ChunkCall(config, chunks);
    embeddingStreams.withDeadlineAfter(TIMEOUT_MS, TimeUnit.MILLISECONDS).embedStream(call);
    Map<Long, EmbedStreamResponse> answers = call.answers.get();
    for (EmbedChunk chunk : chunks) {
      System.out.println(describe(answers.get(chunk.getChunkId())));
    }
  }

  /** Sends chunks while the server takes them, and collects the answers, which come in any order. */
  private static final class ChunkCall implements ClientResponseObserver<EmbedStreamRequest, EmbedStreamResponse> {
    /** By chunk id; fails with what ended the stream early. */
    final CompletableFuture<Map<Long, EmbedStreamResponse>> answers = new CompletableFuture<>();

    private final Map<Long, EmbedStreamResponse> received = new ConcurrentHashMap<>();
    private final Iterator<EmbedStreamRequest> messages;
    private boolean isSent;

    ChunkCall(EmbedConfig config, List<EmbedChunk> chunks) {
      messages =
          Stream.concat(
                  Stream.of(EmbedStreamRequest.newBuilder().setConfig(config).build()),
                  chunks.stream().map(chunk -> EmbedStreamRequest.newBuilder().setChunk(chunk).build()))
              .iterator();
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<EmbedStreamRequest> requests) {
      requests.setOnReadyHandler(() -> send(requests));
    }

    private void send(ClientCallStreamObserver<EmbedStreamRequest> requests) {
      while (requests.isReady() && messages.hasNext()) {
        requests.onNext(messages.next());
      }
      if (!messages.hasNext() && !isSent) {
        isSent = true;
        requests.onCompleted();
      }
    }

    @Override
    public void onNext(EmbedStreamResponse answer) {
      received.put(answer.getChunkId(), answer);
    }

    @Override
    public void onError(Throwable error) {
      answers.completeExceptionally(error);
    }

    @Override
    public void onCompleted() {
      answers.complete(received);
    }
  }

  private static JsonObject describe(EmbedStreamResponse answer) throws InvalidProtocolBufferException {
    JsonObject line = line("stream");
    line.addProperty("chunk_id", answer.getChunkId());
    if (answer.hasError()) {
      return describe(line, statusOf(answer.getError()));
    }
    line.addProperty("num_vectors", answer.getResult().getEmbeddingsCount());
    line.addProperty("first_value", unpack(answer.getResult().getEmbeddings(0))[0]);
    return line;
  }

  /** ChunkError is google.rpc.Status by another name. */
  private static Status statusOf(ChunkError error) {
    return Status.newBuilder()
        .setCode(error.getCode())
        .setMessage(error.getMessage())
        .addAllDetails(error.getDetailsList())
        .build();
  }

  /** Adds what a refusal says of itself. */
  private static JsonObject describe(JsonObject line, Status status) throws InvalidProtocolBufferException {
    String reason = "";
    String field = "";
    double retryS = 0;
    for (Any detail : status.getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        reason = detail.unpack(ErrorInfo.class).getReason();
      } else if (detail.is(BadRequest.class)) {
        field = detail.unpack(BadRequest.class).getFieldViolations(0).getField();
      } else if (detail.is(RetryInfo.class)) {
        var delay = detail.unpack(RetryInfo.class).getRetryDelay();
        retryS = delay.getSeconds() + delay.getNanos() / 1e9;
      }
    }
    line.addProperty("code", io.grpc.Status.fromCodeValue(status.getCode()).getCode().name());
    line.addProperty("reason", reason);
    line.addProperty("field", field);
    line.addProperty("retry_s", retryS);
    return line;
  }

  private static JsonObject line(String call) {
    JsonObject line = new JsonObject();
    line.addProperty("call", call);
    return line;
  }
}
