package trace

// Failed tells whether an attempt is known to have failed, however: [OutcomeFailed] is
// one of two others. That its outcome is not known says nothing.
func (a *Attempt) Failed() bool {
	switch a.Outcome {
	case OutcomeTimeout, OutcomeError, OutcomeFailed:
		return true
	}
	return false
}

// MayHaveFailed tells whether a lookup with this attempt is recorded whatever the sampling
// rate. Where forward does not tell how an attempt ended, it most likely went on to another
// upstream. Plugin and tracer sample alike: both ask here.
func (a *Attempt) MayHaveFailed() bool {
	return a.Failed() || a.Outcome == "" && a.Plugin == "forward" && a.Duration != nil
}

// Outcome returns how an upstream query ended: what the server's record says of the attempt,
// or what its packets show where it says nothing. Empty is unknown.
func (u *Upstream) Outcome() string {
	switch {
	case u.Attempt != nil && u.Attempt.Outcome != "":
		return u.Attempt.Outcome
	case u.Exchange != nil:
		return u.Exchange.Outcome
	}
	return ""
}

// Failed tells whether an upstream query is known to have got no answer that its server
// could use.
func (u *Upstream) Failed() bool {
	switch u.Outcome() {
	case "", OutcomeOK, OutcomeAnswered:
		return false
	}
	return true
}

// Rejected tells whether all that came for an upstream query was what its server could not take.
// CoreDNS makes an answer of its own of some of that.
func (u *Upstream) Rejected() bool {
	return u.Exchange != nil && u.Exchange.Outcome == OutcomeUnanswered && len(u.Exchange.Rejected) > 0
}

// Exchanges returns the exchanges of an attempt in order, the one that ended it last.
func (u *Upstream) Exchanges() []*Exchange {
	var all []*Exchange
	for _, ex := range u.Earlier {
		if ex != nil { // nil in a record of another writer
			all = append(all, ex)
		}
	}
	if u.Exchange != nil {
		all = append(all, u.Exchange)
	}
	return all
}
