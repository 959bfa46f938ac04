// Embed, rerank, errors, a deadline and a stream. Usage: client HOST:PORT [MODEL_WITHOUT_WORKER]

#include <chrono>
#include <cstring>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "google/rpc/code.pb.h"
#include "google/rpc/error_details.pb.h"
#include "qwen3/inference/v1/embedding.grpc.pb.h"
#include "qwen3/inference/v1/rerank.grpc.pb.h"

namespace v1 = qwen3::inference::v1;
using std::chrono::milliseconds;

namespace {

constexpr char kQuery[] = "What is the capital of China?";
const std::vector<std::string> kDocuments = {"The capital of China is Beijing.", "Gravity attracts two bodies."};
constexpr milliseconds kTimeout{30'000};

// UNAVAILABLE is the server's word for "not begun: come back"; grpc waits as long as the server says. CANCELLED is
// grpc's own, of calls that reach a server in the moment in which it stops.
constexpr char kServiceConfig[] = R"({
  "methodConfig": [{
    "name": [
      {"service": "qwen3.inference.v1.EmbeddingService"},
      {"service": "qwen3.inference.v1.RerankService"}
    ],
    "retryPolicy": {
      "maxAttempts": 5,
      "initialBackoff": "0.1s",
      "maxBackoff": "5s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
    }
  }]
})";

std::shared_ptr<grpc::Channel> Connect(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  // A call that outgrows this is not tried again; the default is 256 KiB.
  arguments.SetInt("grpc.per_rpc_retry_buffer_size", 16 << 20);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

// A context serves one call, and ends it after `timeout`, whatever it waits for.
std::unique_ptr<grpc::ClientContext> ContextOf(milliseconds timeout) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + timeout);
  return context;
}

// Vectors are little-endian float32, as x86-64 and ARM64 hold them.
std::vector<float> Unpack(const v1::Embedding& embedding) {
  std::vector<float> values(embedding.packed().size() / sizeof(float));
  std::memcpy(values.data(), embedding.packed().data(), values.size() * sizeof(float));
  return values;
}

float Dot(const std::vector<float>& a, const std::vector<float>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0F);
}

v1::EmbedRequest EmbedRequestOf(const std::vector<std::string>& texts, v1::InputType input_type) {
  v1::EmbedRequest request;
  request.mutable_config()->set_input_type(input_type);
  request.mutable_inputs()->Assign(texts.begin(), texts.end());
  return request;
}

// Throws where the call failed.
void Check(const grpc::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.error_message());
}

// What a refusal says of itself. ChunkError has the wire form of google.rpc.Status, so it reads the details of a
// whole call too.
struct Refusal {
  std::string code, reason, field;
  double retry_s = 0;
};

Refusal RefusalOf(const v1::ChunkError& error) {
  Refusal refusal;
  refusal.code = google::rpc::Code_Name(static_cast<google::rpc::Code>(error.code()));
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad_request;
  google::rpc::RetryInfo retry;
  for (const auto& detail : error.details()) {
    if (detail.UnpackTo(&info)) {
      refusal.reason = info.reason();
    } else if (detail.UnpackTo(&bad_request)) {
      refusal.field = bad_request.field_violations(0).field();
    } else if (detail.UnpackTo(&retry)) {
      refusal.retry_s = retry.retry_delay().seconds() + retry.retry_delay().nanos() / 1e9;
    }
  }
  return refusal;
}

Refusal RefusalOf(const grpc::Status& status) {
  v1::ChunkError error;
  // Empty where the error is the library's own, such as a deadline that passed on this side.
  error.ParseFromString(status.error_details());
  error.set_code(status.error_code());
  return RefusalOf(error);
}

std::ostream& operator<<(std::ostream& out, const Refusal& refusal) {
  return out << R"("code":")" << refusal.code << R"(","reason":")" << refusal.reason << R"(","field":")"
             << refusal.field << R"(","retry_s":)" << refusal.retry_s;
}

std::vector<std::vector<float>> Embed(v1::EmbeddingService::Stub& service, const std::vector<std::string>& texts,
                                      v1::InputType input_type) {
  v1::EmbedResponse response;
  Check(service.Embed(ContextOf(kTimeout).get(), EmbedRequestOf(texts, input_type), &response));
  std::vector<std::vector<float>> vectors;
  for (const auto& embedding : response.embeddings()) vectors.push_back(Unpack(embedding));
  return vectors;
}

void ShowEmbed(v1::EmbeddingService::Stub& service) {
  const auto query = Embed(service, {kQuery}, v1::INPUT_TYPE_QUERY)[0];
  const auto documents = Embed(service, kDocuments, v1::INPUT_TYPE_DOCUMENT);
  std::cout << R"({"call":"embed","dimensions":)" << query.size() << R"(,"first_values":[)" << query[0] << ','
            << query[1] << R"(],"similarities":[)" << Dot(query, documents[0]) << ',' << Dot(query, documents[1])
            << "]}\n";
}

void ShowRerank(v1::RerankService::Stub& service) {
  v1::RerankRequest request;
  request.set_query(kQuery);
  request.mutable_documents()->Assign(kDocuments.begin(), kDocuments.end());
  v1::RerankResponse response;
  Check(service.Rerank(ContextOf(kTimeout).get(), request, &response));
  for (const auto& result : response.results()) {
    std::cout << R"({"call":"rerank","index":)" << result.index() << R"(,"score":)" << result.score() << "}\n";
  }
}

void ShowRefused(v1::EmbeddingService::Stub& service) {
  v1::EmbedResponse response;
  const auto request = EmbedRequestOf({"a text", " "}, v1::INPUT_TYPE_DOCUMENT);
  const auto status = service.Embed(ContextOf(kTimeout).get(), request, &response);
  std::cout << R"({"call":"refused",)" << RefusalOf(status) << "}\n";
}

void ShowDeadline(v1::EmbeddingService::Stub& service) {
  v1::EmbedResponse response;
  const auto request = EmbedRequestOf({"too late"}, v1::INPUT_TYPE_DOCUMENT);
  const auto status = service.Embed(ContextOf(milliseconds{1}).get(), request, &response);
  std::cout << R"({"call":"deadline","code":")" << RefusalOf(status).code << "\"}\n";
}

void ShowStream(v1::EmbeddingService::Stub& service) {
  const std::map<int64_t, std::vector<std::string>> chunks = {{10, kDocuments}, {20, {" "}}, {30, {kQuery}}};
  const auto context = ContextOf(kTimeout);
  const auto stream = service.EmbedStream(context.get());

  // The server takes a few chunks at a time: one thread writes while another reads.
  std::thread writer([&] {
    v1::EmbedStreamRequest first;
    first.mutable_config()->set_input_type(v1::INPUT_TYPE_DOCUMENT);
    bool open = stream->Write(first);
    for (const auto& [id, texts] : chunks) {
      v1::EmbedStreamRequest message;
      message.mutable_chunk()->set_chunk_id(id);
      message.mutable_chunk()->mutable_inputs()->Assign(texts.begin(), texts.end());
      open = open && stream->Write(message);
    }
    stream->WritesDone();
  });
  // Answers come in any order.
  std::map<int64_t, v1::EmbedStreamResponse> answers;
  for (v1::EmbedStreamResponse answer; stream->Read(&answer);) answers[answer.chunk_id()] = answer;
  writer.join();
  Check(stream->Finish());

  for (const auto& [id, answer] : answers) {
    std::cout << R"({"call":"stream","chunk_id":)" << id << ',';
    if (answer.has_error()) {
      std::cout << RefusalOf(answer.error()) << "}\n";
    } else {
      std::cout << R"("num_vectors":)" << answer.result().embeddings_size() << R"(,"first_value":)"
                << Unpack(answer.result().embeddings(0))[0] << "}\n";
    }
  }
}

void ShowUnavailable(v1::EmbeddingService::Stub& service, const std::string& model) {
  auto request = EmbedRequestOf({"a text"}, v1::INPUT_TYPE_DOCUMENT);
  request.mutable_config()->set_model(model);
  v1::EmbedResponse response;
  const auto status = service.Embed(ContextOf(kTimeout).get(), request, &response);
  std::cout << R"({"call":"unavailable",)" << RefusalOf(status) << "}\n";
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc < 2) {
    std::cerr << "usage: client HOST:PORT [MODEL_WITHOUT_WORKER]\n";
    return 2;
  }
  std::cout.precision(std::numeric_limits<float>::max_digits10);
  const auto channel = Connect(argv[1]);
  const auto embedding = v1::EmbeddingService::NewStub(channel);
  const auto rerank = v1::RerankService::NewStub(channel);
  try {
    ShowEmbed(*embedding);
    ShowRerank(*rerank);
    ShowRefused(*embedding);
    ShowDeadline(*embedding);
    ShowStream(*embedding);
    if (argc > 2) ShowUnavailable(*embedding, argv[2]);
  } catch (const std::runtime_error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
