package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/registry"
)

// through is a repository of a real registry behind a proxy that fails.
func through(t *testing.T, config Config) (*faulty.Proxy, *Repository) {
	t.Helper()
	front := faulty.Start(t, faulty.Options{Registry: registry.Start(t, registry.Options{})})
	return front, at(newClient(t, config), front.Host, "a/b")
}

func TestBlobGoesOn(t *testing.T) {
	front, r := through(t, Config{})
	data := random(1 << 20)
	d := pushBytes(t, r, "application/x", data)
	for name, test := range map[string]struct {
		fault    faulty.Fault
		times    int
		from, to int64
		least    int64 // bytes that may be sent in all
	}{
		"cut":                   {faulty.Fault{Cut: true, CutAfter: 100_000}, 1000, 0, -1, 1 << 20},
		"cut without a length":  {faulty.Fault{Cut: true, CutAfter: 100_000, Chunked: true}, 1000, 0, -1, 1 << 20},
		"reset":                 {faulty.Fault{Cut: true, CutAfter: 300_000, Reset: true}, 2, 0, -1, 2 << 20},
		"cut in a range":        {faulty.Fault{Cut: true, CutAfter: 50_000}, 3, 400_000, 900_000, 500_000},
		"ranges not known":      {faulty.Fault{IgnoreRange: true, Cut: true, CutAfter: 700_000}, 2, 0, -1, 3 << 20},
		"a range not known":     {faulty.Fault{IgnoreRange: true}, 1, 300_000, 500_000, 1 << 20},
		"unavailable for a bit": {faulty.Fault{Status: 503, Header: http.Header{"Retry-After": {"0"}}}, 3, 0, -1, 1 << 20},
		"too many requests":     {faulty.Fault{Status: 429}, 3, 5, -1, 1 << 20},
		"whole as a range":      {faulty.Fault{Ranged: true}, 1, 0, -1, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			front.Forget()
			front.On(faulty.First(test.times, faulty.Blobs(), test.fault))
			want := data[test.from:]
			if test.to >= 0 {
				want = data[test.from:test.to]
			}
			got, err := readBlob(r, d, test.from, test.to)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d of %d bytes: %v", len(got), len(want), err)
			}
			if sent := front.Sent(faulty.Blobs()); sent > test.least+int64(test.times)*64<<10 {
				t.Errorf("%d bytes were sent for %d", sent, len(want))
			}
		})
	}
}

func TestBlobIsNotWhatItShouldBe(t *testing.T) {
	front, r := through(t, Config{})
	data := random(1 << 20)
	d := pushBytes(t, r, "application/x", data)
	for name, test := range map[string]struct {
		fault    faulty.Fault
		from, to int64
		want     string
		requests int
	}{
		"shorter by its length":  {faulty.Fault{Length: 1000}, 0, -1, "has 1000 bytes there, and not 1048576", 1},
		"longer by its length":   {faulty.Fault{Length: 2 << 20}, 0, -1, "has 2097152 bytes there", 1},
		"longer, without length": {faulty.Fault{Endless: 'x'}, 0, -1, "has more than 1048576 bytes", 1},
		"a range of another":     {faulty.Fault{Header: http.Header{"Content-Range": {"bytes 0-99/1048576"}}}, 100, 200, "from another place", 1},
		"a range of a longer":    {faulty.Fault{Header: http.Header{"Content-Range": {"bytes 100-199/5000000"}}}, 100, 200, "has 5000000 bytes there", 1},
		"more than was asked":    {faulty.Fault{Header: http.Header{"Content-Range": {"bytes 100-299/1048576"}}}, 100, 200, "from another place", 1},
		"no range at all":        {faulty.Fault{Header: http.Header{"Content-Range": {""}}}, 100, 200, "from another place", 1},
		"the range is not there": {faulty.Fault{Status: 416}, 100, 200, "ends before byte 100", 1},
		"another encoding":       {faulty.Fault{Header: http.Header{"Content-Encoding": {"gzip"}}}, 0, -1, "encoding gzip", 1},
		"no bytes, ever":         {faulty.Fault{Cut: true}, 0, -1, "broke at byte 0 of 1048576", 5},
		"nearly no bytes":        {faulty.Fault{Cut: true, CutAfter: 10}, 0, -1, "broke at byte 50", 5},
		"not found":              {faulty.Fault{Status: 404}, 0, -1, "404 Not Found", 1},
		"never available":        {faulty.Fault{Status: 500, Body: `{"errors":[{"code":"UNKNOWN","message":"disk\nfull"}]}`}, 0, -1, "unknown: disk full", 5},
		"much later":             {faulty.Fault{Status: 429, Header: http.Header{"Retry-After": {"9999"}}}, 0, -1, "429 Too Many Requests", 1},
	} {
		t.Run(name, func(t *testing.T) {
			front.Forget()
			front.On(faulty.Always(faulty.Blobs(), test.fault))
			got, err := readBlob(r, d, test.from, test.to)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%d bytes, %v; want %s", len(got), err, test.want)
			}
			if n := front.Count(faulty.Blobs()); n != test.requests {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
		})
	}
}

// Pieces of a large blob are not cut out of the whole, again and again.
func TestNoRanges(t *testing.T) {
	front, r := through(t, Config{})
	data := random(3 << 20)
	d := pushBytes(t, r, "application/x", data)
	front.On(faulty.Always(faulty.Blobs(), faulty.Fault{IgnoreRange: true}))
	if _, err := readBlob(r, d, 2<<20, 2<<20+100); !errors.Is(err, ErrNoRanges) {
		t.Error(err)
	}
	if got, err := readBlob(r, d, 2<<20, -1); err != nil || !bytes.Equal(got, data[2<<20:]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestStalledBlob(t *testing.T) {
	front, r := through(t, Config{})
	d := pushBytes(t, r, "application/x", random(1<<20))
	r.client.pace.stall = 100 * time.Millisecond
	front.On(faulty.First(1, faulty.Blobs(), faulty.Fault{Stall: true, CutAfter: 500_000}))
	if got, err := readBlob(r, d, 0, -1); err != nil || int64(len(got)) != d.Size {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	front.On(faulty.Always(faulty.Blobs(), faulty.Fault{Stall: true}))
	if _, err := readBlob(r, d, 0, -1); err == nil || !strings.Contains(err.Error(), errStalled.Error()) {
		t.Error(err)
	}
	r.client.pace.stall = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	front.On(faulty.Always(faulty.Blobs(), faulty.Fault{Stall: true, BeforeBody: func(*faulty.Request) { cancel() }}))
	b, err := r.Blob(ctx, d, 0, -1)
	if err == nil {
		defer b.Close()
		_, err = io.ReadAll(b)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that was told to stop: %v", err)
	}
}

// A body that trickles is one that broke: it is gone on with, and given up in
// the end. One that is slow comes.
func TestTricklingBlob(t *testing.T) {
	front, r := through(t, Config{})
	data := random(200_000)
	d := pushBytes(t, r, "application/x", data)
	r.client.pace.stall, r.client.pace.least = 300*time.Millisecond, 5000
	trickle := faulty.Fault{Rate: 500}
	front.On(faulty.First(1, faulty.Blobs(), trickle))
	if got, err := readBlob(r, d, 0, -1); err != nil || !bytes.Equal(got, data) || front.Count(faulty.Blobs()) != 2 {
		t.Errorf("%d bytes in %d requests, %v", len(got), front.Count(faulty.Blobs()), err)
	}
	front.Forget()
	front.On(faulty.Always(faulty.Blobs(), trickle))
	_, err := readBlob(r, d, 0, -1)
	if err == nil || !strings.HasSuffix(err.Error(), ": for 300ms fewer than 5000 bytes a second came") || front.Count(faulty.Blobs()) != 5 {
		t.Errorf("%d requests, %v", front.Count(faulty.Blobs()), err)
	}
	front.Forget()
	front.On(faulty.Always(everything, faulty.Fault{Rate: 400_000}))
	if got, err := readBlob(r, d, 0, -1); err != nil || !bytes.Equal(got, data) || front.Count(faulty.Blobs()) != 1 {
		t.Errorf("a slow line: %d bytes in %d requests, %v", len(got), front.Count(faulty.Blobs()), err)
	}
	// Much that trickles is no progress either.
	front.Forget()
	front.On(faulty.Always(faulty.Blobs(), faulty.Fault{Rate: 60_000}))
	r.client.pace.least = 1 << 30
	if _, err := readBlob(r, d, 0, -1); !errors.As(err, new(tooSlow)) || front.Count(faulty.Blobs()) > 5 {
		t.Errorf("%d requests, %v", front.Count(faulty.Blobs()), err)
	}
	// Nor do manifests.
	image := pushImage(t, at(newClient(t, Config{}), r.domain, "a/b"), "v1", nil)
	r.client.pace.least = 5000
	front.On(faulty.Always(faulty.Path(http.MethodGet, "/manifests/"), trickle))
	if _, _, err := r.Manifest(t.Context(), image.Digest.String()); !errors.As(err, new(tooSlow)) {
		t.Error(err)
	}
}

func TestEmptyRange(t *testing.T) {
	front, r := through(t, Config{})
	d := ocispec.Descriptor{Digest: describeBytes("", []byte("x")).Digest, Size: 1}
	if got, err := readBlob(r, d, 1, 1); err != nil || len(got) != 0 || front.Count(faulty.Blobs()) != 0 {
		t.Errorf("%d bytes %v", len(got), err)
	}
	for _, span := range [][2]int64{{-1, 1}, {1, 0}, {0, 2}} {
		if _, err := readBlob(r, d, span[0], span[1]); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", span, err)
		}
	}
}

func method(methods ...string) func(*faulty.Request) bool {
	return func(r *faulty.Request) bool {
		for _, m := range methods {
			if r.Method == m && strings.Contains(r.Path, "/blobs/uploads/") {
				return true
			}
		}
		return false
	}
}

// firstFew does the fault to the first k requests that match, whatever their
// paths: each upload has one of its own.
func firstFew(k int, match func(*faulty.Request) bool, f faulty.Fault) func(*faulty.Request) *faulty.Fault {
	return func(r *faulty.Request) *faulty.Fault {
		if k == 0 || !match(r) {
			return nil
		}
		k--
		return &f
	}
}

// docker-registry forgets an upload whose piece was cut, so that it is begun
// anew; now and then only after it took in the next try of a whole one, too.
func TestUploadGoesOn(t *testing.T) {
	front, r := through(t, Config{Chunk: 400_000})
	for name, test := range map[string]struct {
		size  int
		times int
		match func(*faulty.Request) bool
		fault faulty.Fault
		most  int64 // bytes that the proxy may get
	}{
		"a whole is cut":            {300_000, 1, method("PUT"), faulty.Fault{CutUpload: true, UploadTo: 200_000}, 850_000},
		"a piece is cut":            {1_000_000, 1, method("PATCH"), faulty.Fault{CutUpload: true, UploadTo: 200_000}, 2_000_000}, // a registry that is busy begins anew
		"each first piece is cut":   {1_000_000, 2, method("PATCH"), faulty.Fault{CutUpload: true, UploadTo: 200_000}, 2_100_000},
		"unavailable":               {1_000_000, 3, method("PATCH", "PUT", "POST"), faulty.Fault{Status: 503}, 3_000_000},
		"the answer to POST lost":   {1000, 1, method("POST"), faulty.Fault{Swallow: true}, 5000},
		"the answer to PUT lost":    {300_000, 1, method("PUT"), faulty.Fault{Swallow: true}, 310_000},
		"the answer to PATCH lost":  {1_000_000, 1, method("PATCH"), faulty.Fault{Swallow: true}, 1_450_000},
		"too large as a whole":      {300_000, 1, method("PUT"), faulty.Fault{Status: 413}, 650_000},
		"not as a whole":            {300_000, 1, method("PUT"), faulty.Fault{Status: 405}, 650_000},
		"not in pieces":             {1_000_000, 99, method("PATCH"), faulty.Fault{Status: 405}, 1_450_000},
		"pieces too large":          {1_000_000, 1, method("PATCH"), faulty.Fault{Status: 413}, 2_000_000},
		"the upload was forgotten":  {300_000, 1, method("PUT"), faulty.Fault{Status: 404, Body: `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}`}, 650_000},
		"the answer has no Range":   {1_000_000, 9, method("PATCH"), faulty.Fault{Header: http.Header{"Range": {""}}}, 1_000_000},
		"the registry is elsewhere": {1_000_000, 1, method("PATCH"), faulty.Fault{Status: 416}, 1_450_000},
	} {
		t.Run(name, func(t *testing.T) {
			front.Forget()
			front.On(firstFew(test.times, test.match, test.fault))
			data := random(test.size)
			d := describeBytes("application/x", data)
			var last int64
			if err := r.PushBlob(t.Context(), d, opener(data), func(n int64) { last = n }); err != nil {
				t.Fatal(err)
			}
			if last != d.Size {
				t.Errorf("progress ended at %d of %d", last, d.Size)
			}
			var received int64
			for _, q := range front.Requests(nil) {
				received += q.Received
			}
			if received > test.most {
				t.Errorf("%d bytes were sent, at most %d are needed", received, test.most)
			}
			front.On(nil)
			if got, err := readBlob(r, d, 0, -1); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes came back: %v", len(got), err)
			}
		})
	}
}

func TestUploadFails(t *testing.T) {
	front, r := through(t, Config{Chunk: 400_000})
	data := random(1_000_000)
	d := describeBytes("application/x", data)
	front.On(faulty.Always(method("PATCH"), faulty.Fault{Status: 403, Body: `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`}))
	err := r.PushBlob(t.Context(), d, opener(data), nil)
	if !errors.Is(err, fault.Forbidden) || err.Error() != "denied: requested access to the resource is denied" {
		t.Error(err)
	}
	if front.Count(method("PATCH")) != 1 || front.Count(method("DELETE")) != 1 {
		t.Error("what is refused was tried again, or not taken back")
	}
	front.On(nil)
	// The source is at fault.
	broken := errors.New("bad sector")
	err = r.PushBlob(t.Context(), d, func(int64) (io.ReadCloser, error) { return nil, broken }, nil)
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	err = r.PushBlob(t.Context(), d, func(o int64) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[o:min(o+1000, d.Size)]), failing{broken})), nil
	}, nil)
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	err = r.PushBlob(t.Context(), d, func(o int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data[o : o+1000])), nil }, nil)
	if err == nil || !strings.Contains(err.Error(), "too early") {
		t.Error(err)
	}
	// Other bytes than the digest says.
	if err = r.PushBlob(t.Context(), d, opener(random(len(data))), nil); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "digest invalid") {
		t.Error(err)
	}
	front.On(faulty.Always(method("PATCH"), faulty.Fault{CutUpload: true}))
	front.Forget()
	if err = r.PushBlob(t.Context(), d, opener(data), nil); !errors.Is(err, fault.Unavailable) || front.Count(method("PATCH")) != 5 {
		t.Errorf("%v after %d attempts", err, front.Count(method("PATCH")))
	}
	ctx, cancel := context.WithCancel(t.Context())
	front.On(func(q *faulty.Request) *faulty.Fault {
		if method("PATCH")(q) {
			cancel()
		}
		return nil
	})
	if err = r.PushBlob(ctx, d, opener(data), nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// specRegistry takes uploads as the distribution specification has it, and tells
// how far an upload came after any failure.
type specRegistry struct {
	mu     sync.Mutex
	got    map[string][]byte // by upload
	blobs  map[string][]byte
	serial int
	least  string // OCI-Chunk-Min-Length
}

func (s *specRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // what came before the connection broke
	s.mu.Lock()
	defer s.mu.Unlock()
	name := r.URL.Path
	switch at := "/v2/a/b/blobs/uploads/"; {
	case name == "/v2/":
		return
	case r.Method == http.MethodPost:
		s.serial++
		name = at + strconv.Itoa(s.serial)
		s.got[name] = []byte{}
		w.Header().Set("OCI-Chunk-Min-Length", s.least)
	case s.got[name] == nil:
		w.WriteHeader(http.StatusNotFound)
		return
	case r.Method == http.MethodPatch:
		if from, _, _ := strings.Cut(r.Header.Get("Content-Range"), "-"); from != strconv.Itoa(len(s.got[name])) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		s.got[name] = append(s.got[name], body...)
	case r.Method == http.MethodPut:
		all := append(s.got[name], body...)
		if r.URL.Query().Get("digest") != digest.FromBytes(all).String() {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.blobs[r.URL.Query().Get("digest")] = all
		w.WriteHeader(http.StatusCreated)
		return
	}
	w.Header().Set("Location", name+"?signed=once")
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(s.got[name])-1)))
	w.WriteHeader(map[string]int{http.MethodGet: http.StatusNoContent}[r.Method] + map[bool]int{true: http.StatusAccepted}[r.Method != http.MethodGet])
}

func TestUploadIsResumed(t *testing.T) {
	reg := &specRegistry{got: map[string][]byte{}, blobs: map[string][]byte{}}
	front := faulty.Start(t, faulty.Options{Handler: reg})
	r := at(newClient(t, Config{Chunk: 400_000}), front.Host, "a/b")
	for name, test := range map[string]struct {
		times int
		fault faulty.Fault
		least string
		most  int64
	}{
		"cut each time":    {9, faulty.Fault{CutUpload: true, UploadTo: 100_000}, "", 1_100_000},
		"answer lost":      {9, faulty.Fault{Swallow: true}, "", 1_000_000},
		"wants larger":     {0, faulty.Fault{}, "700000", 1_000_000},
		"wants the larger": {0, faulty.Fault{}, "99999999", 1_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			front.Forget()
			front.On(firstFew(test.times, method("PATCH"), test.fault))
			reg.least = test.least
			data := random(1_000_000)
			d := describeBytes("application/x", data)
			if err := r.PushBlob(t.Context(), d, opener(data), nil); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(reg.blobs[d.Digest.String()], data) {
				t.Error("other bytes arrived")
			}
			var received int64
			for _, q := range front.Requests(nil) {
				received += q.Received
			}
			if n := front.Count(method("POST")); received > test.most || n != 1 {
				t.Errorf("%d bytes were sent in %d uploads", received, n)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
