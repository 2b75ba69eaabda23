package cli_test

import (
	"net/http"
	"strings"
	"testing"
)

const (
	emptySample = `{"id":"b0b0b0b0b0b0b0b0","name":"/off","read":"0001-01-01T00:00:00Z","blkio_stats":{"io_service_bytes_recursive":null}}`
	busySample  = `{"id":"aaaabbbbccccdddd","name":"/busy","read":"2026-01-01T00:00:01Z",` +
		`"precpu_stats":{"cpu_usage":{"total_usage":1000000000},"system_cpu_usage":10000000000,"online_cpus":2},` +
		`"cpu_stats":{"cpu_usage":{"total_usage":1500000000},"system_cpu_usage":12000000000,"online_cpus":2},` +
		`"memory_stats":{"usage":73400320,"limit":104857600,"stats":{"total_inactive_file":20971520,"inactive_file":1}},` +
		`"networks":{"eth0":{"rx_bytes":1000,"tx_bytes":20},"eth1":{"rx_bytes":500,"tx_bytes":0}},` +
		`"blkio_stats":{"io_service_bytes_recursive":[{"op":"Read","value":4096},{"op":"write","value":8192},{"op":"Total","value":12288},{"op":"","value":5}]},` +
		`"pids_stats":{"current":7}}`
)

// The figures are Docker's: of the processors' time, of memory without what the
// kernel can drop of files, and the sums of interfaces and devices.
func TestStats(t *testing.T) {
	f := newFake(t)
	f.handle("GET /containers/json", func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`[{"Id":"aaaabbbbccccdddd","Names":["/busy"]},{"Id":"b0b0b0b0b0b0b0b0","Names":["/off"]},{"Id":"c0c0c0c0c0c0c0c0","Names":["/gone"]}]`))
	})
	f.handle("GET /containers/aaaabbbbccccdddd/stats", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(busySample)) })
	f.handle("GET /containers/busy/stats", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("stream") == "1" {
			w.Write([]byte(emptySample))
		}
		w.Write([]byte(busySample))
	})
	f.handle("GET /containers/b0b0b0b0b0b0b0b0/stats", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(emptySample)) })
	f.handle("GET /containers/c0c0c0c0c0c0c0c0/stats", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		w.Write([]byte(`{"message":"No such container: c0c0c0c0c0c0c0c0"}`))
	})
	stats := func(args ...string) (out, errs string, code int) {
		r := f.call(nil, args...)
		return r.out, r.err, r.code
	}
	out, errs, code := stats("stats", "-a", "--no-stream")
	want := `CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O        BLOCK I/O         PIDS
aaaabbbbcccc   busy      50.00%    50MiB / 100MiB      50.00%    1.5kB / 20B    4.1kB / 8.19kB    7
b0b0b0b0b0b0   off       0.00%     0B / 0B             0.00%     0B / 0B        0B / 0B           0
`
	if squeeze(out) != squeeze(want) || code != 0 || errs != "" {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	out, _, code = stats("stats", "--no-stream", "--no-trunc", "--format", "{{.Container}} {{.ID}} {{.CPUPerc}}", "busy")
	if out != "busy aaaabbbbccccdddd 50.00%\n" || code != 0 {
		t.Errorf("%d %q", code, out)
	}
	// Named, one that is missing is an error; a stream ends with its containers.
	if out, errs, code = stats("stats", "--no-stream", "busy", "c0c0c0c0c0c0c0c0"); code != 1 || !strings.Contains(errs, "No such container") || !strings.Contains(out, "50.00%") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if out, errs, code = stats("stats", "--no-stream", "c0c0c0c0c0c0c0c0"); code != 1 || !strings.Contains(errs, "No such container") || out != "" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if out, errs, code = stats("stats", "busy"); code != 0 || errs != "" || !strings.HasPrefix(out, "\x1b[HCONTAINER ID") && out != "" {
		t.Errorf("%d %q %q", code, out, errs)
	}
}
