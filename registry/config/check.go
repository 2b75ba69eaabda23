package config

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tarehq/tare/registry/manifest"
	"github.com/tarehq/tare/registry/pattern"
)

// check finds the values that can never work, and those that contradict each
// other. It opens no file: those may come later than the configuration.
func (c *Config) check(d *document) {
	c.checkStorage(d)
	c.checkHTTP(d)
	c.checkAuth(d)
	c.checkRepositories(d)
	c.checkUpstreams(d)
	c.checkNotify(d)
	c.checkRest(d)
}

func (c *Config) checkStorage(d *document) {
	here := path("").key("storage")
	s3 := c.Storage.S3
	if _, root := d.places[here.key("root")]; root && s3 != nil {
		d.problem(here.key("root"), "storage has both root and s3: remove one, a registry keeps everything in one place")
	}
	if s3 == nil {
		if c.Storage.Root == "" {
			d.problem(here.key("root"), "storage.root is empty: want a directory")
		}
		return
	}
	here = here.key("s3")
	d.needURL(here.key("endpoint"), s3.Endpoint)
	if u, err := url.Parse(s3.Endpoint); err == nil && strings.Trim(u.Path, "/") != "" {
		d.problem(here.key("endpoint"), "storage.s3.endpoint has a path: give the bucket's name as bucket, and what keys begin with as prefix")
	}
	if s3.Bucket == "" {
		d.problem(here.key("bucket"), "storage.s3.bucket is missing: want the bucket's name")
	}
	if s3.AccessKey.Set() != s3.SecretKey.Set() {
		d.problem(here, "storage.s3 has one of access_key and secret_key: give both, or none to take them from the environment or the machine")
	}
	if strings.HasPrefix(s3.Prefix, "/") {
		d.problem(here.key("prefix"), "storage.s3.prefix begins with a slash, which objects' names do not")
	}
}

func (c *Config) checkHTTP(d *document) {
	here := path("").key("http")
	if len(c.HTTP.Listen) == 0 {
		d.problem(here.key("listen"), "http.listen is empty: want addresses such as %q", DefaultListen)
	}
	for i, addr := range c.HTTP.Listen {
		d.needAddress(here.key("listen").index(i), addr)
	}
	if c.HTTP.URL != "" {
		d.needURL(here.key("url"), c.HTTP.URL)
	}
	d.atLeast(here.key("stall"), c.HTTP.Stall, time.Second)
	if t := c.HTTP.TLS; t != nil {
		for key, file := range map[string]string{"cert": t.Cert, "key": t.Key} {
			if file == "" {
				d.problem(here.key("tls").key(key), "http.tls.%s is missing: want a file in PEM", key)
			}
		}
		if c.HTTP.H2C {
			d.problem(here.key("h2c"), "http.h2c is for HTTP/2 without TLS, and http.tls is there: remove one")
		}
	}
}

func (c *Config) checkAuth(d *document) {
	a := c.Auth
	if a == nil {
		return
	}
	here := path("").key("auth")
	if a.Htpasswd == "" && a.Token == nil && len(a.Rules) == 0 {
		d.problem(here, "auth says nothing of who may do what: want htpasswd, token or rules")
	}
	if strings.ContainsFunc(a.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		d.problem(here.key("realm"), "auth.realm has characters that a header cannot carry: want plain words")
	}
	if t := a.Token; t != nil {
		t.check(d, here.key("token"))
	}
	for i, r := range a.Rules {
		r.check(d, here.key("rule").index(i), a)
	}
	for group, users := range a.Groups {
		for i, user := range users {
			if user == "" || user == "*" || strings.HasPrefix(user, "@") {
				d.problem(here.key("groups").key(group).index(i), "%q is no user: a group lists users by name", user)
			}
		}
	}
}

func (t *Token) check(d *document, here path) {
	d.needURL(here.key("realm"), t.Realm)
	for key, v := range map[string]string{"service": t.Service, "issuer": t.Issuer} {
		if v == "" {
			d.problem(here.key(key), "auth.token.%s is missing: want what the token server puts into its tokens", key)
		}
	}
	if t.JWKS == "" && len(t.Certificates) == 0 {
		d.problem(here, "auth.token has no keys: want jwks or certificates")
	}
	if strings.Contains(t.JWKS, "://") {
		d.needURL(here.key("jwks"), t.JWKS)
	}
}

func (r *Rule) check(d *document, here path, a *Auth) {
	d.needMatch(here, r.Match)
	for key, who := range map[string][]string{"pull": r.Pull, "push": r.Push, "delete": r.Delete} {
		for i, w := range who {
			group, isGroup := strings.CutPrefix(w, "@")
			_, known := a.Groups[group]
			switch {
			case w == "":
				d.problem(here.key(key).index(i), `an empty name is nobody: want a user, "@group", "authenticated" or "*"`)
			case isGroup && !known:
				d.problem(here.key(key).index(i), "there is no group %q in auth.groups", group)
			}
		}
	}
}

func (c *Config) checkRepositories(d *document) {
	for i, r := range c.Repositories {
		here := at("repository", i)
		d.needMatch(here, r.Match)
		if t := r.Retention; t != nil {
			here = here.key("retention")
			if t.KeepLast < 0 {
				d.problem(here.key("keep_last"), "keep_last is negative: want how many tags to keep")
			}
			if len(t.KeepTags) > 0 && t.KeepLast == 0 && t.KeepWithin == 0 {
				d.problem(here.key("keep_tags"), "keep_tags alone removes no tag: give keep_last or keep_within for the others")
			}
		}
	}
}

func (c *Config) checkUpstreams(d *document) {
	names := map[string]bool{}
	for i, u := range c.Upstreams {
		here := at("upstream", i)
		switch {
		case u.Name == "":
			d.problem(here.key("name"), "an upstream has a name: want name = \"…\"")
		case names[u.Name]:
			d.problem(here.key("name"), "there are two upstreams %q", u.Name)
		}
		names[u.Name] = true
		d.needURL(here.key("url"), u.URL)
		if u.Password.Set() && u.Username == "" {
			d.problem(here.key("username"), "upstream %q has a password and no username", u.Name)
		}
		if u.Password.Set() && u.Identity.Set() {
			d.problem(here.key("identity_token"), "upstream %q has a password and an identity_token: remove one", u.Name)
		}
		if p := u.Prefix; p != "" && p != "/" && (strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") || strings.ToLower(p) != p) {
			d.problem(here.key("prefix"), "%q cannot begin the names of repositories: want lower case, and no slash at its ends", p)
		}
	}
	for i, s := range c.Syncs {
		here := at("sync", i)
		if !names[s.Upstream] {
			d.problem(here.key("upstream"), "there is no upstream %q", s.Upstream)
		}
		if len(s.Repositories) == 0 {
			d.problem(here.key("repositories"), "a sync names repositories: want repositories = [\"…\"]")
		}
		if _, err := time.Parse("15:04", s.At); err != nil && s.At != "" {
			d.problem(here.key("at"), "%q is no time of day: want one such as \"03:00\"", s.At)
		}
		d.atLeast(here.key("interval"), s.Interval, time.Minute)
	}
}

func (c *Config) checkNotify(d *document) {
	known := []string{"push", "pull", "delete"}
	for i, n := range c.Notify {
		here := at("notify", i)
		d.needURL(here.key("url"), n.URL)
		for j, e := range n.Events {
			if !slices.Contains(known, e) {
				d.problem(here.key("events").index(j), "there is no event %q: want some of %s", e, quoted(known))
			}
		}
		d.atLeast(here.key("timeout"), n.Timeout, time.Millisecond)
	}
}

func (c *Config) checkRest(d *document) {
	collect := path("").key("collect")
	if c.Collect.Interval != 0 {
		d.atLeast(collect.key("interval"), c.Collect.Interval, time.Minute)
	}
	d.atLeast(collect.key("grace"), c.Collect.Grace, time.Minute)
	limits := path("").key("limits")
	for key, v := range map[string]int{"rate": c.Limits.Rate, "burst": c.Limits.Burst, "uploads": c.Limits.Uploads, "connections": c.Limits.Connections} {
		if v < 0 {
			d.problem(limits.key(key), "limits.%s is negative: 0 is no limit", key)
		}
	}
	if c.Limits.Manifest > manifest.MaxSize {
		d.problem(limits.key("manifest"), "limits.manifest is at most 4MiB: what is larger belongs into blobs")
	}
	if c.Metrics.Listen != "" {
		d.needAddress(path("").key("metrics").key("listen"), c.Metrics.Listen)
	}
	log := path("").key("log")
	d.oneOf(log.key("level"), c.Log.Level, "debug", "info", "warn", "error")
	d.oneOf(log.key("format"), c.Log.Format, "text", "json")
	if c.Log.Access == "" {
		d.problem(log.key("access"), `log.access is empty: want "off", "stderr" or a file`)
	}
}

func (d *document) needMatch(here path, l pattern.List) {
	if len(l) == 0 {
		d.problem(here.key("match"), `match is missing: want the repositories that this is about, such as ["team/**"]`)
	}
}

func (d *document) oneOf(here path, v string, known ...string) {
	if !slices.Contains(known, v) {
		d.problem(here, "%s is %q: want one of %s", name(here), v, quoted(known))
	}
}

func (d *document) atLeast(here path, v Duration, least time.Duration) {
	if time.Duration(v) < least {
		d.problem(here, "%s is %v: want at least %v", name(here), v, least)
	}
}

// needAddress wants HOST:PORT, where HOST may be missing.
func (d *document) needAddress(here path, v string) {
	_, port, err := net.SplitHostPort(v)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		d.problem(here, "%s: %q is no address: want HOST:PORT", name(here), v)
	}
}

// needURL wants a URL of HTTP. It is not shown: some would write a password
// into it.
func (d *document) needURL(here path, v string) {
	u, err := url.Parse(v)
	switch {
	case v == "":
		d.problem(here, "%s is missing: want a URL such as \"https://host.example\"", name(here))
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		d.problem(here, "%s is no URL: want one such as \"https://host.example\"", name(here))
	case u.User != nil:
		d.problem(here, "%s has a user or a password in it, which would be seen in logs: use the keys for that", name(here))
	case u.Fragment != "":
		d.problem(here, "%s has a fragment (#…), which no server sees: remove it", name(here))
	}
}
