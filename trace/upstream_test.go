package trace

import "testing"

// An attempt failed where its outcome says so, in whichever of three ways; one without an
// outcome is not known to have.
func TestFailedAttempts(t *testing.T) {
	took := SecondsPtr(0)
	for _, tc := range []struct {
		at                    Attempt
		failed, mayHaveFailed bool
	}{
		{Attempt{Outcome: OutcomeOK, Plugin: "forward", Duration: took}, false, false},
		{Attempt{Outcome: OutcomeTimeout}, true, true},
		{Attempt{Outcome: OutcomeError}, true, true},
		{Attempt{Outcome: OutcomeFailed}, true, true},
		{Attempt{Plugin: "forward", Duration: took}, false, true},
		{Attempt{Plugin: "forward"}, false, false},
		{Attempt{Plugin: "fanout", Duration: took}, false, false},
	} {
		if got := tc.at.Failed(); got != tc.failed {
			t.Errorf("%+v: failed %t", tc.at, got)
		}
		if got := tc.at.MayHaveFailed(); got != tc.mayHaveFailed {
			t.Errorf("%+v: may have failed %t", tc.at, got)
		}
	}
}

// How an upstream query ended is what its server says, else what its packets show.
func TestOutcomeOfUpstream(t *testing.T) {
	seen := &Exchange{Outcome: OutcomeUnanswered}
	for _, tc := range []struct {
		u       Upstream
		outcome string
		failed  bool
	}{
		{Upstream{}, "", false},
		{Upstream{Attempt: &Attempt{}}, "", false},
		{Upstream{Attempt: &Attempt{}, Exchange: seen}, OutcomeUnanswered, true},
		{Upstream{Attempt: &Attempt{Outcome: OutcomeOK}, Exchange: seen}, OutcomeOK, false},
		{Upstream{Attempt: &Attempt{Outcome: OutcomeFailed}}, OutcomeFailed, true},
		{Upstream{Exchange: &Exchange{Outcome: OutcomeAnswered}}, OutcomeAnswered, false},
	} {
		if got := tc.u.Outcome(); got != tc.outcome || tc.u.Failed() != tc.failed {
			t.Errorf("%+v: outcome %q, failed %t", tc.u, got, tc.u.Failed())
		}
	}
}
