// HBONE by Istio's own library, for the tests: tunnels are taken at -serve and lead where they ask to, and each
// connection to the first half of a -tunnel LOCAL=ADDRESS is carried to the second by a tunnel through -proxy.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"istio.io/istio/pkg/hbone"
)

type tunnels []string

func (t *tunnels) String() string { return strings.Join(*t, ",") }

func (t *tunnels) Set(text string) error {
	*t = append(*t, text)
	return nil
}

func main() {
	var all tunnels
	cert := flag.String("cert", "", "certificate chain, PEM")
	key := flag.String("key", "", "its key")
	roots := flag.String("roots", "", "whom to believe")
	peer := flag.String("peer", "", "the identity of whom is dialled")
	serve := flag.String("serve", "", "where tunnels are taken")
	proxy := flag.String("proxy", "", "through whom tunnels go")
	flag.Var(&all, "tunnel", "LOCAL=ADDRESS")
	flag.Parse()

	pair, err := tls.LoadX509KeyPair(*cert, *key)
	fail(err)
	pem, err := os.ReadFile(*roots)
	fail(err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		log.Fatal("no root")
	}
	base := tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}

	client := base.Clone()
	// The name that is dialled means nothing: the SPIFFE id does.
	client.InsecureSkipVerify = true
	client.VerifyConnection = func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0]
		between := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			between.AddCert(c)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between}); err != nil {
			return err
		}
		if len(leaf.URIs) != 1 || leaf.URIs[0].String() != *peer {
			return fmt.Errorf("unexpected identity %v", leaf.URIs)
		}
		return nil
	}
	for _, tunnel := range all {
		local, to, _ := strings.Cut(tunnel, "=")
		listener, err := net.Listen("tcp", local)
		fail(err)
		go carry(listener, to, hbone.NewDialer(hbone.Config{ProxyAddress: *proxy, TLS: client}))
	}

	server := hbone.NewServer()
	server.Protocols.SetHTTP2(true)
	inner := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.TLS.PeerCertificates[0].URIs[0]
		fmt.Printf("tunnel %s %s %s %s %s\n", r.Method, r.Host, id, r.Header.Get("forwarded"), r.Header.Get("baggage"))
		inner.ServeHTTP(w, r)
	})
	config := base.Clone()
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.ClientCAs = pool
	server.TLSConfig = config
	listener, err := net.Listen("tcp", *serve)
	fail(err)
	fmt.Println("ready")
	fail(server.ServeTLS(listener, "", ""))
}

func carry(listener net.Listener, to string, dialer hbone.Dialer) {
	for {
		conn, err := listener.Accept()
		fail(err)
		go func() {
			defer conn.Close()
			far, err := dialer.Dial("tcp", to)
			if err != nil {
				fmt.Printf("no tunnel to %s: %v\n", to, err)
				return
			}
			defer far.Close()
			go io.Copy(far, conn)
			io.Copy(conn, far)
		}()
	}
}

func fail(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
