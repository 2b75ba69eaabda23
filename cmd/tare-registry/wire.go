package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/sdnotify"
	"github.com/tarehq/tare/internal/slim"
	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/auth"
	"github.com/tarehq/tare/registry/config"
	"github.com/tarehq/tare/registry/retention"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/bucket"
	"github.com/tarehq/tare/registry/storage/dir"
	"github.com/tarehq/tare/registry/upstream"
	"github.com/tarehq/tare/registry/web"
)

// serve is the command. What was opened is closed in the opposite order, also
// when the start fails half-way.
func serve(ctx context.Context, _, logTo io.Writer, o *options) (err error) {
	c, err := o.config()
	if err != nil {
		return err
	}
	log := newLog(logTo, c.Log)
	p := pace{time.Duration(c.HTTP.Stall), float64(c.HTTP.MinRate)}
	t, gate, err := doors(c, log)
	if err != nil {
		return err
	}
	ops, err := operate(ctx, c, logTo, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ops.close(ctx)) }()
	listeners, err := bind(ctx, c.HTTP.Listen, p)
	if err != nil {
		return err
	}
	kept, err := openStorage(ctx, c)
	if err != nil {
		return shut(listeners, err)
	}
	if d, ok := kept.(*dir.Storage); ok {
		d.LogTo(log)
	}
	record := syncs(c, kept)
	kept = ops.watch(kept)
	s, err := copies(c, kept, log)
	if err != nil {
		return shut(listeners, err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ops.copies(s)
	care := maintain(ctx, kept, s, rulesOf(c), c.Collect, log)
	defer care.end()
	if c.Storage.S3 == nil {
		defer control(c.Storage.Root, deeds(kept, s, care.by), log)()
	}
	end, err := schedule(ctx, c, record, s)
	if err != nil {
		return shut(listeners, err)
	}
	defer end()
	var answers handler
	state := registry.NewState()
	answers.set(routes(c, kept, s, gate, state, ops.observe(), log))
	defer reload(ctx, o, c, log, func(c *config.Config) error {
		gate, err := door(c, log)
		if err != nil {
			return err
		}
		answers.set(routes(c, kept, s, gate, state, ops.observe(), log))
		care.change(rulesOf(c), c.Collect)
		return nil
	})()
	server := newServer(c.HTTP, p.guard(ops.wrap(&answers)), t, log)
	server.ConnState = ops.connections(c.Limits.Connections)
	ops.serve()
	defer context.AfterFunc(ctx, func() { ops.health.stopping.Store(true) })()
	at := addresses(listeners, t != nil)
	log.Info("tare-registry is ready", "version", version, "addresses", at, "storage", describe(c.Storage))
	if err := sdnotify.Send("READY=1\nSTATUS=" + strings.Join(at, " ") + "\n"); err != nil {
		log.Warn("cannot tell whoever started the registry that it is ready", "error", err)
	}
	defer slim.Later()()
	return answer(ctx, server, listeners, time.Duration(c.HTTP.Shutdown), log)
}

// shut closes the listeners of a start that has failed.
func shut(listeners []net.Listener, err error) error {
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// doors are how clients get in: the certificate, and who may do what. Both may
// be missing.
func doors(c *config.Config, log *slog.Logger) (t *tls.Config, gate *auth.Gate, err error) {
	if c.HTTP.TLS != nil {
		if t, err = tlsConfig(c.HTTP.TLS, log); err != nil {
			return nil, nil, err
		}
	}
	gate, err = door(c, log)
	return t, gate, err
}

// door is who may do what; nil lets everybody do everything.
func door(c *config.Config, log *slog.Logger) (_ *auth.Gate, err error) {
	if c.Auth == nil {
		return nil, nil
	}
	a := auth.Config{Realm: c.Auth.Realm, URL: c.HTTP.URL, Groups: c.Auth.Groups}
	for _, r := range c.Auth.Rules {
		a.Rules = append(a.Rules, auth.Rule(r))
	}
	if c.Auth.TokenKey.Set() {
		key, err := c.Auth.TokenKey.Read()
		switch {
		case err != nil:
			return nil, fault.New(fault.Invalid, "auth.token_key: %w", err)
		case len(key) < leastKey:
			return nil, fault.New(fault.Invalid, "auth.token_key has fewer than %d characters: make one with openssl rand -hex 32", leastKey)
		}
		a.Key = []byte(key)
	}
	if c.Auth.Htpasswd != "" {
		if a.Passwords, err = auth.OpenPasswords(c.Auth.Htpasswd, log); err != nil {
			return nil, err
		}
	}
	if k := c.Auth.Token; k != nil {
		a.Tokens, err = auth.NewTokens(auth.TokenConfig{
			Realm: k.Realm, Service: k.Service, Issuer: k.Issuer, JWKS: k.JWKS, CA: k.CA, Certificates: k.Certificates,
		}, log)
	}
	return auth.New(a), err
}

// leastKey is how long a key that a user wrote has to be.
const leastKey = 32

// routes is the handler of all paths. They are not cleaned: names and digests
// are in them.
func routes(c *config.Config, kept, s storage.Storage, gate *auth.Gate, state *registry.State, observe func(registry.Event), log *slog.Logger) http.Handler {
	r := registry.Config{
		Storage: s, State: state, Rules: rulesOf(c), Observe: observe, Log: log, Redirect: c.Storage.S3 != nil && c.Storage.S3.Redirect,
		MaxBlob: int64(c.Limits.Blob), MaxManifest: int64(c.Limits.Manifest),
	}
	if u, ok := s.(*upstream.Storage); ok {
		r.Names = u.Names
	}
	if gate != nil {
		r.Authorizer = gate
	}
	api, people := registry.New(r), pages(c, kept, r)
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch path := q.URL.Path; {
		case gate != nil && path == auth.TokenPath:
			gate.ServeToken(w, q)
		case people != nil && web.Handles(path):
			people.ServeHTTP(w, q)
		default:
			api.ServeHTTP(w, q)
		}
	})
}

// pages are those for people, if there are to be any. They show what is kept
// here: to look at them fetches nothing from elsewhere.
func pages(c *config.Config, kept storage.Storage, r registry.Config) http.Handler {
	if !c.HTTP.Web {
		return nil
	}
	p := web.Config{Storage: kept, Authorizer: r.Authorizer, Log: r.Log}
	if c.Auth != nil && c.Auth.Htpasswd != "" {
		if p.Realm = c.Auth.Realm; p.Realm == "" {
			p.Realm = "tare-registry"
		}
	}
	if u, err := url.Parse(c.HTTP.URL); err == nil {
		p.Host = u.Host
	}
	return web.New(p)
}

func rulesOf(c *config.Config) retention.Rules {
	var rules retention.Rules
	for _, r := range c.Repositories {
		e := retention.Entry{Match: r.Match, Quota: int64(r.Quota), Immutable: r.Immutable}
		if k := r.Retention; k != nil {
			e.Policy = &retention.Policy{KeepLast: k.KeepLast, KeepWithin: time.Duration(k.KeepWithin), KeepTags: k.KeepTags, Untagged: time.Duration(k.Untagged)}
		}
		rules = append(rules, e)
	}
	return rules
}

func openStorage(ctx context.Context, c *config.Config) (storage.Storage, error) {
	s3 := c.Storage.S3
	if s3 == nil {
		return dir.Open(c.Storage.Root)
	}
	u, err := url.Parse(s3.Endpoint)
	if err != nil {
		return nil, fault.New(fault.Invalid, "storage.s3.endpoint is no URL")
	}
	b := bucket.Config{
		Endpoint: u.Host, Insecure: u.Scheme == "http", Bucket: s3.Bucket, Prefix: s3.Prefix, Region: s3.Region,
		CA: s3.CA, PathStyle: s3.PathStyle, Create: s3.Create, Grace: time.Duration(c.Collect.Grace),
	}
	if b.AccessKey, err = s3.AccessKey.Read(); err != nil {
		return nil, fault.New(fault.Invalid, "storage.s3.access_key: %w", err)
	}
	if b.SecretKey, err = s3.SecretKey.Read(); err != nil {
		return nil, fault.New(fault.Invalid, "storage.s3.secret_key: %w", err)
	}
	return bucket.Open(ctx, b)
}

// describe is where things are kept, for people.
func describe(c config.Storage) string {
	if c.S3 != nil {
		return "s3 bucket " + c.S3.Bucket
	}
	return c.Root
}

func addresses(list []net.Listener, secure bool) []string {
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	var out []string
	for _, l := range list {
		out = append(out, scheme+l.Addr().String())
	}
	return out
}

func newLog(to io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(to, o))
	}
	return slog.New(slog.NewTextHandler(to, o))
}
