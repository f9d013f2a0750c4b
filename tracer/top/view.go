package top

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// View is what the lookups of a window add up to.
type View struct {
	From, To  time.Time     // the earliest lookup, and the end of the window
	Window    time.Duration // 0: everything
	Total     Total
	Late      uint64 // lookups that came when their time was over
	Clients   []Client
	Upstreams []Upstream
}

// Total is what all lookups add up to.
type Total struct {
	Lookups, Timeouts, Findings uint64
	Sampled                     uint64 // each stands for more, which were not recorded
}

func (t *Total) add(l *lookup) {
	t.Lookups++
	t.Timeouts += one(l.timeout)
	t.Findings += one(l.finding)
	t.Sampled += one(l.sampled)
}

func (t *Total) remove(l *lookup) {
	t.Lookups--
	t.Timeouts -= one(l.timeout)
	t.Findings -= one(l.finding)
	t.Sampled -= one(l.sampled)
}

func (t *Total) merge(o *Total) {
	t.Lookups += o.Lookups
	t.Timeouts += o.Timeouts
	t.Findings += o.Findings
	t.Sampled += o.Sampled
}

// Client is one row of the clients: a pod, else a container or an address with
// its process.
type Client struct {
	Client    string   `json:"client"`
	Lookups   uint64   `json:"lookups"`
	PerSecond float64  `json:"lookups_per_second"`
	Peak      uint64   `json:"lookups_in_busiest_second"`
	Timeouts  uint64   `json:"timeouts"`  // no response was seen
	Resent    uint64   `json:"resent"`    // queries sent again
	NXDomain  uint64   `json:"nxdomain"`  // answered: no such name
	Failed    uint64   `json:"failed"`    // answered: another code than NOERROR or NXDOMAIN
	Findings  uint64   `json:"diagnosed"` // lookups with a diagnosis
	Latency   *Latency `json:"latency"`   // of those answered; nil: none was
}

// Upstream is one row of the upstreams.
type Upstream struct {
	Upstream  string   `json:"upstream"`
	Health    string   `json:"health"`
	Attempts  uint64   `json:"attempts"`
	PerSecond float64  `json:"attempts_per_second"`
	Peak      uint64   `json:"attempts_in_busiest_second"`
	Timeouts  uint64   `json:"timeouts"`
	Failed    uint64   `json:"failed"` // refused, unreachable, or answered SERVFAIL and the like
	Resent    uint64   `json:"resent"`
	NXDomain  uint64   `json:"nxdomain"`
	Latency   *Latency `json:"latency"`
}

// Health of an upstream: what its attempts show.
const (
	HealthOK      = "ok"      // every attempt was answered
	HealthPartial = "partial" // but for those of some names, which it never answers, and it answers more than those
	HealthFailing = "failing" // some were not
	HealthDown    = "down"    // none was
)

// Latency of what was answered. The percentiles are within 1 % of the exact
// ones, the rest is exact.
type Latency struct {
	Min trace.Seconds `json:"min_seconds"`
	Avg trace.Seconds `json:"avg_seconds"`
	P50 trace.Seconds `json:"p50_seconds"`
	P99 trace.Seconds `json:"p99_seconds"`
	Max trace.Seconds `json:"max_seconds"`
}

// covered is how much time the lookups of the view are spread over, for rates.
func (v *View) covered() time.Duration {
	if v.From.IsZero() {
		return 0
	}
	return max(v.To.Sub(v.From), time.Second)
}

func rate(n uint64, over time.Duration) float64 {
	if over <= 0 {
		return 0
	}
	return float64(n) / over.Seconds()
}

func (s *sum) client(name string, covered time.Duration) Client {
	return Client{
		Client: name, Lookups: s.count, PerSecond: rate(s.count, covered), Peak: s.peak.most, Timeouts: s.timeouts, Resent: s.resent,
		NXDomain: s.negative, Failed: s.failed, Findings: s.findings, Latency: s.latency.summary(),
	}
}

func (s *sum) upstream(name string, covered time.Duration) Upstream {
	u := Upstream{
		Upstream: name, Attempts: s.count, PerSecond: rate(s.count, covered), Peak: s.peak.most, Timeouts: s.timeouts, Failed: s.failed,
		Resent: s.resent, NXDomain: s.negative, Latency: s.latency.summary(),
	}
	switch bad := s.timeouts + s.failed; {
	case bad == 0:
		u.Health = HealthOK
	case bad >= s.count:
		u.Health = HealthDown
	case bad == s.names.broken():
		u.Health = HealthPartial
	default:
		u.Health = HealthFailing
	}
	return u
}

// Key is what rows are sorted by.
type Key string

// Keys. Rows of equal key are in the order of volume, then of names.
const (
	ByTimeouts Key = "timeouts"
	ByVolume   Key = "lookups"
	ByPeak     Key = "peak"
	ByFailed   Key = "failed"
	ByMin      Key = "min"
	ByAvg      Key = "avg"
	ByP50      Key = "p50"
	ByP99      Key = "p99"
	ByMax      Key = "max"
	ByName     Key = "name"
)

// Keys lists the keys in the order of the columns.
func Keys() []Key {
	return []Key{ByName, ByVolume, ByPeak, ByTimeouts, ByFailed, ByMin, ByAvg, ByP50, ByP99, ByMax}
}

// Sort puts the largest first, the names in their order; reverse turns it round.
// Those without a latency come last in either case.
func (v *View) Sort(by Key, reverse bool) {
	slices.SortFunc(v.Clients, func(a, b Client) int {
		return compare(by, reverse, figures{a.Client, a.Lookups, a.Peak, a.Timeouts, a.Failed, a.Latency}, figures{b.Client, b.Lookups, b.Peak, b.Timeouts, b.Failed, b.Latency})
	})
	slices.SortFunc(v.Upstreams, func(a, b Upstream) int {
		return compare(by, reverse, figures{a.Upstream, a.Attempts, a.Peak, a.Timeouts, a.Failed, a.Latency}, figures{b.Upstream, b.Attempts, b.Peak, b.Timeouts, b.Failed, b.Latency})
	})
}

// figures are what a row may be sorted by.
type figures struct {
	name                           string
	volume, peak, timeouts, failed uint64
	latency                        *Latency
}

func compare(by Key, reverse bool, a, b figures) int {
	order := 0
	switch by {
	case ByName:
		order = strings.Compare(a.name, b.name)
	case ByVolume:
		order = cmp.Compare(b.volume, a.volume)
	case ByPeak:
		order = cmp.Compare(b.peak, a.peak)
	case ByTimeouts:
		order = cmp.Compare(b.timeouts, a.timeouts)
	case ByFailed:
		order = cmp.Compare(b.failed, a.failed)
	default:
		if (a.latency == nil) != (b.latency == nil) {
			if a.latency == nil {
				return 1
			}
			return -1
		}
		if a.latency != nil {
			order = cmp.Compare(b.latency.of(by), a.latency.of(by))
		}
	}
	if reverse {
		order = -order
	}
	return cmp.Or(order, cmp.Compare(b.volume, a.volume), strings.Compare(a.name, b.name))
}

func (l *Latency) of(by Key) trace.Seconds {
	switch by {
	case ByMin:
		return l.Min
	case ByAvg:
		return l.Avg
	case ByP50:
		return l.P50
	case ByP99:
		return l.P99
	}
	return l.Max
}
