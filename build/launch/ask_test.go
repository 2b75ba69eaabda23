package launch

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/tarehq/tare/internal/handoff"
)

// A process that runs is asked what it has, of which nothing may be on disk yet. Where
// none runs, an empty directory is the answer, and none is started.
func TestUsageOfAProcessThatHasWrittenNothing(t *testing.T) {
	b := &Builder{Config: Config{Dir: t.TempDir(), Root: t.TempDir(), Program: func() (string, error) { return "", fmt.Errorf("a process was started to say that there is nothing") }}}
	ask := func() (total int64, gone []string) {
		t.Helper()
		usage, err := b.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		report, err := b.Prune(t.Context(), url.Values{"all": {"1"}})
		if err != nil {
			t.Fatal(err)
		}
		return usage.TotalCount, report.CachesDeleted
	}
	if total, gone := ask(); total != 0 || len(gone) != 0 {
		t.Errorf("without a process there are %d records, and %v went", total, gone)
	}

	in, err := listen(b.in())
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	builder := http.NewServeMux()
	builder.HandleFunc("GET /build/usage", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"TotalCount": 2}`) })
	builder.HandleFunc("POST /build/prune", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"CachesDeleted": [%q]}`, "all="+r.FormValue("all"))
	})
	server := &http.Server{Handler: builder}
	go func() { _ = server.Serve(handoff.Receive(in)) }() // until Close
	defer server.Close()
	b.running = &process{}
	if total, gone := ask(); total != 2 || len(gone) != 1 || gone[0] != "all=1" {
		t.Errorf("of the process that runs came %d records, and %v went", total, gone)
	}
}
