package server

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/tarehq/tare/fault"
)

// TestBuilderGetsTheRequest sees what is handed over: the request as it came,
// without the version in its path, and no byte less.
func TestBuilderGetsTheRequest(t *testing.T) {
	r := newRig(t)
	_, _, text := r.do("POST", "/v1.41/build?t=a&q=1", "the context")
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	if req.RequestURI != "/build?t=a&q=1" || req.Header.Get(HeaderVersion) != "1.41" || !req.Close || req.ContentLength != 11 {
		t.Errorf("handed over: %q", text)
	}
	r.builder.refuse = fault.New(fault.Unavailable, "tare-build is missing")
	r.want(503, "tare-build is missing", "POST", "/build", "")
}

// TestBuilderGetsHTTP2 sees that a connection that begins as HTTP/2 is handed
// over whole.
func TestBuilderGetsHTTP2(t *testing.T) {
	r := newRig(t)
	conn, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const sent = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	io.WriteString(conn, sent)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != sent || err != nil {
		t.Errorf("handed over: %q %v", got, err)
	}
}
