package progress

import (
	"strings"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/build"
)

// Two steps that print each byte by itself take the memory of few events, and who follows
// from the beginning, in the middle or at the end gets all of it.
func TestBytesByThemselves(t *testing.T) {
	r := New()
	vertices := []digest.Digest{digest.FromString("a"), digest.FromString("b")}
	text := strings.Repeat("0123456789", 2000)
	type heard struct {
		text map[string]string
		err  error
	}
	follow := func(gathered bool, begun chan<- bool) heard {
		h := heard{text: map[string]string{}}
		take := func(e *controlapi.StatusResponse) error {
			for _, l := range e.Logs {
				h.text[l.Vertex] += string(l.Msg)
			}
			if begun != nil {
				close(begun)
				begun = nil
			}
			return nil
		}
		if h.err = r.Follow(t.Context(), take); gathered {
			h.text = map[string]string{}
			h.err = r.FollowGathered(t.Context(), take)
		}
		return h
	}
	said, begun := make(chan heard), make(chan bool)
	go func() { said <- follow(false, begun) }()
	for i := range len(text) {
		for _, v := range vertices {
			r.Log(v, 1, []byte(text[i:i+1]))
		}
		if i == 100 {
			<-begun
			go func() { said <- follow(false, nil) }()
		}
	}
	r.Vertex(build.VertexStatus{Digest: vertices[0]})
	r.End()
	for i, h := range []heard{<-said, <-said, follow(false, nil), follow(true, nil)} {
		for _, v := range vertices {
			if h.err != nil || h.text[v.String()] != text {
				t.Errorf("reader %d got %d bytes of %d: %v", i, len(h.text[v.String()]), len(text), h.err)
			}
		}
	}
	if n := len(r.All()); n > 200 {
		t.Errorf("%d events are kept", n)
	}
}

// What cannot be joined is bounded.
func TestPiecesAreBounded(t *testing.T) {
	r := New()
	v := digest.FromString("v")
	for i := range 2 * maxPieces {
		r.Log(v, 1+i%2, []byte("x"))
	}
	all := r.All()
	if n := len(all); n != maxPieces+1 || !strings.Contains(string(all[n-1].Logs[0].Msg), "clipped") {
		t.Errorf("%d pieces are kept, and the last is %q", n, all[n-1].Logs)
	}
}
