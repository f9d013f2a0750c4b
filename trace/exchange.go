package trace

import (
	"net/netip"
	"slices"
)

// Exchange is a query and its response on the wire, as one node saw them.
type Exchange struct {
	Header
	DNS
	ServerIP      netip.Addr `json:"server_ip"` // as the client addressed it
	ServerPort    uint16     `json:"server_port"`
	NAT           *NAT       `json:"nat"`
	Outcome       string     `json:"outcome"`
	Transmissions int        `json:"transmissions"`
	// Outstanding is how many other queries of the same client's address to the same server
	// waited for a response when this one was sent. JSON leaves out 0.
	Outstanding int         `json:"outstanding"`
	Path        Path        `json:"path"`
	Milestones  Milestones  `json:"milestones"`
	Drops       []Drop      `json:"drops"`    // in order of time
	Rejected    []Rejection `json:"rejected"` // in order of time
	Reset       *Reset      `json:"reset"`
	// ListenFull tells that the last SYN that reached its listener found no room in the queue
	// of connections, and was ignored. JSON leaves out false.
	ListenFull bool `json:"listen_full"`
	// ResentSegments is how often the server sent a segment of the response again, over TCP.
	// JSON leaves out 0.
	ResentSegments int `json:"resent_segments"`
	// Replaces tells that a record with the same trace_id and time was written before
	// this one, which went on: this is all of it. JSON leaves out false.
	Replaces  bool `json:"replaces"`
	Truncated bool `json:"truncated"` // the response had TC set
	// Respelled tells that the response has the name in other upper and lower case than the
	// query. JSON leaves out false.
	Respelled   bool      `json:"respelled"`
	Traceparent string    `json:"traceparent"`
	Client      *Endpoint `json:"client"`
	Server      *Endpoint `json:"server"`
	LostEvents  uint64    `json:"lost_events"`
	PathOmitted int       `json:"path_omitted"` // sightings that are not in Path, which had too many; JSON leaves out 0
	Node        string    `json:"node"`         // whose tracer saw it; empty: its name is unknown

	Flags         []string       `json:"flags"`        // set in the response: aa, tc, rd, ra, ad, cd
	AnswerCount   *int           `json:"answer_count"` // records in its answer section; nil: no response was seen
	Answers       []Answer       `json:"answers"`      // the addresses and aliases among them, as far as captured
	MinTTL        *uint32        `json:"min_ttl"`      // seconds, of the answers that were captured, whatever their type
	ExtendedError *ExtendedError `json:"extended_error"`
	ICMP          *ICMP          `json:"icmp"` // the first one about it
	Fragments     *Fragments     `json:"fragments"`

	Sample *float64 `json:"sample"` // as in Query
	// SampledInKernel tells that the programs chose it: packets with another sampling
	// hash, because the client has another address there, were left out. JSON leaves
	// out false.
	SampledInKernel bool `json:"sampled_in_kernel"`
}

// Incomplete tells whether packets of it may be missing, because the tracer lost some
// in its time, or did not see that the client has one address all the way, from which
// the kernel computes the sampling hash of each.
func (e *Exchange) Incomplete() bool {
	return e.LostEvents > 0 || e.SampledInKernel && (e.NAT == nil || e.NAT.ClientIP.IsValid())
}

// Clone returns a copy whose lists can be appended to, and whose parts can be
// replaced, without a change to e.
func (e *Exchange) Clone() *Exchange {
	c := *e
	c.Path = e.Path.Clone()
	c.Drops = slices.Clone(e.Drops)
	c.Rejected = slices.Clone(e.Rejected)
	return &c
}

// LastDrop returns the last drop, which decided; nil where there was none.
func (e *Exchange) LastDrop() *Drop {
	if len(e.Drops) == 0 {
		return nil
	}
	return &e.Drops[len(e.Drops)-1]
}

// AtClient tells whether it was seen where its client is: the query left a socket
// there, and did not come from beyond what is observed.
func (e *Exchange) AtClient() bool { return e.Milestones.Query.Left.Seen() }

// ClientPlace returns the namespace of the client, false where that was not seen. A query
// that was dropped before any device sent it shows it too, where its process is known, or
// where it had no device yet: only its sender's packets have none.
func (e *Exchange) ClientPlace() (Place, bool) {
	if d := e.droppedAtOnce(); d != nil && d.NetNS != 0 && !d.InSocket() && (e.Client != nil && e.Client.PID != 0 || d.IfName == "") {
		return d.Place(), true
	}
	return e.place(e.Milestones.Query.Left)
}

// droppedAtOnce returns the drop of a query that was not seen anywhere before; nil if
// there is none.
func (e *Exchange) droppedAtOnce() *Drop {
	if e.Path.Len() > 0 || len(e.Drops) == 0 || e.Drops[0].Message != MessageQuery {
		return nil
	}
	return &e.Drops[0]
}

// ServerPlace returns the namespace in which the server is: where its response left,
// else where the query arrived. False where neither was seen.
func (e *Exchange) ServerPlace() (Place, bool) {
	if p, ok := e.place(e.Milestones.Response.Left); ok {
		return p, true
	}
	return e.place(e.Milestones.Query.Arrived)
}

// Last returns the last sighting of a message up to some time after the first packet;
// false if there is none.
func (e *Exchange) Last(message string, until Seconds) (last Sighting, ok bool) {
	if i := e.Path.Last(message, until); i >= 0 {
		return e.Path.At(i), true
	}
	return Sighting{}, false
}
