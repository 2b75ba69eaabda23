// Package procfs reads the text forms that the kernel uses in proc(5) and
// sysfs(5).
package procfs

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Start reads /proc/PID/stat: when a process began, in clock ticks since boot
// (field 22 of proc_pid_stat(5)), and its state, such as 'Z' for one that waits to
// be collected. With the pid the start names a process for good.
func Start(pid int) (ticks uint64, state byte, err error) {
	b, err := Read("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// The second field may hold anything up to the last parenthesis.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat has an unknown form", pid)
	}
	ticks, err = strconv.ParseUint(string(f[19]), 10, 64)
	return ticks, f[0][0], err
}

// Unescape undoes the octal escapes of proc_pid_mountinfo(5).
func Unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Ranges reads the List format of cpuset(7), "0-4,9", as pairs of first and last
// number, each below 65,536. An empty text has none.
func Ranges(text string) (ranges [][2]int, err error) {
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		from, to, span := strings.Cut(part, "-")
		if !span {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 16)
		if err != nil {
			return nil, err
		}
		last, err := strconv.ParseUint(to, 10, 16)
		if err != nil {
			return nil, err
		}
		if last < first {
			return nil, strconv.ErrRange
		}
		ranges = append(ranges, [2]int{int(first), int(last)})
	}
	return ranges, nil
}
