// An external authorizer: Envoy's ext_authz over gRPC, decided by Open Policy Agent's engine.
//
//	opa-authz -listen :9191 -policy policy.rego [-query data.authz.answer]
//
// The input of the policy is the request's attributes as JSON. Its answer is an object:
// {"allowed": bool, "status": int, "body": string, "headers": {name: value}, "remove": [name], "dynamic": any}.
// Where there is none the request is denied.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"os"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	kind "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/open-policy-agent/opa/v1/rego"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
)

type answer struct {
	Allowed bool              `json:"allowed"`
	Status  int32             `json:"status"`
	Body    string            `json:"body"`
	Headers map[string]string `json:"headers"`
	Remove  []string          `json:"remove"`
}

type server struct {
	auth.UnimplementedAuthorizationServer
	query rego.PreparedEvalQuery
}

func (s *server) Check(ctx context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	text, err := protojson.Marshal(request.GetAttributes())
	if err != nil {
		return nil, err
	}
	var input any
	if err := json.Unmarshal(text, &input); err != nil {
		return nil, err
	}
	results, err := s.query.Eval(ctx, rego.EvalInput(input))
	if err != nil {
		return nil, err
	}
	var said answer
	if len(results) == 1 && len(results[0].Expressions) == 1 {
		text, err := json.Marshal(results[0].Expressions[0].Value)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &said); err != nil {
			return nil, err
		}
	}
	var headers []*core.HeaderValueOption
	for name, value := range said.Headers {
		headers = append(headers, &core.HeaderValueOption{
			Header:       &core.HeaderValue{Key: name, Value: value},
			AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	if said.Allowed {
		return &auth.CheckResponse{
			Status: &status.Status{Code: int32(codes.OK)},
			HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{
				Headers:         headers,
				HeadersToRemove: said.Remove,
			}},
		}, nil
	}
	if said.Status == 0 {
		said.Status = 403
	}
	return &auth.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status:  &kind.HttpStatus{Code: kind.StatusCode(said.Status)},
			Body:    said.Body,
			Headers: headers,
		}},
	}, nil
}

func main() {
	listen := flag.String("listen", ":9191", "where to listen")
	policy := flag.String("policy", "", "the policy, Rego")
	query := flag.String("query", "data.authz.answer", "what is asked of it")
	flag.Parse()
	text, err := os.ReadFile(*policy)
	if err != nil {
		log.Fatal(err)
	}
	prepared, err := rego.New(rego.Query(*query), rego.Module(*policy, string(text))).PrepareForEval(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	serving := grpc.NewServer()
	auth.RegisterAuthorizationServer(serving, &server{query: prepared})
	log.Printf("listening at %s", listener.Addr())
	log.Fatal(serving.Serve(listener))
}
