package buildkit

import (
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
)

// TestTransfers counts the bytes that a client is told to have moved: of its files on
// their way here, and of what it gets.
func TestTransfers(t *testing.T) {
	_, c := builder(t)
	const size = 3 << 20
	def, err := llb.Scratch().File(llb.Copy(llb.Local("context"), "/large", "/large")).Marshal(t.Context(), llb.LinuxAmd64)
	if err != nil {
		t.Fatal(err)
	}
	moved, over := map[string]int64{}, map[string]bool{}
	ch, done := make(chan *client.SolveStatus), make(chan struct{})
	go func() {
		defer close(done)
		for s := range ch {
			for _, part := range s.Statuses {
				moved[part.ID] = max(moved[part.ID], part.Current)
				over[part.ID] = over[part.ID] || part.Completed != nil
			}
		}
	}()
	_, err = c.Solve(t.Context(), def, client.SolveOpt{LocalMounts: files(t, map[string]string{"large": strings.Repeat("x", size)}),
		Exports: []client.ExportEntry{{Type: "local", OutputDir: t.TempDir()}}}, ch)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"transferring context:", "copying files"} {
		if n := moved[id]; n < size || n > size+64<<10 || !over[id] {
			t.Errorf("%s: %d bytes, over: %v; %v", id, n, over[id], moved)
		}
	}
}
