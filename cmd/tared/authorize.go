package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/tarehq/tare/internal/plugin"
)

// authorizers are the plugins that have to agree to every request. Their names
// change with a reload.
type authorizers struct {
	plugins *plugin.Set
	names   atomic.Pointer[[]string]
}

// use makes these the ones. One that is not there, or authorizes nothing,
// is an error, and nothing changes: nobody's agreement is skipped.
func (a *authorizers) use(ctx context.Context, names []string) error {
	seen := map[string]bool{}
	list := []string{}
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		if _, err := a.plugins.Get(ctx, name, "authz"); err != nil {
			return fmt.Errorf("error validating authorization plugin: %w", err)
		}
		list = append(list, name)
	}
	a.names.Store(&list)
	return nil
}

// Names are theirs in the order in which they are asked.
func (a *authorizers) Names() []string {
	if list := a.names.Load(); list != nil && len(*list) > 0 {
		return *list
	}
	return nil
}

// Ask calls the method of one. Nobody waits for one that is not there: what it
// cannot agree to is not done.
func (a *authorizers) Ask(ctx context.Context, name, method string, question, verdict any) error {
	p, err := a.plugins.Get(ctx, name, "authz")
	if err != nil {
		return err
	}
	return p.CallOnce(ctx, method, question, verdict)
}
