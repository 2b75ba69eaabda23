package buildkit

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"google.golang.org/protobuf/proto"
)

// TestCancel has one client cancel what another builds, by POST /build/cancel.
func TestCancel(t *testing.T) {
	d, c := builder(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := session.NewSession(ctx, "test")
	if err != nil {
		t.Fatal(err)
	}
	s.Allow(filesync.NewFSSyncProvider(filesync.StaticDirSource(files(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo begun; sleep 1000\n"}))))
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx, c.Dialer()) }()
	defer func() { s.Close(); <-ran }()
	web := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(d.Host, "unix://"))
	}}}
	defer web.CloseIdleConnections()
	post := func(path string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://x"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	if resp := post("/build/cancel?id=another"); resp.StatusCode != http.StatusOK {
		t.Errorf("of no build: %s", resp.Status)
	}
	build := post("/build?version=2&remote=client-session&buildid=one&session=" + s.ID())
	said, cancelled := "", false
	for in := json.NewDecoder(build.Body); in.More(); {
		var line struct {
			ID, Error string
			Aux       json.RawMessage
		}
		if err := in.Decode(&line); err != nil {
			t.Fatal(err)
		}
		said += line.Error
		var told []byte
		var status controlapi.StatusResponse
		if line.ID != "moby.buildkit.trace" || json.Unmarshal(line.Aux, &told) != nil || proto.Unmarshal(told, &status) != nil {
			continue
		}
		for _, l := range status.Logs {
			if strings.Contains(string(l.Msg), "begun") && !cancelled {
				cancelled = true
				again := post("/build?version=2&remote=client-session&buildid=one&session=" + s.ID()) // the name is taken
				if text, err := io.ReadAll(again.Body); err != nil || !strings.Contains(string(text), "exists already") {
					t.Errorf("one more of the name: %v %s", err, text)
				}
				post("/build/cancel?id=one")
			}
		}
	}
	if !cancelled || !strings.Contains(said, "canceled") {
		t.Errorf("cancelled: %v, and the build says %q", cancelled, said)
	}
}
