// Embed, rerank, errors, a deadline and a stream. Usage: client HOST:PORT [MODEL_WITHOUT_WORKER]
package main

//go:generate buf generate ../../../protos

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "qwen3client/gen/qwen3/inference/v1"
)

const (
	query             = "What is the capital of China?"
	timeout           = 30 * time.Second
	maxRetryCallBytes = 16 << 20

	// UNAVAILABLE is the server's word for "not begun: come back"; grpc waits as long as the server says. CANCELLED is
	// grpc's own, of calls that reach a server in the moment in which it stops.
	serviceConfig = `{
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
	}`
)

var documents = []string{"The capital of China is Beijing.", "Gravity attracts two bodies."}

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: client HOST:PORT [MODEL_WITHOUT_WORKER]")
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}

func run(target string, modelsWithoutWorker []string) error {
	// With grpc-go 1.63 and later: grpc.NewClient, and insecure.NewCredentials() from credentials/insecure.
	conn, err := grpc.Dial(target,
		grpc.WithInsecure(),
		grpc.WithDefaultServiceConfig(serviceConfig),
		// A call that outgrows this is not tried again; the default is 256 KiB.
		grpc.WithDefaultCallOptions(grpc.MaxRetryRPCBufferSize(maxRetryCallBytes)),
	)
	if err != nil {
		return err
	}
	defer conn.Close()

	embedding, rerank := pb.NewEmbeddingServiceClient(conn), pb.NewRerankServiceClient(conn)
	if err := showEmbed(embedding); err != nil {
		return err
	}
	if err := showRerank(rerank); err != nil {
		return err
	}
	showRefused(embedding)
	showDeadline(embedding)
	if err := showStream(embedding); err != nil {
		return err
	}
	for _, model := range modelsWithoutWorker {
		showUnavailable(embedding, model)
	}
	return nil
}

type embedLine struct {
	Call         string    `json:"call"`
	Dimensions   int       `json:"dimensions"`
	FirstValues  []float32 `json:"first_values"`
	Similarities []float32 `json:"similarities"`
}

func showEmbed(client pb.EmbeddingServiceClient) error {
	queries, err := embed(client, []string{query}, pb.InputType_INPUT_TYPE_QUERY)
	if err != nil {
		return err
	}
	vectors, err := embed(client, documents, pb.InputType_INPUT_TYPE_DOCUMENT)
	if err != nil {
		return err
	}
	line := embedLine{Call: "embed", Dimensions: len(queries[0]), FirstValues: queries[0][:2]}
	for _, vector := range vectors {
		line.Similarities = append(line.Similarities, dot(queries[0], vector))
	}
	show(line)
	return nil
}

func embed(client pb.EmbeddingServiceClient, texts []string, inputType pb.InputType) ([][]float32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	response, err := client.Embed(ctx, &pb.EmbedRequest{
		Config: &pb.EmbedConfig{InputType: inputType},
		Inputs: texts,
	})
	if err != nil {
		return nil, err
	}
	vectors := make([][]float32, len(response.Embeddings))
	for i, embedding := range response.Embeddings {
		vectors[i] = unpack(embedding)
	}
	return vectors, nil
}

// unpack returns the values of a vector, which is sent as little-endian float32.
func unpack(embedding *pb.Embedding) []float32 {
	values := make([]float32, len(embedding.Packed)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(embedding.Packed[4*i:]))
	}
	return values
}

func dot(a, b []float32) float32 {
	var sum float32
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

type rerankLine struct {
	Call  string  `json:"call"`
	Index int32   `json:"index"`
	Score float32 `json:"score"`
}

func showRerank(client pb.RerankServiceClient) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	response, err := client.Rerank(ctx, &pb.RerankRequest{Query: query, Documents: documents})
	if err != nil {
		return err
	}
	for _, result := range response.Results {
		show(rerankLine{Call: "rerank", Index: result.Index, Score: result.Score})
	}
	return nil
}

// refusal is what a refused call or chunk says of itself.
type refusal struct {
	Code   string  `json:"code"`
	Reason string  `json:"reason"`
	Field  string  `json:"field"`
	RetryS float64 `json:"retry_s"`
}

type refusalLine struct {
	Call string `json:"call"`
	refusal
}

func refusalOf(refused *status.Status) refusal {
	found := refusal{Code: refused.Code().String()}
	for _, detail := range refused.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			found.Reason = detail.Reason
		case *errdetails.BadRequest:
			found.Field = detail.FieldViolations[0].Field
		case *errdetails.RetryInfo:
			found.RetryS = float64(detail.RetryDelay.Seconds) + float64(detail.RetryDelay.Nanos)/1e9
		}
	}
	return found
}

func showRefused(client pb.EmbeddingServiceClient) {
	_, err := embed(client, []string{"a text", " "}, pb.InputType_INPUT_TYPE_DOCUMENT)
	show(refusalLine{Call: "refused", refusal: refusalOf(status.Convert(err))})
}

func showUnavailable(client pb.EmbeddingServiceClient, model string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err := client.Embed(ctx, &pb.EmbedRequest{
		Config: &pb.EmbedConfig{Model: model},
		Inputs: []string{"a text"},
	})
	show(refusalLine{Call: "unavailable", refusal: refusalOf(status.Convert(err))})
}

type deadlineLine struct {
	Call string `json:"call"`
	Code string `json:"code"`
}

func showDeadline(client pb.EmbeddingServiceClient) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := client.Embed(ctx, &pb.EmbedRequest{Inputs: []string{"too late"}})
	show(deadlineLine{Call: "deadline", Code: status.Code(err).String()})
}

type chunkLine struct {
	Call       string  `json:"call"`
	ChunkID    int64   `json:"chunk_id"`
	NumVectors int     `json:"num_vectors"`
	FirstValue float32 `json:"first_value"`
}

type chunkRefusalLine struct {
	Call    string `json:"call"`
	ChunkID int64  `json:"chunk_id"`
	refusal
}

func showStream(client pb.EmbeddingServiceClient) error {
	chunks := []*pb.EmbedChunk{
		{ChunkId: 10, Inputs: documents},
		{ChunkId: 20, Inputs: []string{" "}},
		{ChunkId: 30, Inputs: []string{query}},
	}
	config := &pb.EmbedConfig{InputType: pb.InputType_INPUT_TYPE_DOCUMENT}
	answers, err := embedStream(client, config, chunks)
	if err != nil {
		return err
	}
	for _, chunk := range chunks {
		showChunk(answers[chunk.ChunkId])
	}
	return nil
}

// embedStream returns the answers to chunks by chunk id; they come in any order.
func embedStream(
	client pb.EmbeddingServiceClient, config *pb.EmbedConfig, chunks []*pb.EmbedChunk,
) (map[int64]*pb.EmbedStreamResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel() // ends the stream, and with it the goroutine, however this function is left
	stream, err := client.EmbedStream(ctx)
	if err != nil {
		return nil, err
	}
	// The server takes a few chunks at a time: one goroutine sends while this one receives.
	go send(stream, config, chunks)
	answers := make(map[int64]*pb.EmbedStreamResponse, len(chunks))
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return answers, nil
		}
		if err != nil {
			return nil, err
		}
		answers[answer.ChunkId] = answer
	}
}

// send leaves errors to Recv, which tells what ended the stream.
func send(stream pb.EmbeddingService_EmbedStreamClient, config *pb.EmbedConfig, chunks []*pb.EmbedChunk) {
	defer stream.CloseSend()
	first := &pb.EmbedStreamRequest{Payload: &pb.EmbedStreamRequest_Config{Config: config}}
	if stream.Send(first) != nil {
		return
	}
	for _, chunk := range chunks {
		message := &pb.EmbedStreamRequest{Payload: &pb.EmbedStreamRequest_Chunk{Chunk: chunk}}
		if stream.Send(message) != nil {
			return
		}
	}
}

func showChunk(answer *pb.EmbedStreamResponse) {
	switch outcome := answer.Outcome.(type) {
	case *pb.EmbedStreamResponse_Error:
		// ChunkError is google.rpc.Status by another name.
		refused := status.FromProto(&spb.Status{
			Code:    outcome.Error.Code,
			Message: outcome.Error.Message,
			Details: outcome.Error.Details,
		})
		show(chunkRefusalLine{Call: "stream", ChunkID: answer.ChunkId, refusal: refusalOf(refused)})
	case *pb.EmbedStreamResponse_Result:
		embeddings := outcome.Result.Embeddings
		show(chunkLine{
			Call:       "stream",
			ChunkID:    answer.ChunkId,
			NumVectors: len(embeddings),
			FirstValue: unpack(embeddings[0])[0],
		})
	}
}

func show(line interface{}) {
	encoded, err := json.Marshal(line)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(encoded))
}
