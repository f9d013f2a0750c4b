package trace

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// The encoders append `,"name":value` for every field, so that a field costs
// one append of a constant and one of its value. The first field of an object
// is written with its opening brace.

// AppendJSON implements Record.
func (q *Query) AppendJSON(b []byte) []byte {
	b = q.Header.appendJSON(b, KindQuery)
	b = q.DNS.appendJSON(b)
	b = appendHex(append(b, `,"span_id":`...), q.SpanID[:])
	b = append(b, `,"parent_span_id":`...)
	if q.ParentSpanID == nil {
		b = append(b, "null"...)
	} else {
		b = appendHex(b, q.ParentSpanID[:])
	}
	b = appendAddr(append(b, `,"server_ip":`...), q.ServerIP)
	b = appendUint(append(b, `,"server_port":`...), q.ServerPort)
	b = appendString(append(b, `,"zone":`...), q.Zone)
	b = appendString(append(b, `,"cache":`...), q.Cache)
	b = appendString(append(b, `,"answered_by":`...), q.AnsweredBy)
	b = appendString(append(b, `,"outcome":`...), q.Outcome)
	b = appendString(append(b, `,"error":`...), q.Error)
	b = appendHops(b, q.Hops)
	b = appendAttempts(b, q.Upstreams)
	b = strconv.AppendBool(append(b, `,"stamped":`...), q.Stamped)
	b = appendFloat(append(b, `,"sample":`...), q.Sample)
	if q.Unverified {
		b = append(b, `,"unverified":true`...)
	}
	return append(b, '}')
}

// AppendJSON implements Record.
func (r *Refresh) AppendJSON(b []byte) []byte {
	b = r.Header.appendJSON(b, KindRefresh)
	b = r.DNS.appendJSON(b)
	b = appendString(append(b, `,"cause":`...), r.Cause)
	b = appendHops(b, r.Hops)
	b = appendAttempts(b, r.Upstreams)
	b = appendFloat(append(b, `,"sample":`...), r.Sample)
	return append(b, '}')
}

// AppendJSON implements Record.
func (t *Trace) AppendJSON(b []byte) []byte {
	b = t.Header.appendJSON(b, KindTrace)
	b = appendString(append(b, `,"qname":`...), t.QName)
	b = appendString(append(b, `,"qtype":`...), t.QType)
	b = appendString(append(b, `,"rcode":`...), t.RCode)
	b = appendSeconds(append(b, `,"duration_seconds":`...), t.Duration)
	b = appendString(append(b, `,"outcome":`...), t.Outcome)
	if t.Role != "" {
		b = appendString(append(b, `,"role":`...), t.Role)
	}
	b = t.Client.appendJSON(append(b, `,"client":`...))
	b = t.Server.appendJSON(append(b, `,"server":`...))
	b = append(b, `,"exchange":`...)
	if t.Exchange == nil {
		b = append(b, "null"...)
	} else {
		b = t.Exchange.AppendJSON(b)
	}
	b = append(b, `,"query":`...)
	if t.Query == nil {
		b = append(b, "null"...)
	} else {
		b = t.Query.AppendJSON(b)
	}
	b = appendUpstreams(append(b, `,"upstreams":`...), t.Upstreams)
	b = appendString(append(b, `,"resolution":`...), t.Resolution)
	b = appendString(append(b, `,"resolution_join":`...), t.ResolutionJoin)
	b = appendSeconds(append(b, `,"clock_offset_seconds":`...), t.ClockOffset)
	b = appendStrings(append(b, `,"gaps":`...), t.Gaps)
	b = append(b, `,"diagnosis":[`...)
	for i := range t.Diagnosis {
		if i > 0 {
			b = append(b, ',')
		}
		b = t.Diagnosis[i].appendJSON(b)
	}
	b = appendFloat(append(b, `],"sample":`...), t.Sample)
	b = appendTrue(b, `,"replaces":true`, t.Replaces)
	return append(b, '}')
}

func (h *Header) appendJSON(b []byte, kind string) []byte {
	b = append(b, `{"v":1,"record":"`...)
	b = append(b, kind...)
	b = append(b, `","time":"`...)
	b = appendTime(b, h.Time)
	b = appendHex(append(b, `","trace_id":`...), h.TraceID[:])
	return appendHex(append(b, `,"flow":`...), h.Flow[:])
}

func (d *DNS) appendJSON(b []byte) []byte {
	b = appendAddr(append(b, `,"client_ip":`...), d.ClientIP)
	b = appendUint(append(b, `,"client_port":`...), d.ClientPort)
	b = appendString(append(b, `,"qname":`...), d.QName)
	b = appendString(append(b, `,"qtype":`...), d.QType)
	b = appendString(append(b, `,"qclass":`...), d.QClass)
	b = appendString(append(b, `,"protocol":`...), d.Protocol)
	if d.Connects() {
		b = append(b, `,"id":null,"opcode":null,"request_size":null,"dnssec_ok":null,"bufsize":null`...)
	} else {
		b = appendUint(append(b, `,"id":`...), d.ID)
		b = appendInt(append(b, `,"opcode":`...), d.Opcode)
		b = appendInt(append(b, `,"request_size":`...), d.RequestSize)
		b = strconv.AppendBool(append(b, `,"dnssec_ok":`...), d.DNSSECOK)
		b = appendInt(append(b, `,"bufsize":`...), d.BufSize)
	}
	b = appendString(append(b, `,"rcode":`...), d.RCode)
	b = appendIntPtr(append(b, `,"response_size":`...), d.ResponseSize)
	return appendSeconds(append(b, `,"duration_seconds":`...), d.Duration)
}

func appendHops(b []byte, hops []Hop) []byte {
	b = append(b, `,"hops":[`...)
	for i := range hops {
		if i > 0 {
			b = append(b, ',')
		}
		h := &hops[i]
		b = appendString(append(b, `{"plugin":`...), h.Plugin)
		b = appendIntPtr(append(b, `,"parent":`...), h.Parent)
		b = h.Start.appendJSON(append(b, `,"start_seconds":`...))
		b = appendSeconds(append(b, `,"duration_seconds":`...), h.Duration)
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendAttempts(b []byte, attempts []Attempt) []byte {
	b = append(b, `,"upstreams":[`...)
	for i := range attempts {
		if i > 0 {
			b = append(b, ',')
		}
		b = attempts[i].appendJSON(b)
	}
	return append(b, ']')
}

func (a *Attempt) appendJSON(b []byte) []byte {
	if a == nil {
		return append(b, "null"...)
	}
	b = appendInt(append(b, `{"attempt":`...), a.Attempt)
	b = appendString(append(b, `,"address":`...), a.Address)
	b = a.Start.appendJSON(append(b, `,"start_seconds":`...))
	b = appendSeconds(append(b, `,"duration_seconds":`...), a.Duration)
	b = appendString(append(b, `,"outcome":`...), a.Outcome)
	b = appendString(append(b, `,"error":`...), a.Error)
	b = appendString(append(b, `,"plugin":`...), a.Plugin)
	if a.QName != "" {
		b = appendString(append(b, `,"qname":`...), a.QName)
	}
	if a.QType != "" {
		b = appendString(append(b, `,"qtype":`...), a.QType)
	}
	return append(b, '}')
}

func appendUpstreams(b []byte, upstreams []Upstream) []byte {
	b = append(b, '[')
	for i := range upstreams {
		if i > 0 {
			b = append(b, ',')
		}
		u := &upstreams[i]
		b = u.Attempt.appendJSON(append(b, `{"attempt":`...))
		b = append(b, `,"exchange":`...)
		if u.Exchange == nil {
			b = append(b, "null"...)
		} else {
			b = u.Exchange.AppendJSON(b)
		}
		if len(u.Earlier) > 0 {
			b = appendEarlier(append(b, `,"earlier":`...), u.Earlier)
		}
		b = appendString(append(b, `,"join":`...), u.Join)
		b = append(b, `,"query":`...)
		if u.Query == nil {
			b = append(b, "null"...)
		} else {
			b = u.Query.AppendJSON(b)
		}
		b = appendUpstreams(append(b, `,"upstreams":`...), u.Upstreams)
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendEarlier(b []byte, earlier []*Exchange) []byte {
	b = append(b, '[')
	for i, ex := range earlier {
		if i > 0 {
			b = append(b, ',')
		}
		b = ex.AppendJSON(b)
	}
	return append(b, ']')
}

func (f *Finding) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"code":`...), f.Code)
	b = appendString(append(b, `,"summary":`...), f.Summary)
	b = appendStrings(append(b, `,"evidence":`...), f.Evidence)
	b = appendString(append(b, `,"advice":`...), f.Advice)
	if f.InDoubt {
		b = append(b, `,"in_doubt":true`...)
	}
	return append(b, '}')
}

// appendString appends a JSON string, or null for the empty one. Bytes that are
// no UTF-8 become U+FFFD; a DNS name has none, being in presentation format.
func appendString(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return appendQuote(b, s)
}

// appendQuote appends a JSON string. Names and addresses are what they are in
// almost every record, plain ASCII, for which checking is faster than quoting.
func appendQuote(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			from := len(b)
			// The error reports invalid UTF-8, which has been replaced.
			b, _ = jsontext.AppendQuote(b, s)
			return append(b[:from], Plain(b[from:])...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendQuote(b, s)
	}
	return append(b, ']')
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = a.WithZone("").AppendTo(b)
	return append(b, '"')
}

func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = a.AppendTo(b)
	return append(b, '"')
}

func appendHex(b, id []byte) []byte {
	b = append(b, '"')
	for _, c := range id {
		pair := &hexPairs[c]
		b = append(b, pair[0], pair[1])
	}
	return append(b, '"')
}

func appendUint[T uint8 | uint16 | uint32](b []byte, n T) []byte {
	return strconv.AppendUint(b, uint64(n), 10)
}

func appendInt(b []byte, n int) []byte { return strconv.AppendInt(b, int64(n), 10) }

func appendIntPtr(b []byte, n *int) []byte {
	if n == nil {
		return append(b, "null"...)
	}
	return appendInt(b, *n)
}

func appendFloat(b []byte, f *float64) []byte {
	if f == nil {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, *f, 'f', -1, 64)
}

func appendSeconds(b []byte, s *Seconds) []byte {
	if s == nil {
		return append(b, "null"...)
	}
	return s.appendJSON(b)
}

// appendTime appends RFC 3339 in UTC with all nine digits, so that records sort
// as text. time.AppendFormat has no fast path for that, and the calendar is most of
// the work, so the text of the last second is reused.
func appendTime(b []byte, t time.Time) []byte {
	unix := t.Unix()
	last := lastSecond.Load()
	if last == nil || last.unix != unix {
		last = newSecond(unix)
		lastSecond.Store(last)
	}
	b = append(b, last.text[:]...)
	b = appendNine(b, uint32(t.Nanosecond()))
	return append(b, 'Z')
}

// second is the text of a second, with the dot after it.
type second struct {
	unix int64
	text [len("2006-01-02T15:04:05.")]byte
}

var lastSecond atomic.Pointer[second]

func newSecond(unix int64) *second {
	s := &second{unix: unix}
	time.Unix(unix, 0).UTC().AppendFormat(s.text[:0], "2006-01-02T15:04:05.")
	return s
}

// pairs are the numbers from 00 to 99, hexPairs the bytes in hexadecimal.
var pairs, hexPairs = func() (decimal [100][2]byte, hexadecimal [256][2]byte) {
	for i := range decimal {
		decimal[i] = [2]byte{'0' + byte(i/10), '0' + byte(i%10)}
	}
	for i := range hexadecimal {
		hex.Encode(hexadecimal[i][:], []byte{byte(i)})
	}
	return decimal, hexadecimal
}()

// appendNine appends the nine digits of a number of nanoseconds below a second.
func appendNine(b []byte, ns uint32) []byte {
	first, rest := ns/100_000_000, ns%100_000_000
	p, q, r, s := pairs[rest/1_000_000], pairs[rest/10_000%100], pairs[rest/100%100], pairs[rest%100]
	return append(b, '0'+byte(first), p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1])
}
