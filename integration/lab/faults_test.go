package lab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// short is how long a lookup is waited for that is to get no answer.
const short = 300 * time.Millisecond

// dropped is how many packets the rules of the lab's own making have dropped at
// a place, over both families.
func dropped(t *testing.T, l *Lab, place Place) (packets int) {
	t.Helper()
	for _, command := range []string{"iptables", "ip6tables"} {
		out, err := l.Run(t.Context(), Spec{Name: "list", Host: place.Host, Path: command,
			Args: []string{"-w", "-t", place.Table, "-L", place.Chain, "-v", "-x", "-n"}})
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out) {
			if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "DROP" {
				n, err := strconv.Atoi(fields[0])
				if err != nil {
					t.Fatal(err)
				}
				packets += n
			}
		}
	}
	return packets
}

func TestDropAt(t *testing.T) {
	t.Parallel()
	l, s := newLab(t, Config{})
	for _, c := range []struct {
		place    Place
		messages Messages
	}{
		{ClientOutput("client-a"), Queries},
		{NodeRawPrerouting, Queries},
		{NodeManglePrerouting, Queries},
		{NodeForward, Queries},
		{NodePostrouting, Queries},
		{ServerInput, Queries},
		{ServerOutput, Responses},
		{NodeRawPrerouting, Responses},
		{NodeForward, Responses},
		{NodePostrouting, Responses},
		{ClientInput("client-a"), Responses},
	} {
		t.Run(fmt.Sprintf("%s %s %s/%d", c.place.Host, c.place.Table, c.place.Chain, c.messages), func(t *testing.T) {
			s.Forget()
			undo, err := l.DropAt(c.place, Match{Messages: c.messages})
			if err != nil {
				t.Fatal(err)
			}
			for way, err := range askEveryWay(t, l, 500*time.Millisecond) {
				own := c.place == ClientOutput("client-a") && errors.Is(err, syscall.EPERM)
				if !own && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: %v, want no answer in time", way, err)
				}
			}
			if n := dropped(t, l, c.place); n < 4 {
				t.Errorf("the rules dropped %d packets", n)
			}
			// Over TCP a lost response is the handshake's.
			want := 0
			if c.messages == Responses {
				want = 2
			}
			if got := s.Received(); len(got) != want {
				t.Errorf("the server received %+v", got)
			}
			undo()
			undo()
			for way, err := range askEveryWay(t, l, 0) {
				if err != nil {
					t.Errorf("%s, after undo: %v", way, err)
				}
			}
		})
	}
}

// askEveryWay makes a lookup from client-a over each way to the Service, all at
// once, and returns their errors by the way's name.
func askEveryWay(t *testing.T, l *Lab, timeout time.Duration) map[string]error {
	t.Helper()
	errs := make(map[string]error)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, w := range ways {
		wg.Go(func() {
			_, err := l.Client("client-a").Exchange(t.Context(), Query{
				Name: w.name + ".test", Network: w.network, Server: w.server, Timeout: timeout,
			})
			mu.Lock()
			defer mu.Unlock()
			errs[w.name] = err
		})
	}
	wg.Wait()
	return errs
}

func TestDropMatches(t *testing.T) {
	t.Parallel()
	l, _ := newLab(t, Config{})
	lookups := map[string]struct {
		host  string
		query Query
	}{
		"udp4":     {"client-a", Query{Name: "x.test"}},
		"tcp4":     {"client-a", Query{Name: "x.test", Network: "tcp"}},
		"udp6":     {"client-a", Query{Name: "x.test", Server: ServiceV6}},
		"named":    {"client-a", Query{Name: "NAMED.test"}},
		"upstream": {CoreDNS, Query{Name: "x.test", Server: l.Upstream(0).V4()}},
	}
	for _, c := range []struct {
		name    string
		match   Match
		dropped string
	}{
		{"all", Match{}, "udp4 tcp4 udp6 named upstream"},
		{"udp", Match{Network: "udp"}, "udp4 udp6 named upstream"},
		{"tcp", Match{Network: "tcp"}, "tcp4"},
		{"ipv6", Match{Family: 6}, "udp6"},
		{"ipv4", Match{Family: 4}, "udp4 tcp4 named upstream"},
		{"client leg", Match{Leg: ClientLeg}, "udp4 tcp4 udp6 named"},
		{"upstream leg", Match{Leg: UpstreamLeg, Messages: Queries}, "upstream"},
		{"upstream leg back", Match{Leg: UpstreamLeg, Messages: Responses}, "upstream"},
		{"name", Match{Name: "nAmed.test"}, "named"},
		{"extra", Match{Extra: []string{"-m", "length", "--length", "9000:"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			undo, err := l.DropAt(NodeForward, c.match)
			if err != nil {
				t.Fatal(err)
			}
			defer undo()
			var wg sync.WaitGroup
			for what, lookup := range lookups {
				wg.Go(func() {
					lookup.query.Timeout = time.Second
					_, err := l.Client(lookup.host).Exchange(t.Context(), lookup.query)
					if want := strings.Contains(c.dropped, what); (err != nil) != want {
						t.Errorf("%s: %v, want dropped: %v", what, err, want)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestDropByNameOverTCP(t *testing.T) {
	l, _ := newLab(t, Config{})
	undo, err := l.DropAt(ServerInput, Match{Network: "tcp", Name: "named.test", Messages: Queries})
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	c := l.Client("client-a")
	if _, err := c.Exchange(t.Context(), Query{Name: "other.test", Network: "tcp"}); err != nil {
		t.Error(err)
	}
	// The handshake succeeds, so the client has a port.
	r, err := c.Exchange(t.Context(), Query{Name: "named.test", Network: "tcp", Timeout: short})
	if !errors.Is(err, os.ErrDeadlineExceeded) || !r.Local.IsValid() {
		t.Errorf("result %+v", r)
	}
}

func TestRuleAtRejects(t *testing.T) {
	l, _ := newLab(t, Config{})
	undo, err := l.RuleAt(NodeForward, Match{Messages: Queries, Family: 4}, "-j", "REJECT")
	if err != nil {
		t.Fatal(err)
	}
	defer undo()
	if _, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "x.test"}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("lookup: %v, want connection refused", err)
	}
	if _, err := l.DropAt(Place{Node, "filter", "NOWHERE"}, Match{}); err == nil || !strings.Contains(err.Error(), "NOWHERE") {
		t.Errorf("a rule in no chain: %v", err)
	}
}

func TestSilentUpstream(t *testing.T) {
	l, _ := newLab(t, Config{})
	undo := l.SilentUpstream(0, "quiet.test")
	c := l.Client(CoreDNS)
	ask := func(i int, name string, timeout time.Duration) error {
		_, err := c.Exchange(t.Context(), Query{Name: name, Server: l.Upstream(i).V4(), Timeout: timeout})
		return err
	}
	if err := ask(0, "a.quiet.test", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silent upstream: %v", err)
	}
	if len(l.Upstream(0).Received("a.quiet.test")) != 1 {
		t.Error("the silent upstream did not get the query")
	}
	if err := errors.Join(ask(0, "loud.test", 0), ask(1, "a.quiet.test", 0)); err != nil {
		t.Error(err)
	}
	undo()
	if err := ask(0, "a.quiet.test", 0); err != nil {
		t.Errorf("after undo: %v", err)
	}
}

func TestNoListener(t *testing.T) {
	l, s := newLab(t, Config{})
	undo, err := l.NoListener(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ways {
		_, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "x.test", Network: w.network, Server: w.server})
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, want connection refused", w.name, err)
		}
	}
	undo()
	if _, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "x.test"}); err != nil {
		t.Errorf("after undo: %v", err)
	}
}

func TestClosedClientPort(t *testing.T) {
	l, s := newLab(t, Config{})
	defer s.Set("late.test", Behaviour{Delay: 50 * time.Millisecond})()
	noPorts := func() int {
		out, err := l.Run(t.Context(), Spec{Name: "snmp", Host: "client-a", Path: "cat", Args: []string{"/proc/net/snmp"}})
		if err != nil {
			t.Fatal(err)
		}
		// The second line of UDP: InDatagrams NoPorts …
		_, after, _ := strings.Cut(out, "\nUdp: InDatagrams")
		_, values, _ := strings.Cut(after, "\nUdp: ")
		n, err := strconv.Atoi(strings.Fields(values)[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := noPorts()
	undo := l.ClosedClientPort("client-a")
	if _, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "a.late.test"}); !errors.Is(err, ErrGaveUp) {
		t.Errorf("lookup: %v", err)
	}
	if _, err := l.Client("client-b").Exchange(t.Context(), Query{Name: "b.late.test"}); err != nil {
		t.Errorf("another client: %v", err)
	}
	if len(s.Received("a.late.test")) != 1 {
		t.Error("the query did not arrive")
	}
	after := noPorts()
	for range 100 {
		if after > before {
			break
		}
		time.Sleep(10 * time.Millisecond)
		after = noPorts()
	}
	if after != before+1 {
		t.Errorf("%d datagrams met a closed port", after-before)
	}
	undo()
	if _, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "c.late.test"}); err != nil {
		t.Errorf("after undo: %v", err)
	}
	// Giving up while the answer is on its way, but not at once.
	r, err := l.Client("client-a").Exchange(t.Context(), Query{Name: "d.late.test", GiveUpAfter: 20 * time.Millisecond})
	if !errors.Is(err, ErrGaveUp) || r.Latency < 20*time.Millisecond {
		t.Errorf("result %+v", r)
	}
}

func TestBehaviours(t *testing.T) {
	l, s := newLab(t, Config{Clients: []string{"client-a"}})
	for zone, b := range map[string]Behaviour{
		"nx.test":     {Rcode: dns.RcodeNameError},
		"fail.test":   {Rcode: dns.RcodeServerFailure},
		"refuse.test": {Rcode: dns.RcodeRefused},
		"slow.test":   {Delay: 80 * time.Millisecond},
		"tc.test":     {Truncated: true},
		"large.test":  {Size: 3000, TTL: 7},
	} {
		s.Set(zone, b)
	}
	ask := func(q Query) Result {
		r, err := l.Client("client-a").Exchange(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for name, rcode := range map[string]int{"nx.test": 3, "a.b.nx.test": 3, "fail.test": 2, "refuse.test": 5, "notnx.test": 0} {
		if r := ask(Query{Name: name}); r.Rcode() != rcode || (rcode != 0) != (len(r.Answer.Answer) == 0) {
			t.Errorf("%s: %v", name, r.Answer)
		}
	}
	if r := ask(Query{Name: "nx.test"}); len(r.Answer.Ns) != 1 {
		t.Errorf("NXDOMAIN without SOA: %v", r.Answer)
	}
	if r := ask(Query{Name: "slow.test"}); r.Latency < 80*time.Millisecond {
		t.Errorf("slow took %v", r.Latency)
	}
	if r := ask(Query{Name: "tc.test"}); !r.Answer.Truncated || len(r.Answer.Answer) > 0 {
		t.Errorf("truncated: %v", r.Answer)
	}
	if r := ask(Query{Name: "tc.test", Network: "tcp"}); r.Answer.Truncated || len(r.Answer.Answer) != 1 {
		t.Errorf("the same over TCP: %v", r.Answer)
	}
	if r := ask(Query{Name: "large.test"}); r.Answer.Len() < 3000 || r.Answer.Answer[0].Header().Ttl != 7 {
		t.Errorf("large: %d bytes", r.Answer.Len())
	}
	if r := ask(Query{Name: "Some.Text.test", Type: dns.TypeTXT}); r.Answer.Answer[0].(*dns.TXT).Txt[0] != "some.text.test." {
		t.Errorf("TXT: %v", r.Answer)
	}
	if r := ask(Query{Name: "v6.test", Type: dns.TypeAAAA}); !r.Answer.Answer[0].(*dns.AAAA).AAAA.Equal(AddrAAAA("V6.test").AsSlice()) {
		t.Errorf("AAAA: %v", r.Answer)
	}
}
