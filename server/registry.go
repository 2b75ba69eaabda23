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
	Login(ctx context.Context, host string, cred image.Credentials) (identityToken string, err error)
	Search(ctx context.Context, o image.SearchOptions) ([]wire.SearchResult, error)
	Distribution(ctx context.Context, name string, cred image.Credentials) (wire.DistributionInspect, error)
}

type registryHandlers struct{ registries Registries }

func (h *registryHandlers) routes() []route {
	return []route{
		{method: "POST", pattern: "/auth", handle: h.login, decodes: true},
		{method: "GET", pattern: "/images/search", handle: h.search},
		{method: "GET", pattern: "/distribution/{name...}/json", handle: h.distribution},
	}
}

// registryAuth decodes the header X-Registry-Auth: the JSON of an AuthConfig in
// base64, of either alphabet and with or without padding. No header is nobody,
// and so, as in Docker, is one that cannot be read: a registry that wants to
// know will say so.
func (r *request) registryAuth() image.Credentials {
	text := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(r.Header.Get(wire.AuthHeader), "="))
	if n := len(text) % 4; n > 1 {
		text += "=="[:4-n]
	}
	auth, err := authconfig.Decode(text)
	if err != nil {
		return image.Credentials{}
	}
	cred, err := credentials(*auth)
	if err != nil {
		return image.Credentials{}
	}
	return cred
}

// credentials takes from a client's words what a registry is to know. Old
// clients give the name and the password in one, as config.json has them.
func credentials(auth wire.AuthConfig) (image.Credentials, error) {
	c := image.Credentials{Username: auth.Username, Password: auth.Password, IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken}
	if c == (image.Credentials{}) && auth.Auth != "" {
		pair, err := base64.StdEncoding.DecodeString(auth.Auth)
		user, password, ok := strings.Cut(string(pair), ":")
		if err != nil || !ok {
			return c, fault.New(fault.Invalid, "invalid credentials: auth is not base64 of user:password")
		}
		c.Username, c.Password = user, strings.TrimRight(password, "\x00")
	}
	return c, nil
}

func (h *registryHandlers) login(w http.ResponseWriter, r *request) error {
	var auth wire.AuthConfig
	if err := r.json(&auth); err != nil {
		return err
	}
	cred, err := credentials(auth)
	if err != nil {
		return err
	}
	token, err := h.registries.Login(r.Context(), auth.ServerAddress, cred)
	if err != nil {
		return unreachable(err)
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
		if err != nil {
			return fault.New(fault.Invalid, "invalid limit specified: %w", err)
		}
		if n < 0 {
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
	o.Credentials = r.registryAuth()
	found, err := h.registries.Search(r.Context(), o)
	if err != nil {
		return unreachable(err)
	}
	if found == nil {
		found = []wire.SearchResult{}
	}
	return writeJSON(w, http.StatusOK, found)
}

func (h *registryHandlers) distribution(w http.ResponseWriter, r *request) error {
	name := strings.TrimSpace(r.params["name"])
	if name == "" {
		return fault.New(fault.Invalid, "image name cannot be blank")
	}
	found, err := h.registries.Distribution(r.Context(), name, r.registryAuth())
	if err != nil {
		return unreachable(err)
	}
	return writeJSON(w, http.StatusOK, found)
}
