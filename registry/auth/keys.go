package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/filestate"
)

// keyring has the keys that tokens are verified by. Files are read again when
// they have changed. A URL is asked again after an hour, and when a token names
// a key that is not known, but not by each such token.
type keyring struct {
	config TokenConfig
	client *http.Client // of the URL; nil if there is none
	log    *slog.Logger
	now    func() time.Time

	mu       sync.Mutex
	state    string // of the files
	fetched  time.Time
	fetching chan struct{} // closed when the request to the URL has ended; nil if there is none
	files    []key
	remote   []key
	roots    *x509.CertPool
	version  int
}

// key is one public key and the name that tokens may call it by.
type key struct {
	id         string // "" for those in PEM, which have none
	algorithms []jose.SignatureAlgorithm
	public     crypto.PublicKey
}

const (
	maxKeys     = 64
	maxKeysFile = 1 << 20
	maxTries    = 8 // of keys for one token
	fetchEvery  = time.Hour
	fetchLeast  = 30 * time.Second // between two because of unknown keys
	fetchTime   = 10 * time.Second
	leastRSA    = 2048
)

func newKeyring(c TokenConfig, log *slog.Logger) (*keyring, error) {
	k := &keyring{config: c, log: log, now: time.Now}
	if strings.Contains(c.JWKS, "://") {
		roots, err := certificatePool(c.CA)
		if err != nil {
			return nil, err
		}
		k.client = &http.Client{
			Timeout:   fetchTime,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		}
	}
	k.state = k.fileState()
	var err error
	k.files, k.roots, err = k.readFiles()
	return k, err
}

func certificatePool(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot read the CA of the token server: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fault.New(fault.Invalid, "%s has no certificate in PEM", file)
	}
	return pool, nil
}

func (k *keyring) fileState() string {
	var all []string
	for _, file := range k.config.Certificates {
		all = append(all, filestate.Of(file))
	}
	if k.client == nil && k.config.JWKS != "" {
		all = append(all, filestate.Of(k.config.JWKS))
	}
	return strings.Join(all, "\n")
}

func (k *keyring) readFiles() (keys []key, roots *x509.CertPool, err error) {
	roots = x509.NewCertPool()
	read := func(file string, parse func([]byte) ([]key, error)) {
		if err != nil {
			return
		}
		var data []byte
		if data, err = os.ReadFile(file); err != nil {
			err = fault.New(fault.Invalid, "cannot read the keys of the token server: %w", err)
			return
		}
		var some []key
		if some, err = parse(data); err != nil {
			err = fault.New(fault.Invalid, "%s: %w", file, err)
		}
		keys = append(keys, some...)
	}
	for _, file := range k.config.Certificates {
		read(file, func(data []byte) ([]key, error) { return parsePEM(data, roots) })
	}
	if k.client == nil && k.config.JWKS != "" {
		read(k.config.JWKS, parseJWKS)
	}
	return keys, roots, err
}

// parsePEM reads certificates, which also become roots, and public keys.
func parsePEM(data []byte, roots *x509.CertPool) ([]key, error) {
	var keys []key
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		var public crypto.PublicKey
		var err error
		switch block.Type {
		case "CERTIFICATE":
			var cert *x509.Certificate
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				roots.AddCert(cert)
				public = cert.PublicKey
			}
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(block.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("a %s cannot be read: %w", strings.ToLower(block.Type), err)
		}
		if a := algorithmsOf(public); a != nil {
			keys = append(keys, key{algorithms: a, public: public})
		}
	}
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("want between 1 and %d certificates or public keys in PEM that can sign", maxKeys)
	}
	return keys, nil
}

// parseJWKS reads a set of keys, RFC 7517. Those of unknown kinds, and those
// for other uses, are left out.
func parseJWKS(data []byte) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("this is no set of keys: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("the set has more than %d keys", maxKeys)
	}
	var keys []key
	for _, raw := range set.Keys {
		var j jose.JSONWebKey
		if json.Unmarshal(raw, &j) != nil || !j.IsPublic() || j.Use != "" && j.Use != "sig" {
			continue
		}
		a := algorithmsOf(j.Key)
		if j.Algorithm != "" {
			if !slices.Contains(a, jose.SignatureAlgorithm(j.Algorithm)) {
				continue
			}
			a = []jose.SignatureAlgorithm{jose.SignatureAlgorithm(j.Algorithm)}
		}
		if a != nil {
			keys = append(keys, key{j.KeyID, a, j.Key})
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("the set has no public key for signatures")
	}
	return keys, nil
}

// algorithmsOf are those that a key of this type signs by; none if it is too
// weak.
func algorithmsOf(public crypto.PublicKey) []jose.SignatureAlgorithm {
	switch p := public.(type) {
	case *rsa.PublicKey:
		if p.N.BitLen() >= leastRSA {
			return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
		}
	case *ecdsa.PublicKey:
		switch p.Curve.Params().BitSize {
		case 256:
			return []jose.SignatureAlgorithm{jose.ES256}
		case 384:
			return []jose.SignatureAlgorithm{jose.ES384}
		case 521:
			return []jose.SignatureAlgorithm{jose.ES512}
		}
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	}
	return nil
}

// refresh reads again what is old, and tells which keys there are now by a
// number. One caller asks the URL; the others go on with the keys that there
// are.
func (k *keyring) refresh(ctx context.Context) int {
	k.mu.Lock()
	if state := k.fileState(); state != k.state {
		k.state = state
		files, roots, err := k.readFiles()
		if err != nil {
			k.log.Error("the keys of the token server stay what they were, because a file cannot be used", "error", err)
		} else {
			k.files, k.roots = files, roots
			k.version++
		}
	}
	none := len(k.remote) == 0
	due := k.client != nil && (k.now().Sub(k.fetched) >= fetchEvery || none && k.now().Sub(k.fetched) >= fetchLeast)
	wait := due || none && k.fetching != nil
	k.mu.Unlock()
	if wait {
		k.ask(ctx)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.version
}

// ask gets the keys from the URL, or waits for whoever is doing it. What was
// known stays if there is no answer.
func (k *keyring) ask(ctx context.Context) {
	k.mu.Lock()
	if running := k.fetching; running != nil {
		k.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
		}
		return
	}
	done := make(chan struct{})
	k.fetching, k.fetched = done, k.now()
	k.mu.Unlock()
	keys, err := k.fetch(context.WithoutCancel(ctx))
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fetching = nil
	close(done)
	if err != nil {
		k.log.Error("cannot fetch the keys of the token server", "error", err)
		return
	}
	k.remote = keys
	k.version++
}

func (k *keyring) fetch(ctx context.Context) ([]key, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.config.JWKS, nil)
	if err != nil {
		return nil, err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", k.config.JWKS, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxKeysFile))
	if err != nil {
		return nil, err
	}
	return parseJWKS(data)
}

// candidates are the keys that may have signed. missing tells that the token
// names one that is not there.
func (k *keyring) candidates(id string, algorithm jose.SignatureAlgorithm) (keys []key, missing bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	missing = id != ""
	for _, one := range slices.Concat(k.remote, k.files) {
		if one.id == id {
			missing = false
		}
		if slices.Contains(one.algorithms, algorithm) && (one.id == id || one.id == "" || id == "") && len(keys) < maxTries {
			keys = append(keys, one)
		}
	}
	return keys, missing
}

// open verifies the token by a key that fits it, and reads its claims. A key
// that lies in the token itself does not count, unless a certificate that is
// trusted vouches for it.
func (k *keyring) open(ctx context.Context, token *jwt.JSONWebToken, into *claims) error {
	header := token.Headers[0]
	algorithm := jose.SignatureAlgorithm(header.Algorithm)
	if public := k.vouched(header); public != nil && slices.Contains(algorithmsOf(public), algorithm) {
		return claimsBy(token, public, into)
	}
	keys, missing := k.candidates(header.KeyID, algorithm)
	if missing && k.fetchAgain(ctx) {
		keys, _ = k.candidates(header.KeyID, algorithm)
	}
	err := badToken("the token is signed by a key that this registry does not know")
	for _, one := range keys {
		if err = claimsBy(token, one.public, into); err == nil {
			return nil
		}
	}
	return err
}

func claimsBy(token *jwt.JSONWebToken, public crypto.PublicKey, into *claims) error {
	*into = claims{}
	if err := token.Claims(public, into); err != nil {
		return badToken("the token's signature is wrong, or its claims cannot be read")
	}
	return nil
}

// vouched is the key of the token's certificate, if its chain (x5c) ends at one
// that is trusted.
func (k *keyring) vouched(header jose.Header) crypto.PublicKey {
	k.mu.Lock()
	roots := k.roots
	k.mu.Unlock()
	if len(k.config.Certificates) == 0 {
		return nil
	}
	chains, err := header.Certificates(x509.VerifyOptions{Roots: roots, CurrentTime: k.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil || len(chains) == 0 {
		return nil
	}
	return chains[0][0].PublicKey
}

// fetchAgain asks the URL because of a key that is not known, unless that was
// done just now.
func (k *keyring) fetchAgain(ctx context.Context) bool {
	k.mu.Lock()
	again := k.client != nil && (k.fetching != nil || k.now().Sub(k.fetched) >= fetchLeast)
	k.mu.Unlock()
	if again {
		k.ask(ctx)
	}
	return again
}
