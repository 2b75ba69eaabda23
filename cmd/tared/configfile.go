package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/fault"
)

// readFile merges the configuration file into what the flags have said. A
// missing file is no error unless it was asked for.
func (o *options) readFile(flags *pflag.FlagSet) error {
	data, err := os.ReadFile(o.configFile)
	if os.IsNotExist(err) && !flags.Changed("config-file") {
		return nil
	}
	if err == nil {
		err = o.merge(data, flags)
	}
	if err != nil {
		return fmt.Errorf("unable to configure the daemon with file %s: %w", o.configFile, err)
	}
	return nil
}

func (o *options) merge(data []byte, flags *pflag.FlagSet) error {
	data = []byte(strings.TrimPrefix(string(data), "\ufeff"))
	if len(strings.TrimSpace(string(data))) == 0 {
		return nil
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	if err := flatten(keys); err != nil {
		return err
	}
	if err := checkKeys(keys, flags); err != nil {
		return err
	}
	data, err := json.Marshal(keys)
	if err != nil {
		return err
	}
	given := maps.Clone(o.Runtimes)
	o.Runtimes = map[string]runtime{}
	if err := json.Unmarshal(data, o); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	if o.Runtimes == nil { // of a null in the file
		o.Runtimes = map[string]runtime{}
	}
	for name, rt := range given {
		if _, twice := o.Runtimes[name]; twice {
			return fault.New(fault.Invalid, "the runtime %s is specified both as a flag and in the configuration file", name)
		}
		o.Runtimes[name] = rt
	}
	return nil
}

// flatten brings the forms that dockerd takes besides to one: the object
// "proxies" becomes the keys in it, and "host-gateway-ip" a list of one.
func flatten(keys map[string]json.RawMessage) error {
	if text, ok := keys["proxies"]; ok {
		var proxies map[string]json.RawMessage
		if err := json.Unmarshal(text, &proxies); err != nil {
			return fault.New(fault.Invalid, "proxies: %w", err)
		}
		for key, value := range proxies {
			if key != "http-proxy" && key != "https-proxy" && key != "no-proxy" {
				key = "proxies." + key // nobody knows it
			}
			if _, both := keys[key]; both {
				return fault.New(fault.Invalid, "%s must not both be specified in the config file by itself and in proxies", key)
			}
			keys[key] = value
		}
		delete(keys, "proxies")
	}
	if one, ok := keys["host-gateway-ip"]; ok {
		if _, both := keys["host-gateway-ips"]; both {
			return fault.New(fault.Invalid, "host-gateway-ip and host-gateway-ips must not both be specified in the config file")
		}
		keys["host-gateway-ips"] = slices.Concat([]byte("["), one, []byte("]"))
		delete(keys, "host-gateway-ip")
	}
	return nil
}

// checkKeys refuses the keys that mean nothing, that are not supported, or
// that a flag has set too. Runtimes may come from both.
func checkKeys(keys map[string]json.RawMessage, flags *pflag.FlagSet) error {
	known := flagsByKey(flags)
	var unknown, twice []string
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		refused, err := checkKey(key, keys[key])
		if err != nil {
			return err
		}
		flag := known[key]
		switch {
		case refused, key == "builder": // it has no flag
		case flag == nil:
			unknown = append(unknown, key)
		case key != "runtimes" && flag.Changed:
			twice = append(twice, conflict(key, flag.Value.String(), plain(keys[key])))
		}
	}
	if len(unknown) > 0 {
		return fault.New(fault.Invalid, "the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if len(twice) > 0 {
		return fault.New(fault.Invalid, "the following directives are specified both as a flag and in the configuration file: %s", strings.Join(twice, ", "))
	}
	return nil
}

// conflict tells of a key that is set twice, and of no password in it.
func conflict(key, flag, file string) string {
	if strings.HasSuffix(key, "-proxy") {
		flag, file = withoutPassword(flag), withoutPassword(file)
	}
	return fmt.Sprintf("%s: (from flag: %s, from file: %s)", key, flag, file)
}

// flagsByKey finds the flag that says the same as a key of the file.
func flagsByKey(flags *pflag.FlagSet) map[string]*pflag.Flag {
	known := map[string]*pflag.Flag{}
	flags.VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "config-file", "validate", "version":
			return
		}
		key := f.Name
		if k := fileKeys[key]; k != "" {
			key = k
		}
		known[key] = f
	})
	return known
}

// plain shows a JSON value as a flag would.
func plain(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return strings.NewReplacer(`"`, "", ",", " ").Replace(string(raw))
}
