package remote

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote/hosts"
)

const (
	pageSize     = "1000"
	maxPages     = 1000
	maxList      = 64 << 20 // bytes of all pages
	maxTags      = 200_000
	maxReferrers = 10_000
)

// Tags lists the tags of the repository in the registry's order.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	var tags []string
	err := r.each(ctx, hosts.Pull|hosts.Resolve, func(s *session, path string, last bool) error {
		tags = nil
		c := &call{method: http.MethodGet, below: path + "/tags/list", query: url.Values{"n": {pageSize}}, scope: pullScope(path), once: !last}
		return s.pages(ctx, c, func(data []byte) error {
			var page struct {
				Tags []string `json:"tags"`
			}
			if err := json.Unmarshal(data, &page); err != nil {
				return fault.New(fault.Unavailable, "%s sent a list of tags that is none: %w", s.endpoint.host, err)
			}
			for _, t := range page.Tags {
				if strings.ContainsAny(t, ":@/") || checkReference(t) != nil {
					return fault.New(fault.Unavailable, "%s sent a list with the tag %q, which is none", s.endpoint.host, clean(t, 200))
				}
			}
			if tags = append(tags, page.Tags...); len(tags) > maxTags {
				return fault.New(fault.Invalid, "%s/%s has more than %d tags", r.domain, r.path, maxTags)
			}
			return nil
		})
	})
	return tags, err
}

// Catalog lists the repositories of a registry, as far as it tells the
// credentials.
func (c *Client) Catalog(ctx context.Context, domain string, cred Credentials) ([]string, error) {
	r := &Repository{client: c, domain: domain, cred: cred}
	var names []string
	err := r.each(ctx, hosts.Pull|hosts.Resolve, func(s *session, _ string, last bool) error {
		names = nil
		c := &call{method: http.MethodGet, below: "_catalog", query: url.Values{"n": {pageSize}}, scope: []string{"registry:catalog:*"}, once: !last}
		return s.pages(ctx, c, func(data []byte) error {
			var page struct {
				Repositories []string `json:"repositories"`
			}
			if err := json.Unmarshal(data, &page); err != nil {
				return fault.New(fault.Unavailable, "%s sent a catalog that is none: %w", s.endpoint.host, err)
			}
			for _, name := range page.Repositories {
				if !reference.IsPath(name) {
					return fault.New(fault.Unavailable, "%s sent a catalog with the repository %q, which is none", s.endpoint.host, clean(name, 200))
				}
			}
			if names = append(names, page.Repositories...); len(names) > maxTags {
				return fault.New(fault.Invalid, "%s has more than %d repositories", domain, maxTags)
			}
			return nil
		})
	})
	return names, err
}

// Referrers lists the manifests whose subject is d: by the API for it, or by
// the tag that stands in its place at registries without, OCI distribution
// specification, "Listing Referrers". There may be none.
func (r *Repository) Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	if err := d.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "%q is no digest", clean(d.String(), 200))
	}
	var out []ocispec.Descriptor
	err := r.each(ctx, hosts.Pull|hosts.Resolve, func(s *session, path string, last bool) error {
		out = nil
		c := &call{
			method: http.MethodGet, below: path + "/referrers/" + d.String(), scope: pullScope(path), once: !last,
			header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}},
		}
		err := s.pages(ctx, c, func(data []byte) error {
			page, err := parseIndex(data)
			if err != nil {
				return err
			}
			if out = append(out, page.Manifests...); len(out) > maxReferrers {
				return fault.New(fault.Invalid, "%s has more than %d referrers", d, maxReferrers)
			}
			return nil
		})
		if !lacksReferrers(err) {
			return err
		}
		index, err := s.referrersTag(ctx, path, d, last)
		if err == nil {
			out = index.Manifests
		}
		return err
	})
	return out, err
}

// lacksReferrers tells whether the error says that the registry does not know
// the API.
func lacksReferrers(err error) bool {
	switch statusIn(err) {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest, http.StatusNotImplemented:
		return true
	}
	return false
}

// referrersTag reads the index that a tag such as sha256-… points to; an empty
// one if there is none.
func (s *session) referrersTag(ctx context.Context, path string, d digest.Digest, last bool) (*ocispec.Index, error) {
	_, data, err := s.manifest(ctx, path, fallbackTag(d), last)
	if statusIn(err) == http.StatusNotFound {
		return &ocispec.Index{}, nil
	}
	if err != nil {
		return nil, err
	}
	return parseIndex(data)
}

// fallbackTag is the specification's "Referrers Tag Schema": an algorithm of at
// most 32 and digits of at most 64 characters.
func fallbackTag(d digest.Digest) string {
	algorithm, hex := d.Algorithm().String(), d.Encoded()
	return algorithm[:min(32, len(algorithm))] + "-" + hex[:min(64, len(hex))]
}

func parseIndex(data []byte) (*ocispec.Index, error) {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fault.New(fault.Unavailable, "the registry sent a list of referrers that is no index: %w", err)
	}
	if len(index.Manifests) > maxReferrers {
		return nil, fault.New(fault.Invalid, "the registry sent a list of more than %d referrers", maxReferrers)
	}
	for _, m := range index.Manifests {
		if m.Digest.Validate() != nil || m.Size < 0 {
			return nil, fault.New(fault.Unavailable, "the registry sent a list with the referrer %q, which is no digest", clean(m.Digest.String(), 200))
		}
	}
	return &index, nil
}

// pages gets a list page by page, following the Link of each answer, which must
// stay at the registry.
func (s *session) pages(ctx context.Context, c *call, add func(data []byte) error) error {
	for room := maxList; room > 0; {
		resp, data, err := s.document(ctx, c, maxManifest)
		if err != nil {
			return err
		}
		room -= max(len(data), maxList/maxPages)
		if err := add(data); err != nil {
			return err
		}
		link := nextLink(resp.Header.Values("Link"))
		if link == "" {
			return nil
		}
		next, err := resp.Request.URL.Parse(link)
		if err != nil || !sameOrigin(next, resp.Request.URL) || next.String() == resp.Request.URL.String() {
			return fault.New(fault.Unavailable, "the next page of a list at %s is said to be at %q, which is refused", s.endpoint.host, redactText(link))
		}
		next.User, next.Fragment = nil, ""
		following := *c
		following.url = next
		c = &following
	}
	return fault.New(fault.Unavailable, "a list at %s has more than %d pages, or %d bytes", s.endpoint.host, maxPages, maxList)
}

// nextLink finds the target of the relation "next", RFC 8288: <target>; rel=next.
func nextLink(fields []string) string {
	for _, s := range fields {
		if len(s) > maxChallenge {
			continue
		}
		for {
			s = strings.TrimLeft(s, " \t,")
			if !strings.HasPrefix(s, "<") {
				break
			}
			target, rest, ok := strings.Cut(s[1:], ">")
			if !ok {
				break
			}
			next := false
			if next, s = relation(rest); next {
				return target
			}
		}
	}
	return ""
}

// relation reads the parameters of a link and gives what follows them.
func relation(s string) (next bool, rest string) {
	for {
		s = strings.TrimLeft(s, " \t")
		if !strings.HasPrefix(s, ";") {
			if i := strings.IndexByte(s, ','); i >= 0 {
				return next, s[i:]
			}
			return next, ""
		}
		s = strings.TrimLeft(s[1:], " \t")
		name := leading(s, hosts.TokenChars)
		if s = strings.TrimLeft(s[len(name):], " \t"); !strings.HasPrefix(s, "=") {
			continue
		}
		value, after, ok := parseValue(strings.TrimLeft(s[1:], " \t"))
		if !ok {
			return next, ""
		}
		if strings.EqualFold(name, "rel") {
			for word := range strings.FieldsSeq(value) {
				next = next || strings.EqualFold(word, "next")
			}
		}
		s = after
	}
}
