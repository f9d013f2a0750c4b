package otlp

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// grpcTransport sends over gRPC.
type grpcTransport struct {
	conn   *grpc.ClientConn
	method string
	env    environment
}

// newGRPCTransport connects when there is something to send.
func newGRPCTransport(e endpoint, s signal, env environment, agent string) (*grpcTransport, error) {
	security := insecure.NewCredentials()
	if e.secure() {
		security = credentials.NewTLS(env.tls)
	}
	// The pauses between tries are the sender's: the connection is not to wait
	// longer on its own.
	connect := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: firstPause, Multiplier: 1.5, Jitter: 0.2, MaxDelay: maxPause},
		MinConnectTimeout: env.timeout,
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(security), grpc.WithUserAgent(agent), grpc.WithConnectParams(connect),
		grpc.WithDisableServiceConfig(), // which would come from DNS, in a TXT record
		grpc.WithMaxHeaderListSize(maxResponse), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)),
	}
	if env.gzip {
		options = append(options, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	}
	conn, err := grpc.NewClient(e.host, options...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.host, err)
	}
	return &grpcTransport{conn: conn, method: s.method, env: env}, nil
}

// send implements transport.
func (t *grpcTransport) send(ctx context.Context, request, response proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, t.env.timeout)
	defer cancel()
	if len(t.env.headers) > 0 {
		ctx = metadata.NewOutgoingContext(ctx, metadata.New(t.env.headers))
	}
	err := t.conn.Invoke(ctx, t.method, request, response)
	if err == nil {
		return nil
	}
	f := &failure{err: fmt.Errorf("%s: %w", t.conn.CanonicalTarget(), err)}
	f.retry, f.after = retryable(status.Convert(err))
	return f
}

// retryable tells whether a request may be tried again (OTLP Specification,
// Failures). A receiver that lacks resources says so by a pause that it asks for;
// without one the request is too much for it at any time.
func retryable(s *status.Status) (retry bool, after time.Duration) {
	asked := false
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			asked, after = true, min(info.GetRetryDelay().AsDuration(), maxTries)
		}
	}
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return true, after
	case codes.ResourceExhausted:
		return asked, after
	}
	return false, 0
}

// close implements transport.
func (t *grpcTransport) close() error { return t.conn.Close() }
