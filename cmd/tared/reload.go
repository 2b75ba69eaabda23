package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/internal/sdnotify"
	"github.com/tarehq/tare/remote"
)

// reloadable takes from fresh what can change while the daemon runs.
func (o options) reloadable(fresh *options) options {
	o.Debug, o.LogLevel, o.Labels, o.Features = fresh.Debug, fresh.LogLevel, fresh.Labels, fresh.Features
	o.AuthzPlugins = fresh.AuthzPlugins
	o.Mirrors, o.Insecure = fresh.Mirrors, fresh.Insecure
	o.Downloads, o.Uploads, o.PullAttempts = fresh.Downloads, fresh.Uploads, fresh.PullAttempts
	o.LiveRestore, o.ShutdownTimeout = fresh.LiveRestore, fresh.ShutdownTimeout
	o.Runtimes, o.DefaultRuntime = fresh.Runtimes, fresh.DefaultRuntime
	o.ShmSize, o.IpcMode, o.CgroupnsMode = fresh.ShmSize, fresh.IpcMode, fresh.CgroupnsMode
	return o
}

// left names the keys in which two sets of options differ.
func (o options) left(other *options) []string {
	var keys []string
	var compare func(a, b reflect.Value)
	compare = func(a, b reflect.Value) {
		for i := range a.NumField() {
			field := a.Type().Field(i)
			key := field.Tag.Get("json")
			switch {
			case field.Anonymous:
				compare(a.Field(i), b.Field(i))
			case key != "" && !same(a.Field(i), b.Field(i)):
				keys = append(keys, key)
			}
		}
	}
	compare(reflect.ValueOf(o), reflect.ValueOf(*other))
	slices.Sort(keys)
	return keys
}

func same(a, b reflect.Value) bool {
	x, errX := json.Marshal(a.Interface())
	y, errY := json.Marshal(b.Interface())
	return errX == nil && errY == nil && string(x) == string(y)
}

// reloader brings a running daemon to what its configuration file says now.
type reloader struct {
	args  []string
	level *slog.LevelVar
	log   *slog.Logger
	wired *wired

	mu  sync.Mutex
	now options // those in force
}

// options gives those in force.
func (r *reloader) options() options {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// pluginPatience is how long a reload waits for a plugin that does not listen.
const pluginPatience = 10 * time.Second

// reload reads the flags and the file anew. What cannot be read or does not hold
// together changes nothing. What differs and cannot change is named in the log.
func (r *reloader) reload() error {
	fresh, err := readOptions(r.args)
	if err != nil {
		return err
	}
	next := r.options().reloadable(fresh)
	if err := r.wired.registries.Reload(remote.Config{Mirrors: next.Mirrors, Insecure: next.Insecure, Attempts: next.PullAttempts}); err != nil {
		return err
	}
	level, err := parseLevel(next.LogLevel)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), pluginPatience)
	defer cancel()
	if err := r.wired.agree.use(ctx, next.AuthzPlugins); err != nil {
		return err
	}
	r.mu.Lock()
	r.now = next
	r.mu.Unlock()
	r.level.Set(level)
	r.wired.transfers.SetLimits(image.Limits{Downloads: limit(next.Downloads), Uploads: limit(next.Uploads)})
	r.wired.defaults.Set(next.settings())
	r.wired.setFacts(&next)
	if left := next.left(fresh); len(left) > 0 {
		r.log.Warn("these options count from the daemon's next start on", "options", left)
	}
	r.wired.events.Publish(events.DaemonEventType, events.ActionReload, events.Actor{ID: r.wired.id, Attributes: next.attributes()})
	r.log.Info("the configuration is reloaded", "file", next.configFile)
	return nil
}

// attributes are those of the event of a reload, as dockerd has them.
func (o *options) attributes() map[string]string {
	list := func(v []string) string {
		text, err := json.Marshal(append([]string{}, v...))
		if err != nil {
			return "[]"
		}
		return string(text)
	}
	all := o.runtimes()
	var runtimes []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		runtimes = append(runtimes, name+":"+all[name].Path)
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	return map[string]string{
		"name":                     host,
		"debug":                    strconv.FormatBool(o.Debug),
		"labels":                   list(o.Labels),
		"features":                 fmt.Sprint(map[string]bool(o.Features)),
		"insecure-registries":      list(o.Insecure),
		"registry-mirrors":         list(o.Mirrors),
		"max-concurrent-downloads": strconv.Itoa(o.Downloads),
		"max-concurrent-uploads":   strconv.Itoa(o.Uploads),
		"max-download-attempts":    strconv.Itoa(o.PullAttempts),
		"live-restore":             strconv.FormatBool(o.LiveRestore),
		"shutdown-timeout":         strconv.Itoa(o.ShutdownTimeout),
		"runtimes":                 strings.Join(runtimes, " "),
		"default-runtime":          o.DefaultRuntime,
		"default-shm-size":         strconv.FormatInt(int64(o.ShmSize), 10),
		"default-ipc-mode":         o.IpcMode,
		"default-cgroupns-mode":    o.CgroupnsMode,
	}
}

// follow reloads for each signal until stop is closed, and tells who started the
// daemon, sd_notify(3).
func (r *reloader) follow(hangup <-chan os.Signal, stop <-chan struct{}) {
	for {
		select {
		case <-hangup:
		case <-stop:
			return
		}
		var now unix.Timespec
		state := "RELOADING=1"
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
			state += fmt.Sprintf("\nMONOTONIC_USEC=%d", now.Nano()/1000)
		}
		r.tell(state)
		if err := r.reload(); err != nil {
			r.log.Error("the configuration cannot be reloaded and stays as it is", "error", err)
		}
		r.tell("READY=1")
	}
}

func (r *reloader) tell(state string) {
	if err := sdnotify.Send(state); err != nil {
		r.log.Warn("cannot tell systemd how it goes", "state", state, "error", err)
	}
}
