package progress

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarehq/tare/client"
)

// screen is as much of a terminal as the display needs: it wraps, scrolls, and
// obeys cursor up and the two erasures. Every line that it ever had is kept.
type screen struct {
	t      *testing.T
	height int
	width  int
	lines  [][]rune // with those that were scrolled out
	top    int      // first line that is visible
	y, x   int
}

func (s *screen) Write(p []byte) (int, error) {
	text := []rune(string(p))
	for i := 0; i < len(text); i++ {
		switch r := text[i]; r {
		case '\r':
			s.x = 0
		case '\n':
			s.x = 0
			s.down()
		case '\x1b':
			n, j := 0, i+2
			for ; text[j] >= '0' && text[j] <= '9'; j++ {
				n = n*10 + int(text[j]-'0')
			}
			s.command(text[j], n)
			i = j
		default:
			if s.x == s.width {
				s.x = 0
				s.down()
			}
			line := s.at(s.y)
			for len(*line) <= s.x {
				*line = append(*line, ' ')
			}
			(*line)[s.x] = r
			s.x++
		}
	}
	return len(p), nil
}

func (s *screen) at(y int) *[]rune {
	for len(s.lines) <= y {
		s.lines = append(s.lines, nil)
	}
	return &s.lines[y]
}

func (s *screen) down() {
	s.y++
	s.at(s.y)
	s.top = max(s.top, s.y-s.height+1)
}

func (s *screen) command(c rune, n int) {
	switch c {
	case 'A':
		s.y = max(s.y-n, s.top)
	case 'K', 'J':
		if line := s.at(s.y); len(*line) > s.x {
			*line = (*line)[:s.x]
		}
		if c == 'J' {
			s.lines = s.lines[:s.y+1]
		}
	default:
		s.t.Errorf("the sequence %c is not one of those meant", c)
	}
}

// resize breaks lines as terminals do that keep what is on them.
func (s *screen) resize(height, width int) {
	old := s.lines
	s.lines, s.height, s.width = nil, height, width
	for i, line := range old {
		if i == s.y {
			s.y = len(s.lines)
		}
		for len(line) > width {
			s.lines = append(s.lines, line[:width:width])
			line = line[width:]
		}
		s.lines = append(s.lines, line)
	}
	s.top = max(0, s.y-height+1)
}

func (s *screen) text() []string {
	var out []string
	for _, line := range s.lines {
		out = append(out, strings.TrimRight(string(line), " "))
	}
	for len(out) > 0 && out[len(out)-1] == "" {
		out = out[:len(out)-1]
	}
	return out
}

type bench struct {
	*Display
	screen *screen
	clock  time.Time
}

func newBench(t *testing.T, height, width int) *bench {
	b := &bench{screen: &screen{t: t, height: height, width: width}, clock: time.Unix(1e9, 0)}
	b.Display = newDisplay(b.screen, func() (int, int) { return b.screen.height, b.screen.width }, func() time.Time { return b.clock })
	return b
}

func (b *bench) say(id, status string, counts ...int64) {
	p := client.Progress{ID: id, Status: status}
	if id != "" && !strings.HasPrefix(status, "Pulling from") {
		p.Detail = &client.ProgressDetail{}
	}
	if len(counts) == 2 {
		p.Detail.Current, p.Detail.Total = counts[0], counts[1]
	}
	b.Message(p)
}

func (b *bench) pass(d time.Duration) {
	b.clock = b.clock.Add(d)
	b.draw()
}

func (b *bench) expect(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, b.screen.text()); diff != "" {
		t.Errorf("the screen (-want +got):\n%s", diff)
	}
}

func TestTerminal(t *testing.T) {
	b := newBench(t, 24, 100)
	b.say("latest", "Pulling from library/x")
	b.say("aaaaaaaaaaaa", "Pulling fs layer")
	b.say("bbbbbbbbbbbb", "Already exists")
	b.pass(0)
	b.expect(t, "latest: Pulling from library/x", "aaaaaaaaaaaa: Pulling fs layer", "bbbbbbbbbbbb: Already exists")
	b.say("aaaaaaaaaaaa", "Downloading", 1_000_000, 4_000_000)
	b.pass(time.Second)
	b.say("aaaaaaaaaaaa", "Downloading", 2_000_000, 4_000_000)
	b.say("bbbbbbbbbbbb", "Already exists")
	b.pass(time.Second)
	b.expect(t, "latest: Pulling from library/x",
		"aaaaaaaaaaaa: Downloading [====================>                    ]  2MB/4MB           1MB/s",
		"bbbbbbbbbbbb: Already exists",
		"Total: 2MB/4MB  1MB/s  1 of 2 layers")
	b.say("aaaaaaaaaaaa", "Pull complete")
	b.say("", "Digest: sha256:d")
	b.say("", "Status: Downloaded newer image for x:latest")
	b.Close()
	b.expect(t, "latest: Pulling from library/x", "aaaaaaaaaaaa: Pull complete", "bbbbbbbbbbbb: Already exists",
		"Digest: sha256:d", "Status: Downloaded newer image for x:latest")
}

// Of more layers than lines those are shown that move, and at the end all.
func TestFewerLinesThanLayers(t *testing.T) {
	b := newBench(t, 6, 90)
	io := func(i int) string { return fmt.Sprintf("layer%d", i) }
	b.say("latest", "Pulling from library/x")
	for i := range 9 {
		b.say(io(i), "Pulling fs layer")
	}
	for i := range 4 {
		b.say(io(i), "Pull complete")
	}
	b.say(io(7), "Downloading", 10, 100)
	for range 5 {
		b.pass(every)
		if len(b.screen.lines)-1 > 5 {
			t.Fatalf("%q", b.screen.text())
		}
	}
	b.expect(t, "latest: Pulling from library/x", "layer4: Pulling fs layer", "layer5: Pulling fs layer",
		"layer7: Downloading [===>                                 ]  10B/100B",
		"Total: 10B  4 of 9 layers  (6 more)")
	for i := range 9 {
		b.say(io(i), "Pull complete")
	}
	b.pass(every)
	b.Close()
	want := []string{"latest: Pulling from library/x"}
	for i := range 9 {
		want = append(want, io(i)+": Pull complete")
	}
	b.expect(t, want...)
}

// A line never breaks, however narrow the terminal, and lines that were broken
// by making it narrower are found again.
func TestNarrow(t *testing.T) {
	for width := 2; width < 120; width++ {
		b := newBench(t, 10, width)
		b.say("0123456789ab", "Downloading", 123_456_789, 987_654_321)
		b.say("ba9876543210", "Extracting", 1_000, 987_654_321)
		b.pass(time.Second)
		b.say("0123456789ab", "Downloading", 234_567_890, 987_654_321)
		b.pass(time.Second)
		if n := len(b.screen.text()); n != 3 {
			t.Errorf("%d columns: %q", width, b.screen.text())
		}
	}
	b := newBench(t, 10, 100)
	b.Message(client.Progress{Status: "before"})
	b.say("0123456789ab", "Downloading", 500, 1000)
	b.pass(time.Second)
	b.screen.resize(10, 30)
	b.pass(time.Second)
	b.expect(t, "before", "0123456789ab: Downloading")
	b.Close()
	b.expect(t, "before", "0123456789ab: Downloading 500B", "/1kB") // for good: whole, and broken
}

func TestHostileText(t *testing.T) {
	b := newBench(t, 24, 80)
	b.say("id\x1b[2J\nx", "sta\rtus\x1b]0;title\a\u009b1m")
	b.pass(0)
	b.Message(client.Progress{Status: "\x1b[31mred"})
	b.Close()
	b.expect(t, "id?[2J?x: sta?tus?]0;title??1m", "?[31mred")
}

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	d := New(&out)
	for _, p := range []client.Progress{
		{ID: "latest", Status: "Pulling from library/x"}, {ID: "a", Status: "Waiting", Detail: &client.ProgressDetail{}},
		{ID: "a", Status: "Downloading", Detail: &client.ProgressDetail{Current: 1, Total: 2}}, {ID: "a", Status: "Pull complete", Detail: &client.ProgressDetail{}},
		{Stream: "Loaded"}, {Stream: " image\n"}, {Aux: []byte(`{}`)}, {Status: "done"},
	} {
		if err := d.Message(p); err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	if want := "latest: Pulling from library/x\na: Waiting\na: Pull complete\nLoaded image\ndone\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}

func TestCounts(t *testing.T) {
	for want, p := range map[string]client.ProgressDetail{
		"":            {},
		"5B/10B":      {Current: 5, Total: 10},
		"11B":         {Current: 11, Total: 10},
		"3/7 files":   {Current: 3, Total: 7, Units: "files"},
		"2 s":         {Current: 2, Units: "s"},
		"1.234MB/2GB": {Current: 1_234_000, Total: 2_000_000_000},
	} {
		var r row
		r.update(client.Progress{Status: "s", Detail: &p}, time.Now())
		if got := r.counts(); got != want {
			t.Errorf("%+v: %q, want %q", p, got, want)
		}
	}
	var r row
	r.update(client.Progress{Status: "s", Detail: &client.ProgressDetail{Current: 1, Total: 2, HideCounts: true}}, time.Now())
	if r.counts() != "" {
		t.Error(r.counts())
	}
}

// The rate is that of the last seconds and falls while nothing comes.
func TestRate(t *testing.T) {
	var m meter
	at := time.Unix(1e9, 0)
	for i := range int64(100) {
		m.add(at, i*100_000) // a megabyte a second
		at = at.Add(100 * time.Millisecond)
	}
	if got := m.rate(at); got < 0.95e6 || got > 1.05e6 {
		t.Error(got)
	}
	if got := m.rate(at.Add(20 * time.Second)); got > 0.1e6 {
		t.Error(got)
	}
	m.add(at, 0)
	if got := m.rate(at); got != 0 {
		t.Errorf("%v after a new beginning", got)
	}
}
