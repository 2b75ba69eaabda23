package driver

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tarehq/tare/fault"
)

func opts(kv ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return m
}

// The words are those that Docker's clients know.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		opts map[string]string
		want string // "" for none
	}{
		{JSONFile, opts("max-size", "10m", "max-file", "3", "compress", "true", "labels", "a,b", "labels-regex", "^x", "env", "A", "env-regex", "B", "tag", "{{.Name}}"), ""},
		{JSONFile, opts("max-size", "-1"), ""},
		{Local, opts("max-size", "-1"), "invalid value for max-size: -1: invalid size: '-1'"},
		{JSONFile, opts("x", "1"), "unknown log opt 'x' for json-file log driver"},
		{JSONFile, opts("max-size", "0"), "max-size must be a positive number, or -1 for no bound"},
		{JSONFile, opts("max-size", "many"), "invalid value for max-size: many: invalid size: 'many'"},
		{JSONFile, opts("max-file", "0"), "max-file cannot be less than 1"},
		{JSONFile, opts("max-size", "1m", "compress", "true"), "compress cannot be true when max-file is less than 2 or max-size is not set"},
		{JSONFile, opts("tag", "{{.Name"), "invalid value for tag: template: log-tag:1: unclosed action"},
		{JSONFile, opts("env-regex", "("), "invalid value for env-regex: error parsing regexp: missing closing ): `(`"},
		{JSONFile, opts("mode", "fast"), "logger: logging mode not supported: fast"},
		{JSONFile, opts("max-buffer-size", "1m"), "logger: max-buffer-size option is only supported with 'mode=non-blocking'"},
		{JSONFile, opts("mode", "non-blocking", "max-buffer-size", "4m"), ""},
		{JSONFile, opts("cache-disabled", "perhaps"), "invalid value for option cache-disabled: perhaps"},
		{Local, opts("x", "1"), "unknown log opt 'x' for log driver local"},
		{None, opts("x", "1"), ""},
		{"splunk", nil, `error looking up logging plugin splunk: plugin "splunk" not found`},
		{"syslog", opts("syslog-address", "udp://h", "syslog-facility", "local3", "syslog-format", "rfc5424", "cache-max-size", "1m", "cache-max-file", "2"), ""},
		{"syslog", opts("x", "1"), "unknown log opt 'x' for syslog log driver"},
		{"syslog", opts("syslog-address", "ftp://h"), "unsupported scheme: 'ftp'"},
		{"syslog", opts("syslog-address", "unix:///not/there/yet"), ""},
		{"syslog", opts("syslog-facility", "24"), "invalid syslog facility"},
		{"syslog", opts("syslog-format", "x"), "Invalid syslog format"},
		{"journald", opts("x", "1"), "unknown log opt 'x' for journald log driver"},
		{"fluentd", opts("fluentd-address", "unix:///s", "fluentd-async", "true", "fluentd-retry-wait", "2s", "fluentd-max-retries", "3"), ""},
		{"fluentd", opts("x", "1"), "unknown log opt 'x' for fluentd log driver"},
		{"fluentd", opts("fluentd-address", "udp://h"), "invalid fluentd-address (udp://h): unsupported scheme: 'udp'"},
		{"fluentd", opts("fluentd-retry-wait", "soon"), `invalid value for fluentd-retry-wait: time: invalid duration "soon"`},
		{"gelf", nil, "gelf-address is a required parameter"},
		{"gelf", opts("gelf-address", "udp://h:1", "gelf-compression-level", "10"), `unknown value "10" for log opt "gelf-compression-level" for gelf log driver`},
		{"gelf", opts("gelf-address", "tcp://h:1", "gelf-compression-type", "none"), "compression is only supported on UDP"},
		{"gelf", opts("gelf-address", "udp://h:1", "gelf-tcp-max-reconnect", "1"), `"gelf-tcp-max-reconnect" is only valid for TCP`},
		{"gelf", opts("gelf-address", "udp://h:1", "x", ""), `unknown log opt "x" for gelf log driver`},
	} {
		err := Check(c.name, c.opts)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, fault.Invalid) || err.Error() != c.want) {
			t.Errorf("%s %v: %v, want %q", c.name, c.opts, err, c.want)
		}
	}
}

func TestStorage(t *testing.T) {
	for _, c := range []struct {
		name string
		opts map[string]string
		want Storage
	}{
		{JSONFile, nil, Storage{MaxSize: 20 << 20, MaxFiles: 5}},
		{JSONFile, opts("max-size", "-1"), Storage{MaxFiles: 1}},
		{JSONFile, opts("max-size", "1k"), Storage{MaxSize: 1000, MaxFiles: 1}},
		{JSONFile, opts("max-size", "1m", "max-file", "3", "compress", "true"), Storage{MaxSize: 1e6, MaxFiles: 3, Compress: true}},
		{Local, nil, Storage{MaxSize: 20 << 20, MaxFiles: 5, Compress: true}},
		{Local, opts("compress", "false"), Storage{MaxSize: 20 << 20, MaxFiles: 5}},
		{JSONFile, opts("mode", "non-blocking"), Storage{MaxSize: 20 << 20, MaxFiles: 5, Buffer: 1 << 20}},
		{JSONFile, opts("mode", "non-blocking", "max-buffer-size", "4k"), Storage{MaxSize: 20 << 20, MaxFiles: 5, Buffer: 4096}},
		{"syslog", opts("cache-max-size", "1k", "cache-max-file", "7", "cache-disabled", "true"), Storage{MaxSize: 1000, MaxFiles: 7, Compress: true, Hidden: true}},
	} {
		if got, err := StorageOf(c.name, c.opts); err != nil || got != c.want {
			t.Errorf("%s %v: %+v %v, want %+v", c.name, c.opts, got, err, c.want)
		}
	}
}

func TestMerge(t *testing.T) {
	defaults := opts("max-size", "1m", "cache-disabled", "true")
	for _, c := range []struct{ asked, name, opts string }{
		{"", JSONFile, "map[cache-disabled:true max-file:2 max-size:1m]"},
		{"syslog", "syslog", "map[cache-disabled:true max-file:2]"},
	} {
		name, got := Merge(c.asked, opts("max-file", "2"), JSONFile, defaults)
		if name != c.name || fmt.Sprint(got) != c.opts {
			t.Errorf("%q: %s %v", c.asked, name, got)
		}
	}
}

func testInfo(kv ...string) Info {
	return Info{Config: opts(kv...), ContainerID: "0123456789abcdef", ContainerName: "/box", ContainerEntrypoint: "/bin/sh", ContainerArgs: []string{"-c", "x"},
		ContainerImageID: "sha256:feed", ContainerImageName: "busybox", ContainerCreated: time.Unix(0, 0).UTC(), DaemonName: "docker",
		ContainerEnv: []string{"A=1", "B=x=y", "C"}, ContainerLabels: map[string]string{"com.x": "l", "other": "o"}}
}

func TestAttributes(t *testing.T) {
	for _, c := range []struct {
		info Info
		want string
	}{
		{testInfo(), ""},
		{testInfo("labels", "com.x,absent", "env", "B"), `{"B":"x=y","com.x":"l"}`},
		{testInfo("labels-regex", "^com", "env-regex", "^[AC]"), `{"A":"1","com.x":"l"}`},
		{testInfo("tag", "{{.ImageName}}/{{.Name}}/{{.ID}}/{{.DaemonName}}"), `{"tag":"busybox/box/0123456789ab/docker"}`},
		{testInfo("tag", `{{upper .Name}} {{(.ExtraAttributes nil).A}} {{.Command}} {{json .FullID}}`, "env", "A"),
			`{"A":"1","tag":"BOX 1 /bin/sh -c x \"0123456789abcdef\""}`},
	} {
		if got, err := Attributes(c.info); err != nil || string(got) != c.want {
			t.Errorf("%v: %s %v, want %s", c.info.Config, got, err, c.want)
		}
	}
}
