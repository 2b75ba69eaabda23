//go:build !amd64

package single

func settle() {}

func grow() {}

// Slack is 0: what the program executes has the timers of its threads.
func Slack() uintptr { return 0 }

// Settings names the variable that the entry has added to the environment: there
// is no entry for this machine.
func Settings() string { return "" }
