package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/filestate"
	"github.com/tarehq/tare/internal/keylock"
)

// Passwords are the users of an htpasswd file. It is read again when it has
// changed; while what it has become cannot be understood, the users are those
// that it had before.
//
// bcrypt is slow on purpose, some 50 ms, and clients send their password with
// each request. What was right once is remembered, by a keyed hash and until
// the file changes; what is not remembered is computed by few at a time, one
// from each address, and not at all for those who have been wrong too often.
type Passwords struct {
	file      string
	log       *slog.Logger
	key       [32]byte
	turns     chan struct{} // one for each computation at a time
	doubtful  chan struct{} // has one while that is for an address that was wrong lately
	failures  failures
	strangers failures              // by the address alone, whatever the name
	asking    keylock.Locks[string] // addresses that have a password computed

	mu    sync.Mutex // of reading
	state string     // of the file when it was read
	users atomic.Pointer[users]
}

// users are what one state of the file says.
type users struct {
	hashes map[string][]byte
	cost   int // the highest

	mu    sync.Mutex
	right map[[32]byte]bool // the names with passwords that were right
}

const (
	maxPasswordFile = 4 << 20
	maxRight        = 4096
	maxCost         = 15 // takes some seconds
	maxPassword     = 4 << 10
)

// OpenPasswords reads the file, which has to be there.
func OpenPasswords(file string, log *slog.Logger) (*Passwords, error) {
	p := &Passwords{file: file, log: log, doubtful: make(chan struct{}, 1), turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		strangers: failures{most: maxFromAddress, forget: forgetFromAddress}}
	if _, err := rand.Read(p.key[:]); err != nil {
		return nil, err
	}
	p.state = filestate.Of(file)
	u, err := readUsers(file)
	if err != nil {
		return nil, err
	}
	p.users.Store(u)
	return p, nil
}

func readUsers(file string) (*users, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot read the passwords: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPasswordFile+1))
	switch {
	case err != nil:
		return nil, fault.New(fault.Invalid, "cannot read the passwords: %w", err)
	case len(data) > maxPasswordFile:
		return nil, fault.New(fault.Invalid, "%s has more than %d bytes: this is no file of passwords", file, maxPasswordFile)
	}
	u, err := parseUsers(data)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s:%w", file, err)
	}
	return u, nil
}

// parseUsers reads NAME:HASH lines. Errors begin with the line and show no hash.
func parseUsers(data []byte) (*users, error) {
	u := &users{hashes: map[string][]byte{}, right: map[[32]byte]bool{}}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name, hash, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 {
			return nil, fmt.Errorf("%d: this is no user: want NAME:HASH", n)
		}
		if !bytes.HasPrefix(hash, []byte("$2")) {
			return nil, fmt.Errorf("%d: the password of %s is not hashed by bcrypt, the only hash that is safe: make it with htpasswd -B", n, name)
		}
		cost, err := bcrypt.Cost(hash)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%d: the hash of %s is not whole: make it again with htpasswd -B", n, name)
		case cost > maxCost:
			return nil, fmt.Errorf("%d: the hash of %s has the cost %d, which takes too long: make it with at most %d", n, name, cost, maxCost)
		case u.hashes[string(name)] != nil:
			return nil, fmt.Errorf("%d: there is a user %s already", n, name)
		}
		u.hashes[string(name)] = bytes.Clone(hash)
		u.cost = max(u.cost, cost)
	}
	if u.cost == 0 {
		u.cost = bcrypt.DefaultCost
	}
	return u, nil
}

// current gives the users of the file as it is now.
func (p *Passwords) current() *users {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := filestate.Of(p.file)
	if state == p.state {
		return p.users.Load()
	}
	p.state = state
	u, err := readUsers(p.file)
	if err != nil {
		p.log.Error("the passwords stay what they were, because their file cannot be used", "error", err)
		return p.users.Load()
	}
	p.users.Store(u)
	p.log.Info("read the passwords again", "file", p.file, "users", len(u.hashes))
	return u
}

var errTooMany = fault.New(fault.Unauthorized, "too many wrong passwords: wait for a minute, then log in again")

var errWrong = fault.New(fault.Unauthorized, "the user name or the password is wrong: log in to this registry again")

// check tells whether this is the user's password. A name that does not exist
// takes as long as a password that is wrong.
func (p *Passwords) check(r *http.Request, name, password string) error {
	if len(password) > maxPassword || len(name) > maxPassword {
		return errWrong
	}
	u := p.current()
	sum := p.sum(name, password)
	if u.remembered(sum) {
		return nil
	}
	who := p.guess(r, name)
	if who.tooMany() {
		return errTooMany
	}
	right, err := p.compute(r.Context(), u, sum, name, password, who)
	switch {
	case err != nil:
		return err
	case !right:
		return errWrong
	}
	return nil
}

func (p *Passwords) sum(name, password string) (out [32]byte) {
	h := hmac.New(sha256.New, p.key[:])
	fmt.Fprintf(h, "%d:%s%s", len(name), name, password)
	h.Sum(out[:0])
	return out
}

// guess is whose failures a wrong password adds to.
type guess struct {
	p          *Passwords
	from       string
	pair, addr uint64
}

func (p *Passwords) guess(r *http.Request, name string) guess {
	from := origin(r.RemoteAddr)
	return guess{p, from, p.failures.key(from, name), p.strangers.key(from, "")}
}

func (g guess) tooMany() bool { return g.p.failures.tooMany(g.pair) || g.p.strangers.tooMany(g.addr) }

func (g guess) failed() {
	g.p.failures.add(g.pair)
	g.p.strangers.add(g.addr)
}

// turn waits for what one address may have computed at a time, and then for one
// of the few that all may. So whoever asks from elsewhere waits for one request
// of each address, however many there are; and of all the addresses that were
// wrong lately for one.
func (p *Passwords) turn(ctx context.Context, who guess) (done func(), err error) {
	next, err := p.asking.Lock(ctx, who.from)
	if err == nil && p.strangers.lately(who.addr) {
		select {
		case p.doubtful <- struct{}{}:
			unlock := next
			next = func() { <-p.doubtful; unlock() }
		case <-ctx.Done():
			next()
			err = ctx.Err()
		}
	}
	if err == nil {
		select {
		case p.turns <- struct{}{}:
			return func() { <-p.turns; next() }, nil
		case <-ctx.Done():
			next()
			err = ctx.Err()
		}
	}
	return nil, fault.New(fault.Unauthorized, "the request ended before its password was checked: %w", err)
}

// compute waits for its turn. Requests that came with the same password at the
// same time find it remembered by then; those that came with many others find
// those counted.
func (p *Passwords) compute(ctx context.Context, u *users, sum [32]byte, name, password string, who guess) (right bool, err error) {
	done, err := p.turn(ctx, who)
	if err != nil {
		return false, err
	}
	defer done()
	if u.remembered(sum) {
		return true, nil
	}
	if who.tooMany() {
		return false, errTooMany
	}
	defer func() {
		if !right && err == nil {
			who.failed()
		}
	}()
	hash := u.hashes[name]
	if hash == nil {
		// Nobody's hash, of the file's cost: the work is done, the result is no.
		_, err := bcrypt.GenerateFromPassword([]byte("nobody"), u.cost)
		return false, err
	}
	err = bcrypt.CompareHashAndPassword(hash, []byte(password))
	if err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		p.log.Error("a hash cannot be used", "user", name, "error", err)
	}
	if err == nil {
		u.remember(sum)
	}
	return err == nil, nil
}

func (u *users) remembered(sum [32]byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.right[sum]
}

func (u *users) remember(sum [32]byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for old := range u.right {
		if len(u.right) < maxRight {
			break
		}
		delete(u.right, old)
	}
	u.right[sum] = true
}

// printable keeps a client's words from a log's lines.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}
