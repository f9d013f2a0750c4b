package receive

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// Limits of a record. CoreDNS's plugin keeps well below each; another process that reaches
// the socket may send anything.
const (
	// maxSpans bounds the hops, and the attempts: the plugin records 128 of both together.
	maxSpans = 256
	// maxText bounds an error, of which the plugin keeps 512 bytes, and an upstream's
	// address, which may be a URL.
	maxText = 1024
	// maxWord bounds what comes from lists: types, codes, outcomes, names of plugins.
	maxWord = 128
	// maxZone bounds the zone of an IPv6 address (RFC 4007): IFNAMSIZ of Linux is 16.
	maxZone = 16
	// maxSize bounds the sizes of messages (RFC 1035, section 4.2.2).
	maxSize = 65535
	// maxOff is how far the times in a record may be from the time at which it came. A
	// batch of the plugin waits 100 ms; the rest is for a machine that is busy.
	maxOff = 5 * time.Second
	// maxLasts is how long a query may take in CoreDNS: forward gives up after 6 s, and
	// others may ask again behind it.
	maxLasts = time.Minute
)

// refusal is why a record is not taken: the reason that is counted, and what is wrong.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }

func (r *refusal) Unwrap() error { return r.err }

func refuse(reason, format string, args ...any) error {
	return &refusal{reason, fmt.Errorf(format, args...)}
}

// reasonOf returns what an error is counted under.
func reasonOf(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.reason
	}
	return ReasonMalformed
}

// check tells what of a record that came at a time cannot be.
func check(rec trace.Record, came time.Time) error {
	switch r := rec.(type) {
	case *trace.Query:
		return checkQuery(r, came)
	case *trace.Refresh:
		if err := errors.Join(word("cause", r.Cause), checkDNS(&r.DNS), checkSpans(r.Hops, r.Upstreams)); err != nil {
			return err
		}
		return checkTimes(r.Time, nil, r.Hops, r.Upstreams, came)
	}
	return fmt.Errorf("a plugin writes query and refresh records, not %s", rec.Kind())
}

func checkQuery(q *trace.Query, came time.Time) error {
	err := errors.Join(checkDNS(&q.DNS), address("server_ip", q.ServerIP), word("cache", q.Cache), word("answered_by", q.AnsweredBy),
		word("outcome", q.Outcome), text("error", q.Error), checkSpans(q.Hops, q.Upstreams))
	if err == nil && q.Zone != "" {
		err = name("zone", q.Zone)
	}
	if err != nil {
		return err
	}
	return checkTimes(q.Time, q.DNS.Duration, q.Hops, q.Upstreams, came)
}

func checkDNS(d *trace.DNS) error {
	size := func(field string, n int) error {
		if n < 0 || n > maxSize {
			return refuse(ReasonField, "field %s: expected 0 to %d, got %d", field, maxSize, n)
		}
		return nil
	}
	err := errors.Join(name("qname", d.QName), word("qtype", d.QType), word("qclass", d.QClass), word("protocol", d.Protocol), word("rcode", d.RCode),
		size("request_size", d.RequestSize), size("bufsize", d.BufSize), address("client_ip", d.ClientIP))
	if err == nil && d.ResponseSize != nil {
		err = size("response_size", *d.ResponseSize)
	}
	return err
}

// checkSpans looks at the lists of a record; a hop's parent stands before it.
func checkSpans(hops []trace.Hop, attempts []trace.Attempt) error {
	if len(hops) > maxSpans || len(attempts) > maxSpans {
		return refuse(ReasonField, "fields hops and upstreams: expected at most %d each, got %d and %d", maxSpans, len(hops), len(attempts))
	}
	for i := range hops {
		h := &hops[i]
		if p := h.Parent; p != nil && (*p < 0 || *p >= i) {
			return refuse(ReasonField, "field hops[%d].parent: expected a hop before it, got %d", i, *p)
		}
		if err := word("plugin", h.Plugin); err != nil {
			return err
		}
	}
	for i := range attempts {
		at := &attempts[i]
		if err := errors.Join(text("address", at.Address), text("error", at.Error), word("outcome", at.Outcome), word("plugin", at.Plugin), word("qtype", at.QType)); err != nil {
			return err
		}
		if at.QName != "" {
			if err := name("qname", at.QName); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkTimes requires that a record begins and ends about when it came, and that its parts
// lie within. took is nil where there was no answer, or the duration is that of another
// record.
func checkTimes(begin time.Time, took *trace.Seconds, hops []trace.Hop, attempts []trace.Attempt, came time.Time) error {
	since := came.Sub(begin)
	if since < -maxOff || since > maxLasts+maxOff {
		return refuse(ReasonTime, "field time: %s is %s off from when it came", begin.Format(time.RFC3339Nano), since.Abs().Round(time.Millisecond))
	}
	last := trace.Seconds(0)
	within := func(field string, start trace.Seconds, d *trace.Seconds) error {
		end := start
		if d != nil {
			if *d < 0 || *d > trace.Seconds(maxLasts) {
				return refuse(ReasonDuration, "field %s: a duration of %s cannot be", field, d.Duration())
			}
			end += *d
		}
		// Nothing is recorded before it is over.
		if start < 0 || start > trace.Seconds(maxLasts) || end > trace.Seconds(since+maxOff) {
			return refuse(ReasonDuration, "field %s: %s after the query began is not within the record", field, end.Duration())
		}
		last = max(last, end)
		return nil
	}
	if err := within("duration_seconds", 0, took); err != nil {
		return err
	}
	for i := range hops {
		if err := within("hops", hops[i].Start, hops[i].Duration); err != nil {
			return err
		}
	}
	for i := range attempts {
		if err := within("upstreams", attempts[i].Start, attempts[i].Duration); err != nil {
			return err
		}
	}
	if late := since - last.Duration(); late > maxOff {
		return refuse(ReasonTime, "field time: it was over %s before it came", late.Round(time.Millisecond))
	}
	return nil
}

func word(field, s string) error {
	if len(s) > maxWord {
		return refuse(ReasonField, "field %s: expected at most %d bytes, got %d", field, maxWord, len(s))
	}
	return nil
}

func text(field, s string) error {
	if len(s) > maxText {
		return refuse(ReasonField, "field %s: expected at most %d bytes, got %d", field, maxText, len(s))
	}
	return nil
}

// name wants a domain name of at most 255 octets in wire form (RFC 1035, section 2.3.4).
func name(field, s string) error {
	var wire [255]byte
	if _, err := trace.PackName(s, wire[:]); err != nil || s == "" {
		return refuse(ReasonField, "field %s: %.40q is no domain name of at most 255 octets", field, s)
	}
	return nil
}

func address(field string, a netip.Addr) error {
	if len(a.Zone()) > maxZone {
		return refuse(ReasonField, "field %s: a zone of %d bytes", field, len(a.Zone()))
	}
	return nil
}
