//go:build !amd64

package single

const began, limited = false, false

func restore() {}
