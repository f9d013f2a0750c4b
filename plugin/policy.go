package dnstrace

import (
	"strconv"
	"time"

	"github.com/coredns/caddy"

	"github.com/dnstrace/dnstrace/trace"
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

// keeps reports whether a complete record is written, and the rate, where the rate is why.
func (p *policy) keeps(rec *record) (rate *float64, keeps bool) {
	switch {
	case p.all(), rec.ident.sampled, rec.hasFailed(), rec.duration() >= p.slow:
		return nil, true
	case p.chosen(rec.ident):
		return p.sample, true
	}
	return nil, false
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
