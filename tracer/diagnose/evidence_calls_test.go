package diagnose_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// callSentences are those about the lookups of one call, and what is general.
var callSentences = []sentence{
	form(`and (\d+) more like these`, func(c *claim, said []string) bool {
		names := len(c.finding.Evidence) - 1
		for _, e := range c.finding.Evidence {
			if !strings.HasPrefix(e, "it was asked for ") && !strings.Contains(e, "more like these") {
				names--
			}
		}
		return strings.Contains(c.finding.Summary, fmt.Sprintf("at least %d times", names+number(said[0])))
	}),
	form(`answered (\w+): (\S+)(?:, `+long+` after the first query| ([0-9a-f.: ]+))?`, func(c *claim, said []string) bool {
		return c.inAll(func(t *trace.Trace) bool {
			return t.QName == said[1] && t.RCode == said[0] && (said[2] == "" || c.sinceFirst(t, said[2])) && (said[3] == "" || answersAre(t, said[3]))
		})
	}),
	form(`the search suffix (\S+) answered, so that (\S+) itself was never asked`, func(c *claim, said []string) bool {
		return strings.HasSuffix(c.t.QName, "."+said[0]) && strings.HasPrefix(c.t.QName, said[1]) && !c.askedInCall(said[1])
	}),
	form(`no lookup of (\S+) itself is of this call`, func(c *claim, said []string) bool { return !c.askedInCall(said[0]) }),
	form(`(\S+) is of this client's search list: another call went through it`, func(c *claim, said []string) bool {
		return c.inAll(func(t *trace.Trace) bool { return strings.HasSuffix(t.QName, "."+said[0]) })
	}),
	form(`the suffix answered the same for (\S+), `+long+` before`, func(c *claim, said []string) bool {
		return c.inAll(func(t *trace.Trace) bool {
			return strings.HasPrefix(t.QName, said[0]) && t.QType == c.t.QType && t.Exchange != nil && t.Role == "" && seconds(c.t.Time.Sub(t.Time)) == said[1]
		})
	}),
	form(`(\S+) (\w+) was answered (\w+) with (\d+) records? by `+addr+` \(DNS ID `+id+`, trace (\w+)\)`, func(c *claim, said []string) bool {
		return c.anyExchange(func(ex *trace.Exchange) bool {
			return ex.TraceID.String() == said[6] && ex.QName == said[0] && ex.QType == said[1] && ex.RCode == said[2] && ex.AnswerCount != nil &&
				*ex.AnswerCount == number(said[3]) && ex.ServerIP.String() == said[4] && ex.ID == hexID(said[5])
		})
	}),
	form(`its client got (\d+) records? for (\w+): musl fails unless asking again helps, glibc and Go take the address`, func(c *claim, said []string) bool {
		return c.inAll(func(t *trace.Trace) bool {
			return t.QName == c.t.QName && t.Exchange.ClientIP == c.t.Exchange.ClientIP && t.QType == said[1] && t.RCode == "NOERROR" && *t.Exchange.AnswerCount == number(said[0])
		})
	}),
	form(`that they are one call is judged by process, socket, names and times: resolution (\w+)`, func(c *claim, said []string) bool {
		return c.t.Resolution == said[0] && c.t.ResolutionJoin == trace.JoinInferred
	}),
	form(`the response over UDP, DNS ID `+id+`, had (\d+) bytes and TC set \(trace (\w+)\)`, func(c *claim, said []string) bool {
		return c.anyExchange(func(ex *trace.Exchange) bool {
			return ex.Truncated && ex.Protocol == "udp" && ex.ID == hexID(said[0]) && *ex.ResponseSize == number(said[1]) && ex.TraceID.String() == said[2]
		})
	}),
	form(`the same question left over TCP `+long+` later: (\w+) with (\d+) bytes`, func(c *claim, said []string) bool {
		ex := c.t.Exchange
		return ex.Protocol == "tcp" && ex.Outcome == said[1] && *ex.ResponseSize == number(said[2]) && c.inAll(func(t *trace.Trace) bool {
			return t.QName == ex.QName && t.Exchange.Truncated && afterEnd(t, ex.Time, said[0])
		})
	}),
	form(`the response over UDP for (\S+) (\w+) had TC set `+long+` before: the client asks again over TCP \(trace (\w+)\)`, func(c *claim, said []string) bool {
		return c.inAll(func(t *trace.Trace) bool {
			return t.TraceID.String() == said[3] && t.QName == said[0] && t.QType == said[1] && t.Exchange.Truncated && afterEnd(t, c.t.Time, said[2])
		})
	}),
	form(`the response, DNS ID `+id+`, had TC set and (.+) in its answer`, func(c *claim, said []string) bool {
		ex := c.t.Exchange
		what := "nothing"
		if *ex.AnswerCount > 0 {
			what = strings.TrimSuffix(fmt.Sprintf("%d records", *ex.AnswerCount), "s")
		}
		return ex.Truncated && ex.ID == hexID(said[0]) && strings.HasPrefix(said[1], what)
	}),
	form(`(?:process (\S+) \(`+addr+`\)|`+addr+`) asked nothing over TCP, and for no larger answer, within 1 s of it`, func(c *claim, said []string) bool {
		ex := c.t.Exchange
		ends := ex.Time.Add(ex.Duration.Duration())
		return ex.ClientIP.String() == said[1]+said[2] && (said[0] == "" || ex.Client.Process == said[0]) && !c.inAll(func(t *trace.Trace) bool {
			return t != c.t && t.Exchange != nil && t.QName == c.t.QName && t.Exchange.ClientIP == ex.ClientIP && t.Exchange.Protocol == "tcp" &&
				!t.Time.Before(ends) && t.Time.Sub(ends) < time.Second
		})
	}),
	form(`no connection, no question: what the client wanted to ask is not known`, func(c *claim, _ []string) bool { return c.t.Exchange.Connects() }),
	form(`the (\w+) query for the same name, DNS ID `+id+`, left port (\d+) `+long+` apart and was answered \(trace (\w+)\)`, func(c *claim, said []string) bool {
		return c.inAll(func(t *trace.Trace) bool {
			return t.TraceID.String() == said[4] && t.QType == said[0] && t.QName == c.t.QName && t.Exchange.ID == hexID(said[1]) &&
				int(t.Exchange.ClientPort) == number(said[2]) && apart(c.t, t, said[3]) && t.Outcome == trace.OutcomeAnswered
		})
	}),
	form(`a rule that drops (?:just one of the two at that hook|it there by chance) looks the same.+`, func(*claim, []string) bool { return true }),
}

// inAll tells whether a lookup of the case is like this.
func (c *claim) inAll(like func(*trace.Trace) bool) bool {
	for _, t := range c.all {
		if like(t) {
			return true
		}
	}
	return false
}

// askedInCall tells whether a name was asked for in the call of the claim's lookup.
func (c *claim) askedInCall(name string) bool {
	return c.inAll(func(t *trace.Trace) bool {
		return t.QName == name && t.Resolution != "" && t.Resolution == c.t.Resolution
	})
}

// sinceFirst tells whether the response of a lookup came so long after the first query of its call.
func (c *claim) sinceFirst(t *trace.Trace, said string) bool {
	first := t.Time
	for _, other := range c.all {
		if other.Resolution == c.t.Resolution && other.Time.Before(first) {
			first = other.Time
		}
	}
	return seconds(lastOf(t).Sub(first)) == said
}

// answersAre tells whether the answer of a lookup has the addresses that are said.
func answersAre(t *trace.Trace, said string) bool {
	for _, want := range strings.Fields(said) {
		found := false
		for _, a := range t.Exchange.Answers {
			found = found || a.Value == want
		}
		if !found {
			return false
		}
	}
	return true
}

// lastOf is when the response of a lookup came, or its query left.
func lastOf(t *trace.Trace) time.Time {
	if t.Exchange != nil && t.Exchange.Duration != nil {
		return t.Exchange.Time.Add(t.Exchange.Duration.Duration())
	}
	return t.Time
}

// afterEnd tells whether something happened so long after the response of a lookup.
func afterEnd(t *trace.Trace, at time.Time, said string) bool {
	return seconds(at.Sub(lastOf(t))) == said
}

// apart tells whether two lookups began, or one began after the other was answered, so far
// from each other.
func apart(a, b *trace.Trace, said string) bool {
	return seconds(a.Time.Sub(b.Time).Abs()) == said || seconds(a.Time.Sub(lastOf(b)).Abs()) == said
}
