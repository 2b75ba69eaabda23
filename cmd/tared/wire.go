package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/logs/driver"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/remote"
	"github.com/tarehq/tare/server"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/supervise"
)

const (
	// spares is how many supervising processes and network namespaces wait
	// ready for the next containers.
	spares = 2
	// closeTime bounds the closing of one service.
	closeTime = 5 * time.Second
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

// wire builds the services in the order of the import lattice, and the handler
// over them. end closes them; running containers are not touched by it.
func wire(ctx context.Context, o *options, id string, log *slog.Logger) (h http.Handler, end func() error, err error) {
	var steps closers
	defer func() {
		if err != nil {
			err = errors.Join(err, steps.run())
		}
	}()
	eventLog := &event.Log{}
	blobs, err := content.Open(filepath.Join(o.DataRoot, "content"))
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the content store: %w", err)
	}
	layers, err := openSnapshots(filepath.Join(o.DataRoot, "snapshot"), o.StorageDriver, log)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the snapshots: %w", err)
	}
	steps.pushPlain("the snapshots", layers.Close)
	images, err := image.Open(ctx, blobs, layers, imageEvents{eventLog})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the images: %w", err)
	}

	registries, err := remote.New(remote.Config{
		HostsDir: o.RegistryDir, Mirrors: o.Mirrors, Insecure: o.Insecure, UserAgent: "tare/" + version, Attempts: o.PullAttempts,
	})
	if err != nil {
		return nil, nil, err
	}
	steps.pushPlain("the connections to registries", registries.Close)
	transfers := image.NewTransfers(images, registries, image.Limits{Downloads: limit(o.Downloads), Uploads: limit(o.Uploads)})
	steps.push(transfers.Close)

	networks, err := network.Open(ctx, networkConfig(o))
	if err != nil {
		return nil, nil, fmt.Errorf("cannot set up the network: %w", err)
	}
	steps.push(networks.Close)

	binary, err := findProgram("tare-supervise")
	if err != nil {
		return nil, nil, err
	}
	sample, err := spec.Sample(o.CgroupParent)
	if err != nil {
		return nil, nil, err
	}
	launcher, err := supervise.NewLauncher(binary, spares, sample)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot prepare %s: %w", binary, err)
	}
	steps.pushPlain("the pool of supervising processes", launcher.Close)

	containers, err := container.Open(ctx, container.Config{
		DataRoot: o.DataRoot, ExecRoot: o.ExecRoot, Images: images, Snapshots: layers, Networks: networks,
		Launcher: launcher, Events: eventLog, Runtimes: o.runtimes(), DefaultRuntime: o.DefaultRuntime,
		InitPath: o.initProgram(), CgroupParent: o.CgroupParent, CDI: o.devices(), LogDriver: o.LogDriver, LogOpts: o.LogOpts, Log: log,
		LinkEnv: os.Getenv("DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS") == "1",
	})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open the containers: %w", err)
	}
	steps.push(containers.Close)
	images.SetInUse(containers.Users)

	facts := daemonFacts(o, id)
	facts.Driver, facts.DriverStatus = layers.Driver(), layers.DriverStatus()
	for _, w := range facts.Warnings {
		log.Warn(strings.TrimPrefix(w, "WARNING: "))
	}
	h = server.New(server.Config{
		Containers: containers, Logs: containers.Logbook(), Execs: containers.Execs(), Files: containers.Files(), Stats: containers.Stats(), Images: images, Transfers: transfers, Registries: image.NewRegistries(registries), Networks: networks, Events: eventLog, Daemon: facts, Log: log,
	})
	return h, steps.run, nil
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

func networkConfig(o *options) network.Config {
	c := network.Config{Bridge: o.Bridge, BIP: o.bip, MTU: o.MTU, Identity: o.DataRoot, ForwardAll: o.ForwardAll, Spare: spares}
	for _, p := range o.Pools {
		c.Pools = append(c.Pools, network.Pool{Base: p.Base, Size: p.Size})
	}
	return c
}

// initProgram finds the program for --init; "" when there is none.
func (o *options) initProgram() string {
	if o.InitPath != "" {
		return o.InitPath
	}
	path, err := findProgram("tare-init")
	if err != nil {
		return ""
	}
	return path
}

// devices are those that can be asked for by name.
func (o *options) devices() container.CDI {
	var c container.CDI
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

func daemonFacts(o *options, id string) server.Daemon {
	d := server.Daemon{
		Version: version, GitCommit: commit(), BuildTime: built(),
		ID: id, DataRoot: o.DataRoot, Debug: o.LogLevel == "debug", Labels: o.Labels,
		LogDriver: o.LogDriver, LogDrivers: driver.Names(),
		Runtimes: map[string]system.Runtime{}, DefaultRuntime: o.DefaultRuntime, Mirrors: o.Mirrors, Insecure: o.Insecure,
	}
	for name, rt := range o.runtimes() {
		d.Runtimes[name] = system.Runtime{Path: rt.Path, Args: rt.Args}
	}
	devices := o.devices()
	d.CDISpecDirs, d.Devices = devices.Dirs, devices.Devices
	for _, p := range o.Pools {
		d.AddressPools = append(d.AddressPools, system.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	for _, host := range o.Hosts {
		if len(host) < 6 || host[:6] != "tcp://" {
			continue
		}
		switch {
		case !o.usesTLS():
			d.Warnings = append(d.Warnings, "WARNING: API is accessible on http://"+host[6:]+" without encryption. Whoever can connect has root on this machine.")
		case !o.TLSVerify:
			d.Warnings = append(d.Warnings, "WARNING: API is accessible on https://"+host[6:]+" without TLS client verification. Whoever can connect has root on this machine.")
		}
	}
	return d
}

// imageEvents publishes what the images tell.
type imageEvents struct{ log *event.Log }

func (e imageEvents) Publish(action, id string, attrs map[string]string) {
	e.log.Publish(events.ImageEventType, events.Action(action), events.Actor{ID: id, Attributes: attrs})
}
