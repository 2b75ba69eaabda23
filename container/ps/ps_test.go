package ps

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParsePS(t *testing.T) {
	const text = `UID          PID    PPID  C STIME TTY          TIME CMD
root           7       1  0 13:00 ?        00:00:00 sleep 10
root          70       1  0 13:00 ?        00:00:00 other
root           9       7  0 13:00 pts/0    00:00:01 sh -c   a b
`
	top, err := parsePS(text, []int{7, 9}, false)
	if err != nil || len(top.Titles) != 8 || len(top.Processes) != 2 {
		t.Fatalf("%+v, %v", top, err)
	}
	if want := []string{"root", "9", "7", "0", "13:00", "pts/0", "00:00:01", "sh -c a b"}; !slices.Equal(top.Processes[1], want) {
		t.Errorf("%q", top.Processes[1])
	}
	top, err = parsePS("PID COMMAND\n7 sleep\n8 other\n", []int{7}, true)
	if err != nil || !slices.Equal(top.Titles, []string{"COMMAND"}) || len(top.Processes) != 1 || !slices.Equal(top.Processes[0], []string{"sleep"}) {
		t.Errorf("a column that was not asked for: %+v, %v", top, err)
	}
	top, err = parsePS("PID STAT CMD\n7 - sleep\n- S -\n8 - other\n- S -\n", []int{7}, false)
	if err != nil || len(top.Processes) != 2 {
		t.Errorf("threads: %+v, %v", top, err)
	}
	for text, want := range map[string]string{
		"COMMAND\nx\n": "Couldn't find PID field in ps output", "": "Couldn't find PID field in ps output",
		"PID CMD\nx y\n": "Unexpected pid 'x'", "CMD PID\nx\n": "Unexpected line",
	} {
		if _, err := parsePS(text, []int{7}, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestChoosesColumns(t *testing.T) {
	for args, want := range map[string]bool{
		"-ef": false, "aux": false, "-o pid": true, "-eo pid": true, "-opid": true, "o pid": true, "axo pid": true, "--format pid": true, "--format=pid": true,
		"-C o": false, "-Co": false, "-p 1": false, "--pid o": false, "--pid=1 -o x": true, "U root": false, "-u o -o pid": true, "axU o": false, "": false, "-e f": false,
	} {
		if got := choosesColumns(strings.Split(args, " ")); got != want {
			t.Errorf("%s: %v", args, got)
		}
	}
}

// The table that is made without ps has this process in it.
func TestProcessTable(t *testing.T) {
	top := table([]int{os.Getpid(), 1 << 30})
	if len(top.Processes) != 1 || len(top.Processes[0]) != len(top.Titles) {
		t.Fatalf("%+v", top)
	}
	row := top.Processes[0]
	if row[2] == "" || !strings.Contains(row[7], "ps.test") || !strings.Contains(row[4], ":") {
		t.Errorf("%q", row)
	}
	p, err := parseStat([]byte("7 (a) b) S 3 7 7 34817 7 4194304 0 0 0 0 150 250 0 0 20 0 1 0 1200 0 0 0"))
	if err != nil || p != (stat{"a) b", "3", "pts/1", 4 * time.Second, 12 * time.Second}) {
		t.Errorf("%+v, %v", p, err)
	}
	if got := timeColumn(26*time.Hour + 61*time.Second); got != "1-02:01:01" {
		t.Error(got)
	}
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for began, want := range map[time.Time]string{now.Add(-time.Hour): "11:00", now.Add(-48 * time.Hour): "Nov25", now.AddDate(-1, 0, 0): "2025"} {
		if got := startColumn(began, now); got != want {
			t.Errorf("%s: %s", began, got)
		}
	}
	if commandColumn(nil, "kthread") != "[kthread]" || commandColumn([]byte("a\x00b c\x00"), "x") != "a b c" {
		t.Error("commands")
	}
}
