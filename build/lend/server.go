package lend

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/snapshot"
)

// Config is what is lent.
type Config struct {
	Images    *image.Service
	Transfers *image.Transfers
	Layers    *snapshot.Store
	Networks  *network.Service
	Users     *userns.Map // what the IDs of steps are outside, of which all Networks' namespaces are; nil for the host's
	// JoinNetwork opens the network namespace of a container that runs, and tells
	// whether names are looked up there, and what the IDs are of those who rule it.
	JoinNetwork func(nameOrID string) (netNS *os.File, names bool, users *userns.Map, err error)
}

// Lender serves one process. It is an http.Handler.
type Lender struct {
	Config
	making *image.Making
	mux    *http.ServeMux
	hold   func() // of all blobs, while the process is there

	mu     sync.Mutex
	closed bool
	trees  map[string]bool
	places map[string]*network.Attachment
	joined map[string]*os.File
}

// New begins to lend.
func New(c Config) *Lender {
	l := &Lender{Config: c, making: c.Images.Making(), mux: http.NewServeMux(), trees: map[string]bool{}, places: map[string]*network.Attachment{}, joined: map[string]*os.File{}}
	l.hold = l.making.Hold()
	serve(l, "has", func(_ context.Context, chain digest.Digest, _ func(build.Transfer)) (bool, error) {
		return c.Layers.Has(chain), nil
	})
	serve(l, "prepare", l.prepare)
	serve(l, "view", func(_ context.Context, chain digest.Digest, _ func(build.Transfer)) (snapshot.Mount, error) {
		return c.Layers.ReadOnly(chain)
	})
	serve(l, "seal", l.seal)
	serve(l, "discard", func(_ context.Context, id string, _ func(build.Transfer)) (none, error) { return none{}, l.discard(id) })
	serve(l, "layer-blob", l.layerBlob)
	serve(l, "layer-blobs", l.layerBlobs)
	l.servePieces()
	serve(l, "pin", func(_ context.Context, chains []digest.Digest, _ func(build.Transfer)) (none, error) {
		return none{}, l.making.Pin(chains)
	})
	serve(l, "size", func(_ context.Context, chain digest.Digest, _ func(build.Transfer)) (int64, error) {
		return c.Layers.Size(chain), nil
	})
	serve(l, "needed", func(context.Context, none, func(build.Transfer)) ([]digest.Digest, error) {
		return append([]digest.Digest{}, l.making.Needed()...), nil // not null: that would be no result
	})
	serve(l, "publish", func(_ context.Context, a publishArg, _ func(build.Transfer)) (string, error) {
		for _, text := range a.Texts {
			d := ocispec.Descriptor{Digest: digest.FromBytes(text), Size: int64(len(text))}
			if err := l.making.Put(d, bytes.NewReader(text)); err != nil {
				return "", err
			}
		}
		return l.making.Publish(a.Target, a.Names)
	})
	serve(l, "push", l.push)
	serve(l, "attach", l.attach)
	serve(l, "detach", func(ctx context.Context, id string, _ func(build.Transfer)) (none, error) {
		return none{}, l.detach(ctx, id)
	})
	l.mux.HandleFunc("GET /blob/{digest}", l.blob)
	l.mux.HandleFunc("PUT /blob", l.putBlob)
	return l
}

// ServeHTTP answers the process.
func (l *Lender) ServeHTTP(w http.ResponseWriter, r *http.Request) { l.mux.ServeHTTP(w, r) }

// Close takes back what was lent. The process must have ended, and so must
// those that it started.
func (l *Lender) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	trees, places, joined := l.trees, l.places, l.joined
	l.trees, l.places, l.joined = nil, nil, nil
	l.mu.Unlock()
	var err error
	for id := range trees {
		err = errors.Join(err, l.Layers.Remove(id))
	}
	for _, a := range places {
		a.NetNS.Close()
		err = errors.Join(err, l.Networks.Detach(ctx, a.Sandbox))
	}
	for _, f := range joined {
		f.Close()
	}
	l.hold()
	return err
}

// serve registers a call.
func serve[A, R any](l *Lender, name string, call func(context.Context, A, func(build.Transfer)) (R, error)) {
	l.mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
		var arg A
		if err := json.NewDecoder(r.Body).Decode(&arg); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var mu sync.Mutex
		out := json.NewEncoder(w)
		result, err := call(r.Context(), arg, func(t build.Transfer) {
			mu.Lock()
			defer mu.Unlock()
			_ = out.Encode(reply[R]{Progress: &t}) // who does not read has gone: the context ends
			_ = http.NewResponseController(w).Flush()
		})
		mu.Lock()
		defer mu.Unlock()
		last := reply[R]{Result: &result} // with its end in one piece, which wakes the reader once
		if err != nil {
			last = reply[R]{Error: pack(err)}
		}
		_ = out.Encode(last)
	})
}

func platformText(p ocispec.Platform) string {
	if p.OS == "" || p.Architecture == "" {
		return ""
	}
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

func credentials(c build.Credentials) image.Credentials {
	return image.Credentials{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}
}

// transfers adapts the progress of a pull or push.
func transfers(progress func(build.Transfer)) func(image.Progress) {
	return func(p image.Progress) {
		progress(build.Transfer{ID: p.ID, Action: p.Status, Current: p.Current, Total: p.Total})
	}
}

// own notes that the process has a tree.
func (l *Lender) own(id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fault.New(fault.Unavailable, "the process that builds has ended")
	}
	l.trees[id] = true
	return nil
}

func (l *Lender) prepare(_ context.Context, a prepareArg, _ func(build.Transfer)) (snapshot.Mount, error) {
	if err := l.own(a.ID); err != nil {
		return snapshot.Mount{}, err
	}
	return l.Layers.Prepare(a.ID, a.Chain)
}

// owned refuses trees that are a container's.
func (l *Lender) owned(id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.trees[id] {
		return fault.New(fault.NotFound, "no build has the tree %s", id)
	}
	return nil
}

func (l *Lender) seal(ctx context.Context, a sealArg, _ func(build.Transfer)) (build.Layer, error) {
	if err := l.owned(a.ID); err != nil {
		return build.Layer{}, err
	}
	made, err := l.making.Seal(ctx, a.ID, a.Chain, a.Epoch)
	if err != nil {
		return build.Layer{}, err
	}
	l.mu.Lock()
	delete(l.trees, a.ID)
	l.mu.Unlock()
	return build.Layer{Chain: made.Chain, DiffID: made.Blob.Digest, Blob: made.Blob}, nil
}

func (l *Lender) discard(id string) error {
	if l.owned(id) != nil {
		return nil
	}
	if err := l.Layers.Remove(id); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.trees, id)
	return nil
}

func (l *Lender) push(ctx context.Context, a pushArg, progress func(build.Transfer)) (none, error) {
	return none{}, l.Transfers.Push(ctx, a.Name, image.PushOptions{Credentials: credentials(a.Auth)}, transfers(progress))
}

// attach gives a place on a network, the default bridge unless it is named, or where
// there is no such bridge one with lo alone. The daemon holds the namespace, under a
// descriptor of its own.
func (l *Lender) attach(ctx context.Context, arg attachArg, _ func(build.Transfer)) (build.Place, error) {
	id := arg.ID
	if other, found := strings.CutPrefix(arg.Network, "container:"); found {
		return l.join(id, other)
	}
	wants := []network.Want{{Network: cmp.Or(arg.Network, "bridge")}}
	if _, err := l.Networks.Lookup("bridge"); err != nil && arg.Network == "" {
		wants = nil
	}
	a, err := l.Networks.Attach(ctx, network.Request{ContainerID: id, Name: id, Wants: wants})
	if err != nil {
		return build.Place{}, err
	}
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.places[id] = a
	}
	l.mu.Unlock()
	if closed {
		a.NetNS.Close()
		return build.Place{}, errors.Join(fault.New(fault.Unavailable, "the process that builds has ended"), l.Networks.Detach(ctx, a.Sandbox))
	}
	place := build.Place{NetNS: place(a.NetNS), Names: a.HasNames(), Users: l.Users}
	for _, e := range a.Endpoints {
		if e.Address.IsValid() {
			place.Address = e.Address.Addr()
		}
	}
	return place, nil
}

// place is the path of a namespace for another process.
func place(netNS *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netNS.Fd()) }

// join gives the place of a container.
func (l *Lender) join(id, other string) (build.Place, error) {
	f, names, users, err := l.JoinNetwork(other)
	if err != nil {
		return build.Place{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		f.Close()
		return build.Place{}, fault.New(fault.Unavailable, "the process that builds has ended")
	}
	l.joined[id] = f
	return build.Place{NetNS: place(f), Names: names, Users: users}, nil
}

func (l *Lender) detach(ctx context.Context, id string) error {
	l.mu.Lock()
	a, other := l.places[id], l.joined[id]
	delete(l.places, id)
	delete(l.joined, id)
	l.mu.Unlock()
	if other != nil {
		return other.Close()
	}
	if a == nil {
		return nil
	}
	a.NetNS.Close()
	return l.Networks.Detach(ctx, a.Sandbox)
}

func (l *Lender) blob(w http.ResponseWriter, r *http.Request) {
	d, err := digest.Parse(r.PathValue("digest"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f, err := l.making.Open(d)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer f.Close()
	_, _ = io.Copy(w, f) // who does not read has gone
}

func (l *Lender) putBlob(w http.ResponseWriter, r *http.Request) {
	var d ocispec.Descriptor
	if err := json.Unmarshal([]byte(r.Header.Get(headerDescriptor)), &d); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := l.making.Put(d, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
