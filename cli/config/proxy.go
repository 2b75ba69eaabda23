package config

// Proxy is what containers are told about proxies.
type Proxy struct {
	HTTP  string `json:"httpProxy,omitempty"`
	HTTPS string `json:"httpsProxy,omitempty"`
	No    string `json:"noProxy,omitempty"`
	FTP   string `json:"ftpProxy,omitempty"`
	All   string `json:"allProxy,omitempty"`
}

// ProxyVariable is a variable of a container's environment.
type ProxyVariable struct{ Name, Value string }

// ProxyFor gives the variables that containers of a daemon get, each in both
// spellings.
func (f *File) ProxyFor(host string) []ProxyVariable {
	p, ok := f.Proxies[host]
	if !ok {
		p = f.Proxies["default"]
	}
	var list []ProxyVariable
	for _, v := range []struct{ upper, lower, value string }{
		{"HTTP_PROXY", "http_proxy", p.HTTP}, {"HTTPS_PROXY", "https_proxy", p.HTTPS}, {"NO_PROXY", "no_proxy", p.No},
		{"FTP_PROXY", "ftp_proxy", p.FTP}, {"ALL_PROXY", "all_proxy", p.All},
	} {
		if v.value != "" {
			list = append(list, ProxyVariable{v.upper, v.value}, ProxyVariable{v.lower, v.value})
		}
	}
	return list
}
