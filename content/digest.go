package content

// Package digest knows an algorithm only when its implementation is linked.
import (
	_ "crypto/sha256"
	_ "crypto/sha512"
)
