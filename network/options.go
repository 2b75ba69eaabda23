package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// Docker's names of the bridge driver's options.
const (
	optionBridgeName     = "com.docker.network.bridge.name"
	optionDefaultBridge  = "com.docker.network.bridge.default_bridge"
	optionICC            = "com.docker.network.bridge.enable_icc"
	optionMasquerade     = "com.docker.network.bridge.enable_ip_masquerade"
	optionBind4          = "com.docker.network.bridge.host_binding_ipv4"
	optionBind6          = "com.docker.network.bridge.host_binding_ipv6"
	optionMode4          = "com.docker.network.bridge.gateway_mode_ipv4"
	optionMode6          = "com.docker.network.bridge.gateway_mode_ipv6"
	optionInhibit4       = "com.docker.network.bridge.inhibit_ipv4"
	optionTrusted        = "com.docker.network.bridge.trusted_host_interfaces"
	optionMTU            = "com.docker.network.driver.mtu"
	optionPrefix         = "com.docker.network.container_iface_prefix"
	optionHost4          = "com.docker.network.host_ipv4"
	optionHost6          = "com.docker.network.host_ipv6"
	optionEnable4        = "com.docker.network.enable_ipv4"
	optionEnable6        = "com.docker.network.enable_ipv6"
	optionsOfDocker      = "com.docker.network."
	defaultGateway4      = "DefaultGatewayIPv4" // names of auxiliary addresses
	defaultGateway6      = "DefaultGatewayIPv6"
	defaultInterfaceName = "eth"
)

// The ways in which a bridge is a gateway, Docker's words.
const (
	modeNAT         = "nat"
	modeUnprotected = "nat-unprotected"
	modeRouted      = "routed"
	modeIsolated    = "isolated"
)

// bridgeOptions are a network's options as the bridge driver reads them.
type bridgeOptions struct {
	name             string // of the interface; "" for one made from the ID
	icc, masquerade  bool
	bind4, bind6     netip.Addr // where ports are published that name no address
	host4, host6     netip.Addr // what containers leave under; the zero Addr is the way's own
	mode4, mode6     string
	inhibit4         bool // the bridge has no IPv4 address
	trusted          []string
	mtu              int    // 0 for the default
	prefix           string // of interfaces in containers
	enable4, enable6 *bool
	without          []string // Docker's names among them that have no effect, sorted
}

// readBridgeOptions reads the options that it knows. Others are kept, as Docker
// keeps them: those by a name of Docker's would have been meant to do something,
// and whoever creates the network is told of them; the rest are the user's notes.
func readBridgeOptions(options map[string]string) (o bridgeOptions, err error) {
	o = bridgeOptions{icc: true, masquerade: true, mode4: modeNAT, mode6: modeNAT, prefix: defaultInterfaceName}
	for key, value := range options {
		var bad error
		switch key {
		case optionBridgeName:
			if o.name = value; value != "" {
				bad = checkInterfaceName(value)
			}
		case optionICC:
			o.icc, bad = strconv.ParseBool(value)
		case optionMasquerade:
			o.masquerade, bad = strconv.ParseBool(value)
		case optionBind4:
			o.bind4, bad = readAddr(value)
		case optionBind6:
			o.bind6, bad = readAddr(value)
		case optionHost4:
			o.host4, bad = readAddr(value)
		case optionHost6:
			o.host6, bad = readAddr(value)
		case optionMode4:
			o.mode4, bad = readMode(value)
		case optionMode6:
			o.mode6, bad = readMode(value)
		case optionInhibit4:
			o.inhibit4, bad = strconv.ParseBool(value)
		case optionTrusted:
			o.trusted = strings.FieldsFunc(value, func(r rune) bool { return r == ':' })
		case optionMTU:
			if o.mtu, bad = readMTU(value); errors.Is(bad, fault.Invalid) {
				return o, bad
			}
		case optionPrefix:
			if value == "" {
				continue
			}
			if o.prefix = value; len(value) > unix.IFNAMSIZ-4 || checkInterfaceName(value) != nil {
				bad = fault.New(fault.Invalid, "an interface's name begins with at most 12 bytes, without slash and space")
			}
		case optionEnable4:
			o.enable4, bad = readSwitch(value)
		case optionEnable6:
			o.enable6, bad = readSwitch(value)
		case optionDefaultBridge:
			var on bool
			if on, bad = strconv.ParseBool(value); on {
				o.without = append(o.without, key)
			}
		default:
			if strings.HasPrefix(key, optionsOfDocker) {
				o.without = append(o.without, key)
			}
		}
		if bad != nil {
			return o, fault.New(fault.Invalid, "failed to parse %s value: %s (%w)", key, value, bad)
		}
	}
	slices.Sort(o.without)
	// Docker takes an address of either family for all ports.
	if o.bind4.Is6() && !o.bind6.IsValid() {
		o.bind4, o.bind6 = netip.Addr{}, o.bind4
	}
	return o, nil
}

// warning tells of the options that have no effect; "" for none.
func (o *bridgeOptions) warning() string {
	if len(o.without) == 0 {
		return ""
	}
	return fmt.Sprintf("options that the bridge driver does not know have no effect: %s", strings.Join(o.without, ", "))
}

func readAddr(value string) (netip.Addr, error) {
	a, err := netip.ParseAddr(value)
	return a.Unmap(), err
}

func readMode(value string) (string, error) {
	switch value {
	case modeNAT, modeUnprotected, modeRouted, modeIsolated:
		return value, nil
	}
	return "", fault.New(fault.Invalid, "unknown gateway mode %s", value)
}

func readMTU(value string) (int, error) {
	mtu, err := strconv.Atoi(value)
	if err == nil && mtu != 0 && (mtu < 68 || mtu > 65535) {
		err = fault.New(fault.Invalid, "invalid MTU number: %d: it must be between 68 and 65535", mtu)
	}
	return mtu, err
}

func readSwitch(value string) (*bool, error) {
	on, err := strconv.ParseBool(value)
	return &on, err
}

// checkInterfaceName tells whether the kernel takes the name.
func checkInterfaceName(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r\x00") {
		return fault.New(fault.Invalid, "invalid interface name %q: it must have 1 to 15 bytes, no slash, colon or space", name)
	}
	return nil
}
