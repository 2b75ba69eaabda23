package container

import (
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/client"
)

// addProxies tells the container of the proxies in config.json. What --env says
// about one of their variables stays.
func (c *createFlags) addProxies(s *command.Session, cl *client.Client, r *client.CreateRequest) {
	for _, v := range s.Config().ProxyFor(cl.Host()) {
		given := false
		for _, kv := range c.env.Values {
			name, _, _ := strings.Cut(kv, "=")
			given = given || name == v.Name
		}
		if !given {
			r.Env = append(r.Env, v.Name+"="+v.Value)
		}
	}
}
