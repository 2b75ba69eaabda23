package command

import (
	"fmt"

	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/client"
)

// Credentials returns what the user has for the registry of an image: the
// domain of its canonical name. Credentials that cannot be read are warned
// about and left out: the registry may do without.
func (s *Session) Credentials(domain string) client.Credentials {
	server := config.ServerKey(domain)
	if c, ok := config.FromEnvironment(s.Getenv("DOCKER_AUTH_CONFIG"), server); ok {
		return c
	}
	c, err := s.Config().Credentials(server)
	if err != nil {
		fmt.Fprintf(s.Err, "WARNING: %v\n", err)
	}
	if c.Username == "" && c.IdentityToken == "" && c.RegistryToken == "" {
		return client.Credentials{}
	}
	return c
}
