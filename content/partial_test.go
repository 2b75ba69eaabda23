package content

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
)

func noise(n int) []byte {
	data := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(data)
	return data
}

func partial(t *testing.T, s *Store, data []byte) *Partial {
	t.Helper()
	p, err := s.Partial(digest.FromBytes(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What is written in any order is read in order, while it comes, and becomes a
// blob.
func TestPartialIsFollowed(t *testing.T) {
	s := open(t, t.TempDir())
	data := noise(1 << 20)
	p := partial(t, s, data)
	read := make(chan []byte)
	go func() {
		r, done := p.Follow(t.Context())
		defer done()
		got, _ := io.ReadAll(r)
		read <- got
	}()
	verified := make(chan error)
	go func() { verified <- p.Verify(t.Context()) }()
	const piece = 1 << 16
	for _, i := range rand.New(rand.NewSource(1)).Perm(len(data) / piece) {
		if _, err := p.WriteAt(data[i*piece:(i+1)*piece], int64(i*piece)); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-read; !bytes.Equal(got, data) {
		t.Errorf("%d bytes were read, not those that were written", len(got))
	}
	if err := <-verified; err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Commit(), p.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(digest.FromBytes(data), 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Error(err)
	}
	if err := s.Settle(ocispec.Descriptor{Digest: digest.FromBytes(data)}); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(s.path("partial")); len(left) != 0 {
		t.Errorf("partial/ holds %v", left)
	}
}

// A blob that came whole is collected when nothing names it, and yet need not be
// fetched again. While it is in the store nobody changes it by its other name.
func TestPartialStaysUntilSettled(t *testing.T) {
	s := open(t, t.TempDir())
	data := noise(keptFrom)
	d := digest.FromBytes(data)
	fill := func(p *Partial) error {
		for gap := range p.Missing(p.Size()) {
			if _, err := p.WriteAt(data[gap.Start:gap.End], gap.Start); err != nil {
				return err
			}
		}
		return errors.Join(p.Verify(t.Context()), p.Commit(), p.Close())
	}
	if err := fill(partial(t, s, data)); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{int64(len(data)) - 5, int64(len(data)) + 5} { // as a false manifest says
		p, err := s.Partial(d, size)
		if err != nil {
			t.Fatal(err)
		}
		p.WriteAt([]byte("false"), 0)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Read(d, 1<<20); err != nil || !bytes.Equal(got, data) {
			t.Fatal("the blob was changed", err)
		}
		if _, err := s.DropPartials(0); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(s.path("blobs/sha256/" + d.Encoded())); err != nil {
			t.Fatal(err)
		}
		if err := fill(partial(t, s, data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Collect(); err != nil {
		t.Fatal(err)
	}
	if _, here := s.Size(d); here {
		t.Error("it was not collected")
	}
	p := partial(t, s, data)
	if p.Resumed() != p.Size() {
		t.Errorf("%d bytes are known of %d", p.Resumed(), p.Size())
	}
	if err := errors.Join(p.Verify(t.Context()), p.Commit(), p.Close()); err != nil {
		t.Error(err)
	}
	if _, here := s.Size(d); !here {
		t.Error("it is not there again")
	}
}

// What is settled before the one who fetched it has closed it is not kept either.
func TestSettleBeforeClose(t *testing.T) {
	s := open(t, t.TempDir())
	data := noise(keptFrom)
	p := partial(t, s, data)
	if _, err := p.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	settle := func() error { return s.Settle(ocispec.Descriptor{Digest: digest.FromBytes(data)}) }
	if err := errors.Join(p.Verify(t.Context()), p.Commit(), settle(), p.Close()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(s.path("partial")); len(left) != 0 {
		t.Errorf("partial/ holds %v", left)
	}
	if _, here := s.Size(digest.FromBytes(data)); !here {
		t.Error("the blob has gone, too")
	}
}

// Another process goes on where one was killed: at most the last block of each
// written part is fetched again.
func TestPartialIsResumed(t *testing.T) {
	dir := t.TempDir()
	data := noise(1<<20 + 5)
	s := open(t, dir)
	p := partial(t, s, data)
	p.WriteAt(data[:100_000], 0)
	p.WriteAt(data[500_000:700_000], 500_000)
	p.f.Close() // as the end of the process does

	s = open(t, dir)
	p = partial(t, s, data)
	if p.Resumed() < 300_000-2*2*block || p.Resumed() > 300_000 {
		t.Errorf("%d of 300000 bytes are known", p.Resumed())
	}
	for gap := range p.Missing(50_000) {
		if gap.End-gap.Start > 50_000 {
			t.Errorf("a gap of %d bytes", gap.End-gap.Start)
		}
		p.WriteAt(data[gap.Start:gap.End], gap.Start)
	}
	if err := errors.Join(p.Verify(t.Context()), p.Commit(), p.Close()); err != nil {
		t.Error(err)
	}
}

func TestPartialRefusesWrongContent(t *testing.T) {
	s := open(t, t.TempDir())
	data := noise(10_000)
	p := partial(t, s, data)
	if _, err := s.Partial(digest.FromBytes(data), 10_000); !errors.Is(err, fault.Conflict) {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := p.WriteAt(data, 1); !errors.Is(err, fault.Invalid) {
		t.Errorf("written past the end: %v", err)
	}
	if err := p.Commit(); err == nil {
		t.Error("kept unverified")
	}
	p.WriteAt(make([]byte, 10_000), 0)
	if err := p.Verify(t.Context()); !errors.Is(err, fault.Invalid) {
		t.Errorf("verified: %v", err)
	}
	if err := errors.Join(p.Drop(), p.Close()); err != nil {
		t.Error(err)
	}
	if p = partial(t, s, data); p.Resumed() != 0 {
		t.Error("what was wrong is kept")
	}
	p.Close()
}

func TestPartialReadersEnd(t *testing.T) {
	s := open(t, t.TempDir())
	p := partial(t, s, noise(10_000))
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		r, done := p.Follow(ctx)
		defer done()
		_, err := io.ReadAll(r)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go func() { ended <- p.Verify(t.Context()) }()
	broken := errors.New("broken")
	p.Fail(broken)
	if err := <-ended; !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestDropPartials(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	old, young, open_ := partial(t, s, noise(10)), partial(t, s, noise(11)), partial(t, s, noise(12))
	old.Close()
	young.Close()
	past := time.Now().Add(-2 * partialAge)
	for _, p := range []*Partial{old, open_} {
		if err := os.Chtimes(p.f.Name(), past, past); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.DropPartials(partialAge); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[*Partial]bool{old: false, young: true, open_: true} {
		if _, err := os.Stat(p.f.Name()); (err == nil) != want {
			t.Errorf("%s: %v", p.f.Name(), err)
		}
	}
	open_.Close()
	open(t, dir)
	if left, _ := os.ReadDir(dir + "/partial"); len(left) != 1 {
		t.Errorf("partial/ holds %v after the store was opened", left)
	}
}

// A size that nobody could store costs nothing before its bytes come.
func TestPartialOfAnAbsurdSize(t *testing.T) {
	s := open(t, t.TempDir())
	p, err := s.Partial(digest.FromString("x"), 1<<62)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.WriteAt([]byte("xy"), 5)
	var first []Span
	for gap := range p.Missing(16) {
		if first = append(first, gap); len(first) == 3 {
			break
		}
	}
	if want := []Span{{0, 5}, {7, 23}, {23, 39}}; !slices.Equal(first, want) {
		t.Errorf("%v is missing first, want %v", first, want)
	}
}
