package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/manifest"
	"github.com/tarehq/tare/registry/storage"
)

// maxTags is how many tags one push may set.
const maxTags = 100

var (
	// Where a tag points to has to be asked each time.
	askAgain = []string{"no-cache"}
	// RFC 7234, 5.5.1: older than it should be.
	stale = []string{`110 - "Response is Stale"`}
)

// getManifest sends a manifest by its tag or digest.
func (q *request) getManifest() error {
	d, cached := digest.Digest(q.item), forever
	byTag := !isDigest(q.item)
	if byTag {
		if !storage.ValidTag(q.item) {
			return fault.New(fault.NotFound, "there is no manifest %.200q: it is no tag", q.item)
		}
		tag, err := q.api.Storage.Tag(q.Context(), q.repo, q.item)
		if err != nil {
			return err
		}
		d, cached = tag.Target.Digest, askAgain
		if tag.Stale {
			q.w.Header()["Warning"] = stale
		}
	} else if !storage.ValidDigest(d) {
		_, err := readDigest(q.item)
		return err
	}
	m, err := q.api.Storage.Manifest(q.Context(), q.repo, d)
	if err != nil {
		return err
	}
	if accept := q.Header["Accept"]; accept != nil && !accepts(accept, m.Descriptor.MediaType) {
		if m, err = q.instead(m, accept, byTag); err != nil {
			return err
		}
		d = m.Descriptor.Digest
	}
	if err := q.api.Storage.KeepManifest(q.Context(), q.repo, d); err != nil {
		return err
	}
	if q.unchanged(d, cached) {
		return nil
	}
	q.body(http.StatusOK, m.Descriptor.MediaType, m.Data)
	if q.Method == http.MethodGet {
		e := Event{Action: Pull, Digest: d, MediaType: m.Descriptor.MediaType, Size: m.Descriptor.Size}
		if byTag {
			e.Tag = q.item
		}
		q.tell(e)
	}
	return nil
}

// unchanged sets what answers say of a digest, and answers a client that has it.
func (q *request) unchanged(d digest.Digest, cached []string) bool {
	h := q.w.Header()
	etag := `"` + string(d) + `"`
	h["Etag"] = []string{etag}
	h["Docker-Content-Digest"] = []string{string(d)}
	h["Cache-Control"] = cached
	match := q.Header["If-None-Match"]
	if match == nil || !matches(match, etag) {
		return false
	}
	q.status(http.StatusNotModified)
	return true
}

// matches tells whether one of the entity tags of a condition is etag. Docker's
// clients may leave out the quotes.
func matches(conditions []string, etag string) bool {
	for _, condition := range conditions {
		for candidate := range strings.SplitSeq(condition, ",") {
			candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
			if candidate == "*" || candidate == etag || candidate == etag[1:len(etag)-1] {
				return true
			}
		}
	}
	return false
}

// putManifest stores a manifest under its digest and the tags that are asked for.
func (q *request) putManifest() error {
	want, names, err := q.target()
	if err != nil {
		return err
	}
	data, release, err := q.document()
	if err != nil {
		return err
	}
	defer release()
	algorithm := digest.Canonical
	if want != "" {
		algorithm = want.Algorithm()
	}
	m, err := manifest.Read(q.Header.Get("Content-Type"), algorithm, data)
	if err != nil {
		return err
	}
	d := m.Descriptor.Digest
	if want != "" && want != d {
		return refuse(http.StatusBadRequest, digestInvalid, fault.New(fault.Invalid, "the manifest has the digest %s, not the %s of the request", d, want))
	}
	unlock, err := q.condition(names)
	if err != nil {
		return err
	}
	defer unlock()
	err = q.grow(int64(len(data)), "", q.hasManifest(d), func(ctx context.Context) error {
		return q.api.Storage.PutManifest(ctx, q.repo, m, q.newTags(names)...)
	})
	if err != nil {
		return putProblem(err)
	}
	h := q.w.Header()
	h.Set("Location", "/v2/"+q.repo+"/manifests/"+string(d))
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Etag", `"`+string(d)+`"`)
	if m.Subject != "" {
		h.Set("OCI-Subject", string(m.Subject))
	}
	if want != "" && len(names) > 0 {
		h.Set("OCI-Tag", strings.Join(names, ", "))
	}
	h.Set("Content-Length", "0")
	q.status(http.StatusCreated)
	q.pushed(&m, names)
	return nil
}

func (q *request) pushed(m *storage.Manifest, names []string) {
	e := Event{Action: Push, Digest: m.Descriptor.Digest, MediaType: m.Descriptor.MediaType, Size: m.Descriptor.Size}
	if len(names) == 0 {
		q.tell(e)
	}
	for _, name := range names {
		e.Tag = name
		q.tell(e)
	}
}

// target is the digest that the pushed manifest has to have, if the request
// names one, and the tags that it gets.
func (q *request) target() (digest.Digest, []string, error) {
	if !isDigest(q.item) {
		if !storage.ValidTag(q.item) {
			return "", nil, noTag(q.item)
		}
		return "", []string{q.item}, nil
	}
	d, err := readDigest(q.item)
	if err != nil {
		return "", nil, err
	}
	var names []string
	seen := make(map[string]bool)
	for _, name := range q.URL.Query()["tag"] {
		switch {
		case seen[name]:
			continue
		case !storage.ValidTag(name):
			return "", nil, noTag(name)
		case len(names) == maxTags:
			return "", nil, refuse(http.StatusRequestURITooLong, tagInvalid, fault.New(fault.Invalid, "a push sets at most %d tags: set the others by further ones", maxTags))
		}
		seen[name] = true
		names = append(names, name)
	}
	return d, names, nil
}

func noTag(name string) error {
	return refuse(http.StatusBadRequest, tagInvalid, fault.New(fault.Invalid,
		"invalid tag %.200q: use at most 128 letters, digits, _ . and -, not . or - first", name))
}

// A manifest of more than lightManifest bytes is read and looked through while
// no more than heavyManifests others are: it may take ten times its size.
const (
	lightManifest  = 128 << 10
	heavyManifests = 4
	heavyTime      = 30 * time.Second
)

// hasty is a reader that fails when its time is over: who sends slowly must not
// keep one of few places.
type hasty struct {
	io.Reader
	end time.Time
}

func (h *hasty) Read(p []byte) (int, error) {
	if time.Now().After(h.end) {
		return 0, errors.New("a manifest of this size has to come faster")
	}
	return h.Reader.Read(p)
}

// document reads the manifest that the request brings. It is in memory until release.
func (q *request) document() (data []byte, release func(), err error) {
	body := http.MaxBytesReader(q.w, q.Body, q.api.MaxManifest)
	release = func() {}
	data, err = io.ReadAll(io.LimitReader(body, lightManifest))
	if err == nil && len(data) == lightManifest {
		select {
		case q.api.heavy <- struct{}{}:
			release = func() { <-q.api.heavy }
		case <-q.Context().Done():
			return nil, nil, q.Context().Err()
		}
		var rest []byte
		rest, err = io.ReadAll(&hasty{body, time.Now().Add(heavyTime)})
		data = append(data, rest...)
	}
	if err == nil {
		return data, release, nil
	}
	release()
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return nil, nil, refuse(http.StatusRequestEntityTooLarge, sizeInvalid, fault.New(fault.Invalid, "the manifest has more than %d bytes: keep what is large in blobs", q.api.MaxManifest))
	}
	return nil, nil, fault.New(fault.Invalid, "the request ended early: %w", err)
}

// condition looks at If-Match and If-None-Match for the tag that a push sets,
// so that two clients that change what it points to do not undo each other's
// work. Until release, no other request of this registry sets the tag.
func (q *request) condition(names []string) (release func(), err error) {
	match, none := q.Header["If-Match"], q.Header["If-None-Match"]
	if len(names) != 1 && (match != nil || none != nil) {
		return nil, fault.New(fault.Invalid, "a condition is about one tag: push with a single one")
	}
	release, err = q.lockTags(names)
	if err != nil {
		return nil, err
	}
	if match == nil && none == nil {
		return release, nil
	}
	tag, err := q.api.Storage.Tag(q.Context(), q.repo, names[0])
	there, err := known(err)
	etag := `"` + string(tag.Target.Digest) + `"`
	if err == nil && (match != nil && !(there && matches(match, etag)) || none != nil && there && matches(none, etag)) {
		err = refuse(http.StatusPreconditionFailed, denied, fault.New(fault.Conflict, "the tag %s was changed by somebody else: look at it again", names[0]))
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// lockTags keeps other requests from setting the tags, in an order in which two
// requests cannot wait for each other.
func (q *request) lockTags(names []string) (release func(), err error) {
	var held []func()
	release = func() {
		for _, unlock := range held {
			unlock()
		}
	}
	for _, name := range slices.Sorted(slices.Values(names)) {
		unlock, err := q.api.tagging.Lock(q.Context(), q.repo+":"+name)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, unlock)
	}
	return release, nil
}

// maxLacks is how many missing blobs an answer names.
const maxLacks = 100

// putProblem names each blob that the repository lacks, as the specification has it.
func putProblem(err error) error {
	missing := (*storage.MissingError)(nil)
	if !errors.As(err, &missing) {
		return err
	}
	type lack struct {
		Digest digest.Digest `json:"digest"`
	}
	var all []*problem
	for _, d := range missing.Digests[:min(len(missing.Digests), maxLacks)] {
		p := refuse(http.StatusBadRequest, manifestBlobUnknown, fault.New(fault.NotFound, "the repository does not have %s, which the manifest names: push it first", d))
		p.Detail = lack{d}
		all = append(all, p)
	}
	if len(all) == 0 {
		return refuse(http.StatusBadRequest, manifestBlobUnknown, err)
	}
	all[0].also = all[1:]
	return all[0]
}

// deleteManifest removes a tag, or a manifest with all its tags.
func (q *request) deleteManifest() error {
	ctx := q.whole()
	if !isDigest(q.item) {
		switch {
		case !storage.ValidTag(q.item):
			return fault.New(fault.NotFound, "there is no manifest %.200q: it is no tag", q.item)
		case q.immutable(q.item):
			return storage.Fixed(q.repo, q.item)
		}
		unlock, err := q.lockTags([]string{q.item})
		if err != nil {
			return err
		}
		defer unlock()
		tag, err := q.api.Storage.Tag(ctx, q.repo, q.item)
		if err != nil {
			return err
		}
		if err := q.api.Storage.DeleteTag(ctx, q.repo, q.item); err != nil {
			return err
		}
		q.accepted()
		q.tell(Event{Action: Delete, Digest: tag.Target.Digest, Tag: q.item, MediaType: tag.Target.MediaType})
		return nil
	}
	d, err := readDigest(q.item)
	if err != nil {
		return err
	}
	m, err := q.api.Storage.Manifest(ctx, q.repo, d)
	if err != nil {
		return err
	}
	if err := q.api.Storage.DeleteManifest(ctx, q.repo, d, q.fixed()); err != nil {
		return err
	}
	q.accepted()
	q.tell(Event{Action: Delete, Digest: d, MediaType: m.Descriptor.MediaType})
	return nil
}
