package server

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/moby/moby/api/pkg/authconfig"
	wire "github.com/moby/moby/api/types/registry"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
)

// Registries is what the handlers ask registries through; image.Registries is
// it.
type Registries interface {
	Login(ctx context.Context, auth wire.AuthConfig) (identityToken string, err error)
	Search(ctx context.Context, o image.SearchOptions) ([]wire.SearchResult, error)
	Distribution(ctx context.Context, name string, auth wire.AuthConfig) (wire.DistributionInspect, error)
}

type registryHandlers struct{ registries Registries }

func (h *registryHandlers) routes() []route {
	return []route{
		{method: "POST", pattern: "/auth", handle: h.login},
		{method: "GET", pattern: "/images/search", handle: h.search},
		{method: "GET", pattern: "/distribution/{name...}/json", handle: h.distribution},
	}
}

// registryAuth decodes the header X-Registry-Auth: the JSON of an AuthConfig in
// base64url, or in the older base64. No header is nobody.
func (r *request) registryAuth() (wire.AuthConfig, error) {
	text := r.Header.Get(wire.AuthHeader)
	auth, err := authconfig.Decode(text)
	if err == nil {
		return *auth, nil
	}
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding, base64.RawStdEncoding} {
		if decoded, e := encoding.DecodeString(text); e == nil {
			if auth, e := authconfig.Decode(base64.URLEncoding.EncodeToString(decoded)); e == nil {
				return *auth, nil
			}
		}
	}
	return wire.AuthConfig{}, fault.New(fault.Invalid, "%w", err)
}

func (h *registryHandlers) login(w http.ResponseWriter, r *request) error {
	var auth wire.AuthConfig
	if err := r.json(&auth); err != nil {
		return err
	}
	token, err := h.registries.Login(r.Context(), auth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, wire.AuthResponse{Status: "Login Succeeded", IdentityToken: token})
}

// defaultSearch is how many results a client gets that names no limit.
const defaultSearch = 25

func (h *registryHandlers) search(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	o := image.SearchOptions{Term: r.Form.Get("term"), Limit: defaultSearch}
	if text := r.Form.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return fault.New(fault.Invalid, "invalid limit specified: %q", text)
		}
		if n > 0 {
			o.Limit = n
		}
	}
	var err error
	if o.Filters, err = r.filters(); err != nil {
		return err
	}
	if o.Auth, err = r.registryAuth(); err != nil {
		return err
	}
	found, err := h.registries.Search(r.Context(), o)
	if err != nil {
		return err
	}
	if found == nil {
		found = []wire.SearchResult{}
	}
	return writeJSON(w, http.StatusOK, found)
}

func (h *registryHandlers) distribution(w http.ResponseWriter, r *request) error {
	auth, err := r.registryAuth()
	if err != nil {
		return err
	}
	name := strings.TrimSpace(r.params["name"])
	if name == "" {
		return fault.New(fault.Invalid, "image name cannot be blank")
	}
	found, err := h.registries.Distribution(r.Context(), name, auth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, found)
}
