package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// issuer gives tokens of the registry's own. One tells who somebody is, what
// they may do is looked up at each request:
//
//	tare.BASE64(expiry in seconds, 8 bytes; name).BASE64(HMAC-SHA256)
//
// The code is also over the hash of the user's password: another password, or
// none, ends the tokens.
type issuer struct {
	key       []byte
	passwords *Passwords
	now       func() time.Time
}

const (
	tokenPrefix = "tare."
	tokenLife   = 15 * time.Minute
)

func newIssuer(key []byte, p *Passwords) *issuer {
	if key == nil {
		key = make([]byte, 32)
		rand.Read(key) // never fails
	}
	return &issuer{key, p, time.Now}
}

func (i *issuer) code(payload []byte, hash []byte) []byte {
	h := hmac.New(sha256.New, i.key)
	binary.Write(h, binary.BigEndian, uint64(len(payload)))
	h.Write(payload)
	h.Write(hash)
	return h.Sum(nil)
}

func (i *issuer) token(name string) string {
	payload := binary.BigEndian.AppendUint64(nil, uint64(i.now().Add(tokenLife).Unix()))
	payload = append(payload, name...)
	b64 := base64.RawURLEncoding.EncodeToString
	return tokenPrefix + b64(payload) + "." + b64(i.code(payload, i.passwords.current().hashes[name]))
}

func (i *issuer) verify(token string) (identity, error) {
	rest, ours := strings.CutPrefix(token, tokenPrefix)
	first, second, _ := strings.Cut(rest, ".")
	b64 := base64.RawURLEncoding.Strict().DecodeString
	payload, err1 := b64(first)
	code, err2 := b64(second)
	if !ours || err1 != nil || err2 != nil || len(payload) < 8 {
		return identity{}, badToken("the token is none of this registry's: log in again")
	}
	name := string(payload[8:])
	hash := i.passwords.current().hashes[name]
	switch {
	case !hmac.Equal(code, i.code(payload, hash)) || name != "" && hash == nil:
		return identity{}, badToken("the token does not hold any longer: log in again")
	case i.now().Unix() >= int64(binary.BigEndian.Uint64(payload)):
		return identity{}, badToken("the token has expired: ask for another")
	}
	return identity{name: name, known: true}, nil
}

// Issues tells whether clients are sent to ServeToken.
func (g *Gate) Issues() bool { return g.issuer != nil }

// ServeToken answers at TokenPath, as Docker's token protocol has it: with a
// token for the user whose password came along, or for nobody in particular.
func (g *Gate) ServeToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case g.issuer == nil:
		refuse(w, http.StatusNotFound, "UNSUPPORTED", "this registry gives no tokens")
		return
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", "GET")
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "tokens are given to GET alone")
		return
	}
	who, err := g.identify(r)
	if err != nil {
		w.Header().Set("WWW-Authenticate", "Basic realm="+quote(g.realm))
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", err.Error())
		return
	}
	token := g.issuer.token(who.name)
	json.NewEncoder(w).Encode(map[string]any{
		"token": token, "access_token": token, "expires_in": int(tokenLife.Seconds()), "issued_at": g.issuer.now().UTC().Format(time.RFC3339),
	})
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}
