package config

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"

	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// A credential helper is a program docker-credential-NAME. Its argument is get,
// store, erase or list; it reads a server's address, or JSON, and answers JSON, or a
// sentence with another exit code than 0.
// https://github.com/docker/docker-credential-helpers#development

// secret is the JSON of the helpers.
type secret struct {
	ServerURL string
	Username  string
	Secret    string
}

// tokenUser is the user name that stands for an identity token.
const tokenUser = "<token>"

// notKept is what a helper says that keeps nothing for the server.
const notKept = "credentials not found in native keychain"

func helperGet(name, server string) (client.Credentials, error) {
	out, err := runHelper(name, "get", server)
	if out == notKept {
		return client.Credentials{}, nil
	}
	if err != nil {
		return client.Credentials{}, fault.New(fault.Internal, "error getting credentials - err: %w, out: `%s`", err, out)
	}
	var s secret
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return client.Credentials{}, fault.New(fault.Internal, "docker-credential-%s answered no JSON to get: %w", name, err)
	}
	if s.Username == tokenUser {
		return client.Credentials{IdentityToken: s.Secret}, nil
	}
	return client.Credentials{Username: s.Username, Password: s.Secret}, nil
}

func helperStore(name string, c client.Credentials) error {
	s := secret{c.ServerAddress, c.Username, c.Password}
	if c.IdentityToken != "" {
		s.Username, s.Secret = tokenUser, c.IdentityToken
	}
	text, err := marshal(s, "")
	if err != nil {
		return err
	}
	if out, err := runHelper(name, "store", string(text)); err != nil {
		return fault.New(fault.Internal, "error storing credentials - err: %w, out: `%s`", err, out)
	}
	return nil
}

func helperErase(name, server string) error {
	if out, err := runHelper(name, "erase", server); err != nil && out != notKept {
		return fault.New(fault.Internal, "error erasing credentials - err: %w, out: `%s`", err, out)
	}
	return nil
}

// helperList names the servers that a helper keeps credentials of, with their
// users.
func helperList(name string) (map[string]string, error) {
	out, err := runHelper(name, "list", "")
	if err != nil {
		return nil, fault.New(fault.Internal, "error listing credentials - err: %w, out: `%s`", err, out)
	}
	users := map[string]string{}
	if err := json.Unmarshal([]byte(out), &users); err != nil {
		return nil, fault.New(fault.Internal, "docker-credential-%s answered no JSON to list: %w", name, err)
	}
	return users, nil
}

// runHelper gives the helper's answer, without blanks around it, also where it
// fails. A name is one of a program in the path, never a path itself.
func runHelper(name, action, input string) (string, error) {
	if strings.ContainsRune(name, '/') {
		return "", fault.New(fault.Invalid, "%q is no credential helper: name the part after docker-credential- of a program in the PATH", name)
	}
	c := exec.Command("docker-credential-"+name, action)
	c.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, os.Stderr
	err := c.Run()
	return strings.TrimSpace(out.String()), err
}
