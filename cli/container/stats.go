package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Stats is the command stats.
func Stats() *command.Command {
	f := command.NewFlags()
	o := &stats{known: map[string]*StatsRow{}, changed: make(chan struct{}, 1)}
	f.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	f.BoolVar(&o.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Do not truncate output")
	f.StringVar(&o.format, "format", "", option.FormatTable)
	return &command.Command{Usage: "[OPTIONS] [CONTAINER...]", MaxArgs: -1, Flags: f, Run: o.run}
}

// stats is one call of the command: a row for each container that is watched.
type stats struct {
	all, noStream, noTrunc bool
	format                 string
	named                  bool // the containers are those that were named, not all

	mu      sync.Mutex
	order   []string             // the containers as they were named or, unnamed, by ID
	known   map[string]*StatsRow // what is known of them; nil before the first sample
	errs    []error              // why some cannot be watched
	ended   bool                 // no events come any more
	changed chan struct{}        // holds one: there is something to show, or nobody left to watch
}

// redraw is how often the table is drawn again at the most.
const redraw = 500 * time.Millisecond

func (o *stats) run(ctx context.Context, s *command.Session, names []string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	text := o.format
	if text == "" {
		text = s.Config().StatsFormat
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watch := func(name string) {
		if o.add(name) {
			watching.Go(func() { o.watch(ctx, cl, name) })
		}
	}
	o.named = len(names) > 0
	for _, name := range names {
		watch(name)
	}
	if !o.named {
		if err := o.watchAll(ctx, cl, &watching, watch); err != nil {
			return err
		}
	}
	if o.noStream {
		watching.Wait()
		if o.named && len(o.order) == 0 {
			return errors.Join(o.errs...) // and no table of nothing
		}
		return errors.Join(o.show(s.Out, text), errors.Join(o.errs...))
	}
	return o.follow(ctx, s.Out, text)
}

// add makes a place for a container; false if it has one.
func (o *stats) add(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.known[name]; known {
		return false
	}
	o.order, o.known[name] = append(o.order, name), nil
	return true
}

// drop takes a container out of the table.
func (o *stats) drop(name string) {
	o.mu.Lock()
	o.order = slices.DeleteFunc(o.order, func(n string) bool { return n == name })
	delete(o.known, name)
	o.mu.Unlock()
	o.tell()
}

func (o *stats) tell() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// watch takes one container's samples until it is removed.
func (o *stats) watch(ctx context.Context, cl *client.Client, name string) {
	err := cl.ContainerStats(ctx, name, !o.noStream, func(s client.Stats) error {
		row := NewStatsRow(name, &s, !o.noTrunc)
		o.mu.Lock()
		if _, wanted := o.known[name]; wanted {
			o.known[name] = &row
		}
		o.mu.Unlock()
		o.tell()
		return nil
	})
	gone := !o.named && errors.Is(err, fault.NotFound)
	if err != nil && !gone && ctx.Err() == nil {
		o.mu.Lock()
		o.errs = append(o.errs, err)
		o.mu.Unlock()
	}
	if err != nil || !o.noStream {
		o.drop(name)
	}
}

// watchAll watches what there is and, in a stream, what comes and goes. The
// events begin before the list, so that nothing is missed in between.
func (o *stats) watchAll(ctx context.Context, cl *client.Client, watching *sync.WaitGroup, watch func(id string)) error {
	if !o.noStream {
		begin := strconv.FormatInt(time.Now().Unix(), 10)
		watching.Go(func() {
			filters := client.Filters{"type": {"container"}, "event": {"create", "start", "die", "destroy"}}
			err := cl.Events(ctx, client.EventsOptions{Since: begin, Filters: filters}, func(e client.Event, _ json.RawMessage) error {
				switch {
				case e.Action == "start", e.Action == "create" && o.all:
					watch(e.Actor.ID)
				case e.Action == "destroy", e.Action == "die" && !o.all:
					o.drop(e.Actor.ID)
				}
				return nil
			})
			o.mu.Lock()
			o.ended = true
			if err != nil {
				o.errs = append(o.errs, err)
			}
			o.mu.Unlock()
			o.tell()
		})
	}
	list, err := cl.ContainerList(ctx, client.ListOptions{All: o.all})
	for _, c := range list {
		watch(c.Id)
	}
	return err
}

// follow draws the table again and again, until one of the containers cannot be
// watched, none of the named ones is left, or the daemon is gone.
func (o *stats) follow(ctx context.Context, out io.Writer, text string) error {
	for {
		select {
		case <-o.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		var table bytes.Buffer
		if err := o.show(&table, text); err != nil {
			return err
		}
		o.mu.Lock()
		over, errs := o.ended || o.named && len(o.order) == 0, o.errs
		o.mu.Unlock()
		if over || len(errs) > 0 {
			return errors.Join(errs...)
		}
		// Home, each line to its end, then all that is below: nothing flickers.
		screen := "\x1b[H" + strings.ReplaceAll(table.String(), "\n", "\x1b[K\n") + "\x1b[J"
		if _, err := io.WriteString(out, screen); err != nil {
			return err
		}
		select {
		case <-time.After(redraw):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// show writes the table of what is known.
func (o *stats) show(out io.Writer, text string) error {
	o.mu.Lock()
	rows := make([]any, 0, len(o.order))
	for _, name := range o.order {
		if row := o.known[name]; row != nil {
			rows = append(rows, *row)
		}
	}
	o.mu.Unlock()
	return statsTable.Write(out, text, false, rows)
}

var statsTable = format.Table{
	Columns: map[string]string{"Container": "CONTAINER", "Name": "NAME", "ID": "CONTAINER ID", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
		"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS"},
	Default: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
}

// StatsRow is a sample as a template sees it. The fields are those of docker
// stats --format json.
type StatsRow struct {
	BlockIO, CPUPerc, Container, ID, MemPerc, MemUsage, Name, NetIO, PIDs string
}

// NewStatsRow renders a sample of the container that was asked for by name;
// short cuts its ID.
func NewStatsRow(name string, s *client.Stats, short bool) StatsRow {
	percent := func(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) + "%" }
	pair := func(a, b string) string { return a + " / " + b }
	used, share := memoryUse(&s.MemoryStats)
	received, sent := networkBytes(s)
	read, written := blockBytes(s)
	r := StatsRow{Container: name, ID: s.ID, Name: strings.TrimPrefix(s.Name, "/"), CPUPerc: percent(cpuShare(s)),
		MemUsage: pair(format.BinarySize(used), format.BinarySize(float64(s.MemoryStats.Limit))), MemPerc: percent(share),
		NetIO:   pair(format.Size(received), format.Size(sent)),
		BlockIO: pair(format.Size(read), format.Size(written)), PIDs: strconv.FormatUint(s.PidsStats.Current, 10)}
	if r.Name == "" {
		r.Name = "--"
	}
	if short {
		r.ID = format.ShortID(r.ID)
	}
	return r
}

// cpuShare is what of one processor's time the container had since the sample
// before, in percent: of two that are both busy, 200.
func cpuShare(s *client.Stats) float64 {
	now, before := &s.CPUStats, &s.PreCPUStats
	cpus := float64(now.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(now.CPUUsage.PercpuUsage))
	}
	used := float64(now.CPUUsage.TotalUsage) - float64(before.CPUUsage.TotalUsage)
	all := float64(now.SystemUsage) - float64(before.SystemUsage)
	if used <= 0 || all <= 0 {
		return 0
	}
	return used / all * cpus * 100
}

// memoryUse is what the container uses in bytes, without what the kernel can
// drop of files at once, and the percentage of its limit.
func memoryUse(m *client.MemoryStats) (used, share float64) {
	cache, v1 := m.Stats["total_inactive_file"]
	if !v1 || cache >= m.Usage {
		cache = m.Stats["inactive_file"]
	}
	used = float64(m.Usage)
	if cache < m.Usage {
		used -= float64(cache)
	}
	if m.Limit != 0 {
		share = used / float64(m.Limit) * 100
	}
	return used, share
}

func networkBytes(s *client.Stats) (received, sent float64) {
	for _, n := range s.Networks {
		received += float64(n.RxBytes)
		sent += float64(n.TxBytes)
	}
	return received, sent
}

func blockBytes(s *client.Stats) (read, written float64) {
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch {
		case e.Op == "":
		case e.Op[0]|0x20 == 'r':
			read += float64(e.Value)
		case e.Op[0]|0x20 == 'w':
			written += float64(e.Value)
		}
	}
	return read, written
}
