package history

import "bytes"

// identityEnd stands behind the time and the trace id of a line, which begins with
// them: together they name a trace.
var identityEnd = []byte(`","flow"`)

// identity returns the beginning of a line that names its trace.
func identity(line []byte) string {
	before, _, _ := bytes.Cut(line, identityEnd)
	return string(before)
}

// replacing is what lines replace others among those that are read.
type replacing map[string]bool

// passes tells, of lines from the newest back, whether one is the latest of its trace.
func (r *replacing) passes(e *entry) bool {
	if len(*r) > 0 && (*r)[identity(e.line)] {
		return false
	}
	if e.replaces {
		if *r == nil {
			*r = replacing{}
		}
		(*r)[identity(e.line)] = true
	}
	return true
}
