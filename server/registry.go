package server

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
)

// registryAuth decodes the header X-Registry-Auth: base64 of an AuthConfig in
// JSON, of either alphabet and with or without padding. None at all is nobody.
func (r *request) registryAuth() (image.Credentials, error) {
	text := r.Header.Get("X-Registry-Auth")
	if text == "" {
		return image.Credentials{}, nil
	}
	var auth struct{ Username, Password, Auth, IdentityToken, RegistryToken string }
	plain := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(text, "="))
	dec := json.NewDecoder(base64.NewDecoder(base64.RawURLEncoding, strings.NewReader(plain)))
	if err := dec.Decode(&auth); err != nil && err != io.EOF {
		return image.Credentials{}, fault.New(fault.Invalid, "invalid X-Registry-Auth header: %w", err)
	}
	c := image.Credentials{Username: auth.Username, Password: auth.Password, IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken}
	if c == (image.Credentials{}) && auth.Auth != "" {
		pair, err := base64.StdEncoding.DecodeString(auth.Auth)
		user, password, ok := strings.Cut(string(pair), ":")
		if err != nil || !ok {
			return c, fault.New(fault.Invalid, "invalid X-Registry-Auth header: auth is not base64 of user:password")
		}
		c.Username, c.Password = user, strings.TrimRight(password, "\x00")
	}
	return c, nil
}
