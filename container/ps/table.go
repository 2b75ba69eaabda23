package ps

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	wire "github.com/moby/moby/api/types/container"
)

// table lists processes as ps -ef does. One that ends meanwhile is left
// out.
func table(pids []int) wire.TopResponse {
	top := wire.TopResponse{Titles: []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}}
	now, boot := time.Now(), bootTime()
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid)
		text, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		info, err := os.Stat(dir)
		if err != nil {
			continue
		}
		p, err := parseStat(text)
		if err != nil {
			continue
		}
		command, _ := os.ReadFile(dir + "/cmdline")
		began := boot.Add(p.began)
		busy := 0
		if lived := now.Sub(began); lived > 0 {
			busy = int(100 * p.used / lived)
		}
		top.Processes = append(top.Processes, []string{owner(info), strconv.Itoa(pid), p.parent, strconv.Itoa(busy),
			startColumn(began, now), p.tty, timeColumn(p.used), commandColumn(command, p.name)})
	}
	return top
}

// stat is what of /proc/PID/stat is shown.
type stat struct {
	name, parent, tty string
	used, began       time.Duration // of processors; since the boot
}

// parseStat reads proc_pid_stat(5). The name may hold anything up to the last
// parenthesis.
func parseStat(text []byte) (p stat, err error) {
	const tick = time.Second / 100 // USER_HZ
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	f := strings.Fields(string(text[end+1:]))
	if open < 0 || end < open || len(f) < 20 {
		return p, fmt.Errorf("/proc/PID/stat has an unknown form: %q", text)
	}
	number := func(field int) int64 { n, _ := strconv.ParseInt(f[field-3], 10, 64); return n }
	p = stat{name: string(text[open+1 : end]), parent: f[1], tty: "?"}
	p.used, p.began = time.Duration(number(14)+number(15))*tick, time.Duration(number(22))*tick
	// Numbers of devices as the kernel packs them: Documentation/admin-guide/devices.txt.
	if device := number(7); device != 0 {
		major, minor := device>>8&0xfff, device&0xff|device>>12&0xfff00
		switch {
		case major >= 136 && major < 144:
			p.tty = fmt.Sprintf("pts/%d", (major-136)<<8+minor)
		case major == 4 && minor < 64:
			p.tty = fmt.Sprintf("tty%d", minor)
		}
	}
	return p, nil
}

// bootTime is the machine's, by the line btime of /proc/stat.
func bootTime() time.Time {
	text, _ := os.ReadFile("/proc/stat")
	_, after, _ := bytes.Cut(text, []byte("\nbtime "))
	line, _, _ := bytes.Cut(after, []byte("\n"))
	seconds, _ := strconv.ParseInt(string(line), 10, 64)
	return time.Unix(seconds, 0)
}

// owner is the user's name on the host, or the number.
func owner(info os.FileInfo) string {
	id := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func startColumn(began, now time.Time) string {
	switch {
	case now.Sub(began) < 24*time.Hour:
		return began.Format("15:04")
	case began.Year() == now.Year():
		return began.Format("Jan02")
	}
	return began.Format("2006")
}

func timeColumn(d time.Duration) string {
	s := int(d / time.Second)
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		text = strconv.Itoa(days) + "-" + text
	}
	return text
}

// commandColumn is the command line, or the name in brackets where there is
// none.
func commandColumn(line []byte, name string) string {
	text := strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
	if text == "" {
		return "[" + name + "]"
	}
	return text
}
