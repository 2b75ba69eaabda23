package registry

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// How many names one answer has at most. Who wants more follows its Link.
const (
	maxTagsPage         = 10_000
	maxRepositoriesPage = 1_000

	// maxReferrersPage is in bytes: clients read no more than four megabytes.
	maxReferrersPage = 2 << 20
	// listings is how many lists of referrers are made at the same time.
	listings = 16
	// referrersAtOnce is how many the storage is asked for.
	referrersAtOnce = 1000
)

// page is which part of a list is asked for.
type page struct {
	last string
	n    int
}

func (q *request) page(most int, valid func(string) bool) (page, error) {
	query := q.URL.Query()
	p := page{query.Get("last"), most}
	if p.last != "" && !valid(p.last) {
		return p, fault.New(fault.Invalid, "invalid last %.200q: use the last name of the page before", p.last)
	}
	if s := query.Get("n"); s != "" {
		n, ok := position(s)
		if !ok {
			return p, fault.New(fault.Invalid, "invalid n %.50q: use a number of names", s)
		}
		p.n = int(min(n, int64(most)))
	}
	return p, nil
}

// next points to the page after the one that ends with last.
func (q *request) next(last string, n int) {
	query := url.Values{"last": {last}, "n": {strconv.Itoa(n)}}
	if ns := q.URL.Query().Get("ns"); ns != "" {
		query.Set("ns", ns)
	}
	q.w.Header().Set("Link", "<"+q.URL.Path+"?"+query.Encode()+`>; rel="next"`)
}

func (q *request) json(mediaType string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	q.body(http.StatusOK, mediaType, append(data, '\n'))
	return nil
}

func (q *request) listTags() error {
	p, err := q.page(maxTagsPage, storage.ValidTag)
	if err != nil {
		return err
	}
	// One more than asked for tells whether there is a next page.
	names, err := q.api.Storage.Tags(q.Context(), q.repo, p.last, p.n+1)
	if err != nil {
		return err
	}
	if len(names) > p.n {
		if names = names[:p.n]; p.n > 0 {
			q.next(names[p.n-1], p.n)
		}
	}
	return q.json("application/json; charset=utf-8", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{q.repo, append([]string{}, names...)})
}

// listCatalog lists the repositories that the client may pull from.
func (q *request) listCatalog() error {
	p, err := q.page(maxRepositoriesPage, storage.ValidRepository)
	if err != nil {
		return err
	}
	shown := []string{}
	more := p.n > 0
	for last := p.last; more; {
		names, err := q.api.Storage.Repositories(q.Context(), last, maxRepositoriesPage)
		if err != nil {
			return err
		}
		more = len(names) == maxRepositoriesPage
		for _, name := range names {
			if last = name; !q.mayPull(name) {
				continue
			}
			if len(shown) == p.n {
				q.next(shown[p.n-1], p.n)
				more = false
				break
			}
			shown = append(shown, name)
		}
	}
	return q.json("application/json; charset=utf-8", struct {
		Repositories []string `json:"repositories"`
	}{shown})
}

// listReferrers lists the manifests whose subject is the digest, which need not
// be there, in the order of their digests.
func (q *request) listReferrers() error {
	d, err := readDigest(q.item)
	if err != nil {
		return err
	}
	query := q.URL.Query()
	kind, last := query.Get("artifactType"), query.Get("last")
	if last != "" {
		if _, err := readDigest(last); err != nil {
			return err
		}
	}
	data, more, err := q.referrers(d, kind, digest.Digest(last))
	if err != nil {
		return err
	}
	h := q.w.Header()
	if kind != "" {
		h.Set("OCI-Filters-Applied", "artifactType")
	}
	if more != "" {
		query := url.Values{"last": {string(more)}}
		if kind != "" {
			query.Set("artifactType", kind)
		}
		h.Set("Link", "<"+q.URL.Path+"?"+query.Encode()+`>; rel="next"`)
	}
	q.body(http.StatusOK, ocispec.MediaTypeImageIndex, data)
	return nil
}

// referrers is the index of those after last. Where they are more than fit into
// one answer, more is the last that did. Few are made at a time: their
// annotations may be large.
func (q *request) referrers(d digest.Digest, kind string, last digest.Digest) (data []byte, more digest.Digest, err error) {
	select {
	case q.api.listing <- struct{}{}:
		defer func() { <-q.api.listing }()
	case <-q.Context().Done():
		return nil, "", q.Context().Err()
	}
	data = []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[`)
	shown := digest.Digest("")
	for {
		list, err := q.api.Storage.Referrers(q.Context(), q.repo, d, last, referrersAtOnce)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return nil, "", err
		}
		for _, m := range list {
			if last = m.Digest; kind != "" && m.ArtifactType != kind {
				continue
			}
			one, err := json.Marshal(m)
			if err != nil {
				return nil, "", err
			}
			if shown != "" {
				if len(data)+len(one) > maxReferrersPage {
					return append(data, "]}\n"...), shown, nil
				}
				data = append(data, ',')
			}
			data, shown = append(data, one...), m.Digest
		}
		if len(list) < referrersAtOnce {
			return append(data, "]}\n"...), "", nil
		}
	}
}
