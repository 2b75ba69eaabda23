// Package logbook keeps the containers' logs, over package logs.
package logbook

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/tasks"
	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/logs/driver"
	"github.com/tarehq/tare/logs/forward"
	"github.com/tarehq/tare/logs/packed"
	"github.com/tarehq/tare/supervise"
)

// Book keeps the containers' logs: what the processes beside the containers
// write is read, cleared, compressed and sent on here. It is safe for concurrent use.
type Book struct {
	cfg     Config
	forward *forward.Forwarder

	packing sync.Mutex // one file at a time is compressed

	mu    sync.Mutex
	forms map[string]*sync.RWMutex // by container: held for writing while a rotated file takes its compressed form
}

// Config is what a Logbook is made from.
type Config struct {
	Store   *record.Store
	Spool   string                          // the directory of removed containers' logs until they are delivered
	Driver  string                          // of containers that name none; "" is json-file
	Options map[string]string               // of that driver
	Over    func(id string) <-chan struct{} // closed when the container's present run is over, already so when there is none
	Tasks   *tasks.Tasks
	Log     *slog.Logger
}

// New makes one. Nothing goes on yet but the delivery of removed containers'
// logs.
func New(cfg Config) (*Book, error) {
	if cfg.Driver == "" {
		cfg.Driver = driver.JSONFile
	}
	b := &Book{cfg: cfg, forms: map[string]*sync.RWMutex{}}
	var err error
	b.forward, err = forward.New(cfg.Spool, packed.Unpack, cfg.Log)
	return b, err
}

// Close ends what is done beside requests.
func (b *Book) Close(ctx context.Context) error { return b.forward.Close(ctx) }

// form is the lock of the forms of a container's rotated files.
func (b *Book) form(id string) *sync.RWMutex {
	b.mu.Lock()
	defer b.mu.Unlock()
	found := b.forms[id]
	if found == nil {
		found = &sync.RWMutex{}
		b.forms[id] = found
	}
	return found
}

// Choose fills in and checks what a request says of its log.
func (b *Book) Choose(c *wire.LogConfig) error {
	c.Type, c.Config = driver.Merge(c.Type, c.Config, b.cfg.Driver, b.cfg.Options)
	return driver.Check(c.Type, c.Config)
}

// Path is where the container's log is. Logs of Docker's own format lie where
// Docker's do; the others have a directory for themselves.
func (b *Book) Path(r *record.Record) string {
	if r.HostConfig.LogConfig.Type == driver.JSONFile {
		return b.cfg.Store.Path(r.ID, r.ID+"-json.log")
	}
	return b.cfg.Store.Path(r.ID, "local-logs", forward.LogName)
}

// info is what the tag and the attributes of a log are made of.
func (b *Book) info(r *record.Record) driver.Info {
	return driver.Info{
		Config: r.HostConfig.LogConfig.Config, ContainerID: r.ID, ContainerName: "/" + r.Name, ContainerEntrypoint: r.Path, ContainerArgs: r.Args,
		ContainerImageID: r.Image.ID.String(), ContainerImageName: r.Config.Image, ContainerCreated: r.Created,
		ContainerEnv: r.Config.Env, ContainerLabels: r.Config.Labels, DaemonName: "docker", // the name that templates written for Docker expect
	}
}

// Destination tells the process beside the container where to write, and makes the
// directory.
func (b *Book) Destination(r *record.Record) (supervise.Log, error) {
	c := &r.HostConfig.LogConfig
	if c.Type == driver.None {
		return supervise.Log{Driver: driver.None}, nil
	}
	storage, err := driver.StorageOf(c.Type, c.Config)
	if err != nil {
		return supervise.Log{}, err
	}
	log := supervise.Log{Driver: driver.JSONFile, Path: b.Path(r), MaxSize: storage.MaxSize, MaxFiles: storage.MaxFiles, Buffer: storage.Buffer}
	if c.Type != driver.JSONFile {
		if err := os.Mkdir(filepath.Dir(log.Path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return log, err
		}
	}
	if len(c.Config) > 0 {
		attrs, err := driver.Attributes(b.info(r))
		if err != nil {
			return log, fault.New(fault.Invalid, "failed to initialize logging driver: %w", err)
		}
		log.Attrs = string(attrs)
	}
	return log, nil
}

// Begin is called when a run has begun, or was found.
func (b *Book) Begin(r *record.Record) {
	if c := r.HostConfig.LogConfig; driver.Remote(c.Type) {
		id := r.ID
		b.forward.Begin(id, forward.Source{Dir: filepath.Dir(b.Path(r)), Driver: c.Type, Info: b.info(r),
			Running: func() <-chan struct{} { return b.cfg.Over(id) }})
	}
}

// Resume goes on after a restart of the daemon, with all logs.
func (b *Book) Resume(records []record.Record) {
	for i := range records {
		r := &records[i]
		if r.StartedAt.IsZero() || r.HostConfig.LogConfig.Type == driver.None {
			continue
		}
		b.Begin(r)
		if r.State == record.Running {
			b.cfg.Tasks.Go(func() { b.Rotated(r) })
		}
	}
}

// Rotated compresses what was rotated, if the log's options say so.
func (b *Book) Rotated(r *record.Record) {
	c := r.HostConfig.LogConfig
	storage, err := driver.StorageOf(c.Type, c.Config)
	if err != nil || !storage.Compress {
		return
	}
	if !b.cfg.Store.Has(r.ID) { // removed meanwhile
		return
	}
	b.packing.Lock()
	defer b.packing.Unlock()
	if err := packed.Pack(b.Path(r), b.form(r.ID)); err != nil { // as on a full disk: the next rotation tries again
		b.cfg.Log.Warn("a rotated log cannot be compressed", "container", r.ID, "err", err)
	}
}

// Forget is called before the container's directory goes.
func (b *Book) Forget(r *record.Record) {
	if driver.Remote(r.HostConfig.LogConfig.Type) {
		b.forward.Spool(r.ID)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.forms, r.ID)
}

// Options as in GET /containers/{id}/logs.
type Options struct {
	Stdout, Stderr bool
	Follow         bool
	Timestamps     bool // each line begins with its time
	Details        bool // then with what log options attach to it, and a space
	Since, Until   time.Time
	Tail           int // -1 for all
}

// Stream is a log that can be copied to a client.
type Stream struct {
	TTY  bool // one raw stream; otherwise multiplexed
	Copy func(ctx context.Context, emit func(stream byte, line []byte) error) error
}

// Open opens a container's log, whatever its driver.
func (b *Book) Open(ctx context.Context, nameOrID string, o Options) (Stream, error) {
	r, err := b.cfg.Store.Find(nameOrID)
	if err != nil {
		return Stream{}, err
	}
	if !o.Stdout && !o.Stderr {
		return Stream{}, fault.New(fault.Invalid, "you must choose at least one stream")
	}
	if !b.Readable(&r) {
		return Stream{}, fault.New(fault.NotImplemented, "configured logging driver does not support reading")
	}
	return Stream{TTY: r.Config.Tty, Copy: func(ctx context.Context, emit func(byte, []byte) error) error {
		return b.copy(ctx, &r, o, emit)
	}}, nil
}

func (b *Book) Readable(r *record.Record) bool {
	c := r.HostConfig.LogConfig
	storage, err := driver.StorageOf(c.Type, c.Config)
	return c.Type != driver.None && err == nil && !storage.Hidden
}

func (b *Book) copy(ctx context.Context, r *record.Record, o Options, emit func(byte, []byte) error) error {
	opts := logs.ReadOptions{Since: o.Since, Until: o.Until, Tail: o.Tail, Follow: o.Follow, Unpack: packed.Unpack,
		Running: func() <-chan struct{} { return b.cfg.Over(r.ID) }}
	var line []byte
	err := logs.Read(ctx, b.Path(r), opts, func(e logs.Entry) error {
		stream := streamOf(e)
		if stream == logs.Stdout && !o.Stdout || stream == logs.Stderr && !o.Stderr {
			return nil
		}
		line = line[:0]
		if o.Timestamps {
			line = e.Time.UTC().AppendFormat(line, "2006-01-02T15:04:05.000000000Z07:00 ")
		}
		if o.Details {
			line = append(appendDetails(line, e.Attrs), ' ')
		}
		return emit(byte(stream), append(line, e.Line...))
	})
	if errors.Is(err, os.ErrNotExist) { // it has not run yet, or never with a log
		return nil
	}
	return err
}

func streamOf(e logs.Entry) logs.Stream {
	if e.Stream == logs.Stderr.String() {
		return logs.Stderr
	}
	return logs.Stdout
}

// appendDetails writes attributes as Docker does: key=value, escaped for a URL,
// in the order of the keys.
func appendDetails(b, attrs []byte) []byte {
	var m map[string]string
	if len(attrs) == 0 || json.Unmarshal(attrs, &m) != nil {
		return b
	}
	var list []string
	for key, value := range m {
		list = append(list, url.QueryEscape(key)+"="+url.QueryEscape(value))
	}
	slices.Sort(list)
	return append(b, strings.Join(list, ",")...)
}

// Clear empties a container's log, also while it is written and read.
func (b *Book) Clear(ctx context.Context, nameOrID string) error {
	r, err := b.cfg.Store.Find(nameOrID)
	if err != nil {
		return err
	}
	if r.HostConfig.LogConfig.Type == driver.None {
		return nil
	}
	if err := logs.Clear(b.Path(&r)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Size is how much disk a container's log takes.
type Size struct {
	ID, Name, Driver string
	Running          bool
	Size             int64 // bytes
}

// Sizes measures the logs of all containers that have one.
func (b *Book) Sizes() []Size {
	list := []Size{}
	for _, r := range b.cfg.Store.All() {
		if r.HostConfig.LogConfig.Type == driver.None || r.StartedAt.IsZero() {
			continue
		}
		list = append(list, Size{r.ID, r.Name, r.HostConfig.LogConfig.Type, r.State.Live(), logs.Size(b.Path(&r))})
	}
	return list
}

// Selection tells which streams of a container a client wants to see.
type Selection struct {
	Stdout, Stderr bool
	Framed         bool // with the head of which stream it is before each chunk
}

// Replay writes the log to a client, from a place to the one that it returns. From
// there on no file is compressed until release is called, so that the process
// beside the container can read it.
func (b *Book) Replay(r *record.Record, o Selection, end logs.Position, w io.Writer) (_ logs.Position, release func(), err error) {
	pass := func(e logs.Entry) error {
		stream := streamOf(e)
		if stream == logs.Stdout && !o.Stdout || stream == logs.Stderr && !o.Stderr {
			return nil
		}
		line := e.Line
		if o.Framed {
			header := logs.Header(stream, len(line))
			line = append(header[:], line...)
		}
		_, err := w.Write(line)
		return err
	}
	forms := b.form(r.ID)
	for {
		if end, err = b.passOn(r, end, pass); err != nil {
			return end, func() {}, err
		}
		forms.RLock() // never held over writing to a client, who may not read
		rest, err := logs.Take(b.Path(r), end, packed.Unpack)
		if err != nil {
			forms.RUnlock()
			return end, func() {}, err
		}
		plain := rest.Plain()
		rest.Close()
		if plain {
			return end, forms.RUnlock, nil
		}
		forms.RUnlock() // compressed meanwhile: the client has yet to get it
	}
}

func (b *Book) passOn(r *record.Record, from logs.Position, each func(logs.Entry) error) (logs.Position, error) {
	s, err := logs.Take(b.Path(r), from, packed.Unpack)
	if err != nil {
		return from, err
	}
	defer s.Close()
	return s.Each(each)
}
