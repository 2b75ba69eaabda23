package container

import (
	"github.com/spf13/pflag"

	"github.com/tarehq/tare/fault"
)

// elsewhere are flags of Docker's client that ask for what no Linux container
// has, or what is not there, each with what to do instead. They are not in the
// help.
var elsewhere = []struct{ name, kind, instead string }{
	{"cpu-count", "int", "it is of Windows: use --cpus"},
	{"cpu-percent", "int", "it is of Windows: use --cpus"},
	{"io-maxbandwidth", "bytes", "it is of Windows: use --device-read-bps and --device-write-bps"},
	{"io-maxiops", "uint", "it is of Windows: use --device-read-iops and --device-write-iops"},
	{"kernel-memory", "bytes", "the kernel has no such limit any more: use --memory"},
	{"use-api-socket", "bool", "mount the daemon's socket with -v"},
}

// refusal is the value of such a flag: giving it is the mistake.
type refusal struct{ name, kind, instead string }

func (r *refusal) Set(string) error {
	return fault.New(fault.NotImplemented, "--%s is not supported: %s", r.name, r.instead)
}
func (r *refusal) String() string { return "" }
func (r *refusal) Type() string   { return r.kind }

func addElsewhere(f *pflag.FlagSet) {
	for _, e := range elsewhere {
		flag := f.VarPF(&refusal{e.name, e.kind, e.instead}, e.name, "", "")
		flag.Hidden = true
		if e.kind == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
}
