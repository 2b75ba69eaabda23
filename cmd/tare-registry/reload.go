package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/tarehq/tare/registry/config"
)

// handler is one that can be replaced while requests are under way; those end
// with the one that they began with.
type handler struct{ now atomic.Pointer[http.Handler] }

func (h *handler) set(next http.Handler) { h.now.Store(&next) }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*h.now.Load()).ServeHTTP(w, r)
}

// reload reads the configuration again at each SIGHUP, and has use what of it
// can change while the registry runs. One that is wrong, or that use refuses,
// changes nothing. The function that it returns ends that.
func reload(ctx context.Context, o *options, c *config.Config, log *slog.Logger, use func(*config.Config) error) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-asked:
			}
			next, err := o.config()
			if err == nil {
				var fixed []string
				if next, fixed = change(c, next); len(fixed) > 0 {
					log.Warn("this part of the configuration changes only when the registry is started again", "parts", strings.Join(fixed, ", "))
				}
				err = use(next)
			}
			if err != nil {
				log.Error("the configuration stays what it was", "error", err)
				continue
			}
			c = next
			log.Info("read the configuration again", "file", o.file)
		}
	}()
	return func() {
		signal.Stop(asked)
		cancel()
		<-done
	}
}

// change gives the configuration old with what of next can replace it: who may
// do what, what binds repositories, and when garbage is collected. It names the
// other parts that differ.
func change(old, next *config.Config) (*config.Config, []string) {
	c := *old
	c.Auth, c.Repositories, c.Collect = next.Auth, next.Repositories, next.Collect
	if c.Storage.S3 != nil { // the registries that share it count on each other's
		c.Collect.Grace = old.Collect.Grace
	}
	var fixed []string
	was, is := reflect.ValueOf(c), reflect.ValueOf(*next)
	for i := range was.NumField() {
		if !reflect.DeepEqual(was.Field(i).Interface(), is.Field(i).Interface()) {
			fixed = append(fixed, was.Type().Field(i).Tag.Get("toml"))
		}
	}
	slices.Sort(fixed)
	return &c, fixed
}
