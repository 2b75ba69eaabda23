//go:build !amd64

package single

func settle() {}

func grow() {}

// Settings names the variable that the entry has added to the environment: there
// is no entry for this machine.
func Settings() string { return "" }
