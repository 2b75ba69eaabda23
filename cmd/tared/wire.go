package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/build/launch"
	"github.com/tarehq/tare/build/lend"
	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/device"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/internal/plugin"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/resolver"
	"github.com/tarehq/tare/remote"
	"github.com/tarehq/tare/server"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/supervise"
	"github.com/tarehq/tare/volume"
)

const (
	// spares is how many supervising processes and network namespaces wait
	// ready for the next containers.
	spares = 2
	// closeTime bounds the closing of one service. The kernel may take seconds to
	// remove what a busy machine has of interfaces and namespaces.
	closeTime = 20 * time.Second
)

// closers are the steps of a shutdown, run last first.
type closers []func(context.Context) error

func (c *closers) push(f func(context.Context) error) { *c = append(*c, f) }

// pushPlain adds a step that knows no deadline; the program's end is left to
// collect what it still does when the time is up.
func (c *closers) pushPlain(what string, f func() error) {
	c.push(func(ctx context.Context) error {
		done := make(chan error, 1)
		go func() { done <- f() }()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%s did not close in time", what)
		}
	})
}

func (c closers) run() error {
	var err error
	for i := len(c) - 1; i >= 0; i-- {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		err = errors.Join(err, c[i](ctx))
		cancel()
	}
	return err
}

// wired is what main goes on to use of what wire has built.
type wired struct {
	handler    http.Handler
	id         string // of the data root
	containers *container.Service
	defaults   *create.Defaults
	transfers  *image.Transfers
	registries *remote.Client
	agree      *authorizers
	events     *event.Log
	steps      closers

	initProgram  string
	driver       string
	driverStatus [][2]string
	facts        atomic.Pointer[server.Daemon]
}

// setFacts changes what clients are told of the daemon.
func (w *wired) setFacts(o *options) {
	facts := o.facts(w.id, w.initProgram)
	facts.Driver, facts.DriverStatus = w.driver, w.driverStatus
	w.facts.Store(&facts)
}

// wire builds the services in the order of the import lattice, and the handler
// over them. Its steps close them; running containers are not touched by that.
func wire(ctx context.Context, o *options, id string, log *slog.Logger) (w *wired, err error) {
	var steps closers
	defer func() {
		if err != nil {
			err = errors.Join(err, steps.run())
		}
	}()
	if err := o.remap(log); err != nil {
		return nil, err
	}
	eventLog := &event.Log{}
	blobs, err := content.Open(filepath.Join(o.DataRoot, "content"))
	if err != nil {
		return nil, fmt.Errorf("cannot open the content store: %w", err)
	}
	layers, err := openSnapshots(filepath.Join(o.DataRoot, "snapshot"), o.StorageDriver, log)
	if err != nil {
		return nil, fmt.Errorf("cannot open the snapshots: %w", err)
	}
	steps.pushPlain("the snapshots", layers.Close)
	if err := o.checkStorageSize(layers); err != nil {
		return nil, err
	}
	images, err := image.Open(ctx, blobs, layers, imageEvents{eventLog})
	if err != nil {
		return nil, fmt.Errorf("cannot open the images: %w", err)
	}
	steps.pushPlain("the names of images", images.Close)

	registries, err := remote.New(remote.Config{
		HostsDir: o.RegistryDir, Mirrors: o.Mirrors, Insecure: o.Insecure, UserAgent: "tare/" + version, Attempts: o.PullAttempts,
	})
	if err != nil {
		return nil, err
	}
	steps.pushPlain("the connections to registries", registries.Close)
	transfers := image.NewTransfers(images, registries, image.Limits{Downloads: limit(o.Downloads), Uploads: limit(o.Uploads)})
	steps.push(transfers.Close)

	plugins := plugin.New(o.pluginDirs())
	steps.pushPlain("the connections to plugins", func() error { plugins.Close(); return nil })
	agree := &authorizers{plugins: plugins}
	if err := agree.use(ctx, o.AuthzPlugins); err != nil {
		return nil, err
	}
	names := resolver.Open(ctx, func() (string, error) { return findProgram("tare-dns") }, o.ExecRoot, log)
	steps.pushPlain("the resolver", names.Close)
	netConfig := networkConfig(o, id, eventLog, plugins)
	netConfig.Names = names
	networks, err := network.Open(ctx, netConfig)
	if err != nil {
		return nil, fmt.Errorf("cannot set up the network: %w", err)
	}
	steps.push(networks.Close)

	volumes, err := volume.Open(ctx, volume.Config{DataRoot: o.DataRoot, Plugins: plugins, Events: eventLog, Log: log})
	if err != nil {
		return nil, fmt.Errorf("cannot open the volumes: %w", err)
	}
	steps.push(volumes.Close)

	binary, err := findProgram("tare-supervise")
	if err != nil {
		return nil, err
	}
	sample, err := spec.Sample(o.CgroupParent)
	if err != nil {
		return nil, err
	}
	launcher, err := supervise.NewLauncher(binary, spares, sample)
	if err != nil {
		return nil, fmt.Errorf("cannot prepare %s: %w", binary, err)
	}
	steps.pushPlain("the pool of supervising processes", launcher.Close)

	initProgram, err := o.initProgram()
	if err != nil {
		return nil, err
	}
	defaults, confinement := create.NewDefaults(o.settings()), o.confinement(log)
	containers, err := container.Open(ctx, container.Config{
		DataRoot: o.DataRoot, ExecRoot: o.ExecRoot, Images: images.Catalog, Commits: images, Snapshots: layers, Networks: networks, Volumes: volumes,
		Launcher: launcher, Events: eventLog, Defaults: defaults, InitPath: initProgram, CgroupParent: o.CgroupParent, Systemd: o.systemd, Confinement: confinement, Realtime: container.Realtime{Period: o.RealtimePeriod, Runtime: o.RealtimeRuntime}, CDI: o.devices(), IDs: o.ids, LogDriver: o.LogDriver, LogOpts: o.LogOpts, Log: log,
		LinkEnv: os.Getenv("DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS") == "1",
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open the containers: %w", err)
	}
	steps.push(containers.Close)
	names.Settle()
	images.Catalog.SetInUse(containers.Users)
	volumes.SetUsers(containers.Mounts.UsedVolumes)
	if err := volumes.SetFreezer(ctx, containers); err != nil {
		return nil, fmt.Errorf("cannot let go on what was frozen for a copy of a volume: %w", err)
	}

	builder, err := openBuilder(ctx, o, lend.Config{Images: images, Transfers: transfers, Layers: layers, Networks: networks, Users: o.ids.Remap, JoinNetwork: containers.JoinNetwork}, launcher, log)
	if err != nil {
		return nil, err
	}
	steps.push(builder.Close)

	w = &wired{id: id, containers: containers, defaults: defaults, transfers: transfers, registries: registries, agree: agree, events: eventLog, steps: steps,
		initProgram: initProgram, driver: layers.Driver(), driverStatus: layers.DriverStatus()}
	w.setFacts(o)
	config := server.Config{
		Containers: containers, Listing: containers.Listing, Logs: containers.Logbook, Execs: containers.Execs, Files: containers.Files, Stats: containers.Stats,
		Processes: containers.Processes, Pruning: containers.Pruning, Images: images, Inventory: images.Inventory, Transfers: transfers,
		Registries: image.NewRegistries(registries), Networks: networks, Firewall: networks, Places: containers.Places,
		Checkpoints: containers.Checkpoints, Builder: builder, Authorizers: agree, Volumes: volumes, VolumeCopies: volumes,
		VolumeTransfers: volume.NewTransfers(volumes, registries), Events: eventLog, Daemon: func() server.Daemon { return *w.facts.Load() },
		Log: log,
	}
	if o.MetricsAddr == "" {
		w.handler = server.New(config)
		return w, nil
	}
	m := newMetrics(&config, containers.Health)
	api := server.New(config)
	w.handler = api
	stop, err := m.serve(ctx, o.MetricsAddr, api.Info)
	if err != nil {
		return nil, err
	}
	w.steps.push(stop)
	return w, nil
}

// openBuilder readies the process that builds, which starts when somebody wants
// something built.
func openBuilder(ctx context.Context, o *options, loan lend.Config, launcher *supervise.Launcher, log *slog.Logger) (*launch.Builder, error) {
	parent := o.CgroupParent
	if o.systemd { // which makes units of containers alone
		parent = defaultParent
	}
	find := func() (string, error) { return findProgram("tare-build") }
	rules, err := o.Builder.Rules(o.DataRoot)
	if err != nil {
		return nil, err
	}
	builder, err := launch.New(ctx, launch.Config{Program: find, Dir: filepath.Join(o.ExecRoot, "b"), Root: filepath.Join(o.DataRoot, "build"),
		HostGateway:  func() netip.Addr { return hostGateway(o.HostGateways, loan.Networks.Gateway()) },
		CgroupParent: parent, Rules: rules, Grants: o.Builder.Grants(), Devices: o.devices(), Loan: loan, Steps: launcher, Log: log})
	if err != nil {
		return nil, fmt.Errorf("cannot ready the process that builds: %w", err)
	}
	return builder, nil
}

// hostGateway is the one address that host-gateway stands for in a build, whose
// clients know no second one: an IPv4 one if there is one.
func hostGateway(given []netip.Addr, bridge netip.Addr) netip.Addr {
	if len(given) == 0 {
		return bridge
	}
	if i := slices.IndexFunc(given, netip.Addr.Is4); i >= 0 {
		return given[i]
	}
	return given[0]
}

// openSnapshots opens the store with the driver, or with the best one that the
// file system carries.
func openSnapshots(root, driver string, log *slog.Logger) (*snapshot.Store, error) {
	if driver == "" {
		chosen, because, err := snapshot.Choose(root)
		if err != nil {
			return nil, err
		}
		if because != nil {
			log.Warn("the storage driver is vfs, which copies whole trees: put the data root on a file system that carries overlay mounts", "because", because)
		}
		driver = chosen
	}
	return snapshot.Open(root, driver)
}

// pluginDirs are where plugins are looked for.
func (o *options) pluginDirs() plugin.Dirs {
	if o.PluginDir == "" {
		return plugin.DefaultDirs()
	}
	return plugin.Dirs{Sockets: o.PluginDir, Specs: []string{o.PluginDir}}
}

// devices are those that can be asked for by name.
func (o *options) devices() device.CDI {
	var c device.CDI
	for _, dir := range o.CDISpecDirs {
		if dir != "" {
			c.Dirs = append(c.Dirs, dir)
		}
	}
	return c
}

// findProgram looks for one of our own programs beside this one, then in PATH.
func findProgram(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fault.New(fault.NotFound, "%s is neither beside tared nor in PATH: install both together", name)
	}
	return path, nil
}

// imageEvents publishes what the images tell.
type imageEvents struct{ log *event.Log }

func (e imageEvents) Publish(action, id string, attrs map[string]string) {
	e.log.Publish(events.ImageEventType, events.Action(action), events.Actor{ID: id, Attributes: attrs})
}
