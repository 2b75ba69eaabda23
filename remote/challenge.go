package remote

import (
	"net/http"
	"strings"

	"github.com/tarehq/tare/remote/hosts"
)

// hosts.TokenChars are the characters of a token, RFC 9110, 5.6.2.
const (
	maxChallenge  = 16 << 10 // bytes of a header
	maxChallenges = 8
)

// challenge is one way that a server offers to know its clients, RFC 9110,
// 11.3. The scheme and the names of the parameters are in lower case.
type challenge struct {
	scheme string
	params map[string]string
}

// challengesOf reads the WWW-Authenticate fields of an answer.
func challengesOf(h http.Header) []challenge {
	var out []challenge
	for _, field := range h.Values("Www-Authenticate") {
		out = append(out, parseChallenges(field)...)
		if len(out) >= maxChallenges {
			return out[:maxChallenges]
		}
	}
	return out
}

// parseChallenges reads a list of challenges. A comma parts challenges as well
// as parameters: a word belongs to the challenge before it if "=" follows. What
// is malformed is skipped up to the next comma.
func parseChallenges(s string) []challenge {
	if len(s) > maxChallenge {
		return nil
	}
	var out []challenge
	for {
		s = strings.TrimLeft(s, " \t,")
		word := leading(s, hosts.TokenChars)
		if word == "" {
			if i := strings.IndexByte(s, ','); i >= 0 {
				s = s[i:]
				continue
			}
			return out
		}
		rest := strings.TrimLeft(s[len(word):], " \t")
		if !strings.HasPrefix(rest, "=") {
			if len(out) == maxChallenges {
				return out
			}
			out = append(out, challenge{strings.ToLower(word), map[string]string{}})
			s = rest
			continue
		}
		value, after, ok := parseValue(strings.TrimLeft(rest[1:], " \t"))
		if ok && len(out) > 0 {
			out[len(out)-1].params[strings.ToLower(word)] = value
		}
		if s = strings.TrimLeft(after, " \t"); s != "" && s[0] != ',' {
			i := strings.IndexByte(s, ',')
			if i < 0 {
				return out
			}
			s = s[i:]
		}
	}
}

// parseValue reads a token or a quoted string, RFC 9110, 5.6.4.
func parseValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value = leading(s, hosts.TokenChars)
		return value, s[len(value):], value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// leading is the longest beginning of s that has only such characters.
func leading(s, chars string) string {
	return s[:len(s)-len(strings.TrimLeft(s, chars))]
}
