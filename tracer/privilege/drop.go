// Package privilege reports which privileges the tracer has and lacks, and drops them when
// they are not needed any more.
package privilege

import (
	"fmt"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// Drop drops every capability, on every thread and for good: neither this process nor one
// that it starts gets any back.
//
// A running tracer needs none: its rings and counters are mapped, links are open files, and
// so are the outputs and the sockets. Files that need a privilege when they are opened
// (/proc/kallsyms) must be open before.
//
// Without CAP_SETPCAP the bounding set stays as it is, which no_new_privs
// (prctl(2)) makes harmless.
func Drop() error {
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("drop privileges: set no_new_privs: %w", err)
	}
	if err := cap.ResetAmbient(); err != nil {
		return fmt.Errorf("drop privileges: clear the ambient capabilities: %w", err)
	}
	if has(cap.GetProc(), cap.SETPCAP) {
		if err := cap.DropBound(all()...); err != nil {
			return fmt.Errorf("drop privileges: empty the bounding set: %w", err)
		}
	}
	if err := cap.NewSet().SetProc(); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	return nil
}

// all returns the capabilities that this kernel knows.
func all() []cap.Value {
	var values []cap.Value
	for v := range cap.MaxBits() {
		values = append(values, v)
	}
	return values
}

// has tells whether a capability is effective.
func has(set *cap.Set, v cap.Value) bool {
	// The error is about values that no set can have.
	on, err := set.GetFlag(cap.Effective, v)
	return err == nil && on
}
