package diagnose

import (
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// Nothing came back only where nothing did: an error, a reset, or what could not be taken, is
// something.
func TestNothingCameBackSaysSo(t *testing.T) {
	for want, ex := range map[string]*trace.Exchange{
		"nothing came back":             {},
		"nothing was seen to come back": {LostEvents: 1},
		"no response arrived":           {Path: trace.PathOf(trace.Sighting{Message: trace.MessageResponse})},
		"no response came":              {ICMP: &trace.ICMP{}},
	} {
		if got := cameBack(ex); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, ex := range []*trace.Exchange{{Reset: &trace.Reset{}}, {Rejected: []trace.Rejection{{}}}} {
		if got := cameBack(ex); got != "no response came" {
			t.Errorf("%q of %+v", got, ex)
		}
	}
}
