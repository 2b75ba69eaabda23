package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"
)

// signer is a key with a certificate.
type signer struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// newSigner makes a key and a certificate for it that parent signs, itself
// when nil.
func newSigner(template *x509.Certificate, parent *signer) (*signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	s := &signer{key, template}
	if parent == nil {
		parent = s
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		return nil, err
	}
	s.cert, err = x509.ParseCertificate(der)
	return s, err
}

func (s *signer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw})
}

// authority signs the certificate of one server.
type authority struct{ root, server *signer }

func newAuthority() (*authority, error) {
	root, err := newSigner(&x509.Certificate{Subject: pkix.Name{CommonName: "tests of Tare"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}, nil)
	if err != nil {
		return nil, err
	}
	server, err := newSigner(&x509.Certificate{Subject: pkix.Name{CommonName: "127.0.0.1"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}, root)
	return &authority{root, server}, err
}

func (a *authority) write(ca, cert, key string) error {
	der, err := x509.MarshalECPrivateKey(a.server.key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(ca, a.root.pem(), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(cert, a.server.pem(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// serving is what a server of the tests' own presents.
func (a *authority) serving() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{a.server.cert.Raw}, PrivateKey: a.server.key}}}
}

func (a *authority) client() *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(a.root.cert)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
}

// ServerTLS is the configuration of a server beside the registry with the same
// certificate, nil without TLS.
func (r *Registry) ServerTLS() *tls.Config {
	if r.ca == nil {
		return nil
	}
	return r.ca.serving()
}
