// Package history remembers the builds that ended.
package history

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tarehq/tare/build/front/progress"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
)

// History remembers the builds that ended, for buildx history:
//
//	<dir>/<digest of the reference>.record  a BuildHistoryRecord, a protocol buffer of BuildKit's
//	<dir>/blobs/<digest>                    what records have attached
//
// A build is remembered as soon as its record is there: before its client has the
// answer, without what is attached, which comes in its place after that.
type History struct {
	dir string

	ending sync.RWMutex // read-locked while a build is written that has ended

	mu       sync.Mutex
	records  map[string]*controlapi.BuildHistoryRecord // by reference; replaced, never changed
	watchers map[chan *controlapi.BuildHistoryEvent]bool
}

// keptRecords bounds the builds that are remembered, beside those that a user
// wants kept.
const keptRecords = 100

// Open takes up what is remembered in dir.
func Open(dir string) (*History, error) {
	h := &History{dir: dir, records: map[string]*controlapi.BuildHistoryRecord{}, watchers: map[chan *controlapi.BuildHistoryEvent]bool{}}
	for _, d := range []string{dir, filepath.Join(dir, "blobs")} {
		if err := errors.Join(os.MkdirAll(d, 0o700), atomicfile.Clean(d)); err != nil {
			return nil, err
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.record"))
	for _, name := range names {
		data, err := os.ReadFile(name)
		var r controlapi.BuildHistoryRecord
		if err != nil || proto.Unmarshal(data, &r) != nil || h.path(r.Ref) != name {
			continue // what cannot be read is forgotten
		}
		h.records[r.Ref] = &r
	}
	return h, errors.Join(err, h.collectLocked())
}

func (h *History) path(ref string) string {
	return filepath.Join(h.dir, digest.FromString(ref).Encoded()+".record")
}

// RecordOf describes a build that begins.
func RecordOf(r *controlapi.SolveRequest, began time.Time) *controlapi.BuildHistoryRecord {
	attrs := maps.Clone(r.FrontendAttrs)
	delete(attrs, "cache-imports") // which may hold credentials
	return &controlapi.BuildHistoryRecord{Ref: r.Ref, Frontend: r.Frontend, FrontendAttrs: attrs, Exporters: r.Exporters, CreatedAt: timestamppb.New(began)}
}

// Began tells those who watch of a build.
func (h *History) Began(r *controlapi.BuildHistoryRecord) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tellLocked(controlapi.BuildHistoryEventType_STARTED, r)
}

// tellLocked leaves out who does not listen.
func (h *History) tellLocked(kind controlapi.BuildHistoryEventType, r *controlapi.BuildHistoryRecord) {
	for w := range h.watchers {
		select {
		case w <- &controlapi.BuildHistoryEvent{Type: kind, Record: r}:
		default:
		}
	}
}

// Ended remembers a build. How it ended outlives the process as soon as this returns, and
// its client may have its answer; what it told is written after that, and whoever asks for
// builds from now on waits for it. What goes wrong, failed is told.
func (h *History) Ended(begun *controlapi.BuildHistoryRecord, tells *progress.Record, o Outcome, failed func(error)) {
	r := proto.CloneOf(begun)
	r.CompletedAt, r.ExporterResponse = timestamppb.Now(), o.Said
	r.NumTotalSteps, r.NumCompletedSteps, r.NumCachedSteps, r.NumWarnings = tells.Counts()
	if o.Failed != nil {
		st, _ := status.FromError(grpcerrors.ToGRPC(context.Background(), o.Failed))
		r.Error = st.Proto()
	}
	addImages(r, o.Results)
	if err := h.putBare(r); err != nil {
		failed(err)
	}
	h.ending.RLock()
	go func() {
		defer h.ending.RUnlock()
		if o.Attested != nil {
			o.predicates = o.Attested()
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if err := errors.Join(h.attach(r, tells.All(), o), h.putLocked(r), h.trimLocked()); err != nil {
			failed(err)
		}
	}()
}

// putBare writes a record in one piece. Nothing is synced: it is to outlive this process.
func (h *History) putBare(r *controlapi.BuildHistoryRecord) error {
	data, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(h.path(r.Ref), data, 0o600)
}

// settle waits for builds that have ended to be remembered.
func (h *History) settle() {
	h.ending.Lock()
	defer h.ending.Unlock()
}

// Close waits for what is being written.
func (h *History) Close() { h.settle() }

func (h *History) putLocked(r *controlapi.BuildHistoryRecord) error {
	data, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(h.path(r.Ref), data, 0o600); err != nil {
		return err
	}
	h.records[r.Ref] = r
	h.tellLocked(controlapi.BuildHistoryEventType_COMPLETE, r)
	return nil
}

// trimLocked forgets the oldest.
func (h *History) trimLocked() (err error) {
	list := h.listLocked()
	for i := len(list) - 1; i >= 0 && len(h.records) > keptRecords; i-- {
		if !list[i].Pinned {
			err = errors.Join(err, h.forgetLocked(list[i]))
		}
	}
	return err
}

func (h *History) forgetLocked(r *controlapi.BuildHistoryRecord) error {
	delete(h.records, r.Ref)
	h.tellLocked(controlapi.BuildHistoryEventType_DELETED, r)
	return errors.Join(os.Remove(h.path(r.Ref)), h.collectLocked())
}

// listLocked returns the records, the newest first.
func (h *History) listLocked() []*controlapi.BuildHistoryRecord {
	list := make([]*controlapi.BuildHistoryRecord, 0, len(h.records))
	for _, r := range h.records {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *controlapi.BuildHistoryRecord) int {
		return b.CreatedAt.AsTime().Compare(a.CreatedAt.AsTime())
	})
	return list
}

// watch returns the records, and a channel of what changes until end is called.
func (h *History) watch() (list []*controlapi.BuildHistoryRecord, changes chan *controlapi.BuildHistoryEvent, end func()) {
	h.settle()
	h.mu.Lock()
	defer h.mu.Unlock()
	changes = make(chan *controlapi.BuildHistoryEvent, 64)
	h.watchers[changes] = true
	return h.listLocked(), changes, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, changes)
	}
}

// Update changes a record, or forgets it.
func (h *History) Update(r *controlapi.UpdateBuildHistoryRequest) error {
	h.settle()
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.records[r.Ref]
	switch {
	case was == nil:
		return fault.New(fault.NotFound, "build history record %s was not found", r.Ref)
	case r.Delete:
		return h.forgetLocked(was)
	case r.Finalize:
		return nil // nothing is written later
	}
	now := proto.CloneOf(was)
	now.Pinned = r.Pinned
	return h.putLocked(now)
}

// fits tells whether a record is one that was asked for.
func fits(r *controlapi.BuildHistoryRecord, filters []string) (bool, error) {
	for _, f := range filters {
		key, value, found := strings.Cut(f, "=")
		value = strings.Trim(strings.TrimPrefix(value, "="), `"`)
		have := map[string]string{"ref": r.Ref, "status": statusOf(r), "repository": r.FrontendAttrs["vcs:source"]}
		not := strings.HasSuffix(key, "!")
		now, known := have[strings.TrimSuffix(key, "!")]
		if !found || !known {
			return false, fault.New(fault.NotImplemented, "the filter %s is not supported: filter by ref, status or repository", f)
		}
		if (now == value) == not {
			return false, nil
		}
	}
	return true, nil
}

func statusOf(r *controlapi.BuildHistoryRecord) string {
	switch {
	case r.CompletedAt == nil:
		return "running"
	case r.Error == nil:
		return "completed"
	case r.Error.Code == 1: // canceled
		return "canceled"
	}
	return "error"
}

// Listen tells a client of the builds that are running, of those that there are, and of changes.
func (h *History) Listen(r *controlapi.BuildHistoryRequest, running []*controlapi.BuildHistoryRecord, s controlapi.Control_ListenBuildHistoryServer) error {
	// buildx takes durations of what is under way by our clock.
	if err := s.SendHeader(metadata.Pairs("buildkit-current-timestamp", time.Now().Format(time.RFC3339Nano))); err != nil {
		return err
	}
	records, changes, end := h.watch()
	defer end()
	send := func(e *controlapi.BuildHistoryEvent) (sent bool, err error) {
		if r.Ref != "" && e.Record.Ref != r.Ref || r.ActiveOnly && e.Type != controlapi.BuildHistoryEventType_STARTED {
			return false, nil
		}
		if ok, err := fits(e.Record, r.Filter); err != nil || !ok {
			return false, err
		}
		return true, s.Send(e)
	}
	n := 0
	events := []*controlapi.BuildHistoryEvent{}
	for _, record := range running {
		events = append(events, &controlapi.BuildHistoryEvent{Type: controlapi.BuildHistoryEventType_STARTED, Record: record})
	}
	for _, record := range records {
		events = append(events, &controlapi.BuildHistoryEvent{Type: controlapi.BuildHistoryEventType_COMPLETE, Record: record})
	}
	for _, e := range events {
		if r.Limit > 0 && n >= int(r.Limit) {
			break
		}
		sent, err := send(e)
		if err != nil {
			return err
		}
		if sent {
			n++
		}
	}
	for !r.EarlyExit {
		select {
		case e := <-changes:
			if _, err := send(e); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
	return nil
}
