package progress

import (
	"strings"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	"github.com/tarehq/tare/build"
)

// Who follows late gets all that was told, in messages that a client takes.
func TestFollowGathered(t *testing.T) {
	r := New()
	v := digest.FromString("v")
	const words = 20000
	for range words {
		r.Status(build.TaskStatus{Vertex: v, ID: strings.Repeat("x", 200)})
	}
	r.Log(v, 1, []byte("the last\n"))
	r.End()
	n, last := 0, ""
	err := r.FollowGathered(t.Context(), func(e *controlapi.StatusResponse) error {
		if size := proto.Size(e); size > 2*maxGathered {
			t.Errorf("a message has %d bytes", size)
		}
		n += len(e.Statuses)
		for _, l := range e.Logs {
			last = string(l.Msg)
		}
		return nil
	})
	if err != nil || n != words || last != "the last\n" {
		t.Errorf("%d of %d words came, and %q: %v", n, words, last, err)
	}
}
