package image

import (
	"maps"
	"slices"
	"strings"

	"github.com/tarehq/tare/fault"
)

// distribution is where a distribution's packages are.
type distribution struct {
	archive    string // of the architectures that most have
	ports      string // of the others; "" is the same
	security   string
	components string
	keyring    string            // the package that has the archive's keys
	versions   map[string]string // suites by version
	rolling    []string          // suites without updates of their own
	latest     string            // the suite that the name alone means
}

var distributions = map[string]*distribution{
	"debian": {
		archive: "http://deb.debian.org/debian", security: "http://deb.debian.org/debian-security", components: "main",
		keyring:  "debian-archive-keyring",
		versions: map[string]string{"11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"},
		rolling:  []string{"sid", "unstable", "testing", "experimental"}, latest: "stable",
	},
	"ubuntu": {
		archive: "http://archive.ubuntu.com/ubuntu", ports: "http://ports.ubuntu.com/ubuntu-ports",
		security: "http://security.ubuntu.com/ubuntu", components: "main,universe", keyring: "ubuntu-keyring",
		versions: map[string]string{"20.04": "focal", "22.04": "jammy", "24.04": "noble", "26.04": "resolute"}, latest: "noble",
	},
}

// suiteOf reads DISTRIBUTION[:SUITE], where a suite may be a version.
func suiteOf(name string) (d *distribution, dist, suite string, err error) {
	dist, suite, _ = strings.Cut(strings.ToLower(name), ":")
	d = distributions[dist]
	if d == nil {
		return nil, "", "", fault.New(fault.Invalid, "%q cannot be bootstrapped: name one of %s, such as debian:bookworm or ubuntu:noble",
			name, strings.Join(slices.Sorted(maps.Keys(distributions)), ", "))
	}
	if suite == "" {
		suite = d.latest
	}
	if s, ok := d.versions[suite]; ok {
		suite = s
	}
	// It becomes an argument of a program and a part of addresses.
	if strings.Trim(suite, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || suite[0] == '-' {
		return nil, "", "", fault.New(fault.Invalid, "invalid suite %q: use a name such as bookworm", suite)
	}
	return d, dist, suite, nil
}

// sources are the lines of sources.list for a suite: the archive, its updates
// and its security updates.
func (d *distribution) sources(suite, arch string) []string {
	archive, security := d.archive, d.security
	if d.ports != "" && arch != "amd64" && arch != "i386" {
		archive, security = d.ports, d.ports
	}
	components := strings.ReplaceAll(d.components, ",", " ")
	line := func(from, suite string) string { return "deb " + from + " " + suite + " " + components }
	if slices.Contains(d.rolling, suite) {
		return []string{line(archive, suite)}
	}
	return []string{line(archive, suite), line(archive, suite+"-updates"), line(security, suite+"-security")}
}

// sourceLine completes what --mirror says: an address, or a whole line of
// sources.list.
func (d *distribution) sourceLine(mirror, suite string) string {
	if strings.ContainsAny(mirror, " \t") {
		return mirror
	}
	return "deb " + mirror + " " + suite + " " + strings.ReplaceAll(d.components, ",", " ")
}

// architectures are Debian's names of architectures, and the platforms of
// images for them.
var architectures = map[string]string{
	"amd64": "linux/amd64", "arm64": "linux/arm64", "armhf": "linux/arm/v7", "armel": "linux/arm/v5", "i386": "linux/386",
	"ppc64el": "linux/ppc64le", "riscv64": "linux/riscv64", "s390x": "linux/s390x", "mips64el": "linux/mips64le", "loong64": "linux/loong64",
}

// architectureOf accepts Debian's name of an architecture or that of a
// platform.
func architectureOf(name string) (arch, platform string, err error) {
	if p, ok := architectures[name]; ok {
		return name, p, nil
	}
	for arch, p := range architectures {
		if p == name || strings.TrimPrefix(p, "linux/") == name {
			return arch, p, nil
		}
	}
	return "", "", fault.New(fault.Invalid, "no architecture %q is known: use one of %s", name,
		strings.Join(slices.Sorted(maps.Keys(architectures)), ", "))
}
