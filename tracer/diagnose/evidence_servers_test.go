package diagnose_test

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// serverSentences are those about servers: what they recorded, and how they answered.
var serverSentences = []sentence{
	form(`no query record of this lookup came`, func(c *claim, _ []string) bool { return c.t.Query == nil }),
	form(`CoreDNS never recorded it, though it records other queries`, func(c *claim, _ []string) bool {
		return c.t.Query == nil && strings.Contains(strings.Join(c.t.Gaps, "\n"), trace.GapNotRecorded)
	}),
	form(`CoreDNS recorded the query: (.+)`, func(c *claim, said []string) bool {
		return c.query(func(q *trace.Query) bool { return recordedSo(q, said[0]) })
	}),
	form(`CoreDNS's attempt (\d+) to (\S+) ended as (\w+)(?: after `+long+`)?(?:: (.+))?`, func(c *claim, said []string) bool {
		return c.attempt(func(at *trace.Attempt) bool {
			return at.Attempt == number(said[0]) && at.Address == said[1] && at.Outcome == said[2] && (said[3] == "" || spentPtr(at.Duration, said[3])) && at.Error == said[4]
		})
	}),
	form(`CoreDNS's attempt (\d+) to (\S+) ended as (\w+), and (\w+) passed the answer on: rcode (\w+)`, func(c *claim, said []string) bool {
		return c.attempt(func(at *trace.Attempt) bool {
			return at.Attempt == number(said[0]) && at.Address == said[1] && at.Outcome == said[2]
		}) &&
			c.query(func(q *trace.Query) bool { return q.AnsweredBy == said[3] && q.RCode == said[4] })
	}),
	form(`CoreDNS's attempt (\d+) to (\S+) took `+long, func(c *claim, said []string) bool {
		return c.attempt(func(at *trace.Attempt) bool {
			return at.Attempt == number(said[0]) && at.Address == said[1] && spentPtr(at.Duration, said[2])
		})
	}),
	form(`CoreDNS's own words: "?(.+?)"?`, func(c *claim, said []string) bool {
		return c.query(func(q *trace.Query) bool { return q.Error == said[0] })
	}),
	form(`CoreDNS's record of it starts `+long+` later and takes `+long, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			at, ok := ex.At(ex.Milestones.Query.Arrived)
			return ok && c.query(func(q *trace.Query) bool { return seconds(q.Time.Sub(at)) == said[0] && spentPtr(q.Duration, said[1]) })
		})
	}),
	form(`its packets were not observed`, func(c *claim, _ []string) bool {
		found := false
		eachUpstreamOf(c.t.Upstreams, func(u *trace.Upstream) { found = found || u.Exchange == nil })
		return found
	}),
	form(`that it belongs to this lookup is inferred from address, question and time`, func(c *claim, _ []string) bool {
		found := false
		eachUpstreamOf(c.t.Upstreams, func(u *trace.Upstream) { found = found || u.Exchange != nil && u.Join == trace.JoinInferred })
		return found
	}),
	form(addr+` port (\d+) answered (\w+) to (?:process (\S+) \()?`+addr+`\)? after `+long, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			return ex.ServerIP.String() == said[0] && int(ex.ServerPort) == number(said[1]) && ex.RCode == said[2] && ex.ClientIP.String() == said[4] &&
				(said[3] == "" || ex.Client != nil && ex.Client.Process == said[3]) && spentPtr(ex.Duration, said[5])
		})
	}),
	form(`the server's own words: extended error (\d+)(?: (.+))?`, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			return ex.ExtendedError != nil && int(ex.ExtendedError.Code) == number(said[0]) && strings.HasPrefix(said[1], ex.ExtendedError.Name)
		})
	}),
	form(`plugin (\w+) started `+long+` after the query was read; `+long+` of its time passed in it, not in plugins after it or upstream`, func(c *claim, said []string) bool {
		return c.query(func(q *trace.Query) bool {
			for i, h := range q.Hops {
				if h.Plugin == said[0] && spent(h.Start, said[1]) && ownTime(q, i, said[2]) {
					return true
				}
			}
			return false
		})
	}),
	form(`at the upstream, the response left `+long+` after the query had arrived; the way there and back took the other `+long, func(c *claim, said []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool {
			came, arrived := ex.Sighting(ex.Milestones.Query.Arrived)
			went, sent := ex.Sighting(ex.Milestones.Response.Left)
			return arrived && sent && spent(went.Offset-came.Offset, said[0]) && ex.Duration != nil && spent(*ex.Duration-(went.Offset-came.Offset), said[1])
		})
	}),
	form(`of the last (\d+) queries to it until ([\d:]+) UTC, (\d+) got no response or an error, (\d+) were answered`, func(c *claim, said []string) bool {
		failed, answered := c.outcomes()
		at := c.anyExchange(func(ex *trace.Exchange) bool { return ex.Time.UTC().Format("15:04:05") == said[1] })
		return at && number(said[0]) == number(said[2])+number(said[3]) && number(said[2]) <= failed && number(said[3]) <= answered && number(said[0]) > 0
	}),
	form(`(\d+) of the latest (\d+) names? that it was asked for had no answer for any type`, func(c *claim, said []string) bool {
		answered, failed := c.names()
		return failed == number(said[0]) && answered+failed == number(said[1])
	}),
	form(`within a minute it answered (\d+) of the latest (\d+) names? that it was asked for, with one type or another`, func(c *claim, said []string) bool {
		answered, failed := c.names()
		return answered == number(said[0]) && answered+failed == number(said[1])
	}),
	form(`(\S+) answered (\w+) of this name, last at ([\d:.]+) UTC`, func(c *claim, said []string) bool {
		to, said := said[0], said[1:]
		return c.anyExchange(func(ex *trace.Exchange) bool {
			return netip.AddrPortFrom(ex.ServerIP, ex.ServerPort).String() == to && ex.QName == c.t.QName && ex.QType == said[0] && ex.Outcome == trace.OutcomeAnswered && ex.Time.UTC().Format("15:04:05.000") == said[1]
		})
	}),
	form(`(\d+) quer(?:y|ies) to (\S+) for (\w+) of this name got no response meanwhile`, func(c *claim, said []string) bool {
		n := 0
		c.upstreamsSoFar(func(ex *trace.Exchange) {
			if ex.QName == c.t.QName && ex.QType == said[2] && netip.AddrPortFrom(ex.ServerIP, ex.ServerPort).String() == said[1] && ex.Outcome != trace.OutcomeAnswered {
				n++
			}
		})
		return n == number(said[0])
	}),
	form(`those were not refused; nothing else that it answered within a minute is known`, func(c *claim, _ []string) bool {
		return c.exchange(func(ex *trace.Exchange) bool { return ex.RCode == "REFUSED" })
	}),
	form(`within a minute, what it refused had at least (\d+) before it, and what it answered had no more`, func(c *claim, said []string) bool {
		ok := true
		c.anyExchange(func(ex *trace.Exchange) bool {
			switch {
			case ex.RCode == "REFUSED" && ex.Outstanding < number(said[0]), ex.RCode == "NOERROR" && ex.Outstanding > number(said[0]):
				ok = ex.ServerIP == c.t.Exchange.ServerIP
			}
			return false
		})
		return ok
	}),
	form(`the lookup of (\S+) (\S+) at ([\d:.]+) UTC failed \(trace (\w+)\): the upstream (\S+) answered (\w+)`, func(c *claim, said []string) bool {
		for _, t := range c.all {
			if t.TraceID.String() == said[3] && t.QName == said[0] && t.QType == said[1] && t.Query.Time.UTC().Format("15:04:05.000") == said[2] {
				return (&claim{t: t}).exchange(func(ex *trace.Exchange) bool {
					return fmt.Sprintf("%s:%d", ex.ServerIP, ex.ServerPort) == said[4] && ex.RCode == said[5]
				})
			}
		}
		return false
	}),
}

// recordedSo tells whether a record has all that a list of words says of it.
func recordedSo(q *trace.Query, words string) bool {
	caches := map[string]string{"cache hit": trace.CacheHit, "cache miss": trace.CacheMiss, "no cache on its way": trace.CacheNone, "cache stale": trace.CacheStale}
	for _, w := range strings.Split(words, ", ") {
		cache, isCache := caches[w]
		what, value, _ := strings.Cut(w, " ")
		switch {
		case isCache && q.Cache == cache:
		case w == "no response written" && q.RCode == "":
		case what == "outcome" && q.Outcome == value:
		case what == "rcode" && q.RCode == value:
		case what == "answered" && "by "+q.AnsweredBy == value:
		case what == "zone" && fmt.Sprintf("%q", q.Zone) == value:
		case what == "error" && fmt.Sprintf("%q", q.Error) == value:
		case strings.HasPrefix(value, "upstream attempt") && len(q.Upstreams) == number(what):
		default:
			return false
		}
	}
	return true
}

// ownTime tells whether a hop took so long without those that it called.
func ownTime(q *trace.Query, hop int, said string) bool {
	own := *q.Hops[hop].Duration
	for i := range q.Hops {
		if h := &q.Hops[i]; h.Parent != nil && *h.Parent == hop && h.Duration != nil {
			own -= *h.Duration
		}
	}
	return spent(own, said)
}

// outcomes counts the upstream queries of the case.
func (c *claim) outcomes() (failed, answered int) {
	for _, t := range c.all {
		eachUpstreamOf(t.Upstreams, func(u *trace.Upstream) {
			if u.Exchange != nil && u.Exchange.Outcome == trace.OutcomeAnswered && u.Exchange.RCode != "SERVFAIL" {
				answered++
			} else {
				failed++
			}
		})
	}
	return failed, answered
}

// upstreamsSoFar visits the upstream queries of the lookups up to the claim's own.
func (c *claim) upstreamsSoFar(visit func(*trace.Exchange)) {
	for _, t := range c.all {
		eachUpstreamOf(t.Upstreams, func(u *trace.Upstream) {
			if u.Exchange != nil {
				visit(u.Exchange)
			}
		})
		if t == c.t {
			return
		}
	}
}

// names counts the names that the upstream of the finding was asked for, and those of which
// it answered no type.
func (c *claim) names() (answered, failed int) {
	names := map[string]bool{}
	c.upstreamsSoFar(func(ex *trace.Exchange) {
		if strings.Contains(c.finding.Summary, ex.ServerIP.String()) {
			names[ex.QName] = names[ex.QName] || ex.Outcome == trace.OutcomeAnswered && (ex.RCode == "NOERROR" || ex.RCode == "NXDOMAIN")
		}
	})
	for _, is := range names {
		if is {
			answered++
		} else {
			failed++
		}
	}
	return answered, failed
}
