package option

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/fault"
)

// Rates are the flags that say how fast a container's networks are. What they
// say goes to the daemon as options of an endpoint.
type Rates struct{ flags []rate }

type rate struct {
	option string
	list   *List
}

// NewRates adds the flags. With named, a value may begin with a network's name
// and "=".
func NewRates(f *pflag.FlagSet, named bool) *Rates {
	of := ""
	if named {
		of = ", [NETWORK=]VALUE"
	}
	r := &Rates{}
	for _, x := range []struct{ flag, option, usage string }{
		{"net-in-rate", "com.tarehq.network.in-rate", "Bits per second that the network brings in (e.g., 10mbit" + of + ")"},
		{"net-out-rate", "com.tarehq.network.out-rate", "Bits per second that the container sends (e.g., 10mbit" + of + ")"},
		{"net-delay", "com.tarehq.network.delay", "Delay of what the container sends (e.g., 50ms" + of + ")"},
		{"net-loss", "com.tarehq.network.loss", "Percentage that is lost of what the container sends (e.g., 0.5%" + of + ")"},
	} {
		check := func(s string) (string, error) {
			if _, value := split(s); value == "" || !named && value != s {
				return "", fault.New(fault.Invalid, "invalid value %q for --%s", s, x.flag)
			}
			return s, nil
		}
		r.flags = append(r.flags, rate{x.option, NewList(f, x.flag, "", x.usage, check)})
	}
	return r
}

// split takes a network's name off a value; "" stands for all networks.
func split(s string) (network, value string) {
	if network, value, ok := strings.Cut(s, "="); ok {
		return network, value
	}
	return "", s
}

// Options gives what is said of a network as options of an endpoint, nil if
// nothing is. What is said for all counts where nothing is said for the one.
func (r *Rates) Options(network string) map[string]string {
	var options map[string]string
	for _, f := range r.flags {
		for _, all := range []bool{true, false} {
			for _, v := range f.list.Values {
				if name, value := split(v); all && name == "" || !all && name != "" && name == network {
					if options == nil {
						options = map[string]string{}
					}
					options[f.option] = value
				}
			}
		}
	}
	return options
}

// Networks lists those that values name, with "" if one names none.
func (r *Rates) Networks() []string {
	var names []string
	for _, f := range r.flags {
		for _, v := range f.list.Values {
			name, _ := split(v)
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
