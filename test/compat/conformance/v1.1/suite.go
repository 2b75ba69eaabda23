// Package suite holds the requirement of the suite, which is a test without a program.
package suite

import _ "github.com/opencontainers/distribution-spec/conformance"
