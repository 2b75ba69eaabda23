package config

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// DockerHub is the key that credentials of Docker Hub are kept under.
const DockerHub = "https://index.docker.io/v1/"

// ServerKey is the key for the credentials of an image's registry, the domain
// of its canonical name.
func ServerKey(domain string) string {
	if domain == "docker.io" || domain == "index.docker.io" {
		return DockerHub
	}
	return domain
}

// Hostname takes the scheme and the path from a server's address.
func Hostname(server string) string {
	_, rest, ok := strings.Cut(server, "://")
	if !ok {
		rest = server
	}
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// helper names the program that keeps a server's credentials, "" the file.
func (f *File) helper(server string) string {
	if name, ok := f.CredHelpers[server]; ok {
		return name
	}
	return f.CredsStore
}

// Credentials returns what is kept for a server, with ServerAddress set; empty
// ones without an error when nothing is.
func (f *File) Credentials(server string) (client.Credentials, error) {
	kept, err := f.inFile(server)
	name := f.helper(server)
	if name == "" {
		return kept, err
	}
	got, err := helperGet(name, server)
	if err != nil {
		return client.Credentials{}, err
	}
	// A token for the registry itself is no business of the helper.
	got.RegistryToken, got.ServerAddress = kept.RegistryToken, server
	return got, nil
}

// inFile looks the server up in auths: by its own key, then by the hostname of
// another spelling of it.
func (f *File) inFile(server string) (client.Credentials, error) {
	auth, ok := f.Auths[server]
	if !ok {
		for key, other := range f.Auths {
			if Hostname(key) == server {
				auth = other
				break
			}
		}
	}
	return auth.credentials(server)
}

func (a Auth) credentials(server string) (client.Credentials, error) {
	c := client.Credentials{ServerAddress: server, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	if a.Auth == "" {
		return c, nil
	}
	plain, err := base64.StdEncoding.DecodeString(a.Auth)
	name, password, ok := strings.Cut(string(plain), ":")
	if err != nil || !ok || name == "" {
		return client.Credentials{ServerAddress: server}, fault.New(fault.Invalid,
			"the credentials of %s in config.json cannot be read: log in again with: tare login %s", server, server)
	}
	c.Username, c.Password = name, strings.Trim(password, "\x00")
	return c, nil
}

// FromEnvironment reads credentials from the text of DOCKER_AUTH_CONFIG, a
// config.json with auths alone, that jobs get theirs by.
func FromEnvironment(text, server string) (client.Credentials, bool) {
	var f File
	if text == "" || json.Unmarshal([]byte(text), &f) != nil {
		return client.Credentials{}, false
	}
	c, err := f.inFile(server)
	return c, err == nil && (c.Username != "" || c.IdentityToken != "" || c.RegistryToken != "")
}

// Keep stores credentials under c.ServerAddress: in the helper, if one is set,
// else in the file. plain tells that the file holds them now and did not hold
// the same before.
func (f *File) Keep(c client.Credentials) (plain bool, err error) {
	server, entry := c.ServerAddress, Auth{}
	name := f.helper(server)
	if name != "" {
		if err := helperStore(name, c); err != nil {
			return false, err
		}
	} else {
		password := c.Password
		if c.IdentityToken != "" {
			password = ""
		}
		entry = Auth{Auth: base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + password)), IdentityToken: c.IdentityToken}
	}
	before, existed := f.Auths[server]
	if existed && before == entry {
		return false, nil
	}
	if err := f.change(func(auths map[string]json.RawMessage) {
		auths[server], _ = json.Marshal(entry)
	}); err != nil {
		return false, err
	}
	if f.Auths == nil {
		f.Auths = map[string]Auth{}
	}
	f.Auths[server] = entry
	return name == "", nil
}

// Forget removes what is kept for a server; nothing kept is no error.
func (f *File) Forget(server string) error {
	if name := f.helper(server); name != "" {
		if err := helperErase(name, server); err != nil {
			return err
		}
	}
	if _, ok := f.Auths[server]; !ok {
		return nil
	}
	if err := f.change(func(auths map[string]json.RawMessage) { delete(auths, server) }); err != nil {
		return err
	}
	delete(f.Auths, server)
	return nil
}
