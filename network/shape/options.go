package shape

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
)

// The options of an endpoint that say its limits. Any client that can give an
// endpoint options can say them.
const (
	OptionIn    = "com.tarehq.network.in-rate"
	OptionOut   = "com.tarehq.network.out-rate"
	OptionDelay = "com.tarehq.network.delay"
	OptionLoss  = "com.tarehq.network.loss"
)

// IsOption tells whether an endpoint's option is one of those.
func IsOption(key string) bool {
	return key == OptionIn || key == OptionOut || key == OptionDelay || key == OptionLoss
}

// FromOptions reads the limits among an endpoint's options and checks them.
func FromOptions(options map[string]string) (l Limits, err error) {
	if l.In, err = ParseRate(options[OptionIn]); err != nil {
		return l, err
	}
	if l.Out, err = ParseRate(options[OptionOut]); err != nil {
		return l, err
	}
	if text := options[OptionDelay]; text != "" && text != "0" {
		if l.Delay, err = time.ParseDuration(text); err != nil {
			return l, fault.New(fault.Invalid, "invalid network delay %q: say a time such as 50ms", text)
		}
	}
	if text := strings.TrimSuffix(options[OptionLoss], "%"); text != "" {
		if l.Loss, err = strconv.ParseFloat(text, 64); err != nil {
			return l, fault.New(fault.Invalid, "invalid network loss %q: say a percentage such as 0.5%%", text)
		}
	}
	return l, l.Check()
}

var units = map[string]float64{"": 1, "bit": 1, "k": 1e3, "kbit": 1e3, "m": 1e6, "mbit": 1e6, "g": 1e9, "gbit": 1e9, "t": 1e12, "tbit": 1e12}

// ParseRate reads a rate such as 10mbit, in bits per second; nothing and 0 are
// without bound.
func ParseRate(text string) (uint64, error) {
	lower := strings.ToLower(strings.TrimSpace(text))
	unit := strings.TrimLeft(lower, "0123456789.")
	digits := strings.TrimSuffix(lower, unit)
	if digits == "" && unit == "" {
		return 0, nil
	}
	factor, known := units[strings.TrimSuffix(strings.TrimSpace(unit), "/s")]
	value, err := strconv.ParseFloat(digits, 64)
	if rate := value * factor; known && err == nil && rate >= 0 && rate < math.MaxInt64 {
		return uint64(rate), nil
	}
	return 0, fault.New(fault.Invalid, "invalid network rate %q: say bits per second, such as 500kbit, 10mbit or 1gbit", text)
}
