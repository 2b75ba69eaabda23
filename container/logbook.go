package container

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
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
	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/logs/driver"
	"github.com/tarehq/tare/logs/forward"
	"github.com/tarehq/tare/logs/packed"
	"github.com/tarehq/tare/supervise"
)

// Logbook keeps the containers' logs: what the processes beside the containers
// write is read, cleared, compressed and sent on here.
type Logbook struct {
	containers *Service
	forward    *forward.Forwarder
	driver     string            // of containers that name none
	options    map[string]string // of that driver

	packing sync.Mutex // one file at a time is compressed
}

func newLogbook(s *Service) (*Logbook, error) {
	b := &Logbook{containers: s, driver: s.cfg.LogDriver, options: s.cfg.LogOpts}
	if b.driver == "" {
		b.driver = driver.JSONFile
	}
	var err error
	b.forward, err = forward.New(filepath.Join(s.cfg.DataRoot, "log-spool"), packed.Unpack, s.cfg.Log)
	return b, err
}

// Logbook keeps the containers' logs.
func (s *Service) Logbook() *Logbook { return s.logs }

// choose fills in and checks what a request says of its log.
func (b *Logbook) choose(c *wire.LogConfig) error {
	c.Type, c.Config = driver.Merge(c.Type, c.Config, b.driver, b.options)
	return driver.Check(c.Type, c.Config)
}

// path is where the container's log is. Logs of Docker's own format lie where
// Docker's do; the others have a directory for themselves.
func (b *Logbook) path(r *Record) string {
	if r.HostConfig.LogConfig.Type == driver.JSONFile {
		return b.containers.store.Path(r.ID, r.ID+"-json.log")
	}
	return b.containers.store.Path(r.ID, "local-logs", forward.LogName)
}

// info is what the tag and the attributes of a log are made of.
func (b *Logbook) info(r *Record) driver.Info {
	return driver.Info{
		Config: r.HostConfig.LogConfig.Config, ContainerID: r.ID, ContainerName: "/" + r.Name, ContainerEntrypoint: r.Path, ContainerArgs: r.Args,
		ContainerImageID: r.Image.ID.String(), ContainerImageName: r.Config.Image, ContainerCreated: r.Created,
		ContainerEnv: r.Config.Env, ContainerLabels: r.Config.Labels, DaemonName: "docker", // the name that templates written for Docker expect
	}
}

// open tells the process beside the container where to write, and makes the
// directory.
func (b *Logbook) open(r *Record) (supervise.Log, error) {
	c := &r.HostConfig.LogConfig
	if c.Type == driver.None {
		return supervise.Log{Driver: driver.None}, nil
	}
	storage, err := driver.StorageOf(c.Type, c.Config)
	if err != nil {
		return supervise.Log{}, err
	}
	log := supervise.Log{Driver: driver.JSONFile, Path: b.path(r), MaxSize: storage.MaxSize, MaxFiles: storage.MaxFiles, Buffer: storage.Buffer}
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

// begin is called when a run has begun, or was found.
func (b *Logbook) begin(r *Record) {
	if c := r.HostConfig.LogConfig; driver.Remote(c.Type) {
		id := r.ID
		b.forward.Begin(id, forward.Source{Dir: filepath.Dir(b.path(r)), Driver: c.Type, Info: b.info(r),
			Running: func() <-chan struct{} { return b.containers.lives.over(id) }})
	}
}

// resume goes on after a restart of the daemon, with all logs.
func (b *Logbook) resume(records []Record) {
	for i := range records {
		r := &records[i]
		if r.StartedAt.IsZero() || r.HostConfig.LogConfig.Type == driver.None {
			continue
		}
		b.begin(r)
		if r.State == record.Running {
			b.containers.tasks.Go(func() { b.rotated(r) })
		}
	}
}

// rotated compresses what was rotated, if the log's options say so.
func (b *Logbook) rotated(r *Record) {
	c := r.HostConfig.LogConfig
	storage, err := driver.StorageOf(c.Type, c.Config)
	if err != nil || !storage.Compress {
		return
	}
	l := b.containers.lives.find(r.ID)
	if l == nil { // removed meanwhile
		return
	}
	b.packing.Lock()
	defer b.packing.Unlock()
	if err := packed.Pack(b.path(r), &l.forms); err != nil { // as on a full disk: the next rotation tries again
		b.containers.cfg.Log.Warn("a rotated log cannot be compressed", "container", r.ID, "err", err)
	}
}

// forget is called before the container's directory goes.
func (b *Logbook) forget(r *Record) {
	if driver.Remote(r.HostConfig.LogConfig.Type) {
		b.forward.Spool(r.ID)
	}
}

// LogsOptions as in GET /containers/{id}/logs.
type LogsOptions struct {
	Stdout, Stderr bool
	Follow         bool
	Timestamps     bool // each line begins with its time
	Details        bool // then with what log options attach to it, and a space
	Since, Until   time.Time
	Tail           int // -1 for all
}

// LogStream is a log that can be copied to a client.
type LogStream struct {
	TTY  bool // one raw stream; otherwise multiplexed
	Copy func(ctx context.Context, emit func(stream byte, line []byte) error) error
}

// Open opens a container's log, whatever its driver.
func (b *Logbook) Open(ctx context.Context, nameOrID string, o LogsOptions) (LogStream, error) {
	r, err := b.containers.store.Find(nameOrID)
	if err != nil {
		return LogStream{}, err
	}
	if !o.Stdout && !o.Stderr {
		return LogStream{}, fault.New(fault.Invalid, "you must choose at least one stream")
	}
	if !b.readable(&r) {
		return LogStream{}, fault.New(fault.NotImplemented, "configured logging driver does not support reading")
	}
	return LogStream{TTY: r.Config.Tty, Copy: func(ctx context.Context, emit func(byte, []byte) error) error {
		return b.copy(ctx, &r, o, emit)
	}}, nil
}

func (b *Logbook) readable(r *Record) bool {
	c := r.HostConfig.LogConfig
	storage, err := driver.StorageOf(c.Type, c.Config)
	return c.Type != driver.None && err == nil && !storage.Hidden
}

func (b *Logbook) copy(ctx context.Context, r *Record, o LogsOptions, emit func(byte, []byte) error) error {
	opts := logs.ReadOptions{Since: o.Since, Until: o.Until, Tail: o.Tail, Follow: o.Follow, Unpack: packed.Unpack,
		Running: func() <-chan struct{} { return b.containers.lives.over(r.ID) }}
	var line []byte
	err := logs.Read(ctx, b.path(r), opts, func(e logs.Entry) error {
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
func (b *Logbook) Clear(ctx context.Context, nameOrID string) error {
	r, err := b.containers.store.Find(nameOrID)
	if err != nil {
		return err
	}
	if r.HostConfig.LogConfig.Type == driver.None {
		return nil
	}
	if err := logs.Clear(b.path(&r)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// LogSize is how much disk a container's log takes.
type LogSize struct {
	ID, Name, Driver string
	Running          bool
	Size             int64 // bytes
}

// Sizes measures the logs of all containers that have one.
func (b *Logbook) Sizes() []LogSize {
	list := []LogSize{}
	for _, r := range b.containers.store.All() {
		if r.HostConfig.LogConfig.Type == driver.None || r.StartedAt.IsZero() {
			continue
		}
		list = append(list, LogSize{r.ID, r.Name, r.HostConfig.LogConfig.Type, r.State.Live(), logs.Size(b.path(&r))})
	}
	return list
}

// replay writes the log to a client, from a place to the one that it returns. From
// there on no file is compressed until release is called, so that the process
// beside the container can read it.
func (b *Logbook) replay(r *Record, o AttachOptions, end logs.Position, w io.Writer) (_ logs.Position, release func(), err error) {
	pass := func(e logs.Entry) error {
		stream := streamOf(e)
		if stream == logs.Stdout && !o.Stdout || stream == logs.Stderr && !o.Stderr {
			return nil
		}
		line := e.Line
		if !r.Config.Tty && !o.Raw {
			header := logs.Header(stream, len(line))
			line = append(header[:], line...)
		}
		_, err := w.Write(line)
		return err
	}
	forms := &b.containers.lives.of(r.ID).forms
	for {
		if end, err = b.passOn(r, end, pass); err != nil {
			return end, func() {}, err
		}
		forms.RLock() // never held over writing to a client, who may not read
		rest, err := logs.Take(b.path(r), end, packed.Unpack)
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

func (b *Logbook) passOn(r *Record, from logs.Position, each func(logs.Entry) error) (logs.Position, error) {
	s, err := logs.Take(b.path(r), from, packed.Unpack)
	if err != nil {
		return from, err
	}
	defer s.Close()
	return s.Each(each)
}
