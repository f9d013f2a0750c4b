package diagnose

import (
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// A response in another case is a finding where the server was asked again because of it,
// also if it then answered as it was asked, out of a cache.
func TestRespelled(t *testing.T) {
	took := trace.Seconds(2 * time.Millisecond)
	ask := func(at time.Duration, respelled bool) trace.Upstream {
		ex := &trace.Exchange{DNS: trace.DNS{QName: "a.example.", QType: "A", RCode: "NOERROR", Duration: &took}, Respelled: respelled}
		ex.Time = time.Unix(1_700_000_000, 0).Add(at)
		return trace.Upstream{Exchange: ex}
	}
	for _, tc := range []struct {
		name      string
		upstreams []trace.Upstream
		found     bool
	}{
		{"asked once", []trace.Upstream{ask(0, true)}, false},
		{"asked again after it", []trace.Upstream{ask(0, true), ask(3*time.Millisecond, false), ask(6*time.Millisecond, false)}, true},
		{"asked again and again", []trace.Upstream{ask(0, true), ask(3*time.Millisecond, true)}, true},
		{"several at once", []trace.Upstream{ask(0, true), ask(time.Millisecond, false)}, false},
		{"as it was asked", []trace.Upstream{ask(0, false), ask(3*time.Millisecond, false)}, false},
	} {
		found := respelled(nil, &trace.Trace{Upstreams: tc.upstreams})
		if (len(found) == 1) != tc.found || len(found) > 1 {
			t.Errorf("%s: %+v", tc.name, found)
		}
	}
}
