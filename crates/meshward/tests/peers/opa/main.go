// An external authorizer for the tests: Open Policy Agent's engine behind Envoy's ext_authz v3 over gRPC.
//
// The whole CheckRequest is the input, as in Open Policy Agent's own Envoy plugin; `result` of the package `meshward`
// is the answer: `allowed`, and where there are such `status`, `body`, `headers`, `response_headers`,
// `remove_headers`, `set_query`.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/open-policy-agent/opa/v1/rego"
	status "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
)

type result struct {
	Allowed         bool              `json:"allowed"`
	Status          int32             `json:"status"`
	Body            string            `json:"body"`
	Headers         map[string]string `json:"headers"`
	ResponseHeaders map[string]string `json:"response_headers"`
	RemoveHeaders   []string          `json:"remove_headers"`
	SetQuery        map[string]string `json:"set_query"`
}

type server struct {
	auth.UnimplementedAuthorizationServer
	query rego.PreparedEvalQuery
}

func options(fields map[string]string) []*core.HeaderValueOption {
	var out []*core.HeaderValueOption
	for name, value := range fields {
		out = append(out, &core.HeaderValueOption{Header: &core.HeaderValue{Key: name, Value: value}})
	}
	return out
}

func (s *server) Check(ctx context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(request)
	if err != nil {
		return nil, err
	}
	var input any
	if err := json.Unmarshal(text, &input); err != nil {
		return nil, err
	}
	found, err := s.query.Eval(ctx, rego.EvalInput(input))
	if err != nil {
		return nil, err
	}
	var said result
	if len(found) > 0 {
		text, err := json.Marshal(found[0].Expressions[0].Value)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &said); err != nil {
			return nil, err
		}
	}
	log.Printf("allowed=%v source=%s path=%s", said.Allowed, request.GetAttributes().GetSource().GetPrincipal(),
		request.GetAttributes().GetRequest().GetHttp().GetPath())
	if !said.Allowed {
		denied := &auth.DeniedHttpResponse{Headers: options(said.Headers), Body: said.Body}
		if said.Status != 0 {
			denied.Status = &typev3.HttpStatus{Code: typev3.StatusCode(said.Status)}
		}
		return &auth.CheckResponse{
			Status:       &status.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: denied},
		}, nil
	}
	ok := &auth.OkHttpResponse{
		Headers:              options(said.Headers),
		ResponseHeadersToAdd: options(said.ResponseHeaders),
		HeadersToRemove:      said.RemoveHeaders,
	}
	for key, value := range said.SetQuery {
		ok.QueryParametersToSet = append(ok.QueryParametersToSet, &core.QueryParameter{Key: key, Value: value})
	}
	return &auth.CheckResponse{
		Status:       &status.Status{Code: int32(codes.OK)},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: ok},
	}, nil
}

func main() {
	address := flag.String("addr", ":9191", "where to listen")
	file := flag.String("policy", "", "the file of the policy, in Rego; its text is in POLICY where no file is named")
	flag.Parse()
	text := os.Getenv("POLICY")
	if *file != "" {
		read, err := os.ReadFile(*file)
		if err != nil {
			log.Fatal(err)
		}
		text = string(read)
	}
	if strings.TrimSpace(text) == "" {
		log.Fatal("no policy is named")
	}
	query, err := rego.New(rego.Query("data.meshward.result"), rego.Module("meshward.rego", text)).PrepareForEval(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	serving := grpc.NewServer(grpc.Creds(insecure.NewCredentials()))
	auth.RegisterAuthorizationServer(serving, &server{query: query})
	fmt.Println("listening on", *address)
	log.Fatal(serving.Serve(listener))
}
