package trace

import (
	"bytes"
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// decoded is a record in one allocation with what almost every one has.
type decoded struct {
	record Query
	parent SpanID
	size   int
	took   Seconds
}

// decodeQuery reads a query record as [Query.AppendJSON] writes it: these members, in
// this order. A server sends one for each lookup, and this takes a tenth of the time of a
// general JSON decoder. Nil says that it is written in another way, or wrong: the general
// decoder decides.
func decodeQuery(line []byte) *Query {
	r := written{rest: line}
	d := new(decoded)
	q := &d.record
	q.V, q.Record = Version, KindQuery
	r.member(`{"v":1,"record":"query","time":`)
	r.time(&q.Time)
	r.member(`,"trace_id":`)
	r.id(q.TraceID[:])
	r.member(`,"flow":`)
	r.id(q.Flow[:])
	r.question(d)
	r.member(`,"span_id":`)
	r.id(q.SpanID[:])
	r.member(`,"parent_span_id":`)
	if !r.null() {
		q.ParentSpanID = &d.parent
		r.id(d.parent[:])
	}
	r.member(`,"server_ip":`)
	q.ServerIP = r.addr()
	r.member(`,"server_port":`)
	q.ServerPort = uint16(r.number(1<<16 - 1))
	for _, m := range [...]struct {
		name string
		to   *string
	}{{`,"zone":`, &q.Zone}, {`,"cache":`, &q.Cache}, {`,"answered_by":`, &q.AnsweredBy}, {`,"outcome":`, &q.Outcome}, {`,"error":`, &q.Error}} {
		r.member(m.name)
		*m.to = r.string()
	}
	q.Hops = r.hops()
	q.Upstreams = r.attempts()
	r.member(`,"stamped":`)
	q.Stamped = r.bool()
	r.member(`,"sample":`)
	q.Sample = r.share()
	r.member(`}`)
	if r.failed || len(r.rest) > 0 {
		return nil
	}
	return q
}

// written is the rest of a record that is read in the order in which it was written. After a
// failure its results are meaningless.
type written struct {
	rest   []byte
	failed bool
}

// begins passes over what comes next, if it is that.
func (r *written) begins(with string) bool {
	if len(r.rest) < len(with) || string(r.rest[:len(with)]) != with {
		return false
	}
	r.rest = r.rest[len(with):]
	return true
}

// member passes over the name of a member, and what stands between.
func (r *written) member(name string) { r.failed = !r.begins(name) || r.failed }

func (r *written) null() bool { return r.begins("null") }

func (r *written) bool() bool {
	if r.begins("true") {
		return true
	}
	r.member("false")
	return false
}

// quoted returns the inside of a string in which nothing is escaped.
func (r *written) quoted() []byte {
	if !r.begins(`"`) {
		r.failed = true
		return nil
	}
	for i, c := range r.rest {
		switch {
		case c == '"':
			inside := r.rest[:i]
			r.rest = r.rest[i+1:]
			return inside
		case c < ' ' || c > '~' || c == '\\':
			r.failed = true
			return nil
		}
	}
	r.failed = true
	return nil
}

func (r *written) id(id []byte) {
	if inside := r.quoted(); r.failed || unhex(id, inside) != nil {
		r.failed = true
	}
}

func (r *written) time(t *time.Time) {
	inside := r.quoted()
	const form = "2006-01-02T15:04:05.999999999Z"
	if r.failed || len(inside) != len(form) || inside[19] != '.' || inside[29] != 'Z' || t.UnmarshalText(inside) != nil {
		r.failed = true
	}
}

// string returns a string, or the empty one for null.
func (r *written) string() string {
	if r.null() {
		return ""
	}
	return intern(r.quoted())
}

func (r *written) addr() (a netip.Addr) {
	if r.null() {
		return a
	}
	a, err := netip.ParseAddr(r.string())
	r.failed = r.failed || err != nil
	return a
}

// number returns an integer from 0 to limit.
func (r *written) number(limit uint64) (n uint64) {
	digits := 0
	for digits < len(r.rest) && '0' <= r.rest[digits] && r.rest[digits] <= '9' {
		n = n*10 + uint64(r.rest[digits]-'0')
		digits++
	}
	if digits == 0 || digits > 18 || digits > 1 && r.rest[0] == '0' || n > limit {
		r.failed = true
		return 0
	}
	r.rest = r.rest[digits:]
	return n
}

// maxWrittenSeconds is up to which number of seconds [Seconds.UnmarshalJSON], which
// counts in binary fractions, is exact to the nanosecond.
const maxWrittenSeconds = 1e6

func (r *written) seconds() Seconds {
	negative := r.begins("-")
	ns := int64(r.number(maxWrittenSeconds)) * 1e9
	if r.begins(".") {
		digits := 0
		for unit := int64(1e8); digits < len(r.rest) && '0' <= r.rest[digits] && r.rest[digits] <= '9'; unit /= 10 {
			ns += int64(r.rest[digits]-'0') * unit
			digits++
		}
		r.failed = r.failed || digits == 0 || digits > 9
		r.rest = r.rest[digits:]
	}
	if negative {
		return Seconds(-ns)
	}
	return Seconds(ns)
}

// share returns a number from 0 to 1, nil for null.
func (r *written) share() *float64 {
	if r.null() {
		return nil
	}
	end := max(0, bytes.IndexByte(r.rest, '}'))
	text := string(r.rest[:end])
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || string(appendFloat(nil, &f)) != text {
		r.failed = true
		return nil
	}
	r.rest = r.rest[end:]
	return &f
}

func (r *written) question(into *decoded) {
	d := &into.record.DNS
	r.member(`,"client_ip":`)
	d.ClientIP = r.addr()
	r.member(`,"client_port":`)
	d.ClientPort = uint16(r.number(1<<16 - 1))
	r.member(`,"qname":`)
	d.QName = r.string()
	r.member(`,"qtype":`)
	d.QType = r.string()
	r.member(`,"qclass":`)
	d.QClass = r.string()
	r.member(`,"protocol":`)
	d.Protocol = r.string()
	r.member(`,"id":`)
	d.ID = uint16(r.number(1<<16 - 1))
	r.member(`,"opcode":`)
	d.Opcode = int(r.number(1<<31 - 1))
	r.member(`,"request_size":`)
	d.RequestSize = int(r.number(1<<31 - 1))
	r.member(`,"dnssec_ok":`)
	d.DNSSECOK = r.bool()
	r.member(`,"bufsize":`)
	d.BufSize = int(r.number(1<<31 - 1))
	r.member(`,"rcode":`)
	d.RCode = r.string()
	r.member(`,"response_size":`)
	if !r.null() {
		into.size = int(r.number(1<<31 - 1))
		d.ResponseSize = &into.size
	}
	r.member(`,"duration_seconds":`)
	if !r.null() {
		into.took = r.seconds()
		d.Duration = &into.took
	}
}

// maxHops is how many a record may have to be read so: there are some sixty plugins.
const maxHops = 64

func (r *written) hops() []Hop {
	r.member(`,"hops":[`)
	// What the pointers of all hops point to, in one piece each.
	var hops [maxHops]Hop
	var parents [maxHops]int
	var durations [maxHops]Seconds
	n := 0
	for ; !r.failed && !r.begins("]"); n++ {
		if n == maxHops {
			r.failed = true
			break
		}
		if n > 0 {
			r.member(",")
		}
		r.member(`{"plugin":`)
		hops[n].Plugin = r.string()
		r.member(`,"parent":`)
		parents[n] = none
		if !r.null() {
			parents[n] = int(r.number(1<<31 - 1))
		}
		r.member(`,"start_seconds":`)
		hops[n].Start = r.seconds()
		r.member(`,"duration_seconds":`)
		durations[n] = none
		if !r.null() {
			durations[n] = r.seconds()
			r.failed = r.failed || durations[n] < 0
		}
		r.member("}")
	}
	return pointing(hops[:n], parents[:n], durations[:n])
}

// none stands for null in a list of numbers that are not negative.
const none = -1

// pointing copies the hops of a record, which point to copies of what is not none.
func pointing(from []Hop, parents []int, durations []Seconds) []Hop {
	hops := append(make([]Hop, 0, len(from)), from...)
	ofParents, ofDurations := slices.Clone(parents), slices.Clone(durations)
	for i := range hops {
		if parents[i] != none {
			hops[i].Parent = &ofParents[i]
		}
		if durations[i] != none {
			hops[i].Duration = &ofDurations[i]
		}
	}
	return hops
}

func (r *written) attempts() []Attempt {
	r.member(`,"upstreams":[`)
	attempts := []Attempt{}
	for !r.failed && !r.begins("]") {
		if len(attempts) > 0 {
			r.member(",")
		}
		var a Attempt
		r.member(`{"attempt":`)
		a.Attempt = int(r.number(1<<31 - 1))
		r.member(`,"address":`)
		a.Address = r.string()
		r.member(`,"start_seconds":`)
		a.Start = r.seconds()
		r.member(`,"duration_seconds":`)
		if !r.null() {
			took := r.seconds()
			a.Duration = &took
		}
		r.member(`,"outcome":`)
		a.Outcome = r.string()
		r.member(`,"error":`)
		a.Error = r.string()
		r.member(`,"plugin":`)
		a.Plugin = r.string()
		if r.begins(`,"qname":`) {
			a.QName = r.string()
		}
		if r.begins(`,"qtype":`) {
			a.QType = r.string()
		}
		r.member("}")
		attempts = append(attempts, a)
	}
	return attempts
}

// interned are texts that came before, by their hash: most come again with every record,
// as the names of plugins and zones. Safe for concurrent use.
var (
	interned [1 << 10]atomic.Pointer[string]
	seed     = maphash.MakeSeed()
)

// maxInterned bounds what interned holds to some 64 KiB.
const maxInterned = 64

func intern(b []byte) string {
	if len(b) == 0 || len(b) > maxInterned {
		return string(b)
	}
	at := &interned[maphash.Bytes(seed, b)%uint64(len(interned))]
	if known := at.Load(); known != nil && *known == string(b) {
		return *known
	}
	s := string(b)
	at.Store(&s)
	return s
}
