package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/registry/config"
)

// benchmarkGet has one client ask a real server again and again. cpu-ns/op is
// what client, kernel and server spend together.
func benchmarkGet(b *testing.B, p pace, h http.Handler, path string, size int) {
	ls, err := bind(b.Context(), []string{"127.0.0.1:0"}, p)
	if err != nil {
		b.Fatal(err)
	}
	s := newServer(config.HTTP{}, h, nil, newLog(io.Discard, config.Log{}))
	go s.Serve(ls[0])
	defer s.Close()
	c, err := net.Dial("tcp", ls[0].Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: registry\r\nAccept: application/vnd.oci.image.manifest.v1+json\r\nUser-Agent: benchmark\r\n\r\n")
	buf := make([]byte, 256<<10)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		got := 0
		for body := -1; body < size; {
			n, err := c.Read(buf[min(got, len(buf)/2):])
			if err != nil {
				b.Fatal(err)
			}
			switch got += n; {
			case body >= 0:
				body += n
			default:
				if end := bytes.Index(buf[:got], []byte("\r\n\r\n")); end >= 0 {
					if !bytes.HasPrefix(buf, []byte("HTTP/1.1 200 ")) {
						b.Fatalf("%s", buf[:got])
					}
					body = got - end - 4
				}
			}
		}
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
