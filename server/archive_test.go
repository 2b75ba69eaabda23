package server

import (
	"compress/flate"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"testing"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
)

func TestArchives(t *testing.T) {
	r := newRig(t)
	status, header, text := r.do("GET", "/v1.41/containers/c1/archive?path=/a%20b/", "")
	if status != 200 || text != "tar" || header.Get("Content-Type") != "application/x-tar" || r.containers.call != "archive c1 /a b/" {
		t.Errorf("get: %d %q %v, %s", status, text, header, r.containers.call)
	}
	status, header, _ = r.do("HEAD", "/containers/c1/archive?path=x", "")
	var stat wire.PathStat
	data, err := base64.StdEncoding.DecodeString(header.Get("X-Docker-Container-Path-Stat"))
	if err == nil {
		err = json.Unmarshal(data, &stat)
	}
	if status != 200 || err != nil || stat.Name != "n" || stat.Size != 3 || stat.LinkTarget != "/t" || r.containers.call != "stat c1 x" {
		t.Errorf("head: %d %s %v, %s", status, data, err, r.containers.call)
	}
	for query, want := range map[string]string{
		"":                          "{KeepKinds:false ToUser:false}",
		"&noOverwriteDirNonDir=1":   "{KeepKinds:true ToUser:false}",
		"&copyUIDGID=true":          "{KeepKinds:false ToUser:true}",
		"&noOverwriteDirNonDir=no&": "{KeepKinds:false ToUser:false}",
	} {
		if status, _, text := r.do("PUT", "/containers/c1/archive?path=/d"+query, "body"); status != 200 || text != "" || r.containers.call != "extract c1 /d "+want+" body" {
			t.Errorf("put: %d %q, %s", status, text, r.containers.call)
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT"} {
		if status, _, text := r.do(method, "/containers/c1/archive", ""); status != 400 || method != "HEAD" && !strings.Contains(text, "bad parameter: 'path' cannot be empty") {
			t.Errorf("%s without a path: %d %s", method, status, text)
		}
	}
	r.containers.err = fault.New(fault.NotFound, "Could not find the file /x in container c1")
	for _, method := range []string{"GET", "HEAD", "PUT"} {
		status, header, text := r.do(method, "/containers/c1/archive?path=/x", "")
		if status != 404 || header.Get("X-Docker-Container-Path-Stat") != "" || method != "HEAD" && text != `{"message":"Could not find the file /x in container c1"}` {
			t.Errorf("%s: %d %s", method, status, text)
		}
	}
}

func TestArchivesAreCompressed(t *testing.T) {
	r := newRig(t)
	for coding, read := range map[string]func(io.Reader) (io.Reader, error){
		"gzip":    func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"deflate": func(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil },
	} {
		status, header, text := r.do("GET", "/containers/c1/archive?path=/x", "", "Accept-Encoding: "+coding)
		plain, err := read(strings.NewReader(text))
		if err != nil {
			t.Fatalf("%d %q: %v", status, text, err)
		}
		if data, err := io.ReadAll(plain); header.Get("Content-Encoding") != coding || string(data) != "tar" || err != nil {
			t.Errorf("%s: %v %q, %v", coding, header, data, err)
		}
	}
	for accept, want := range map[string]string{
		"": "", "identity": "", "*": "", "br, gzip": "gzip", "deflate, gzip": "gzip", "deflate": "deflate", "gzip;q=0": "", "gzip;q=0.1, deflate;q=0.5": "deflate", "gzip; q=0.5,deflate;q=x": "gzip",
	} {
		if got := codingFor(accept); got != want {
			t.Errorf("%q: %q", accept, got)
		}
	}
}
