package main

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"sync"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/filestate"
	"github.com/tarehq/tare/registry/config"
)

// certificate is that of the server. It is read again when its files have
// changed; while they do not fit each other, as between the replacement of one
// and the other, the last that did is shown.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu    sync.Mutex
	state string
	pair  *tls.Certificate
}

// tlsConfig reads the files.
func tlsConfig(c *config.TLS, log *slog.Logger) (*tls.Config, error) {
	k := &certificate{cert: c.Cert, key: c.Key, log: log}
	if err := k.read(); err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: k.get}
	if c.ClientCA != "" {
		data, err := os.ReadFile(c.ClientCA)
		if err != nil {
			return nil, fault.New(fault.Invalid, "cannot read the CA of clients: %w", err)
		}
		t.ClientCAs, t.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !t.ClientCAs.AppendCertsFromPEM(data) {
			return nil, fault.New(fault.Invalid, "%s has no certificate in PEM", c.ClientCA)
		}
	}
	return t, nil
}

func (k *certificate) read() error {
	k.state = filestate.Of(k.cert) + filestate.Of(k.key)
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	if err != nil {
		return fault.New(fault.Invalid, "cannot use %s and %s as the server's certificate and key: %w", k.cert, k.key, err)
	}
	k.pair = &pair
	return nil
}

func (k *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if filestate.Of(k.cert)+filestate.Of(k.key) != k.state {
		if err := k.read(); err != nil {
			k.log.Error("the server's certificate stays what it was", "error", err)
		} else {
			k.log.Info("read the server's certificate again", "file", k.cert)
		}
	}
	return k.pair, nil
}
