package trace

import (
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Milestone says which sighting of an exchange's path shows that a message came as
// far as this. The zero value is [NotSeen].
type Milestone int16

// What a milestone is where no sighting shows it.
const (
	NotSeen       Milestone = 0  // it would have been seen, had it happened while nothing was lost
	NotObservable Milestone = -1 // the place, or the event on this kernel, is not observed: nothing follows from its absence
)

// MilestoneAt returns the milestone that the sighting with an index in the path shows.
func MilestoneAt(i int) Milestone { return Milestone(i + 1) }

// Seen tells whether a sighting shows it.
func (m Milestone) Seen() bool { return m > 0 }

// Index returns the index of the sighting in the path; -1 where none shows it.
func (m Milestone) Index() int {
	if m <= 0 {
		return -1
	}
	return int(m) - 1
}

// Progress is how far a message came. Of one that was sent several times it is the
// first that came so far.
type Progress struct {
	Left    Milestone `json:"left"`    // its sender sent it
	Arrived Milestone `json:"arrived"` // all of it reached the namespace of its receiver, at the socket where that is seen
	Read    Milestone `json:"read"`    // the receiving process took it out of its socket
}

// Milestones is how far the two messages of an exchange came. Of a response that was
// rejected or dropped at the client it is not said that it arrived.
type Milestones struct {
	Query    Progress `json:"query"`
	Response Progress `json:"response"`
}

// Of returns the progress of a message: query or response.
func (m *Milestones) Of(message string) *Progress {
	if message == MessageResponse {
		return &m.Response
	}
	return &m.Query
}

// Sighting returns the sighting that shows a milestone; false where none does.
func (e *Exchange) Sighting(m Milestone) (Sighting, bool) {
	if !e.has(m) {
		return Sighting{}, false
	}
	return e.Path.At(m.Index()), true
}

// has tells whether the path shows a milestone.
func (e *Exchange) has(m Milestone) bool { return m.Index() >= 0 && m.Index() < e.Path.Len() }

// place returns where a milestone was reached; false where that was not seen.
func (e *Exchange) place(m Milestone) (Place, bool) {
	if !e.has(m) {
		return Place{}, false
	}
	return e.Path.Place(m.Index()), true
}

// At returns when a milestone was reached; false where that was not seen.
func (e *Exchange) At(m Milestone) (time.Time, bool) {
	if !e.has(m) {
		return e.Time, false
	}
	return e.Time.Add(e.Path.Offset(m.Index()).Duration()), true
}

// checkMilestones refuses milestones that no sighting shows.
func (e *Exchange) checkMilestones() error {
	for _, p := range [...]*Progress{&e.Milestones.Query, &e.Milestones.Response} {
		for _, m := range [...]Milestone{p.Left, p.Arrived, p.Read} {
			if m.Index() >= e.Path.Len() {
				return fmt.Errorf("milestones: there is no sighting %d in the path", m.Index())
			}
		}
	}
	return nil
}

// notObservable is how JSON says [NotObservable].
const notObservable = "not_observable"

// appendJSON appends the milestones that are not [NotSeen].
func (m *Milestones) appendJSON(b []byte) []byte {
	b = m.Query.appendJSON(append(b, `{"query":`...))
	b = m.Response.appendJSON(append(b, `,"response":`...))
	return append(b, '}')
}

func (p *Progress) appendJSON(b []byte) []byte {
	b = append(b, '{')
	first := len(b)
	b = p.Left.appendMember(b, first, `"left":`)
	b = p.Arrived.appendMember(b, first, `"arrived":`)
	b = p.Read.appendMember(b, first, `"read":`)
	return append(b, '}')
}

func (m Milestone) appendMember(b []byte, first int, name string) []byte {
	if m == NotSeen {
		return b
	}
	b = append(separate(b, first), name...)
	if m == NotObservable {
		return append(b, `"`+notObservable+`"`...)
	}
	return appendInt(b, m.Index())
}

// MarshalJSONTo implements json.MarshalerTo.
func (m Milestone) MarshalJSONTo(enc *jsontext.Encoder) error {
	switch {
	case m == NotObservable:
		return enc.WriteToken(jsontext.String(notObservable))
	case m.Seen():
		return enc.WriteToken(jsontext.Int(int64(m.Index())))
	}
	return enc.WriteToken(jsontext.Null)
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (m *Milestone) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	switch token.Kind() {
	case 'n':
		*m = NotSeen
		return nil
	case '"':
		if token.String() == notObservable {
			*m = NotObservable
			return nil
		}
	case '0':
		if i, err := strconv.ParseUint(token.String(), 10, 16); err == nil && i < maxMilestone {
			*m = MilestoneAt(int(i))
			return nil
		}
	}
	return fmt.Errorf("expected the index of a sighting, null or %q, got %s", notObservable, token)
}

// maxMilestone bounds the index that a milestone holds.
const maxMilestone = 1<<15 - 1
