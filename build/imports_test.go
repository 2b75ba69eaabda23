package build

import (
	"fmt"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/build/cacheio"
)

// A cache from elsewhere says what a step came to that was asked for, and cannot put that
// in place of another step's: a build that does not name the cache would find it.
func TestForeignRecordAnswersOneKey(t *testing.T) {
	asked, other := digest.FromString("asked"), digest.FromString("another step")
	layer := digest.FromString("layer")
	c, err := cacheio.ReadConfig(fmt.Appendf(nil, `{"layers":[{"blob":%q,"parent":-1,"annotations":{"diffID":%q,"size":1}}],
		"records":[{"digest":%q,"tare.exact":%q,"layers":[{"layer":0}]}]}`, layer, layer, outputKey(asked, 0), other))
	if err != nil {
		t.Fatal(err)
	}
	s := &Solver{cache: &cache{records: map[digest.Digest]*Record{}, quick: map[digest.Digest]digest.Digest{}}}
	j := s.Job(nil, nil, JobOptions{})
	j.use(c, &openWell{})
	v := &vertex{digest: digest.FromString("v"), op: &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{{Output: 0}}}}}}
	if outputs := j.recall(t.Context(), v, &keys{quick: asked}, true); len(outputs) != 1 {
		t.Fatalf("the cache has %d results", len(outputs))
	}
	if got := j.awaited[0].key; got.exact != asked {
		t.Errorf("it is remembered as %s, and was asked for as %s", got.exact, asked)
	}
}
