package dnstrace

import (
	"strconv"
	"time"

	"github.com/coredns/caddy"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// defaultSlow is the usual limit of what people call slow: half a second is far
// beyond any answer of a healthy upstream, and below every client's timeout.
const defaultSlow = 500 * time.Millisecond

// policy says which lookups are recorded. All of them are observed, because
// only the end shows which one failed or was slow.
type policy struct {
	sample  *float64 // share of ordinary lookups; nil is all of them
	slow    time.Duration
	slowSet bool
}

// all reports whether every lookup is recorded.
func (p *policy) all() bool { return p.sample == nil || *p.sample >= 1 }

// chosen reports whether the ordinary lookup i is among those that are
// recorded, for us or for the server that asks us.
func (p *policy) chosen(i *identity) bool {
	switch {
	case p.all(), i.sampled:
		return true
	case *p.sample <= 0:
		return false
	}
	return trace.Sampled(i.samplingHash(), *p.sample)
}

// keeps reports whether the recording that b has loaded becomes a record, and
// the rate, where the rate is why.
func (p *policy) keeps(b *builder) (rate *float64, keeps bool) {
	i := b.rec.ident
	switch {
	case p.all(), i.sampled, b.rec.failed(), b.rec.took() >= p.slow, b.failedAttempt():
		return nil, true
	case p.chosen(i):
		return p.sample, true
	}
	return nil, false
}

// failed reports whether a query failed. A refresh has no client: only its
// attempts can fail.
func (rec *recording) failed() bool {
	if rec != rec.query {
		return false
	}
	return rec.outcome != trace.OutcomeAnswered || rec.errText != "" ||
		rec.rcode == dns.RcodeServerFailure || rec.rcode == dns.RcodeRefused
}

// took returns how long the client waited, or a refresh worked.
func (rec *recording) took() time.Duration {
	if rec != rec.query {
		return time.Duration(rec.doneAt - rec.startedAt)
	}
	return time.Duration(rec.sentAt)
}

// failedAttempt reports whether an upstream attempt failed. Where forward went
// on to another upstream it did, even if nothing says how.
func (b *builder) failedAttempt() bool {
	for i := range b.tries {
		if b.tries[i].MayHaveFailed() {
			return true
		}
	}
	return false
}

func (d *Dnstrace) parseSample(c *caddy.Controller, args []string) error {
	switch {
	case d.policy.sample != nil:
		return c.Errf("sample is already set to %v: expected it once", *d.policy.sample)
	case len(args) != 1:
		return c.Errf("sample: expected one rate from 0 to 1, got %d arguments", len(args))
	}
	rate, err := strconv.ParseFloat(args[0], 64)
	if err == nil && rate >= 0 && rate <= 1 {
		d.policy.sample = &rate
		return nil
	}
	return c.Errf("sample %s: expected a rate from 0 (failed and slow lookups only) to 1 (every lookup)", args[0])
}

func (d *Dnstrace) parseSlow(c *caddy.Controller, args []string) error {
	switch {
	case d.policy.slowSet:
		return c.Errf("slow is already set to %v: expected it once", d.policy.slow)
	case len(args) != 1:
		return c.Errf("slow: expected one duration, got %d arguments", len(args))
	}
	slow, err := time.ParseDuration(args[0])
	if err != nil || slow < 0 {
		return c.Errf("slow %s: expected a duration of 0s or more, such as 500ms", args[0])
	}
	d.policy.slow, d.policy.slowSet = slow, true
	return nil
}
